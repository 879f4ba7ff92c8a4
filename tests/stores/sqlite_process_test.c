/*
 * sqlite_process_test.c - the SQLite driver with several processes on one file: exclusion, crashes, being woken, stepping back.
 */
#include "sqlite_testing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- exclusion ---- */

#define RACERS 3
#define ROUNDS 400

/* Add one to a number in a file, which is not atomic, under a lock; tokens must grow from one holder to the next. */
static void race(int from_parent, int to_parent, const void *argument)
{
    test_store store = test_database("synchronous=off");
    char owner[32];
    int fd = open(test_file("-counter"), O_RDWR | O_CREAT, 0600);

    (void)argument;
    snprintf(owner, sizeof owner, "racer %d", (int)getpid());
    test_tell(to_parent);
    test_await(from_parent);
    for (int i = 0; i < ROUNDS;) {
        uint64_t last[2] = {0, 0};
        verrou_op_result result = test_run(&store, VERROU_OP_ACQUIRE, "k", owner, VERROU_FOREVER);

        if (result == VERROU_OP_REFUSED)
            continue;
        if (result != VERROU_OP_APPLIED || pread(fd, last, sizeof last, 0) < 0 || test_last.fence <= last[1])
            _exit(1);
        last[0]++;
        last[1] = test_last.fence;
        if (pwrite(fd, last, sizeof last, 0) != sizeof last || test_release(&store, "k", owner) != VERROU_OP_APPLIED)
            _exit(2);
        i++;
    }
    test_close(&store);
}

/* Processes that race for one lock lose none of their increments, and each holder has a larger token than the one before. */
static void racing_processes_exclude_each_other(void **unused)
{
    test_child children[RACERS];
    uint64_t last[2] = {0, 0};
    int fd;

    (void)unused;
    for (int i = 0; i < RACERS; i++) {
        children[i] = test_fork(race, NULL);
        assert_true(test_await(children[i].from));
    }
    for (int i = 0; i < RACERS; i++)
        test_tell(children[i].to);
    for (int i = 0; i < RACERS; i++)
        assert_int_equal(test_wait(&children[i]), 0);
    fd = open(test_file("-counter"), O_RDONLY);
    assert_int_equal(read(fd, last, sizeof last), sizeof last);
    close(fd);
    assert_int_equal(last[0], RACERS * ROUNDS);
}

static void open_first(int from_parent, int to_parent, const void *argument)
{
    test_store store;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_op_result result;

    (void)argument;
    test_tell(to_parent);
    test_await(from_parent);
    if (test_create_file(&store, test_path, NULL, &err) != VERROU_OK || test_open_lane(&store, &err) != VERROU_OK)
        _exit(1);
    result = test_run(&store, VERROU_OP_ACQUIRE, "k", "a", VERROU_FOREVER);
    _exit(result == VERROU_OP_APPLIED ? 10 : (result == VERROU_OP_REFUSED ? 11 : 2));
}

/* Processes that make file and table at the same moment agree on one: exactly one gets the lock, none fails. */
static void racing_creations_agree(void **unused)
{
    for (int round = 0; round < 20; round++) {
        test_child children[4];
        int taken = 0, refused = 0;

        for (int i = 0; i < 4; i++) {
            children[i] = test_fork(open_first, NULL);
            assert_true(test_await(children[i].from));
        }
        for (int i = 0; i < 4; i++)
            test_tell(children[i].to);
        for (int i = 0; i < 4; i++) {
            int status = test_wait(&children[i]);

            taken += WEXITSTATUS(status) == 10;
            refused += WEXITSTATUS(status) == 11;
        }
        assert_int_equal(taken, 1);
        assert_int_equal(refused, 3);
        test_teardown(unused);
        test_setup(unused);
    }
}

