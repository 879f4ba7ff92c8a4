/*
 * sqlite_failure_test.c - the SQLite driver while the storage fails: what cannot be opened, what is locked, full, replaced or broken.
 *
 * Two shims under SQLite make failures at will: a VFS that fails the n-th write or sync (a write after half of its bytes),
 * and an allocator that fails the n-th allocation. A case is run for n = 1, 2, ... until nothing fails any more, and after each run
 * the answers are compared with the file: an applied request is in it, one that was not applied is not, an unknown one may be either.
 */
#include "sqlite_testing.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- the failing VFS ---- */

typedef enum { FAIL_NOTHING, FAIL_WRITE, FAIL_SYNC } failing;

static struct {
    sqlite3_vfs vfs;
    sqlite3_vfs *real;
    failing what;
    int code;      /* what to answer */
    int countdown; /* fail when it reaches 0 */
    bool failed;
    bool no_shm; /* a filesystem without shared memory */
} shim;

typedef struct {
    sqlite3_file base;
    sqlite3_file *real;
} shim_file;

static sqlite3_file *real_of(sqlite3_file *file)
{
    return ((shim_file *)file)->real;
}

static bool shim_fails(failing what)
{
    if (shim.what != what || --shim.countdown != 0)
        return false;
    shim.failed = true;
    return true;
}

static int shim_close(sqlite3_file *file)
{
    return real_of(file)->pMethods ? real_of(file)->pMethods->xClose(real_of(file)) : SQLITE_OK;
}

static int shim_read(sqlite3_file *file, void *data, int size, sqlite3_int64 at)
{
    return real_of(file)->pMethods->xRead(real_of(file), data, size, at);
}

static int shim_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 at)
{
    if (shim_fails(FAIL_WRITE)) {
        real_of(file)->pMethods->xWrite(real_of(file), data, size / 2, at);
        return shim.code;
    }
    return real_of(file)->pMethods->xWrite(real_of(file), data, size, at);
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int shim_sync(sqlite3_file *file, int flags)
{
    if (shim_fails(FAIL_SYNC))
        return shim.code;
    return real_of(file)->pMethods->xSync(real_of(file), flags);
}

static int shim_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int shim_lock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int shim_unlock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int shim_check(sqlite3_file *file, int *reserved)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), reserved);
}

static int shim_control(sqlite3_file *file, int op, void *argument)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), op, argument);
}

static int shim_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int shim_device(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int shim_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out)
{
    return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, out);
}

static int shim_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
    return real_of(file)->pMethods->xShmLock(real_of(file), offset, n, flags);
}

static void shim_shm_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int shim_shm_unmap(sqlite3_file *file, int delete)
{
    return real_of(file)->pMethods->xShmUnmap(real_of(file), delete);
}

static const sqlite3_io_methods shim_methods[2] = {
    {2, shim_close, shim_read, shim_write, shim_truncate, shim_sync, shim_size, shim_lock, shim_unlock, shim_check,
     shim_control, shim_sector, shim_device, shim_shm_map, shim_shm_lock, shim_shm_barrier, shim_shm_unmap, NULL, NULL},
    {1, shim_close, shim_read, shim_write, shim_truncate, shim_sync, shim_size, shim_lock, shim_unlock, shim_check,
     shim_control, shim_sector, shim_device, NULL, NULL, NULL, NULL, NULL, NULL},
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    shim_file *mine = (shim_file *)file;
    int rc;

    (void)vfs;
    mine->real = (sqlite3_file *)(mine + 1);
    mine->real->pMethods = NULL;
    rc = shim.real->xOpen(shim.real, name, mine->real, flags, out_flags);
    mine->base.pMethods = mine->real->pMethods ? &shim_methods[shim.no_shm] : NULL;
    return rc;
}

