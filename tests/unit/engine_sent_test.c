/*
 * engine_sent_test.c - answers that an event loop fetches itself, on a driver whose server is a byte in a pipe: a 'y' is the answer to all that
 * was sent, a '?' one that only execute() can tell. Who runs what is counted; when, is not looked at.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <verrou/store.h>
#include <cmocka.h>

#define PATIENCE_MS 60000

struct lane {
    int ends[2];
    atomic_int inside; /* threads that use it: one at most */
    bool begun, arrived;
};

/* What the server does, and what was seen. */
static struct {
    atomic_bool refuses; /* begin() sends nothing */
    atomic_int says;     /* put into the pipe by begin(); 0: nothing */
    atomic_bool breaks;  /* the next execute() loses the lane after its answers */
    atomic_int begun, executed, executed_here, opened, closed;
    pthread_t here;
    struct lane *_Atomic lane; /* opened last */
} server;

static void enter(struct lane *lane)
{
    assert_int_equal(atomic_fetch_add(&lane->inside, 1), 0);
}

static void leave(struct lane *lane)
{
    atomic_fetch_sub(&lane->inside, 1);
}

static verrou_status create(const verrou_host *host, void *log_context, const verrou_url *url, void **ret_state,
                            verrou_error *err)
{
    (void)host, (void)log_context, (void)url, (void)err;
    *ret_state = &server;
    return VERROU_OK;
}

static uint32_t caps(void *state)
{
    (void)state;
    return VERROU_CAP_FENCE;
}

static verrou_status open_lane(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    struct lane *lane = calloc(1, sizeof(*lane));

    (void)state, (void)deadline_ms, (void)err;
    assert_non_null(lane);
    assert_int_equal(pipe(lane->ends), 0);
    fcntl(lane->ends[0], F_SETFL, O_NONBLOCK);
    atomic_fetch_add(&server.opened, 1);
    atomic_store(&server.lane, lane);
    *ret_lane = lane;
    return VERROU_OK;
}

static void close_lane(void *state, void *opened)
{
    struct lane *lane = opened;

    (void)state;
    close(lane->ends[0]);
    if (lane->ends[1] >= 0)
        close(lane->ends[1]);
    free(lane);
    atomic_fetch_add(&server.closed, 1);
}

static void say(struct lane *lane, char what)
{
    assert_int_equal(write(lane->ends[1], &what, 1), 1);
}

static int begin(void *state, void *opened, verrou_op *const *ops, size_t n, int64_t deadline_ms)
{
    struct lane *lane = opened;
    char what = (char)atomic_load(&server.says);

    (void)state, (void)ops, (void)n, (void)deadline_ms;
    enter(lane);
    lane->begun = !atomic_load(&server.refuses);
    if (lane->begun)
        atomic_fetch_add(&server.begun, 1);
    if (lane->begun && what)
        say(lane, what);
    leave(lane);
    return lane->begun;
}

static int lane_fd(void *state, void *opened)
{
    (void)state;
    return ((struct lane *)opened)->ends[0];
}

static int arrived(void *state, void *opened)
{
    struct lane *lane = opened;
    char what = 0;

    (void)state;
    enter(lane);
    lane->arrived = read(lane->ends[0], &what, 1) == 1;
    leave(lane);
    return !lane->arrived ? 0 : what == '?' ? -1 : 1;
}

static verrou_status execute(void *state, void *opened, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                             verrou_error *err)
{
    struct lane *lane = opened;
    struct pollfd in = {lane->ends[0], POLLIN, 0};
    char what;

    (void)state, (void)deadline_ms;
    enter(lane);
    if (lane->begun && !lane->arrived) {
        poll(&in, 1, PATIENCE_MS);
        assert_int_equal(read(lane->ends[0], &what, 1), 1);
    }
    lane->begun = lane->arrived = false;
    for (size_t i = 0; i < n; i++) {
        ops[i]->result = VERROU_OP_APPLIED;
        ops[i]->fence = 1;
    }
    atomic_fetch_add(&server.executed, 1);
    atomic_fetch_add(&server.executed_here, pthread_equal(pthread_self(), server.here) != 0);
    leave(lane);
    if (!atomic_exchange(&server.breaks, false))
        return VERROU_OK;
    return verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "the lane is lost");
}