static void die_in_transaction(int from_parent, int to_parent, const void *argument)
{
    sqlite3 *db = NULL;

    (void)argument;
    sqlite3_open(test_path, &db);
    sqlite3_exec(db, "PRAGMA cache_spill=1; BEGIN IMMEDIATE; update verrou set owner = 'thief', expiration = NULL",
                 NULL, NULL, NULL);
    test_tell(to_parent);
    test_await(from_parent);
}

/* A process killed within a transaction leaves no lock on the file and nothing of what it had written. */
static void a_killed_writer_leaves_nothing(void **unused)
{
    test_store store = test_database(NULL);
    test_child child;

    (void)unused;
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    child = test_fork(die_in_transaction, NULL);
    assert_true(test_await(child.from));
    kill(child.pid, SIGKILL);
    assert_true(WIFSIGNALED(test_wait(&child)));
    assert_int_equal(test_acquire(&store, "k", "b"), VERROU_OP_REFUSED);
    assert_string_equal(test_last.holder, "a");
    assert_int_equal(test_release(&store, "k", "a"), VERROU_OP_APPLIED);
    test_close(&store);
}

static void acquire_for_ever(int from_parent, int to_parent, const void *argument)
{
    test_store store = test_database("synchronous=off");
    char key[32];

    (void)from_parent, (void)argument;
    for (unsigned i = 0;; i++) {
        snprintf(key, sizeof key, "%u", i);
        if (test_run(&store, VERROU_OP_ACQUIRE, key, "child", VERROU_FOREVER) != VERROU_OP_APPLIED)
            _exit(1);
        if (write(to_parent, &i, sizeof i) != sizeof i)
            _exit(2);
    }
}

/* A process killed anywhere in its work: all that it had been granted is there, at most one more, and the file works on. */
static void a_killed_process_keeps_what_it_was_granted(void **unused)
{
    for (int round = 0; round < 10; round++) {
        test_child child = test_fork(acquire_for_ever, NULL);
        unsigned last = 0, granted;
        test_store store;

        /* Let it run for a while, then kill it wherever it is; what is still in the pipe was granted too. */
        for (int i = 0; i < 50 + round * 7; i++)
            assert_int_equal(read(child.from, &last, sizeof last), sizeof last);
        kill(child.pid, SIGKILL);
        while (read(child.from, &last, sizeof last) == sizeof last)
            continue;
        test_wait(&child);
        granted = (unsigned)atoi(test_ask("select count(*) from verrou where owner = 'child'"));
        assert_true(granted == last + 1 || granted == last + 2);
        store = test_database(NULL);
        assert_int_equal(test_acquire(&store, "0", "b"), VERROU_OP_REFUSED);
        assert_int_equal(test_acquire(&store, "new", "b"), VERROU_OP_APPLIED);
        test_close(&store);
        test_teardown(unused);
        test_setup(unused);
    }
}

/* ---- watches ---- */

/* Release `argument` when told, as owner "child". */
static void release_when_told(int from_parent, int to_parent, const void *argument)
{
    test_store store = test_database(NULL);

    if (test_acquire(&store, argument, "child") != VERROU_OP_APPLIED)
        _exit(1);
    test_tell(to_parent);
    test_await(from_parent);
    if (test_release(&store, argument, "child") != VERROU_OP_APPLIED)
        _exit(2);
    /* Whether the releaser was told that somebody waits. */
    _exit(test_last.others == 1 ? 10 : (test_last.others == 0 ? 11 : 12));
}