static void shim_install(void)
{
    shim.real = sqlite3_vfs_find(NULL);
    shim.vfs = *shim.real;
    shim.vfs.zName = "shim";
    shim.vfs.szOsFile = (int)sizeof(shim_file) + shim.real->szOsFile;
    shim.vfs.xOpen = shim_open;
    sqlite3_vfs_register(&shim.vfs, 1);
}

static void shim_arm(failing what, int code, int n)
{
    shim.what = what;
    shim.code = code;
    shim.countdown = n;
    shim.failed = false;
}

/* ---- the failing allocator ---- */

static struct {
    sqlite3_mem_methods real;
    int countdown; /* 0: off */
    bool failed;
} memory;

static bool memory_fails(void)
{
    if (memory.countdown == 0 || --memory.countdown != 0)
        return false;
    return memory.failed = true;
}

static void *memory_malloc(int size)
{
    return memory_fails() ? NULL : memory.real.xMalloc(size);
}

static void *memory_realloc(void *block, int size)
{
    return memory_fails() ? NULL : memory.real.xRealloc(block, size);
}

static void memory_install(void)
{
    sqlite3_mem_methods mine;

    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory.real);
    mine = memory.real;
    mine.xMalloc = memory_malloc;
    mine.xRealloc = memory_realloc;
    sqlite3_config(SQLITE_CONFIG_MALLOC, &mine);
    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0); /* or few allocations would come here */
}

static int setup(void **unused)
{
    shim_arm(FAIL_NOTHING, SQLITE_OK, 0);
    shim.no_shm = false;
    memory.countdown = 0;
    test_on_pause = NULL;
    return test_setup(unused);
}

/* ---- what cannot be opened ---- */

/* Open the store at `path` and take a lock; it must fail at either step, for good, with this in the message. */
static void must_fail(const char *path, const char *text)
{
    verrou_error err = VERROU_ERROR_INIT;
    test_store store;

    assert_int_equal(test_create_file(&store, path, NULL, &err), VERROU_OK);
    if (test_open_lane(&store, &err) == VERROU_OK) {
        assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
        snprintf(err.message, sizeof err.message, "%s", test_last.text);
        err.retriable = test_last.retriable;
    } else {
        assert_int_equal(err.status, VERROU_ESTORAGE);
    }
    if (!strstr(err.message, text))
        fail_msg("\"%s\" is not in: %s", text, err.message);
    assert_int_equal(err.retriable, 0);
    test_close(&store);
}

/* A missing folder, a folder, a file in place of a folder, a pipe, a file that is no database, a path that is too long. */
static void what_is_no_database_is_named(void **unused)
{
    char path[PATH_MAX];
    FILE *file;

    (void)unused;
    snprintf(path, sizeof path, "%s/none/locks.db", test_folder);
    must_fail(path, "folder does not exist");

    must_fail(test_folder, "it is a folder");

    assert_int_equal(mkfifo(test_path, 0666), 0);
    must_fail(test_path, "not a regular file");
    unlink(test_path);

    file = fopen(test_path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("this is a text and no database\n", file);
    fclose(file);
    must_fail(test_path, "not an SQLite database");
    snprintf(path, sizeof path, "%s/x", test_path);
    must_fail(path, "folder is a file");

    memset(path, 'x', sizeof path);
    snprintf(path, 100, "%s/", test_folder);
    path[strlen(path)] = 'x';
    path[700] = '\0';
    must_fail(path, "too long");
}

/* Root may write anywhere, so these run as another user; without root, as the user who runs the tests. */
static void as_nobody(int from_parent, int to_parent, const void *argument)
{
    (void)from_parent, (void)to_parent;
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0))
        _exit(2);
    must_fail(test_path, argument);
}

static void must_fail_as_nobody(const char *text)
{
    test_child child = test_fork(as_nobody, text);

    assert_int_equal(test_wait(&child), 0);
}

