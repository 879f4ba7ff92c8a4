/*
 * engine_races_test.c - moments between two steps, each brought about on purpose: a driver that lets something else happen in the middle
 * of a request, a close that comes while a connection is being closed, a fork.
 */
#include "support/fixture.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/registry.h"

/* ---- between the store's answer and what is made of it ---- */

static verrou_driver between; /* the memory store's, with a hook behind its requests */
static verrou_op_kind after;
static verrou_lock *the_lock;
static verrou_status released;

static verrou_status between_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                     verrou_error *err)
{
    verrou_status status = verrou__memory_driver()->execute(state, lane, ops, n, deadline_ms, err);

    if (ops[0]->kind == after) {
        after = 0;
        released = verrou_lock_release(the_lock, NULL, NULL);
    }
    return status;
}

/* Another thread's release comes right behind an extend in the memory store: the handle holds nothing any more. */
static void test_release_overtakes_extend(void **state)
{
    verrou_store *store = NULL;

    (void)state;
    between = *verrou__memory_driver();
    between.execute = between_execute;
    assert_int_equal(verrou__store_open_driver(&between, "memory:", NULL, NULL, &store, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_new(store, "k", NULL, &the_lock, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(the_lock, NULL, NULL, NULL), VERROU_OK);
    after = VERROU_OP_EXTEND;
    assert_int_equal(verrou_lock_extend(the_lock, VERROU_DEFAULT, NULL, NULL), VERROU_OK);
    assert_int_equal(released, VERROU_OK);
    assert_int_equal(verrou_lock_check(the_lock), VERROU_ENOTOWNED);
    assert_int_equal(verrou_lock_remaining_ms(the_lock), 0);
    verrou_lock_free(the_lock);
    verrou_store_close(store);
}

/* ---- what was known is not known for ever ---- */

static struct outcome late_outcome;

static void start_late(struct world *of)
{
    verrou_dispatch(queue, 0);
    if (!of->processes[0].engine->queue_head && of->processes[0].lane_busy[0] && !late_outcome.world)
        start_acquire(&late_outcome, the_lock, 100);
}

/* That the key was held a while ago says nothing now: a lane that is not to be had is no holder. */
static void test_old_holder_is_no_answer(void **state)
{
    struct world_options options = {.settings = "timeout=1s&lanes=1", .watch = true};
    struct process *process = world_open(&world, &options);
    verrou_lock *first = new_lock(process, "k", 30000);
    verrou_lock *second = new_lock(process, "k", 30000);
    verrou_lock *other = new_lock(process, "other", 30000);
    struct outcome outcome;
    struct outcome release;

    (void)state;
    hold(first);
    start_acquire(&outcome, second, VERROU_FOREVER);
    world_settle(&world);
    start_release(&release, first, 1000);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
    start_release(&release, second, 1000);
    world_settle(&world);
    assert_done(&release, VERROU_OK);

    the_lock = first;
    late_outcome.world = NULL;
    world.passing = start_late;
    world_script(&world, (struct turn){.before_ms = 500});
    start_acquire(&outcome, other, VERROU_FOREVER);
    world_pass(&world, 400);
    assert_done(&late_outcome, VERROU_ESTORAGE);
    verrou_lock_free(other);
    verrou_lock_free(first);
    verrou_lock_free(second);
}

/* A release that waited for its turn goes by the end of the lease as it is then: one that may have run out is not "released". */
static void test_release_behind_shortening_extend(void **state)
{
    struct world_options options = {.settings = "timeout=1s&lanes=1"};
    struct process *process = world_open(&world, &options);
    verrou_lock *lock = new_lock(process, "k", 10000);
    struct outcome first;
    struct outcome second;
    struct outcome release;

    (void)state;
    hold(lock);
    world_script(&world, (struct turn){.fate = HONEST});
    world_script(&world, (struct turn){.fate = HONEST});
    world_script(&world, (struct turn){.fate = LOSE_REQUEST, .after_ms = 300});
    start_extend(&first, lock, 10000, 1000);
    start_extend(&second, lock, 200, 1000);
    start_release(&release, lock, 1000);
    world_pass(&world, 1000);
    assert_done(&first, VERROU_OK);
    assert_done(&second, VERROU_OK);
    assert_done(&release, VERROU_EUNKNOWN);
    verrou_lock_free(lock);
}

/* Who has no time to step back asks at once. */
static void test_no_time_to_step_back(void **state)
{
    struct world_options options = {.settings = "timeout=1s"};
    struct process *process = world_open(&world, &options);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome release;
    struct outcome outcome;

    (void)state;
    world.others = 1;
    hold(lock);
    start_release(&release, lock, 1000);
    world_settle(&world);
    start_acquire(&outcome, lock, 1);
    world_pass(&world, 5);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(lock);
}

/* Deadlines at both ends of the number's range; "not set" is none. */
static void test_extreme_deadlines(void **state)
{
    static const int64_t deadlines[] = {VERROU_DEFAULT, INT64_MIN + 1, -1, 0, INT64_MAX - 1, VERROU_FOREVER};
    struct world_options options = {.settings = "timeout=1s"};
    struct process *process = world_open(&world, &options);
    verrou_lock *lock = new_lock(process, "k", 30000);

    (void)state;
    for (size_t i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++) {
        bool past = i >= 1 && i <= 3;
        verrou_acquire_options acquire = VERROU_ACQUIRE_OPTIONS_INIT;
        verrou_call_options release = VERROU_CALL_OPTIONS_INIT;

        hold(lock);
        release.deadline_ms = deadlines[i];
        assert_int_equal(verrou_lock_release(lock, &release, NULL), past ? VERROU_ESTORAGE : VERROU_OK);
        if (past)
            assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
        acquire.deadline_ms = deadlines[i];
        assert_int_equal(verrou_lock_acquire(lock, &acquire, NULL, NULL), past ? VERROU_ENOTACQUIRED : VERROU_OK);
        if (!past)
            assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    }
    verrou_lock_free(lock);
}

/* ---- fork ---- */

/* The exit code of a child that runs this. */
static int in_child(int (*body)(void))
{
    pid_t pid = fork();
    int status = 0;

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(body());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int acquire_in_child(void)
{
    if (verrou_lock_acquire(the_lock, NULL, NULL, NULL) != VERROU_OK)
        return 1;
    /* Is a renewal to come? */
    return atomic_load(&the_lock->keeping) && atomic_load(&the_lock->keeping)->timer.prev ? 0 : 2;
}

/* What a child acquires with a handle that keeps its leases alive is kept alive. */
static void test_kept_alive_in_child(void **state)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_store *store = NULL;

    (void)state;
    options.keep_alive = 1;
    assert_int_equal(verrou_store_open("memory:", NULL, &store, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_new(store, "k", &options, &the_lock, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(the_lock, NULL, NULL, NULL), VERROU_OK);
    assert_int_equal(in_child(acquire_in_child), 0);
    verrou_lock_free(the_lock);
    verrou_store_close(store);
}

static int free_queue(void)
{
    verrou_queue_free(queue);
    return 0;
}

/* A child that frees its copy of a completion queue takes nothing from its parent. */
static void test_child_frees_queue(void **state)
{
    struct process *process = world_open(&world, &(struct world_options){.settings = "timeout=1s"});
    struct pollfd poll_fd = {.fd = verrou_queue_fd(queue), .events = POLLIN};
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world.passing = NULL;
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_int_equal(poll(&poll_fd, 1, 0), 1);
    assert_int_equal(in_child(free_queue), 0);
    assert_int_equal(poll(&poll_fd, 1, 0), 1);
    assert_int_equal(verrou_dispatch(queue, 0), 1);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(lock);
}

static verrou_cancel *the_cancel;

static int fire_cancel(void)
{
    alarm(10); /* the mutexes of the calls may be locked here for ever */
    verrou_cancel_fire(the_cancel);
    verrou_cancel_free(the_cancel);
    return 0;
}

/* Nor does firing a token in a child touch the parent's calls, or wait for their mutex. */
static void test_child_fires_cancel(void **state)
{
    struct process *process = world_open(&world, &(struct world_options){.settings = "timeout=1s"});
    verrou_lock *holder = new_lock(process, "k", 30000);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    hold(holder);
    assert_int_equal(verrou_cancel_new(&the_cancel, NULL), VERROU_OK);
    start_acquire_with(&outcome, lock, VERROU_FOREVER, VERROU_FOREVER, the_cancel);
    world_settle(&world);
    verrou__engine_enter(process->engine);
    assert_int_equal(in_child(fire_cancel), 0);
    verrou__engine_leave(process->engine);
    verrou_cancel_fire(the_cancel);
    world_settle(&world);
    assert_done(&outcome, VERROU_ECANCELED);
    verrou_cancel_free(the_cancel);
    verrou_lock_free(lock);
    verrou_lock_free(holder);
}

/* A machine that stands still for longer than the step back takes, while it is being begun. */
static void test_step_back_over_at_once(void **state)
{
    struct world_options options = {.settings = "timeout=1m"};
    struct process *process = world_open(&world, &options);
    verrou_lock *lock = new_lock(process, "k", 30000);

    (void)state;
    world.others = 1;
    hold(lock);
    world.stutter_ms = 3;
    assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    world.stutter_ms = 0;
    hold(lock);
    assert_int_equal(verrou_lock_release(lock, NULL, NULL), VERROU_OK);
    verrou_lock_free(lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_release_overtakes_extend),
        TEST(test_old_holder_is_no_answer),
        TEST(test_release_behind_shortening_extend),
        TEST(test_no_time_to_step_back),
        TEST(test_extreme_deadlines),
        TEST(test_step_back_over_at_once),
        TEST(test_kept_alive_in_child),
        TEST(test_child_frees_queue),
        TEST(test_child_fires_cancel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