/* A key that is added is reported as active once; then a release in another process is reported, and the lock can be had. */
static void a_release_elsewhere_is_reported(void **unused)
{
    test_store store = test_database(NULL);
    test_watch watch;
    test_child child;

    (void)unused;
    test_inspect(&store, "k");
    child = test_fork(release_when_told, "k");
    assert_true(test_await(child.from));
    watch = test_watch_open(&store);
    assert_false(test_watch_readable(&watch, 0));
    assert_int_equal(test_watch_add(&watch, "k"), VERROU_OK);
    assert_true(test_watch_readable(&watch, 0));
    assert_int_equal(test_watch_read(&watch), VERROU_OK);
    assert_int_equal(watch.active, 1);
    assert_string_equal(watch.key, "k");
    assert_false(test_watch_readable(&watch, 0));
    assert_int_equal(test_watch_read(&watch), VERROU_OK);
    assert_int_equal(watch.active + watch.free, 0);

    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_REFUSED);
    assert_false(test_watch_readable(&watch, 0)); /* our own refused try wakes nobody */
    test_tell(child.to);
    assert_true(test_watch_readable(&watch, 10000));
    assert_int_equal(test_watch_read(&watch), VERROU_OK);
    assert_int_equal(watch.free, 1);
    assert_int_equal(watch.active, 0);
    /* The event comes before the commit: the try that follows waits for it. */
    assert_int_equal(test_acquire(&store, "k", "a"), VERROU_OP_APPLIED);
    assert_int_equal(WEXITSTATUS(test_wait(&child)), 10);
    test_watch_close(&watch);
    test_close(&store);
}

/* The same when the original releases: a plain DELETE in rollback-journal mode by another program. */
static void a_commit_of_another_program_is_reported(void **unused)
{
    test_store store = test_database(NULL);
    test_watch watch;

    (void)unused;
    test_acquire(&store, "k", "a");
    watch = test_watch_open(&store);
    test_sql("delete from verrou");
    assert_true(test_watch_readable(&watch, 10000));
    assert_int_equal(test_watch_read(&watch), VERROU_OK);
    assert_int_equal(watch.free, 1);
    test_watch_close(&watch);
    test_close_lane(&store);

    test_sql("pragma journal_mode = delete");
    watch = test_watch_open(&store);
    test_sql("insert into verrou (key, owner) values ('k', 'x')");
    assert_true(test_watch_readable(&watch, 10000));
    assert_int_equal(test_watch_read(&watch), VERROU_OK);
    assert_int_equal(watch.free, 1);
    test_watch_close(&watch);
    test_close(&store);
}

/* Other files of the folder, our side file included, are no events; a folder that goes is a failure of the watch. */
static void only_the_database_counts(void **unused)
{
    test_store store;
    verrou_error err = VERROU_ERROR_INIT;
    char path[256];
    test_watch watch;
    FILE *file;

    (void)unused;
    snprintf(path, sizeof path, "%s/sub", test_folder);
    mkdir(path, 0777);
    strcat(path, "/locks.db");
    assert_int_equal(test_create_file(&store, path, NULL, &err), VERROU_OK);
    watch = test_watch_open(&store);
    strcat(path, "-waiters");
    file = fopen(path, "w");
    fputs("x", file);
    fclose(file);
    assert_int_equal(test_watch_read(&watch), VERROU_OK);
    assert_int_equal(watch.free, 0);
    unlink(path);
    *strrchr(path, '/') = '\0';
    assert_int_equal(rmdir(path), 0);
    assert_true(test_watch_readable(&watch, 10000));
    assert_int_equal(test_watch_read(&watch), VERROU_ESTORAGE);
    test_watch_close(&watch);
    test_close(&store);
}

/* With the database behind a symbolic link, the events come from where it really is. */
static void a_linked_database_is_watched(void **unused)
{
    char real[256];
    test_store store;
    test_watch watch;

    (void)unused;
    snprintf(real, sizeof real, "%s/sub", test_folder);
    mkdir(real, 0777);
    strcat(real, "/real.db");
    assert_int_equal(symlink(real, test_path), 0);
    store = test_database(NULL);
    test_inspect(&store, "k");
    watch = test_watch_open(&store);
    test_acquire(&store, "k", "a");
    assert_true(test_watch_readable(&watch, 10000));
    assert_int_equal(test_watch_read(&watch), VERROU_OK);
    assert_int_equal(watch.free, 1);
    test_watch_close(&watch);
    test_close(&store);
    unlink(real);
    strcat(real, "-waiters");
    unlink(real);
    *strrchr(real, '/') = '\0';
    rmdir(real);
}

