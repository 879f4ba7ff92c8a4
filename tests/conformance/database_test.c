/*
 * database_test.c - the conformance suite on stores of seven calls over a table in memory, with and without the
 * optional calls, given by the application and by a driver; and what the adapter does when the calls fail. All opens
 * share the table.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <verrou/conformance.h>

enum { ROWS = 512 };

struct row {
    bool used;
    char key[VERROU_MAX_KEY + 1];
    verrou_row row;
};

/* The table, its sequence of tokens, and the faults that a test asked for. */
static struct table {
    pthread_mutex_t mutex;
    struct row rows[ROWS];
    uint64_t fence;
    char name[64];
    int named;
    int created;
    int create_faults;           /* so many of the next creations fail */
    verrou_status insert_status; /* instead of inserting; VERROU_OK: insert */
    verrou_status fence_status;
    bool lose_insert; /* the next row is inserted, and the answer gets lost */
    verrou_status look_status;
    atomic_bool dropped;    /* until it is created again, inserts fail */
    bool folded;            /* inserts meet a row that no other call finds */
    atomic_int clock_asked; /* of the calls that have no answer */
    atomic_int fence_asked;
} table = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int64_t wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct row *find(const char *key)
{
    for (int at = 0; at < ROWS; at++)
        if (table.rows[at].used && strcmp(table.rows[at].key, key) == 0)
            return &table.rows[at];
    return NULL;
}

static struct row *find_unused(void)
{
    for (int at = 0; at < ROWS; at++)
        if (!table.rows[at].used)
            return &table.rows[at];
    return NULL;
}

static void fill(struct row *row, const char *owner, int64_t expiration_ms, uint64_t fence)
{
    snprintf(row->row.owner, sizeof row->row.owner, "%s", owner);
    row->row.expiration_ms = expiration_ms;
    row->row.fence = fence;
}

static bool owned(const struct row *row, const char *owner, int64_t now_ms)
{
    return row && strcmp(row->row.owner, owner) == 0 && row->row.expiration_ms > now_ms;
}

static verrou_status table_set_name(void *user, const char *name, verrou_error *err)
{
    (void)user, (void)err;
    pthread_mutex_lock(&table.mutex);
    snprintf(table.name, sizeof table.name, "%s", name);
    table.named++;
    pthread_mutex_unlock(&table.mutex);
    return VERROU_OK;
}

static verrou_status table_create(void *user, verrou_error *err)
{
    verrou_status status = VERROU_OK;

    (void)user;
    pthread_mutex_lock(&table.mutex);
    table.created++;
    if (table.create_faults > 0) {
        table.create_faults--;
        status = verrou_error_set(err, VERROU_ESTORAGE, 0, "28P01", "no right to create tables");
    } else {
        table.dropped = false;
    }
    pthread_mutex_unlock(&table.mutex);
    return status;
}

static verrou_status table_insert(void *user, const char *key, const char *owner, int64_t expiration_ms, uint64_t fence,
                                  verrou_error *err)
{
    verrou_status status = table.insert_status;
    struct row *row;

    (void)user;
    if (status == VERROU_ESTORAGE || status == VERROU_EUNKNOWN)
        return verrou_error_set(err, status, 0, "08006", "the connection broke");
    if (table.dropped)
        return verrou_error_set(err, VERROU_ESTORAGE, 0, "42P01", "there is no such table");
    if (table.folded)
        return VERROU_ENOTACQUIRED;
    if (status != VERROU_OK)
        return status;

    pthread_mutex_lock(&table.mutex);
    row = find(key) ? NULL : find_unused();
    if (row) {
        row->used = true;
        snprintf(row->key, sizeof row->key, "%s", key);
        fill(row, owner, expiration_ms, fence);
    } else {
        status = VERROU_ENOTACQUIRED;
    }
    if (row && table.lose_insert)
        status = verrou_error_set(err, VERROU_EUNKNOWN, 0, "08006", "the connection broke");
    table.lose_insert = false;
    pthread_mutex_unlock(&table.mutex);
    return status;
}