/* No permission on the file or its folder is an error that says which of the two; nothing looks free or held. */
static void missing_permissions_are_named(void **unused)
{
    test_store store;

    (void)unused;
    chmod(test_folder, 0555);
    must_fail_as_nobody("cannot be created in its folder");
    chmod(test_folder, 0777);

    store = test_database(NULL);
    test_acquire(&store, "k", "a");
    test_close(&store);
    chmod(test_path, 0444);
    must_fail_as_nobody("no permission to read and write");
    chmod(test_path, 0000);
    must_fail_as_nobody("no permission to read and write");
    chmod(test_path, 0666);
    chmod(test_folder, 0555);
    must_fail_as_nobody("folder must be writable");
    chmod(test_folder, 0777);
}

/* ---- locked by another program ---- */

/* Lock the database as told, say so, and keep it until told to go. */
static void hold_the_database(int from_parent, int to_parent, const void *begin)
{
    sqlite3 *db = NULL;

    if (sqlite3_open(test_path, &db) != SQLITE_OK || sqlite3_exec(db, begin, NULL, NULL, NULL) != SQLITE_OK)
        _exit(2);
    test_tell(to_parent);
    test_await(from_parent);
    sqlite3_close(db);
}

/* Another program that has the database from now on, until test_wait(). */
static test_child hold(const char *begin)
{
    test_child child = test_fork(hold_the_database, begin);

    assert_true(test_await(child.from));
    return child;
}

/* How much before the deadline the driver answers, so that the engine need not call the outcome unknown. */
#define ANSWER_MARGIN_MS 20

/* A database that another program keeps locked until shortly before the deadline is an error that says so, never "held". */
static void a_locked_database_is_an_error(void **unused)
{
    test_store store = test_database(NULL);
    verrou_op op = test_op(VERROU_OP_ACQUIRE, "k", "a", 1000);
    verrou_op *list[] = {&op};
    int64_t deadline_ms;
    test_child child;

    (void)unused;
    test_inspect(&store, "k");
    child = hold("BEGIN IMMEDIATE");
    deadline_ms = verrou_now_ms() + 200;
    assert_int_equal(store.driver->execute(store.state, store.lane, list, 1, deadline_ms, NULL), VERROU_OK);
    assert_true(verrou_now_ms() >= deadline_ms - ANSWER_MARGIN_MS); /* it did not give up early */
    assert_int_equal(op.result, VERROU_OP_RETRY);
    assert_string_equal(op.error->store_code, "SQLITE_BUSY");
    assert_non_null(strstr(op.error->message, "another program keeps the database locked"));
    assert_int_equal(op.error->retriable, 1);
    assert_int_equal(test_wait(&child), 0);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED); /* the lane is still good */
    test_op_done(&op);
    test_close(&store);
}

/* The caller with the least time ends the waiting for the database's lock: all are answered in time for him. */
static void the_most_impatient_is_answered(void **unused)
{
    test_store store = test_database(NULL);
    verrou_op patient = test_op(VERROU_OP_ACQUIRE, "k", "a", 1000);
    verrou_op impatient = test_op(VERROU_OP_ACQUIRE, "l", "b", 1000);
    verrou_op *list[] = {&patient, &impatient};
    int64_t deadline_ms;
    test_child child;

    (void)unused;
    test_inspect(&store, "k");
    child = hold("BEGIN IMMEDIATE");
    deadline_ms = verrou_now_ms() + 600000;
    patient.deadline_ms = deadline_ms;
    impatient.deadline_ms = verrou_now_ms() + 100;
    assert_int_equal(store.driver->execute(store.state, store.lane, list, 2, deadline_ms, NULL), VERROU_OK);
    assert_int_equal(patient.result, VERROU_OP_RETRY);
    assert_int_equal(impatient.result, VERROU_OP_RETRY);
    assert_int_equal(test_wait(&child), 0);
    test_op_done(&patient);
    test_op_done(&impatient);
    test_close(&store);
}

static test_child holder;
static void let_the_holder_go(void)
{
    test_on_pause = NULL;
    test_wait(&holder);
}