/* ---- who else waits ---- */

static void wait_when_told(int from_parent, int to_parent, const void *key)
{
    test_store store = test_database(NULL);
    test_watch watch = test_watch_open(&store);

    if (test_watch_add(&watch, key) != VERROU_OK)
        _exit(1);
    test_tell(to_parent);
    test_await(from_parent);
}

static int others_after_release(test_store *store, const char *key)
{
    assert_int_equal(test_acquire(store, key, "a"), VERROU_OP_APPLIED);
    assert_int_equal(test_release(store, key, "a"), VERROU_OP_APPLIED);
    return test_last.others;
}

/*
 * A release tells whether another process waits for that key: not our own waiters, not waiters of other keys, not a waiter that
 * was killed. A database without waiters has no side file.
 */
static void a_release_tells_of_waiters_elsewhere(void **unused)
{
    test_store store = test_database(NULL);
    test_child child;
    test_watch watch;

    (void)unused;
    assert_int_equal(others_after_release(&store, "k"), 0);
    assert_int_equal(access(test_file("-waiters"), F_OK), -1);

    watch = test_watch_open(&store);
    assert_int_equal(test_watch_add(&watch, "k"), VERROU_OK);
    assert_int_equal(others_after_release(&store, "k"), 0);

    child = test_fork(wait_when_told, "k");
    assert_true(test_await(child.from));
    assert_int_equal(others_after_release(&store, "k"), 1);
    assert_int_equal(others_after_release(&store, "other"), 0);
    test_acquire(&store, "k", "a");
    assert_int_equal(test_force(&store, "k"), VERROU_OP_APPLIED);
    assert_int_equal(test_last.others, 1);
    kill(child.pid, SIGKILL);
    test_wait(&child);
    assert_int_equal(others_after_release(&store, "k"), 0);
    test_watch_close(&watch);
    test_close(&store);
}

/* A key watched twice is shown as waited for until it is removed twice; closing the watch removes all. */
static void waits_are_counted(void **unused)
{
    test_store store = test_database(NULL), other = test_database(NULL);
    test_watch watch = test_watch_open(&store);

    (void)unused;
    test_watch_add(&watch, "k");
    test_watch_add(&watch, "k");
    assert_int_equal(others_after_release(&other, "k"), 1);
    test_watch_remove(&watch, "k");
    assert_int_equal(others_after_release(&other, "k"), 1);
    test_watch_remove(&watch, "k");
    assert_int_equal(others_after_release(&other, "k"), 0);
    for (char key[2] = "a"; *key <= 'z'; ++*key)
        test_watch_add(&watch, key);
    assert_int_equal(others_after_release(&other, "m"), 1);
    test_watch_close(&watch);
    for (char key[2] = "a"; *key <= 'z'; ++*key)
        assert_int_equal(others_after_release(&other, key), 0);
    test_close(&store);
    test_close(&other);
}

static atomic_bool keep_going;

static void *wait_and_leave(void *argument)
{
    test_store *store = argument;
    test_watch watch = test_watch_open(store);

    while (atomic_load(&keep_going)) {
        test_watch_add(&watch, "k");
        test_watch_read(&watch);
        test_watch_remove(&watch, "k");
        store->driver->caps(store->state);
    }
    test_watch_close(&watch);
    return NULL;
}