static const char *const schemes[] = {"pipe", NULL};
static const verrou_driver driver = {.version = VERROU_STORE_VERSION,
                                     .schemes = schemes,
                                     .settings = schemes + 1,
                                     .default_lanes = 1,
                                     .max_lanes = 4,
                                     .create = create,
                                     .caps = caps,
                                     .open = open_lane,
                                     .close = close_lane,
                                     .begin = begin,
                                     .lane_fd = lane_fd,
                                     .arrived = arrived,
                                     .execute = execute};

/* ---- users ---- */

static verrou_store *store;
static verrou_queue *queue;

struct user {
    verrou_lock *lock;
    verrou_status status;
    int answers;
};

static void answered(void *context, const verrou_result *result)
{
    struct user *user = context;

    user->status = result->status;
    user->answers++;
}

static struct user new_user(const char *key)
{
    struct user user = {NULL, VERROU_EINVAL, 0};

    assert_int_equal(verrou_lock_new(store, key, NULL, &user.lock, NULL), VERROU_OK);
    return user;
}

static void acquire(struct user *user, verrou_queue *to)
{
    user->answers = 0;
    assert_int_equal(verrou_lock_acquire_async(user->lock, NULL, to, answered, user, NULL), VERROU_OK);
}

static void release(struct user *user, verrou_queue *to)
{
    user->answers = 0;
    assert_int_equal(verrou_lock_release_async(user->lock, NULL, to, answered, user, NULL), VERROU_OK);
}

static bool readable(verrou_queue *which, int timeout_ms)
{
    struct pollfd in = {verrou_queue_fd(which), POLLIN, 0};

    return poll(&in, 1, timeout_ms) == 1;
}

/* As an event loop does. */
static void loop_until_answered(struct user *user, verrou_queue *which)
{
    while (user->answers == 0) {
        assert_true(readable(which, PATIENCE_MS));
        verrou_dispatch(which, 0);
    }
    assert_int_equal(user->answers, 1);
    assert_int_equal(user->status, VERROU_OK);
}

static void until(atomic_int *count, int wanted)
{
    int64_t limit_ms = verrou_now_ms() + PATIENCE_MS;

    while (atomic_load(count) < wanted) {
        assert_true(verrou_now_ms() < limit_ms);
        poll(NULL, 0, 1);
    }
}

/* The first request opens the lane, and may go through a worker. */
static void warm_up(struct user *user)
{
    acquire(user, queue);
    loop_until_answered(user, queue);
    release(user, queue);
    loop_until_answered(user, queue);
    server.begun = server.executed = server.executed_here = 0;
}

static int open_all(void **state)
{
    (void)state;
    server.refuses = server.breaks = false;
    server.says = 'y';
    server.opened = server.closed = 0;
    server.here = pthread_self();
    assert_int_equal(verrou_queue_new(&queue, NULL), VERROU_OK);
    assert_int_equal(verrou_store_open("pipe:?timeout=30s", NULL, &store, NULL), VERROU_OK);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    verrou_store_close(store);
    verrou_queue_free(queue);
    assert_int_equal(server.opened, server.closed);
    return 0;
}

/* ---- tests ---- */

/*
 * The thread that submits sends, and that which dispatches takes the answer. A worker may come first if this thread stands still for too long, so
 * not each time is asked for.
 */
static void the_loop_fetches(void **state)
{
    struct user user = new_user("k");

    (void)state;
    warm_up(&user);
    for (int i = 0; i < 100; i++) {
        acquire(&user, queue);
        loop_until_answered(&user, queue);
        release(&user, queue);
        loop_until_answered(&user, queue);
    }
    assert_int_equal(server.begun, 200);
    assert_int_equal(server.executed, 200);
    assert_true(server.executed_here >= 20);
    verrou_lock_free(user.lock);
}

/* What waits while the lane is busy goes along as one batch. */
static void others_are_one_batch(void **state)
{
    struct user users[5];

    (void)state;
    for (int i = 0; i < 5; i++)
        users[i] = new_user((const char *[]){"a", "b", "c", "d", "e"}[i]);
    warm_up(&users[0]);
    server.says = 0;
    for (int i = 0; i < 5; i++)
        acquire(&users[i], queue);
    server.says = 'y';
    say(server.lane, 'y');
    for (int i = 0; i < 5; i++)
        loop_until_answered(&users[i], queue);
    assert_int_equal(server.begun, 2);
    for (int i = 0; i < 5; i++)
        verrou_lock_free(users[i].lock);
}