static verrou_status table_acquire(void *user, const char *key, const char *owner, int64_t expiration_ms,
                                   uint64_t fence, int64_t now_ms, int64_t *ret_rows, verrou_error *err)
{
    struct row *row;

    (void)user, (void)err;
    pthread_mutex_lock(&table.mutex);
    row = find(key);
    *ret_rows = row && row->row.expiration_ms <= now_ms;
    if (*ret_rows)
        fill(row, owner, expiration_ms, fence);
    pthread_mutex_unlock(&table.mutex);
    return VERROU_OK;
}

static verrou_status table_delete(void *user, const char *key, const char *owner, int64_t now_ms, int64_t *ret_rows,
                                  verrou_error *err)
{
    struct row *row;

    (void)user, (void)err;
    pthread_mutex_lock(&table.mutex);
    row = find(key);
    *ret_rows = row && (!owner || owned(row, owner, now_ms));
    if (*ret_rows)
        row->used = false;
    pthread_mutex_unlock(&table.mutex);
    return VERROU_OK;
}

static verrou_status table_extend(void *user, const char *key, const char *owner, int64_t expiration_ms, int64_t now_ms,
                                  int64_t *ret_rows, verrou_error *err)
{
    struct row *row;

    (void)user, (void)err;
    pthread_mutex_lock(&table.mutex);
    row = find(key);
    *ret_rows = owned(row, owner, now_ms);
    if (*ret_rows)
        row->row.expiration_ms = expiration_ms;
    pthread_mutex_unlock(&table.mutex);
    return VERROU_OK;
}

static verrou_status table_get(void *user, const char *key, int *ret_found, verrou_row *ret_row, verrou_error *err)
{
    struct row *row;

    (void)user;
    if (table.look_status != VERROU_OK)
        return verrou_error_set(err, table.look_status, 0, NULL, "no right to read");
    pthread_mutex_lock(&table.mutex);
    row = find(key);
    *ret_found = row != NULL;
    if (row)
        *ret_row = row->row;
    pthread_mutex_unlock(&table.mutex);
    return VERROU_OK;
}

/* A clock of the store's own: an hour ahead of the machine's. */
static verrou_status table_now(void *user, int64_t *ret_now_ms, verrou_error *err)
{
    (void)user, (void)err;
    *ret_now_ms = wall_ms() + 3600000;
    return VERROU_OK;
}

static verrou_status table_next_fence(void *user, const char *key, uint64_t *ret_fence, verrou_error *err)
{
    (void)user, (void)key;
    if (table.fence_status != VERROU_OK)
        return verrou_error_set(err, table.fence_status, 0, NULL, "the sequence is gone");
    pthread_mutex_lock(&table.mutex);
    *ret_fence = ++table.fence;
    pthread_mutex_unlock(&table.mutex);
    return VERROU_OK;
}

/* A database that turns out to have no clock, and no place for tokens. */
static verrou_status table_no_clock(void *user, int64_t *ret_now_ms, verrou_error *err)
{
    (void)user, (void)ret_now_ms, (void)err;
    table.clock_asked++;
    return VERROU_ENOTSUP;
}

static verrou_status table_no_fence(void *user, const char *key, uint64_t *ret_fence, verrou_error *err)
{
    (void)user, (void)key, (void)ret_fence, (void)err;
    table.fence_asked++;
    return VERROU_ENOTSUP;
}

#define SEVEN_CALLS                                                                                                \
    .version = VERROU_STORE_VERSION, .set_table_name = table_set_name, .create_table_if_not_exists = table_create, \
    .insert_lock = table_insert, .acquire_lock = table_acquire, .delete_lock = table_delete,                       \
    .extend_lock = table_extend, .get_lock = table_get