/* A lock that goes away while we wait for it is waited for. */
static void a_short_lock_is_waited_for(void **unused)
{
    test_store store = test_database(NULL);

    (void)unused;
    test_inspect(&store, "k");
    holder = hold("BEGIN IMMEDIATE");
    test_on_pause = let_the_holder_go;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_null(test_on_pause);
    test_close(&store);
}

/* The same while the connection is being made, and for looking, which a program in exclusive mode keeps out too. */
static void an_exclusive_program_is_waited_for(void **unused)
{
    static const char exclusive[] = "PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE; create table t (n)";
    verrou_error err = VERROU_ERROR_INIT;
    test_store store;

    (void)unused;
    assert_int_equal(test_create_file(&store, test_path, NULL, &err), VERROU_OK);
    holder = hold(exclusive);
    assert_int_not_equal(store.driver->open(store.state, verrou_now_ms() + 50, &store.lane, &err), VERROU_OK);
    assert_int_equal(err.retriable, 1);
    assert_string_equal(err.store_code, "SQLITE_BUSY");
    test_on_pause = let_the_holder_go;
    assert_int_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_null(test_on_pause);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* ---- filesystems without shared memory ---- */

/* Without the write-ahead log the store works with a rollback journal, and an event says so. */
static void without_shared_memory_a_journal_is_used(void **unused)
{
    test_store store, other;

    (void)unused;
    shim.no_shm = true;
    store = test_database(NULL);
    assert_string_equal(test_event, "store.journal_mode");
    other = test_database(NULL);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&other, "k", "b"), VERROU_OP_REFUSED);
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&other, "k", "b"), VERROU_OP_APPLIED);
    test_close(&store);
    test_close(&other);
}

/* There, a reader keeps a commit from finishing: at the deadline it is undone and reported as such; looks wait for a writer. */
static void a_commit_that_readers_block_is_undone(void **unused)
{
    test_store store;
    verrou_op op = test_op(VERROU_OP_ACQUIRE, "k", "a", 1000);

    (void)unused;
    shim.no_shm = true;
    store = test_database(NULL);
    test_inspect(&store, "k");
    holder = hold("BEGIN; select * from verrou");
    assert_int_equal(test_execute(&store, &op, 1, 50, NULL), VERROU_OK);
    assert_int_equal(op.result, VERROU_OP_RETRY);
    assert_true(op.fence == 0);
    test_op_done(&op);
    test_on_pause = let_the_holder_go;
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
    assert_null(test_on_pause);

    holder = hold("BEGIN EXCLUSIVE");
    test_on_pause = let_the_holder_go;
    assert_int_equal(test_inspect(&store, "k"), VERROU_OP_APPLIED);
    assert_null(test_on_pause);
    test_close(&store);
}

/* ---- the file replaced ---- */

/* The requests are unanswered, the lane is reported broken, and a new one works on the new file. */
static void must_be_broken(test_store *store)
{
    verrou_error err = VERROU_ERROR_INIT;
    verrou_op ops[] = {
        test_op(VERROU_OP_ACQUIRE, "k", "b", 1000),
        test_op(VERROU_OP_INSPECT, "k", NULL, 0),
    };

    assert_int_equal(test_execute(store, ops, 2, TEST_LIMIT_MS, &err), VERROU_ESTORAGE);
    assert_int_equal(err.retriable, 1);
    assert_non_null(strstr(err.message, "deleted or replaced"));
    assert_int_equal(ops[0].result, VERROU_OP_UNSENT);
    assert_int_equal(ops[1].result, VERROU_OP_UNSENT);
    assert_int_not_equal(test_execute(store, ops + 1, 1, TEST_LIMIT_MS, &err),
                         VERROU_OK); /* looking alone is no way around */
    test_close_lane(store);
    assert_int_equal(test_open_lane(store, &err), VERROU_OK);
    assert_int_equal(test_acquire(store, "k", "b"), VERROU_OP_APPLIED);
}