static void a_loop_that_does_not_come(void **state)
{
    struct user user = new_user("k");

    (void)state;
    warm_up(&user);
    acquire(&user, queue);
    until(&server.executed, 1);
    assert_int_equal(server.executed_here, 0);
    loop_until_answered(&user, queue);
    verrou_lock_free(user.lock);
}

static void an_answer_that_is_late(void **state)
{
    struct user user = new_user("k");
    verrou_info info = VERROU_INFO_INIT;

    (void)state;
    warm_up(&user);
    server.says = 0;
    acquire(&user, queue);
    assert_int_equal(verrou_dispatch(queue, 0), 0);
    say(server.lane, 'y');
    loop_until_answered(&user, queue);
    assert_int_equal(server.executed, 1);

    /* The same for a thread that blocks meanwhile, behind it. */
    server.says = 'y';
    assert_int_equal(verrou_store_inspect(store, "k", NULL, &info, NULL), VERROU_OK);
    verrou_lock_free(user.lock);
}

/* Whoever blocks does not wait for a loop that may be busy. */
static void a_thread_takes_over(void **state)
{
    struct user user = new_user("k");
    verrou_info info = VERROU_INFO_INIT;
    int taken = 0;

    (void)state;
    warm_up(&user);
    for (int i = 0; i < 100; i++) {
        server.executed_here = 0;
        acquire(&user, queue);
        assert_int_equal(verrou_store_inspect(store, "l", NULL, &info, NULL), VERROU_OK);
        taken += server.executed_here - 1; /* the inspection itself */
        loop_until_answered(&user, queue);
        release(&user, queue);
        loop_until_answered(&user, queue);
    }
    assert_int_equal(server.executed, 300);
    assert_true(taken >= 20);
    verrou_lock_free(user.lock);
}

/* What takes another round is a worker's. */
static void an_answer_that_asks(void **state)
{
    struct user user = new_user("k");

    (void)state;
    warm_up(&user);
    server.says = '?';
    for (int i = 0; i < 20; i++) {
        acquire(&user, queue);
        loop_until_answered(&user, queue);
        release(&user, queue);
        loop_until_answered(&user, queue);
    }
    assert_int_equal(server.executed, 40);
    assert_int_equal(server.executed_here, 0);
    verrou_lock_free(user.lock);
}

static void a_driver_that_refuses(void **state)
{
    struct user user = new_user("k");

    (void)state;
    warm_up(&user);
    server.refuses = true;
    acquire(&user, queue);
    loop_until_answered(&user, queue);
    assert_int_equal(server.begun, 0);
    assert_int_equal(server.executed, 1);
    assert_int_equal(server.executed_here, 0);
    verrou_lock_free(user.lock);
}

/* The descriptor of the lost lane is likely to be that of the next one. */
static void a_lane_that_is_lost(void **state)
{
    struct user user = new_user("k");

    (void)state;
    warm_up(&user);
    for (int i = 0; i < 20; i++) {
        server.breaks = true;
        acquire(&user, queue);
        loop_until_answered(&user, queue);
        release(&user, queue);
        loop_until_answered(&user, queue);
    }
    assert_int_equal(server.opened, 21);
    assert_int_equal(server.closed, 20);
    assert_int_equal(server.executed, 40);
    verrou_lock_free(user.lock);
}

/* A connection that ends while it is at rest wakes the loop once, not for ever. */
static void an_end_at_rest(void **state)
{
    struct user user = new_user("k");
    struct lane *lane;

    (void)state;
    warm_up(&user);
    acquire(&user, queue);
    loop_until_answered(&user, queue);
    lane = server.lane;
    close(lane->ends[1]);
    lane->ends[1] = -1;
    for (int woken = 0; readable(queue, 20); woken++) {
        assert_true(woken < 3);
        verrou_dispatch(queue, 0);
    }
    verrou_lock_free(user.lock);
}

/* A lane that one queue may still look after is a worker's for another. */
static void two_queues(void **state)
{
    struct user user = new_user("k"), other = new_user("l");
    verrou_queue *second = NULL;

    (void)state;
    assert_int_equal(verrou_queue_new(&second, NULL), VERROU_OK);
    warm_up(&user);
    for (int i = 0; i < 20; i++) {
        acquire(&user, queue);
        acquire(&other, second);
        loop_until_answered(&other, second);
        loop_until_answered(&user, queue);
        release(&user, queue);
        release(&other, second);
        loop_until_answered(&other, second);
        loop_until_answered(&user, queue);
    }
    verrou_lock_free(user.lock);
    verrou_lock_free(other.lock);
    verrou_queue_free(second);
}