static const verrou_database plain = {SEVEN_CALLS};
static const verrou_database with_clock = {SEVEN_CALLS, .now = table_now};
static const verrou_database with_all = {SEVEN_CALLS, .now = table_now, .next_fence = table_next_fence};
static const verrou_database with_neither = {SEVEN_CALLS, .now = table_no_clock, .next_fence = table_no_fence};

static verrou_status table_still_now(void *user, int64_t *ret_now_ms, verrou_error *err)
{
    (void)user, (void)err;
    *ret_now_ms = 1700000000000;
    return VERROU_OK;
}

static const verrou_database with_stopped_clock = {SEVEN_CALLS, .now = table_still_now};

/* ---- drivers with the seven calls ---- */

/* What create() makes: the `user` of the calls. */
static struct opened {
    atomic_int created;
    atomic_int closed;
    atomic_int destroyed;
    uint32_t caps; /* what the driver adds */
} opened;

static verrou_status driver_create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                                   verrou_error *err)
{
    (void)host, (void)log_context;
    if (strcmp(url->rest, "nowhere") == 0)
        return verrou_error_set(err, VERROU_ECONFIG, 0, NULL, "that leads nowhere");
    opened.created++;
    *ret_state = &opened;
    return VERROU_OK;
}

static void driver_destroy(void *state)
{
    assert_ptr_equal(state, &opened);
    assert_true(opened.closed > opened.destroyed);
    opened.destroyed++;
}

static void driver_closed(void *user)
{
    assert_ptr_equal(user, &opened);
    opened.closed++;
}

static uint32_t driver_caps(void *state)
{
    assert_ptr_equal(state, &opened);
    return opened.caps;
}

/* Says on what it is called. */
static verrou_status driver_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                   verrou_error *err)
{
    (void)sink, (void)deadline_ms;
    assert_ptr_equal(lane, state);
    assert_ptr_equal(state, &opened);
    return verrou_error_set(err, VERROU_ESTORAGE, 0, NULL, "schema of \"%s\", apply %d", table.name, apply);
}

static const char *const seven_schemes[] = {"seven", NULL};
static const char *const seven_settings[] = {"colour", NULL};
static const verrou_database seven_calls = {SEVEN_CALLS, .now = table_no_clock, .next_fence = table_no_fence,
                                            .close = driver_closed};
static const verrou_driver seven = {.version = VERROU_STORE_VERSION,
                                    .schemes = seven_schemes,
                                    .settings = seven_settings,
                                    .create = driver_create,
                                    .destroy = driver_destroy,
                                    .caps = driver_caps,
                                    .schema = driver_schema,
                                    .database = &seven_calls};

static verrou_status open_url(void *user, verrou_store **ret_store, verrou_error *err)
{
    return verrou_store_open(user, NULL, ret_store, err);
}

static verrou_status open_database(void *user, verrou_store **ret_store, verrou_error *err)
{
    return verrou_store_from_database(user, NULL, NULL, NULL, ret_store, err);
}

static int conform(const char *name, const verrou_database *database)
{
    verrou_conformance suite = {sizeof suite, name, open_database, (void *)(uintptr_t)database, 0};

    memset(table.rows, 0, sizeof table.rows);
    return verrou_conformance_run(&suite);
}

/* ---- the adapter ---- */

struct fixture {
    verrou_store *store;
    verrou_lock *lock;
    verrou_error err;
};

static int fixture_begin(void **state)
{
    static struct fixture fixture;

    memset(table.rows, 0, sizeof table.rows);
    table.named = table.created = table.create_faults = 0;
    table.insert_status = table.fence_status = table.look_status = VERROU_OK;
    table.dropped = table.folded = false;
    table.clock_asked = table.fence_asked = 0;
    opened.created = opened.closed = opened.destroyed = 0;
    opened.caps = 0;
    fixture = (struct fixture){NULL, NULL, VERROU_ERROR_INIT};
    *state = &fixture;
    return 0;
}