/* A database deleted or replaced under us is noticed before anything is answered from the orphaned file. */
static void a_replaced_file_is_noticed(void **unused)
{
    test_store store = test_database(NULL);
    char other[PATH_MAX];

    (void)unused;
    test_acquire(&store, "k", "a");
    unlink(test_path);
    must_be_broken(&store);

    snprintf(other, sizeof other, "%s/other.db", test_folder);
    assert_int_equal(rename(test_path, other), 0);
    must_be_broken(&store);

    unlink(test_file("-shm"));
    test_release(&store, "k", "b");
    test_close(&store);
}

/* So is a log or an index that was deleted: a newcomer would make another and see none of our locks. */
static void a_deleted_log_is_noticed(void **unused)
{
    static const char *const suffixes[] = {"-wal", "-shm"};

    for (int i = 0; i < 2; i++) {
        test_store store = test_database(NULL);
        verrou_op op = test_op(VERROU_OP_ACQUIRE, "k", "b", 1000);

        test_acquire(&store, "k", "a");
        unlink(test_file(suffixes[i]));
        assert_int_equal(test_execute(&store, &op, 1, TEST_LIMIT_MS, NULL), VERROU_ESTORAGE);
        assert_int_equal(op.result, VERROU_OP_UNSENT);
        test_close(&store);
        test_teardown(unused);
        setup(unused);
    }
}

/*
 * The same when nothing has happened in the folder for a while, so that the driver looks at no more than the folder's time; and with
 * a link in that folder to a database in another one, of which the time says nothing.
 */
static void a_quiet_folder_hides_nothing(void **unused)
{
    verrou_op op = test_op(VERROU_OP_ACQUIRE, "k", "b", 1000);
    verrou_error err = VERROU_ERROR_INIT;
    char real[128], link[128];
    test_store store, linked;

    snprintf(real, sizeof real, "%s/sub", test_folder);
    snprintf(link, sizeof link, "%s/link.db", test_folder);
    mkdir(real, 0777);
    strcat(real, "/real.db");
    assert_int_equal(symlink(real, link), 0);
    assert_int_equal(test_create_file(&linked, link, NULL, &err), VERROU_OK);
    assert_int_equal(test_open_lane(&linked, &err), VERROU_OK);
    store = test_database(NULL);
    test_acquire(&store, "k", "a");
    test_acquire(&linked, "k", "a");
    sleep(5); /* the time that the driver wants to have passed */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
        assert_int_equal(test_acquire(&linked, "k", "b"), VERROU_OP_REFUSED);
    }

    strcat(real, "-shm");
    unlink(real);
    assert_int_equal(test_execute(&linked, &op, 1, TEST_LIMIT_MS, NULL), VERROU_ESTORAGE);
    assert_int_equal(op.result, VERROU_OP_UNSENT);
    test_close(&linked);
    unlink(test_file("-shm"));
    assert_int_equal(test_execute(&store, &op, 1, TEST_LIMIT_MS, NULL), VERROU_ESTORAGE);
    assert_int_equal(op.result, VERROU_OP_UNSENT);
    test_close(&store);

    *strrchr(real, '-') = '\0';
    unlink(real);
    strcat(real, "-wal");
    unlink(real);
    *strrchr(real, '/') = '\0';
    rmdir(real);
    (void)unused;
}

/* A symbolic link that is turned to another file counts as a replaced file. */
static void a_turned_link_is_noticed(void **unused)
{
    verrou_error err = VERROU_ERROR_INIT;
    char one[PATH_MAX], two[PATH_MAX];
    test_store store;

    (void)unused;
    snprintf(one, sizeof one, "%s/one.db", test_folder);
    snprintf(two, sizeof two, "%s/two.db", test_folder);
    assert_int_equal(symlink(one, test_path), 0);
    assert_int_equal(test_create_file(&store, test_path, NULL, &err), VERROU_OK);
    assert_int_equal(test_open_lane(&store, &err), VERROU_OK);
    test_acquire(&store, "k", "a");
    unlink(test_path);
    assert_int_equal(symlink(two, test_path), 0);
    must_be_broken(&store);
    test_close(&store);
}

