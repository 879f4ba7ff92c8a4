/*
 * sqlite_testing.c - see sqlite_testing.h.
 */
#include "sqlite_testing.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

char test_folder[64];
char test_path[128];
char test_event[64];
char test_error[448];
char test_error_code[32];
int test_error_retriable;
char test_holder[VERROU_MAX_OWNER + 1];
uint64_t test_fence;
int64_t test_remaining;
int test_others;
void (*test_on_pause)(void);
char test_sink[8192];

int64_t test_now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t test_wall_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- the host table ---- */

static uint64_t host_random(void)
{
    static uint64_t state = 88172645463325252u;

    if (test_on_pause)
        test_on_pause();
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static const char *host_setting(const verrou_url *url, const char *name)
{
    for (size_t i = 0; i < url->count; i++) {
        if (strcmp(url->settings[i].name, name) == 0)
            return url->settings[i].value;
    }
    return NULL;
}

static verrou_status host_fail(verrou_error *err, verrou_status status, int retriable, const char *store_code,
                               const char *format, ...)
{
    va_list args;

    if (err) {
        err->status = status;
        err->retriable = retriable;
        snprintf(err->store_code, sizeof err->store_code, "%s", store_code ? store_code : "");
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return status;
}

static void host_op_fail(verrou_op *op, verrou_op_result result, int retriable, const char *store_code,
                         const char *format, ...)
{
    va_list args;

    op->result = result;
    free(op->error);
    op->error = calloc(1, sizeof *op->error);
    if (!op->error)
        return;
    op->error->retriable = retriable;
    snprintf(op->error->store_code, sizeof op->error->store_code, "%s", store_code ? store_code : "");
    va_start(args, format);
    vsnprintf(op->error->message, sizeof op->error->message, format, args);
    va_end(args);
}

static void host_holder(verrou_op *op, const char *owner, size_t owner_len, int64_t remaining_ms, uint64_t fence)
{
    op->holder = malloc(owner_len + 1);
    if (op->holder) {
        memcpy(op->holder, owner, owner_len);
        op->holder[owner_len] = '\0';
    }
    op->holder_is_owner = op->owner && op->owner_len == owner_len && memcmp(op->owner, owner, owner_len) == 0;
    op->remaining_ms = remaining_ms;
    op->fence = fence;
}

static void sink_append(const char *format, va_list args)
{
    size_t len = strlen(test_sink);

    vsnprintf(test_sink + len, sizeof test_sink - len, format, args);
}

static int host_text_add(verrou_sink *sink, const char *format, ...)
{
    va_list args;

    (void)sink;
    va_start(args, format);
    sink_append(format, args);
    va_end(args);
    return 0;
}

static int host_finding(verrou_sink *sink, verrou_level level, const char *subject, const char *format, ...)
{
    va_list args;

    host_text_add(sink, "%d %s: ", (int)level, subject);
    va_start(args, format);
    sink_append(format, args);
    va_end(args);
    return host_text_add(sink, "\n");
}

static int host_list_add(verrou_sink *sink, const char *key, size_t key_len, const char *owner, size_t owner_len,
                         int64_t remaining_ms, uint64_t fence)
{
    (void)fence;
    return host_text_add(sink, "%.*s %.*s %s\n", (int)key_len, key, (int)owner_len, owner,
                         remaining_ms == VERROU_FOREVER ? "forever" : (remaining_ms > 0 ? "live" : "over"));
}

static void host_log(void *context, verrou_level level, const char *event, const char *key, const char *message)
{
    (void)context, (void)level, (void)key, (void)message;
    snprintf(test_event, sizeof test_event, "%s", event);
}

const verrou_host test_host = {
    .version = VERROU_STORE_VERSION,
    .malloc = malloc,
    .realloc = realloc,
    .free = free,
    .now_ms = test_now_ms,
    .random = host_random,
    .setting = host_setting,
    .fail = host_fail,
    .op_fail = host_op_fail,
    .holder = host_holder,
    .list_add = host_list_add,
    .finding = host_finding,
    .text_add = host_text_add,
    .log = host_log,
};

/* ---- folder ---- */

int test_setup(void **unused)
{
    (void)unused;
    strcpy(test_folder, "/tmp/verrou-sqlite-XXXXXX");
    if (!mkdtemp(test_folder) || chmod(test_folder, 0777) != 0)
        return -1;
    snprintf(test_path, sizeof test_path, "%s/locks.db", test_folder);
    test_event[0] = test_sink[0] = '\0';
    return 0;
}

int test_teardown(void **unused)
{
    DIR *dir = opendir(test_folder);
    struct dirent *entry;
    char path[PATH_MAX];

    (void)unused;
    while (dir && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/%s", test_folder, entry->d_name);
        if (entry->d_name[0] != '.' && unlink(path) != 0)
            rmdir(path);
    }
    if (dir)
        closedir(dir);
    return rmdir(test_folder) == 0 || errno == ENOENT ? 0 : -1;
}

const char *test_file(const char *suffix)
{
    static char path[PATH_MAX + 32];

    snprintf(path, sizeof path, "%s%s", test_path, suffix);
    return path;
}

/* ---- stores ---- */

verrou_status test_create(test_store *store, const char *path, const char *settings, verrou_error *err)
{
    char *text = strdup(settings ? settings : "");
    verrou_setting list[8];
    verrou_url url = {.text = "sqlite:", .scheme = "sqlite", .rest = path, .settings = list};
    verrou_status status;
    char *rest = text;
    char *part;

    assert_non_null(text);
    while ((part = strsep(&rest, "&")) && *part) {
        list[url.count].name = strsep(&part, "=");
        list[url.count++].value = part;
    }
    *store = (test_store){.driver = verrou_sqlite_driver()};
    status = store->driver->create(&test_host, NULL, &url, &store->state, err);
    free(text);
    return status;
}

verrou_status test_open_lane(test_store *store, verrou_error *err)
{
    return store->driver->open(store->state, test_now_ms() + 5000, &store->lane, err);
}

test_store test_open(const char *settings)
{
    test_store store;
    verrou_error err = VERROU_ERROR_INIT;

    if (test_create(&store, test_path, settings, &err) != VERROU_OK || test_open_lane(&store, &err) != VERROU_OK)
        fail_msg("cannot open: %s", err.message);
    return store;
}

void test_close(test_store *store)
{
    if (store->lane)
        store->driver->close(store->state, store->lane);
    if (store->state)
        store->driver->destroy(store->state);
    store->lane = store->state = NULL;
}

/* ---- requests ---- */

verrou_op test_op(verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms, uint64_t fence)
{
    return (verrou_op){
        .kind = kind,
        .key = key,
        .key_len = (uint16_t)strlen(key),
        .owner = owner,
        .owner_len = owner ? (uint16_t)strlen(owner) : 0,
        .ttl_ms = ttl_ms,
        .sent_ms = test_now_ms(),
        .fence = fence,
        .others = -1,
        .remaining_ms = -1,
    };
}

void test_op_done(verrou_op *op)
{
    free(op->holder);
    free(op->error);
    op->holder = NULL;
    op->error = NULL;
}

verrou_status test_execute(test_store *store, verrou_op *ops, size_t n, verrou_error *err)
{
    verrou_op *list[64];

    for (size_t i = 0; i < n; i++)
        list[i] = &ops[i];
    return store->driver->execute(store->state, store->lane, list, n, test_now_ms() + 5000, err);
}

verrou_op_result test_run(test_store *store, verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms,
                          uint64_t fence)
{
    verrou_op op = test_op(kind, key, owner, ttl_ms, fence);
    verrou_op_result result;

    test_execute(store, &op, 1, NULL);
    snprintf(test_error, sizeof test_error, "%s", op.error ? op.error->message : "");
    snprintf(test_error_code, sizeof test_error_code, "%s", op.error ? op.error->store_code : "");
    test_error_retriable = op.error ? op.error->retriable : -1;
    snprintf(test_holder, sizeof test_holder, "%s", op.holder ? op.holder : "");
    test_fence = op.fence;
    test_remaining = op.remaining_ms;
    test_others = op.others;
    result = op.result;
    test_op_done(&op);
    return result;
}

verrou_op_result test_acquire(test_store *store, const char *key, const char *owner)
{
    return test_run(store, VERROU_OP_ACQUIRE, key, owner, 30000, 0);
}

verrou_op_result test_release(test_store *store, const char *key, const char *owner)
{
    return test_run(store, VERROU_OP_RELEASE, key, owner, 0, 0);
}

verrou_op_result test_inspect(test_store *store, const char *key)
{
    return test_run(store, VERROU_OP_INSPECT, key, NULL, 0, 0);
}

/* ---- SQL as another program ---- */

static sqlite3 *sql_open(void)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(test_path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    return db;
}

void test_sql(const char *format, ...)
{
    sqlite3 *db = sql_open();
    char *message = NULL;
    va_list args;
    char *sql;

    va_start(args, format);
    sql = sqlite3_vmprintf(format, args);
    va_end(args);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    sqlite3_free(sql);
    sqlite3_close(db);
}

const char *test_ask(const char *format, ...)
{
    static char answer[512];
    sqlite3 *db = sql_open();
    sqlite3_stmt *stmt = NULL;
    va_list args;
    char *sql;

    va_start(args, format);
    sql = sqlite3_vmprintf(format, args);
    va_end(args);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    strcpy(answer, "none");
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);

        snprintf(answer, sizeof answer, "%s", text ? text : "NULL");
    }
    sqlite3_finalize(stmt);
    sqlite3_free(sql);
    sqlite3_close(db);
    return answer;
}

/* ---- children ---- */

test_child test_fork(void (*body)(int from_parent, int to_parent, const void *argument), const void *argument)
{
    int down[2], up[2];
    test_child child;

    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    fflush(NULL);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        close(down[1]);
        close(up[0]);
        setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failed assertion must not go on with the other tests here */
        body(down[0], up[1], argument);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    child.from = up[0];
    child.to = down[1];
    return child;
}

void test_tell(int fd)
{
    ssize_t put = write(fd, "x", 1);

    (void)put;
}

bool test_await(int fd)
{
    char byte;
    ssize_t got;

    do
        got = read(fd, &byte, 1);
    while (got < 0 && errno == EINTR);
    return got == 1;
}

int test_wait(test_child *child)
{
    int status = -1;

    close(child->to);
    close(child->from);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}