static int fixture_end(void **state)
{
    struct fixture *fixture = *state;

    verrou_lock_free(fixture->lock);
    verrou_store_close(fixture->store);
    return 0;
}

static void open_with(struct fixture *f, const verrou_database *database, const char *settings)
{
    assert_int_equal(verrou_store_from_database(database, NULL, settings, NULL, &f->store, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_new(f->store, "key", NULL, &f->lock, &f->err), VERROU_OK);
}

/* A missing call is refused by name; so is a table of another version. */
static void missing_call_is_named(void **state)
{
    struct fixture *f = *state;
    verrou_database database = plain;

    database.extend_lock = NULL;
    assert_int_equal(verrou_store_from_database(&database, NULL, NULL, NULL, &f->store, &f->err), VERROU_EINVAL);
    assert_non_null(strstr(f->err.message, "extend_lock"));
    database = plain;
    database.version = VERROU_STORE_VERSION + 1;
    assert_int_equal(verrou_store_from_database(&database, NULL, NULL, NULL, &f->store, &f->err), VERROU_EINVAL);
    assert_non_null(strstr(f->err.message, "version"));
}

/* The five calls are checked in the same way. */
static void missing_call_of_five_is_named(void **state)
{
    struct fixture *f = *state;
    verrou_lock_store five = {.version = VERROU_STORE_VERSION};

    assert_int_equal(verrou_store_from_lock_store(&five, NULL, NULL, NULL, &f->store, &f->err), VERROU_EINVAL);
    assert_non_null(strstr(f->err.message, "save"));
}

/* Settings that do not exist or have no sense are refused. */
static void bad_settings_are_refused(void **state)
{
    static const char *const bad[] = {"color=red", "autocreate=perhaps", "table=", "timeout=never", "prefix"};
    struct fixture *f = *state;

    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++)
        assert_int_equal(verrou_store_from_database(&plain, NULL, bad[at], NULL, &f->store, &f->err), VERROU_ECONFIG);
}

/* The table is named once, as the settings say, and created when it is first needed. */
static void table_is_named_and_created(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, "table=my_locks");
    assert_int_equal(table.named, 0);
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_release(f->lock, NULL, &f->err), VERROU_OK);
    assert_string_equal(table.name, "my_locks");
    assert_int_equal(table.named, 1);
    assert_int_equal(table.created, 1);
}

/* A clock that stands still cannot tell one token from the next: there is no lease, and what was written for it is gone in time. */
static void stopped_clock_gives_no_lease(void **state)
{
    struct fixture *f = *state;

    open_with(f, &with_stopped_clock, "timeout=400ms");
    assert_int_not_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_OK);
    verrou_store_close(f->store); /* which waits for what the last try, that met the time limit, has to give back */
    f->store = NULL;
    assert_false(table.rows[0].used);
}

/* autocreate=false creates nothing. */
static void table_is_not_created(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, "autocreate=false");
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
    assert_string_equal(table.name, "verrou");
    assert_int_equal(table.created, 0);
}

/* A table that could not be created once is created by a later call: the original remembered the failure for ever. */
static void failed_creation_is_not_remembered(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, "timeout=300ms");
    table.create_faults = 1;
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "no right to create tables"));
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
}

/* A failed insert is a failure, not "somebody else has it": the original spun on it. */
static void failed_insert_is_told(void **state)
{
    struct fixture *f = *state;
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    open_with(f, &plain, NULL);
    options.attempts = 1;
    table.insert_status = VERROU_ESTORAGE;
    assert_int_equal(verrou_lock_acquire(f->lock, &options, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "the connection broke"));
    assert_string_equal(f->err.store_code, "08006");
}

/* A status that a call may not return is a failure that names it. */
static void odd_status_is_named(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, NULL);
    table.insert_status = VERROU_ENOMEM;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "VERROU_ENOMEM"));
    assert_non_null(strstr(f->err.message, "insert_lock"));
}