/* ---- full disks and broken writes ---- */

/* Whether `key` is held by `owner`, as a newcomer sees it in the file at `path`. */
static bool held_in(const char *path, const char *key, const char *owner)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    bool held = false;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_prepare_v2(db, "select 1 from verrou where key = ? and owner = ? and expiration > 0", -1, &stmt,
                           NULL) == SQLITE_OK) {
        sqlite3_bind_text(stmt, 1, key, -1, SQLITE_STATIC);
        sqlite3_bind_text(stmt, 2, owner, -1, SQLITE_STATIC);
        held = sqlite3_step(stmt) == SQLITE_ROW;
    }
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return held;
}

/* The files as they would be found after a crash: copied by another process, since closing a copy's source would drop our locks. */
static void crash_copy(char copy[PATH_MAX])
{
    char command[3 * PATH_MAX];

    snprintf(copy, PATH_MAX, "%s/crash.db", test_folder);
    snprintf(command, sizeof command,
             "cd %s && rm -f crash.db* && for s in '' -wal -journal; do"
             " if [ -e locks.db$s ]; then cp locks.db$s crash.db$s; fi; done",
             test_folder);
    assert_int_equal(system(command), 0);
}

static void must_agree(const verrou_op *op, const char *path)
{
    bool held = held_in(path, op->key, op->owner);

    switch (op->result) {
    case VERROU_OP_APPLIED:
        assert_int_equal(held, op->kind == VERROU_OP_ACQUIRE);
        break;
    case VERROU_OP_UNKNOWN:
        break;
    default:
        assert_int_equal(held, op->kind == VERROU_OP_RELEASE);
        break;
    }
}

/* One batch with changes while something fails; then the answers against the live file, and against one found after a crash. */
static void batch_and_compare(test_store *store, void (*disarm)(void))
{
    verrou_op ops[] = {
        test_op(VERROU_OP_ACQUIRE, "taken", "z", 60000), test_op(VERROU_OP_ACQUIRE, "one", "a", 60000),
        test_op(VERROU_OP_RELEASE, "base", "a", 0),      test_op(VERROU_OP_ACQUIRE, "one", "b", 60000),
        test_op(VERROU_OP_ACQUIRE, "two", "a", 60000),
    };
    char copy[PATH_MAX];

    test_execute(store, ops, 5, TEST_LIMIT_MS, NULL);
    disarm();
    /* A newcomer first copies what a crash would leave, before it could repair anything. */
    crash_copy(copy);
    for (int i = 0; i < 5; i++) {
        must_agree(&ops[i], copy);
        must_agree(&ops[i], test_path);
    }
    /* Nobody was refused because of a lock that was not taken in the end. */
    if (ops[3].result == VERROU_OP_REFUSED)
        assert_int_equal(ops[1].result, VERROU_OP_APPLIED);
    for (int i = 0; i < 5; i++)
        test_op_done(&ops[i]);
}

static void disarm_shim(void)
{
    shim.what = FAIL_NOTHING;
}

static void disarm_memory(void)
{
    memory.countdown = 0;
}