/* The watch is used by another thread than the lane, as the engine does; meant for the thread sanitizer. */
static void lane_and_watch_in_two_threads(void **unused)
{
    test_store store = test_database("synchronous=off");
    pthread_t thread;

    (void)unused;
    atomic_store(&keep_going, true);
    assert_int_equal(pthread_create(&thread, NULL, wait_and_leave, &store), 0);
    for (int i = 0; i < 300; i++) {
        if (i % 100 == 99) { /* a new connection, too */
            test_close_lane(&store);
            assert_int_equal(test_open_lane(&store, NULL), VERROU_OK);
        }
        assert_int_not_equal(others_after_release(&store, "k"), -1);
    }
    atomic_store(&keep_going, false);
    pthread_join(thread, NULL);
    assert_int_equal(others_after_release(&store, "k"), 0); /* our own waiter never counted */
    test_close(&store);
}

/* A side file that somebody deleted is made anew, with all the waits in it. */
static void a_deleted_side_file_is_made_anew(void **unused)
{
    test_store store = test_database(NULL), other = test_database(NULL), newcomer;
    test_watch watch = test_watch_open(&store);

    (void)unused;
    test_watch_add(&watch, "one");
    assert_int_equal(others_after_release(&other, "one"), 1);
    assert_int_equal(unlink(test_file("-waiters")), 0);
    test_watch_add(&watch, "two");
    newcomer = test_database(NULL);
    assert_int_equal(others_after_release(&newcomer, "one"), 1);
    assert_int_equal(others_after_release(&newcomer, "two"), 1);
    assert_int_equal(others_after_release(&other, "two"), 1);
    test_watch_close(&watch);
    test_close(&store);
    test_close(&other);
    test_close(&newcomer);
}

/* A side file that cannot be used costs fairness only: the answer is "not known". A planted link is not followed. */
static void without_a_side_file_nothing_is_known(void **unused)
{
    test_store store = test_database(NULL);
    char target[256];
    test_watch watch;

    (void)unused;
    snprintf(target, sizeof target, "%s/target", test_folder);
    assert_int_equal(symlink(target, test_file("-waiters")), 0);
    watch = test_watch_open(&store);
    assert_int_equal(test_watch_add(&watch, "k"), VERROU_OK);
    assert_int_equal(access(target, F_OK), -1);
    assert_int_equal(others_after_release(&store, "k"), -1);
    test_watch_close(&watch);
    test_close(&store);
}

/* The descriptors of a watch are closed on exec. */
static void descriptors_of_a_watch_close_on_exec(void **unused)
{
    bool before[256];
    test_store store = test_database(NULL);
    test_watch watch;

    (void)unused;
    for (int fd = 0; fd < 256; fd++)
        before[fd] = fcntl(fd, F_GETFD) >= 0;
    watch = test_watch_open(&store);
    test_watch_add(&watch, "k");
    for (int fd = 0; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFD);

        if (flags >= 0 && !before[fd])
            assert_true(flags & FD_CLOEXEC);
    }
    test_watch_close(&watch);
    for (int fd = 3; fd < 256; fd++) {
        char link[64], target[256];
        ssize_t len;

        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        len = readlink(link, target, sizeof target - 1);
        if (len > 0 && !before[fd]) /* all closed again but the side file, which the state keeps */
            assert_non_null(strstr((target[len] = '\0', target), "-waiters"));
    }
    test_close(&store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_setup, test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(racing_processes_exclude_each_other),
        TEST(racing_creations_agree),
        TEST(a_killed_writer_leaves_nothing),
        TEST(a_killed_process_keeps_what_it_was_granted),
        TEST(a_release_elsewhere_is_reported),
        TEST(a_commit_of_another_program_is_reported),
        TEST(only_the_database_counts),
        TEST(a_linked_database_is_watched),
        TEST(a_release_tells_of_waiters_elsewhere),
        TEST(waits_are_counted),
        TEST(lane_and_watch_in_two_threads),
        TEST(a_deleted_side_file_is_made_anew),
        TEST(without_a_side_file_nothing_is_known),
        TEST(descriptors_of_a_watch_close_on_exec),
    };

    return cmocka_run_group_tests_name("sqlite processes", tests, NULL, NULL);
}