/* A row that was inserted though the answer got lost is found again, and has a token as every other. */
static void lease_found_again_has_token(void **state)
{
    struct fixture *f = *state;

    open_with(f, &with_all, NULL);
    table.lose_insert = true;
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_fence(f->lock), table.fence);
    assert_int_not_equal(verrou_lock_fence(f->lock), 0);
    assert_int_equal(verrou_lock_release(f->lock, NULL, &f->err), VERROU_OK);
}

/* A lost answer is never taken for "not acquired" or "acquired". */
static void lost_answer_is_told(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, "timeout=300ms");
    table.insert_status = VERROU_EUNKNOWN;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_EUNKNOWN);
}

/* An acquisition whose token cannot be drawn is given back. */
static void lease_without_token_is_given_back(void **state)
{
    struct fixture *f = *state;

    open_with(f, &with_all, NULL);
    table.fence_status = VERROU_ESTORAGE;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "the sequence is gone"));
    assert_null(find("key"));
    table.fence_status = VERROU_OK;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_OK);
}

/* A refusal that cannot say who holds the key is a failure, and changes nothing. */
static void failed_look_is_told(void **state)
{
    struct fixture *f = *state;
    verrou_lock *other = NULL;
    verrou_status status;

    open_with(f, &plain, NULL);
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_new(f->store, "key", NULL, &other, &f->err), VERROU_OK);
    table.look_status = VERROU_ESTORAGE;
    status = verrou_lock_acquire_immediately(other, NULL, &f->err);
    verrou_lock_free(other);
    assert_int_equal(status, VERROU_ESTORAGE);
    assert_int_equal(verrou_lock_release(f->lock, NULL, &f->err), VERROU_OK);
}

/* Capabilities follow the optional calls. */
static void capabilities_follow_calls(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, NULL);
    assert_int_equal(verrou_store_caps(f->store), VERROU_CAP_FENCE);
    fixture_end(state);
    fixture_begin(state);
    open_with(f, &with_clock, NULL);
    assert_int_equal(verrou_store_caps(f->store), VERROU_CAP_FENCE | VERROU_CAP_SERVER_CLOCK);
    fixture_end(state);
    fixture_begin(state);
    open_with(f, &with_all, NULL);
    assert_int_equal(verrou_store_caps(f->store), VERROU_CAP_FENCE | VERROU_CAP_FENCE_STORED | VERROU_CAP_SERVER_CLOCK);
}

/* The store's clock decides: a row that ran out by it is free, though this machine's clock says otherwise. */
static void clock_of_the_store_decides(void **state)
{
    struct fixture *f = *state;
    struct row *row = &table.rows[0];

    row->used = true;
    strcpy(row->key, "key");
    fill(row, "somebody", wall_ms() + 1800000, 0);
    open_with(f, &with_clock, NULL);
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_OK);
}

/* A clock that the database turns out not to have is asked for once, and tokens each time; this machine's clock takes their place. */
static void optional_calls_give_up(void **state)
{
    struct fixture *f = *state;
    uint64_t last = 0;

    open_with(f, &with_neither, NULL);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
        assert_true(verrou_lock_fence(f->lock) > last);
        last = verrou_lock_fence(f->lock);
        assert_true(find("key")->row.expiration_ms <= wall_ms() + 30000);
        assert_int_equal(verrou_lock_release(f->lock, NULL, &f->err), VERROU_OK);
    }
    assert_int_equal(table.clock_asked, 1);
    assert_int_equal(table.fence_asked, 2);
    assert_int_equal(verrou_store_caps(f->store), VERROU_CAP_FENCE);
}

/* A token from a clock of milliseconds is given out when its millisecond is over: who comes next, in whatever process, draws a larger one. */
static void token_of_this_millisecond_is_kept_back(void **state)
{
    struct fixture *f = *state;
    int64_t now_ms = 0;

    open_with(f, &with_clock, NULL);
    for (int round = 0; round < 5; round++) {
        assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
        assert_int_equal(table_now(NULL, &now_ms, NULL), VERROU_OK);
        assert_true(verrou_lock_fence(f->lock) / 1000 < (uint64_t)now_ms);
        assert_int_equal(verrou_lock_release(f->lock, NULL, &f->err), VERROU_OK);
    }
}