static test_store prepared_store(void)
{
    test_store store = test_database(NULL);

    assert_int_equal(test_acquire(&store, "base", "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_acquire(&store, "taken", "a"), VERROU_OP_APPLIED);
    return store;
}

static void every_failure(bool no_shm, failing what, int code)
{
    void *unused = NULL;
    int n = 1;

    for (bool failed = true; failed; n++) {
        test_store store;

        shim.no_shm = no_shm;
        store = prepared_store();
        shim_arm(what, code, n);
        batch_and_compare(&store, disarm_shim);
        failed = shim.failed;
        test_close(&store);
        test_teardown(&unused);
        setup(&unused);
    }
    assert_true(n > 2); /* something did fail */
}

/* Each write of a batch fails once, with both journals, as a full disk and as a broken one. */
static void every_write_fails_once(void **unused)
{
    (void)unused;
    every_failure(false, FAIL_WRITE, SQLITE_FULL);
    every_failure(false, FAIL_WRITE, SQLITE_IOERR_WRITE);
    every_failure(true, FAIL_WRITE, SQLITE_FULL);
    every_failure(true, FAIL_WRITE, SQLITE_IOERR_WRITE);
}

/* Each sync of a batch fails once, with both journals. */
static void every_sync_fails_once(void **unused)
{
    (void)unused;
    every_failure(false, FAIL_SYNC, SQLITE_IOERR_FSYNC);
    every_failure(true, FAIL_SYNC, SQLITE_IOERR_FSYNC);
}

/* Each allocation of a batch fails once. */
static void every_allocation_fails_once(void **unused)
{
    bool failed = true;

    for (int n = 1; failed; n++) {
        test_store store = prepared_store();

        memory.failed = false;
        memory.countdown = n;
        batch_and_compare(&store, disarm_memory);
        failed = memory.failed;
        test_close(&store);
        test_teardown(unused);
        setup(unused);
    }
}

/* Making a new database fails at each write, sync and allocation once: an error with a text, and then it works. */
static void opening_fails_at_each_step_once(void **unused)
{
    for (int kind = 0; kind < 3; kind++) {
        bool failed = true;

        for (int n = 1; failed; n++) {
            verrou_error err = VERROU_ERROR_INIT;
            test_store store;

            assert_int_equal(test_create_file(&store, test_path, NULL, &err), VERROU_OK);
            memory.failed = false;
            shim_arm(kind == 0 ? FAIL_WRITE : (kind == 1 ? FAIL_SYNC : FAIL_NOTHING),
                     kind == 0 ? SQLITE_IOERR_WRITE : SQLITE_IOERR_FSYNC, n);
            memory.countdown = kind == 2 ? n : 0;
            if (test_open_lane(&store, &err) == VERROU_OK) {
                verrou_op_result result = test_acquire(&store, "k", "a");

                assert_int_not_equal(result, VERROU_OP_REFUSED);
                assert_true(result == VERROU_OP_APPLIED || *test_last.text);
            } else {
                assert_true(*err.message);
            }
            failed = shim.failed || memory.failed;
            memory.countdown = 0;
            disarm_shim();
            test_close(&store);
            store = test_database(NULL);
            test_force(&store, "k");
            assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
            test_close(&store);
            test_teardown(unused);
            setup(unused);
        }
    }
}

/* A sync that fails at the commit leaves it open whether the log will have it: the changes are unknown, and the lane is given up. */
static void a_failed_sync_is_unknown(void **unused)
{
    test_store store = prepared_store();
    verrou_error err = VERROU_ERROR_INIT;
    verrou_op ops[] = {
        test_op(VERROU_OP_ACQUIRE, "taken", "z", 60000),
        test_op(VERROU_OP_ACQUIRE, "one", "a", 60000),
        test_op(VERROU_OP_ACQUIRE, "one", "b", 60000),
    };

    (void)unused;
    shim_arm(FAIL_SYNC, SQLITE_IOERR_FSYNC, 1);
    assert_int_equal(test_execute(&store, ops, 3, TEST_LIMIT_MS, &err), VERROU_ESTORAGE);
    disarm_shim();
    assert_int_equal(ops[0].result, VERROU_OP_REFUSED); /* read before anything was changed */
    assert_int_equal(ops[1].result, VERROU_OP_UNKNOWN);
    assert_true(ops[1].fence == 0);
    assert_int_equal(ops[2].result, VERROU_OP_RETRY); /* its refusal rested on the unknown one */
    for (int i = 0; i < 3; i++)
        test_op_done(&ops[i]);
    test_close(&store);
}

/* A full disk is an error of its own, nothing was taken, and the lane goes on working when there is room again. */
static void a_full_disk_is_named(void **unused)
{
    test_store store = prepared_store();

    (void)unused;
    shim_arm(FAIL_WRITE, SQLITE_FULL, 1);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_FAILED);
    disarm_shim();
    assert_string_equal(test_last.code, "SQLITE_FULL");
    assert_non_null(strstr(test_last.text, "full"));
    assert_int_equal(test_last.retriable, 1);
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_APPLIED);
    test_close(&store);
}