/* The memory of a queue is likely to be that of the next one; what the first had watched is not. */
static void a_queue_for_each_call(void **state)
{
    struct user user = new_user("k");

    (void)state;
    warm_up(&user);
    for (int i = 0; i < 200; i++) {
        verrou_queue *own = NULL;

        assert_int_equal(verrou_queue_new(&own, NULL), VERROU_OK);
        if (i % 2 == 0)
            acquire(&user, own);
        else
            release(&user, own);
        loop_until_answered(&user, own);
        verrou_queue_free(own);
    }
    assert_true(server.executed_here >= 20);
    verrou_lock_free(user.lock);
}

static void the_queue_goes_first(void **state)
{
    struct user user = new_user("k");

    (void)state;
    warm_up(&user);
    server.says = 0;
    acquire(&user, queue);
    verrou_queue_free(queue);
    assert_int_equal(verrou_queue_new(&queue, NULL), VERROU_OK);
    say(server.lane, 'y');
    until(&server.executed, 1);
    assert_int_equal(user.answers, 0);
    verrou_lock_free(user.lock);
}

static void *answer_soon(void *user)
{
    poll(NULL, 0, 20);
    say(user, 'y');
    return NULL;
}

/* Closing waits for what is out, and nobody has to dispatch for that. */
static void the_store_is_closed_meanwhile(void **state)
{
    struct user user = new_user("k");
    pthread_t thread;

    (void)state;
    warm_up(&user);
    server.says = 0;
    acquire(&user, queue);
    assert_int_equal(pthread_create(&thread, NULL, answer_soon, server.lane), 0);
    verrou_store_close(store);
    pthread_join(thread, NULL);
    assert_true(server.executed >= 1);
    verrou_dispatch(queue, 0);
    assert_int_equal(user.answers, 1);
    assert_int_equal(user.status, VERROU_ECLOSED);
    verrou_lock_free(user.lock);
    assert_int_equal(verrou_store_open("pipe:", NULL, &store, NULL), VERROU_OK);
}

/* ---- many, of both kinds ---- */

#define MANY 400

static atomic_bool over;

static void *blocking_user(void *key)
{
    struct user user = new_user(key);

    while (!atomic_load(&over)) {
        assert_int_equal(verrou_lock_acquire(user.lock, NULL, NULL, NULL), VERROU_OK);
        assert_int_equal(verrou_lock_release(user.lock, NULL, NULL), VERROU_OK);
    }
    verrou_lock_free(user.lock);
    return NULL;
}

static void *looping_user(void *key)
{
    struct user user = new_user(key);
    verrou_queue *own = NULL;

    assert_int_equal(verrou_queue_new(&own, NULL), VERROU_OK);
    for (int i = 0; i < MANY; i++) {
        acquire(&user, own);
        loop_until_answered(&user, own);
        if (i % 16 == 0)
            server.says = i % 32 ? '?' : 'y';
        release(&user, own);
        loop_until_answered(&user, own);
    }
    verrou_lock_free(user.lock);
    verrou_queue_free(own);
    return NULL;
}

static void loops_and_threads(void **state)
{
    char keys[5][2] = {"a", "b", "c", "d", "e"};
    pthread_t threads[5];

    (void)state;
    over = false;
    for (int i = 0; i < 5; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i < 3 ? looping_user : blocking_user, keys[i]), 0);
    for (int i = 0; i < 5; i++) {
        if (i == 3)
            over = true;
        pthread_join(threads[i], NULL);
    }
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)
    const struct CMUnitTest tests[] = {
        TEST(the_loop_fetches),
        TEST(others_are_one_batch),
        TEST(a_loop_that_does_not_come),
        TEST(an_answer_that_is_late),
        TEST(a_thread_takes_over),
        TEST(an_answer_that_asks),
        TEST(a_driver_that_refuses),
        TEST(a_lane_that_is_lost),
        TEST(an_end_at_rest),
        TEST(two_queues),
        TEST(a_queue_for_each_call),
        TEST(the_queue_goes_first),
        TEST(the_store_is_closed_meanwhile),
        TEST(loops_and_threads),
    };

    if (verrou_register_driver(&driver, NULL) != VERROU_OK)
        return 1;
    return cmocka_run_group_tests_name("answers that an event loop fetches", tests, NULL, NULL);
}