/* Such a token is not smaller than one of microseconds that another process drew within its millisecond. */
static void token_of_milliseconds_is_the_last_one(void **state)
{
    struct fixture *f = *state;

    open_with(f, &with_clock, NULL);
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_fence(f->lock) % 1000, 999);
}

/* Tokens that the table had no place for are the table's once it has one. */
static void place_for_tokens_is_noticed(void **state)
{
    struct fixture *f = *state;

    open_with(f, &with_all, NULL);
    table.fence_status = VERROU_ENOTSUP;
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
    assert_int_equal(verrou_store_caps(f->store) & VERROU_CAP_FENCE_STORED, 0);
    assert_int_equal(verrou_lock_release(f->lock, NULL, &f->err), VERROU_OK);
    table.fence_status = VERROU_OK;
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_fence(f->lock), table.fence);
    assert_int_not_equal(verrou_store_caps(f->store) & VERROU_CAP_FENCE_STORED, 0);
}

/* A table that somebody dropped is made again by the call that finds out. */
static void dropped_table_is_made_again(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, NULL);
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_release(f->lock, NULL, &f->err), VERROU_OK);
    table.dropped = true;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_OK);
    assert_int_equal(table.created, 2);
}

/* With autocreate=false it is not; and if it cannot be made, the call fails, the next one says why, and a later one makes it. */
static void dropped_table_is_told(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, "autocreate=false");
    table.dropped = true;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "no such table"));
    assert_int_equal(table.created, 0);
    fixture_end(state);
    fixture_begin(state);
    open_with(f, &plain, NULL);
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_release(f->lock, NULL, &f->err), VERROU_OK);
    table.dropped = true;
    table.create_faults = 2;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "no such table"));
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "no right to create tables"));
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_OK);
}

/* A row that only inserts meet is no holder. The message says which calls contradict each other. */
static void contradiction_is_named(void **state)
{
    struct fixture *f = *state;

    open_with(f, &plain, "timeout=300ms");
    table.folded = true;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "insert_lock says that there is a row, and get_lock that there is none"));
}

/* A driver with the seven calls is opened by its address: its settings and those of the table, one lane, its own capabilities added; `user` is
 * what create() made, and ends with the store. */
static void driver_of_seven_calls(void **state)
{
    struct fixture *f = *state;
    char *text = NULL;

    opened.caps = VERROU_CAP_SHARED;
    assert_int_equal(verrou_store_open("seven:?table=my_locks&colour=red", NULL, &f->store, &f->err), VERROU_OK);
    assert_int_equal(opened.created, 1);
    assert_int_equal(verrou_store_schema(f->store, NULL, &text, &f->err), VERROU_ESTORAGE);
    assert_string_equal(f->err.message, "schema: schema of \"my_locks\", apply 0");
    assert_int_equal(table.created, 0);
    assert_int_equal(verrou_lock_new(f->store, "key", NULL, &f->lock, &f->err), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_OK);
    assert_int_equal(table.created, 1);
    assert_int_equal(verrou_store_caps(f->store), VERROU_CAP_FENCE | VERROU_CAP_SHARED);
    assert_int_equal(verrou_store_list(f->store, NULL, NULL, (verrou_list_fn)1, NULL, &f->err), VERROU_ENOTSUP);
    fixture_end(state);
    assert_int_equal(opened.closed, 1);
    assert_int_equal(opened.destroyed, 1);
    f->lock = NULL;
    f->store = NULL;
}