/* The same on a filesystem that is really full (needs the right to mount). */
static void a_really_full_disk(void **unused)
{
    char mounted[100], path[128];
    verrou_error err = VERROU_ERROR_INIT;
    verrou_op_result result = VERROU_OP_APPLIED;
    char filler[4096] = {0};
    test_store store;
    FILE *file;

    (void)unused;
    snprintf(mounted, sizeof mounted, "%s/full", test_folder);
    mkdir(mounted, 0777);
    if (mount("none", mounted, "tmpfs", 0, "size=256k") != 0)
        skip();
    snprintf(path, sizeof path, "%s/locks.db", mounted);
    assert_int_equal(test_create_file(&store, path, NULL, &err), VERROU_OK);
    assert_int_equal(test_open_lane(&store, &err), VERROU_OK);
    assert_int_equal(test_acquire(&store, "first", "a"), VERROU_OP_APPLIED);
    snprintf(path, sizeof path, "%s/filler", mounted);
    file = fopen(path, "w");
    while (fwrite(filler, sizeof filler, 1, file) == 1 && fflush(file) == 0)
        continue;
    fclose(file);
    for (int i = 0; i < 1000 && result == VERROU_OP_APPLIED; i++)
        result = test_extend(&store, "first", "a", 60000 + i);
    assert_int_equal(result, VERROU_OP_FAILED);
    assert_string_equal(test_last.code, "SQLITE_FULL");
    unlink(path);
    assert_int_equal(test_extend(&store, "first", "a", 60000), VERROU_OP_APPLIED);
    test_close(&store);
    assert_int_equal(umount(mounted), 0);
}

static void at_the_file_size_limit(int from_parent, int to_parent, const void *argument)
{
    struct rlimit limit = {60000, 60000};
    test_store store = test_database(NULL);
    verrou_op_result result = VERROU_OP_APPLIED;

    (void)from_parent, (void)to_parent, (void)argument;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 100 && result == VERROU_OP_APPLIED; i++)
        result = test_extend(&store, "k", "a", 60000 + i);
    assert_int_equal(result, VERROU_OP_RETRY);
    assert_string_equal(test_last.code, "SQLITE_IOERR_WRITE");
}

/* A write that the system refuses (here the limit on file sizes) is reported as what it is, and was not applied. */
static void a_refused_write_is_named(void **unused)
{
    test_child child = test_fork(at_the_file_size_limit, NULL);

    (void)unused;
    assert_int_equal(test_wait(&child), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_database_is_named),
        TEST(missing_permissions_are_named),
        TEST(a_locked_database_is_an_error),
        TEST(the_most_impatient_is_answered),
        TEST(a_short_lock_is_waited_for),
        TEST(an_exclusive_program_is_waited_for),
        TEST(without_shared_memory_a_journal_is_used),
        TEST(a_commit_that_readers_block_is_undone),
        TEST(a_replaced_file_is_noticed),
        TEST(a_deleted_log_is_noticed),
        TEST(a_quiet_folder_hides_nothing),
        TEST(a_turned_link_is_noticed),
        TEST(every_write_fails_once),
        TEST(every_sync_fails_once),
        TEST(every_allocation_fails_once),
        TEST(opening_fails_at_each_step_once),
        TEST(a_failed_sync_is_unknown),
        TEST(a_full_disk_is_named),
        TEST(a_really_full_disk),
        TEST(a_refused_write_is_named),
    };

    memory_install();
    shim_install();
    return cmocka_run_group_tests_name("sqlite failures", tests, NULL, NULL);
}