/* What the address of such a store may not be. */
static void addresses_of_seven_are_checked(void **state)
{
    static const char *const bad[] = {"seven:nowhere", "seven:?color=red", "seven:?autocreate=perhaps",
                                      "seven:?table=", "seven:?lanes=2"};
    struct fixture *f = *state;

    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++)
        assert_int_equal(verrou_store_open(bad[at], NULL, &f->store, &f->err), VERROU_ECONFIG);
    assert_int_equal(opened.created, 0);
}

/* A driver is refused that lacks one of the seven calls, or has beside them what would never be called. */
static void odd_drivers_are_refused(void **state)
{
    static const char *const schemes[] = {"odd", NULL};
    struct fixture *f = *state;
    verrou_database calls = seven_calls;
    verrou_driver odd = seven;

    odd.schemes = schemes;
    odd.database = &calls;
    calls.get_lock = NULL;
    assert_int_equal(verrou_register_driver(&odd, &f->err), VERROU_EINVAL);
    assert_non_null(strstr(f->err.message, "get_lock"));
    calls = seven_calls;
    odd.flags = VERROU_DRIVER_COMPARES;
    assert_int_equal(verrou_register_driver(&odd, &f->err), VERROU_EINVAL);
    assert_non_null(strstr(f->err.message, "flags"));
    odd.flags = 0;
    odd.destroy = NULL;
    assert_int_equal(verrou_register_driver(&odd, &f->err), VERROU_EINVAL);
    assert_non_null(strstr(f->err.message, "destroy"));
    odd.destroy = driver_destroy;
    odd.close = (void (*)(void *, void *))(void (*)(void))abort;
    assert_int_equal(verrou_register_driver(&odd, &f->err), VERROU_EINVAL);
    assert_non_null(strstr(f->err.message, "close"));
}

#define ADAPTER_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_begin, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ADAPTER_TEST(missing_call_is_named),
        ADAPTER_TEST(missing_call_of_five_is_named),
        ADAPTER_TEST(bad_settings_are_refused),
        ADAPTER_TEST(table_is_named_and_created),
        ADAPTER_TEST(table_is_not_created),
        ADAPTER_TEST(failed_creation_is_not_remembered),
        ADAPTER_TEST(failed_insert_is_told),
        ADAPTER_TEST(odd_status_is_named),
        ADAPTER_TEST(lease_found_again_has_token),
        ADAPTER_TEST(lost_answer_is_told),
        ADAPTER_TEST(lease_without_token_is_given_back),
        ADAPTER_TEST(failed_look_is_told),
        ADAPTER_TEST(capabilities_follow_calls),
        ADAPTER_TEST(clock_of_the_store_decides),
        ADAPTER_TEST(optional_calls_give_up),
        ADAPTER_TEST(stopped_clock_gives_no_lease),
        ADAPTER_TEST(token_of_this_millisecond_is_kept_back),
        ADAPTER_TEST(token_of_milliseconds_is_the_last_one),
        ADAPTER_TEST(place_for_tokens_is_noticed),
        ADAPTER_TEST(dropped_table_is_made_again),
        ADAPTER_TEST(dropped_table_is_told),
        ADAPTER_TEST(contradiction_is_named),
        ADAPTER_TEST(driver_of_seven_calls),
        ADAPTER_TEST(addresses_of_seven_are_checked),
        ADAPTER_TEST(odd_drivers_are_refused),
    };
    char address[] = "seven:";
    verrou_conformance by_driver = {sizeof by_driver, "driver with seven calls", open_url, address, 0};
    int failed;

    if (verrou_register_driver(&seven, NULL) != VERROU_OK)
        return 1;
    failed = cmocka_run_group_tests_name("database adapter", tests, NULL, NULL);

    failed += conform("seven calls", &plain);
    failed += conform("seven calls with a clock", &with_clock);
    failed += conform("seven calls with clock and tokens", &with_all);
    memset(table.rows, 0, sizeof table.rows);
    failed += verrou_conformance_run(&by_driver);
    return failed == 0 ? 0 : 1;
}
