/* engine_waits_test.c - who waits for a lock, who asks for it, and when. */
#include "support/fixture.h"

static size_t allocated;
static size_t allocations;

static void *measuring_malloc(size_t size)
{
    allocations++;
    allocated += size;
    return malloc(size);
}

/* Locks of one key: the first is held, the others wait in their order. */
static void crowd(struct process *process, verrou_lock **locks, struct outcome *outcomes, int count)
{
    for (int i = 0; i < count; i++)
        locks[i] = new_lock(process, "k", 600000);
    hold(locks[0]);
    for (int i = 1; i < count; i++)
        start_acquire(&outcomes[i], locks[i], VERROU_FOREVER);
    world_settle(&world);
}

static void free_locks(verrou_lock **locks, int count)
{
    for (int i = 0; i < count; i++)
        verrou_lock_free(locks[i]);
}

/* Waiters of one process get the lock in the order in which they came. */
static void test_first_come_first_served(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[5];
    struct outcome outcomes[5];

    (void)state;
    for (int i = 0; i < 5; i++) {
        locks[i] = new_lock(process, "k", 30000);
        start_acquire(&outcomes[i], locks[i], VERROU_FOREVER);
    }
    world_settle(&world);
    for (int i = 0; i < 5; i++) {
        struct outcome released;

        for (int j = 0; j < 5; j++)
            assert_int_equal(outcomes[j].done, j <= i);
        start_release(&released, locks[i], 1000);
        world_settle(&world);
        assert_done(&released, VERROU_OK);
    }
    free_locks(locks, 5);
}

/* However many wait, only the first of them asks the store; and a waiter costs less than 1 KiB, its handle included. */
static void wait_with(size_t count)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock **locks = calloc(count, sizeof(verrou_lock *));
    struct outcome *outcomes = calloc(count, sizeof(*outcomes));
    size_t asked;
    size_t before;
    size_t before_count;

    world_seize(&world, "k", "stranger", 2000);
    allocated = allocations = 0;
    for (size_t i = 0; i < count; i++) {
        locks[i] = new_lock(process, "k", 30000);
        start_acquire(&outcomes[i], locks[i], VERROU_FOREVER);
    }
    world_settle(&world);
    before = allocated;
    before_count = allocations;
    assert_true(before / count < 1024);
    assert_true(before_count / count <= 2);
    assert_int_equal(world_requests(&world, 0, NULL), 1);
    world_pass(&world, 1999);
    asked = world_requests(&world, 0, NULL);
    assert_true(asked >= 1 + 1999 / 250 && asked <= 1 + 1999 / 125 + 1);
    world_pass(&world, 1);
    assert_int_equal(world_requests(&world, 0, NULL), asked + 1);
    assert_done(&outcomes[0], VERROU_OK);
    assert_int_equal(outcomes[1].done, 0);
    world_close(process);
    for (size_t i = 0; i < count; i++)
        verrou_lock_free(locks[i]);
    verrou_dispatch(queue, 0);
    free(locks);
    free(outcomes);
}

static void test_thousand_waiters(void **state)
{
    (void)state;
    wait_with(1000);
}

static void test_ten_thousand_waiters(void **state)
{
    (void)state;
    wait_with(10000);
}

/* An idle lock takes less than 256 bytes with a key of 10 bytes. */
static void test_idle_lock_is_small(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *lock;

    (void)state;
    allocated = allocations = 0;
    lock = new_lock(process, "0123456789", 30000);
    assert_true(allocated < 256);
    assert_int_equal(allocations, 1);
    verrou_lock_free(lock);
}

/* Handing the lock on costs one release and one acquire: nobody asks in between. */
static void test_hand_off_costs_nothing_extra(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[3];
    struct outcome outcomes[3];
    struct outcome released;

    (void)state;
    for (int i = 0; i < 3; i++) {
        locks[i] = new_lock(process, "k", 30000);
        start_acquire(&outcomes[i], locks[i], VERROU_FOREVER);
    }
    world_settle(&world);
    for (int i = 0; i < 3; i++) {
        assert_done(&outcomes[i], VERROU_OK);
        start_release(&released, locks[i], 1000);
        world_settle(&world);
    }
    assert_int_equal(world_requests(&world, VERROU_OP_ACQUIRE, "k"), 3);
    assert_int_equal(world_requests(&world, VERROU_OP_RELEASE, "k"), 3);
    free_locks(locks, 3);
}

/* The end of the holder's lease wakes the first waiter, to the millisecond. */
static void test_expiry_wakes(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_seize(&world, "k", "stranger", 90);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 89);
    assert_int_equal(outcome.done, 0);
    assert_int_equal(world_requests(&world, 0, NULL), 1);
    world_pass(&world, 1);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(lock);
}

/* Without push the first waiter asks again every delay, shortened at random by up to half. */
static void test_poll_with_jitter(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;
    int64_t shortest_ms = INT64_MAX;
    int64_t longest_ms = 0;

    (void)state;
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 60000);
    for (size_t i = 1; i < world.request_count; i++) {
        int64_t pause_ms = world.requests[i].at_ms - world.requests[i - 1].at_ms;

        shortest_ms = pause_ms < shortest_ms ? pause_ms : shortest_ms;
        longest_ms = pause_ms > longest_ms ? pause_ms : longest_ms;
    }
    assert_in_range(shortest_ms, 125, 150);
    assert_in_range(longest_ms, 225, 250);
    verrou_lock_free(lock);
}

/* While the store pushes and the holder is one of ours, the first waiter asks every 5 seconds only. */
static void test_slow_recheck_when_pushed(void **state)
{
    struct world_options watching = {.watch = true};
    struct process *holder = world_open(&world, &watching);
    struct process *waiter = world_open(&world, &watching);
    verrou_lock *held = new_lock(holder, "k", 3600000);
    verrou_lock *lock = new_lock(waiter, "k", 30000);
    struct outcome outcome;
    size_t asked;

    (void)state;
    hold(held);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    asked = world_requests(&world, VERROU_OP_ACQUIRE, NULL);
    assert_int_equal(asked, 3); /* the holder's, the first try, and one more when the watch works */
    world_pass(&world, 60000);
    assert_int_equal(world_requests(&world, VERROU_OP_ACQUIRE, NULL), asked + 12);
    verrou_lock_free(held);
    verrou_lock_free(lock);
}

/* A holder that does not publish (an owner of another form) is polled although the watch works. */
static void test_strangers_are_polled(void **state)
{
    struct world_options watching = {.watch = true};
    struct process *process = world_open(&world, &watching);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_seize(&world, "k", "kx82jd", VERROU_FOREVER);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 10000);
    assert_true(world_requests(&world, VERROU_OP_ACQUIRE, NULL) >= 40);
    verrou_lock_free(lock);
}

/* A release by another process is noticed at once through the watch. */
static void test_push_wakes(void **state)
{
    struct world_options watching = {.watch = true};
    struct process *holder = world_open(&world, &watching);
    struct process *waiter = world_open(&world, &watching);
    verrou_lock *held = new_lock(holder, "k", 3600000);
    verrou_lock *lock = new_lock(waiter, "k", 30000);
    struct outcome outcome;
    struct outcome released;

    (void)state;
    hold(held);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 1234);
    start_release(&released, held, 1000);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
    assert_int_equal(outcome.at_ms, released.at_ms);
    verrou_lock_free(held);
    verrou_lock_free(lock);
}

static struct process *woken;

/* Reports a release while the first waiter's request is on its way. */
static struct turn wake_while_flying(struct world *of, const verrou_op *op)
{
    (void)op;
    if (of->request_count == 2) {
        woken->wake_all = true;
        return (struct turn){.after_ms = 5};
    }
    return (struct turn){.fate = HONEST};
}

/* An event that arrives while the request is on its way makes the waiter try once more, and once only. */
static void test_event_while_flying(void **state)
{
    struct world_options watching = {.watch = true};
    verrou_lock *lock;
    struct outcome outcome;

    (void)state;
    woken = world_open(&world, &watching);
    lock = new_lock(woken, "k", 30000);
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_int_equal(world.request_count, 2);
    world.decide = wake_while_flying;
    world_pass(&world, 260); /* one poll, delayed by 5 ms, and its repetition */
    assert_in_range(world.requests[3].at_ms - world.requests[2].at_ms, 5, 5);
    verrou_lock_free(lock);
}

/* A watch that breaks: the waiter polls, the watch is opened again, and pushes again. */
static void test_watch_lost_and_found(void **state)
{
    struct world_options watching = {.watch = true};
    struct process *holder = world_open(&world, NULL);
    struct process *waiter = world_open(&world, &watching);
    verrou_lock *held = new_lock(holder, "k", 3600000);
    verrou_lock *lock = new_lock(waiter, "k", 30000);
    struct outcome outcome;
    struct outcome released;

    (void)state;
    hold(held);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_int_equal(world.watch_opens, 1);
    world.fail_watch_reads = 1;
    world_settle(&world);
    assert_int_equal(world.watch_closes, 1);
    world_pass(&world, 250);
    assert_int_equal(world.watch_opens, 2);
    world_pass(&world, 3000);
    start_release(&released, held, 1000);
    world_settle(&world);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(held);
    verrou_lock_free(lock);
}

/* Deaf watches cost time, not correctness: the slow recheck finds the lock free. */
static void test_missing_wake_up(void **state)
{
    struct world_options watching = {.watch = true};
    struct process *holder = world_open(&world, &watching);
    struct process *waiter = world_open(&world, &watching);
    verrou_lock *held = new_lock(holder, "k", 3600000);
    verrou_lock *lock = new_lock(waiter, "k", 30000);
    struct outcome outcome;
    struct outcome released;

    (void)state;
    hold(held);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    world.deaf = true;
    start_release(&released, held, 1000);
    world_settle(&world);
    assert_int_equal(outcome.done, 0);
    world_pass(&world, 5000);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(held);
    verrou_lock_free(lock);
}

/* With attempts = 3 and a delay of 250 ms the last attempt is made at 500 ms, and the answer is there then. */
static void test_attempts(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;
    int64_t began_ms = world.now_ms;

    (void)state;
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    start_acquire_with(&outcome, lock, VERROU_FOREVER, 3, NULL);
    world_pass(&world, 10000);
    assert_done(&outcome, VERROU_ENOTACQUIRED);
    assert_int_equal(outcome.at_ms, began_ms + 500);
    assert_int_equal(world.requests[world.request_count - 1].at_ms, began_ms + 500);
    assert_true(world.request_count >= 3);
    verrou_lock_free(lock);
}

/* One attempt asks once. */
static void test_one_attempt(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    start_acquire_with(&outcome, lock, VERROU_FOREVER, 1, NULL);
    world_settle(&world);
    assert_done(&outcome, VERROU_ENOTACQUIRED);
    assert_string_equal(outcome.info.owner, "stranger");
    assert_int_equal(world.request_count, 1);
    verrou_lock_free(lock);
}

/* The deadlines of the first waiter and of those behind it are met to the millisecond; each is told who holds the lock. */
static void test_deadlines_of_waiters(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[3];
    struct outcome outcomes[3];
    int64_t began_ms = world.now_ms;

    (void)state;
    world_seize(&world, "k", "stranger", VERROU_FOREVER);
    for (int i = 0; i < 3; i++) {
        locks[i] = new_lock(process, "k", 30000);
        start_acquire(&outcomes[i], locks[i], 100 + i);
    }
    world_pass(&world, 1000);
    for (int i = 0; i < 3; i++) {
        assert_done(&outcomes[i], VERROU_ENOTACQUIRED);
        assert_int_equal(outcomes[i].at_ms, began_ms + 100 + i);
        assert_string_equal(outcomes[i].info.owner, "stranger");
        verrou_lock_free(locks[i]);
    }
}

/* After a release that other processes wait for, this process does not ask for a few milliseconds. */
static void test_stepping_back(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    hold(lock);
    world.others = 1;
    start_release(&outcome, lock, 1000);
    world_settle(&world);
    start_acquire(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_int_equal(outcome.done, 0);
    world_pass(&world, STEP_BACK_MS);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(lock);
}

/* Stepping back ends when somebody else has had the lock; a release of unknown origin, which may be our own, does not end it. */
static void test_stepping_back_ends(void **state)
{
    struct world_options options = {.watch = true};
    struct process *process = world_open(&world, &options);
    verrou_lock *lock = new_lock(process, "k", 30000);
    verrou_lock *waiter = new_lock(process, "k", 30000);
    struct outcome outcome;

    (void)state;
    hold(lock);
    start_acquire(&outcome, waiter, VERROU_FOREVER); /* watches the key */
    world_settle(&world);
    for (int by_another = 0; by_another < 2; by_another++) {
        struct outcome release;

        world.others = 1;
        world.by_another = false;
        world_pass(&world, 10 * TURN_MS);
        start_release(&release, by_another ? waiter : lock, 1000);
        world_settle(&world);
        assert_done(&release, VERROU_OK);
        if (by_another)
            start_acquire(&outcome, lock, VERROU_FOREVER);
        world.by_another = by_another;
        world_free_key(&world, "k");
        world_settle(&world);
        assert_int_equal(outcome.done, by_another);
        world_pass(&world, STEP_BACK_MS);
        assert_done(&outcome, VERROU_OK);
    }
    verrou_lock_free(lock);
    verrou_lock_free(waiter);
}

/* While others wait, the lock goes from waiter to waiter of this process for one turn, and only then is left to them. */
static void test_turn(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[4];
    struct outcome outcomes[4];
    struct outcome release;

    (void)state;
    crowd(process, locks, outcomes, 4);
    world.others = 1;
    start_release(&release, locks[0], 1000);
    world_pass(&world, STEP_BACK_MS);
    assert_done(&outcomes[1], VERROU_OK); /* its turn begins */
    start_release(&release, locks[1], 1000);
    world_settle(&world);
    assert_done(&outcomes[2], VERROU_OK);
    world_pass(&world, TURN_MS); /* and ends */
    start_release(&release, locks[2], 1000);
    world_settle(&world);
    assert_int_equal(outcomes[3].done, 0);
    world_pass(&world, STEP_BACK_MS);
    assert_done(&outcomes[3], VERROU_OK);
    free_locks(locks, 4);
}

/*
 * During a turn a release and the request of the next waiter are one batch: so they are from the second release on, since the first
 * one tells whether others wait. A release that is not carried out costs the waiter nothing but a request.
 */
static void passes_on(int32_t others)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[4];
    struct outcome outcomes[4];
    struct outcome release;
    const struct request *last;

    crowd(process, locks, outcomes, 4);
    world.others = others;
    for (int i = 0; i < 2; i++) {
        start_release(&release, locks[i], 1000);
        world_pass(&world, others > 0 && i == 0 ? STEP_BACK_MS : 0);
        assert_done(&release, VERROU_OK);
        assert_done(&outcomes[i + 1], VERROU_OK);
    }
    last = &world.requests[world.request_count - 1];
    assert_int_equal(last->kind, VERROU_OP_ACQUIRE);
    assert_int_equal(last->batch, 2);

    world_script(&world, (struct turn){.fate = SAY_FAILED});
    start_release(&release, locks[2], 1000);
    world_settle(&world);
    assert_done(&release, VERROU_ESTORAGE);
    assert_int_equal(outcomes[3].done, 0);
    start_release(&release, locks[2], 1000);
    world_pass(&world, STEP_BACK_MS);
    assert_done(&outcomes[3], VERROU_OK);
    free_locks(locks, 4);
}

static void test_passing_on(void **state)
{
    (void)state;
    passes_on(0);
}

static void test_passing_on_in_turn(void **state)
{
    (void)state;
    passes_on(1);
}

/* How many releases in a row take the next waiter's request along, at most, where a batch takes that long. */
static int longest_turn(int64_t batch_ms, int32_t others)
{
    enum { COUNT = 16 };
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[COUNT];
    struct outcome outcomes[COUNT];
    int length = 0;
    int longest = 0;

    crowd(process, locks, outcomes, COUNT);
    world.others = others;
    for (int i = 0; i < COUNT - 1; i++) {
        struct outcome release;

        world_script(&world, (struct turn){.after_ms = batch_ms});
        start_release(&release, locks[i], 60000);
        world_settle(&world);
        assert_done(&release, VERROU_OK);
        if (!outcomes[i + 1].done)
            world_pass(&world, STEP_BACK_MS);
        assert_done(&outcomes[i + 1], VERROU_OK);
        length = world.requests[world.request_count - 1].batch == 2 ? length + 1 : 0;
        longest = length > longest ? length : longest;
    }
    world_close(process);
    world_free_key(&world, "k");
    free_locks(locks, COUNT);
    return longest;
}

/* With a store that takes its time a turn lasts for several batches, or it would be over before the second; but not for long. */
static void test_turn_of_a_slow_store(void **state)
{
    (void)state;
    for (int32_t others = 0; others < 2; others++) {
        int several = longest_turn(3, others);

        assert_true(several >= 4 && several <= 8);
        assert_true(longest_turn(100, others) <= 1);
    }
}

/* With a store that mostly answers within a millisecond a turn is a short one, however long it has been in use. */
static void test_turn_of_a_fast_store(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[6];
    struct outcome outcomes[6];
    struct outcome release;

    (void)state;
    crowd(process, locks, outcomes, 6);
    for (int i = 0; i < 300; i++) { /* one in ten comes on the next millisecond */
        verrou_lock *other = new_lock(process, "other", 1000);

        if (i % 10 == 0)
            world_script(&world, (struct turn){.after_ms = 1});
        hold(other);
        start_release(&release, other, 1000);
        world_settle(&world);
        verrou_lock_free(other);
    }
    world.others = 0;
    for (int i = 0; i < 5; i++) {
        start_release(&release, locks[i], 1000);
        world_settle(&world);
        assert_done(&outcomes[i + 1], VERROU_OK);
        assert_int_equal(world.requests[world.request_count - 1].batch, i % 2 ? 2 : 1);
        world_pass(&world, 1);
    }
    free_locks(locks, 6);
}

/* After a turn the key is free once, also if nobody is known to wait: not every store knows all who do. */
static void test_free_after_turn(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[5];
    struct outcome outcomes[5];
    struct outcome release;

    (void)state;
    crowd(process, locks, outcomes, 5);
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            world_pass(&world, TURN_MS);
        start_release(&release, locks[i], 1000);
        world_settle(&world);
        assert_done(&outcomes[i + 1], VERROU_OK);
        assert_int_equal(world.requests[world.request_count - 1].batch, i == 0 || i == 2 ? 1 : 2);
    }
    free_locks(locks, 5);
}

/* A store that cannot tell who waits: the key is free between any two waiters. */
static void test_no_blind_passing_on(void **state)
{
    struct process *process = world_open(&world, NULL);
    verrou_lock *locks[4];
    struct outcome outcomes[4];
    struct outcome release;

    (void)state;
    crowd(process, locks, outcomes, 4);
    world.others = OTHERS_UNKNOWN;
    for (int i = 0; i < 3; i++) {
        world_pass(&world, TURN_MS);
        start_release(&release, locks[i], 1000);
        world_settle(&world);
        assert_done(&outcomes[i + 1], VERROU_OK);
        assert_int_equal(world.requests[world.request_count - 1].batch, 1);
    }
    free_locks(locks, 4);
}

/* When the store does not answer the first waiter within its limit, those who waited as long are told as well, others are not. */
static void test_failure_is_shared(void **state)
{
    struct world_options options = {.settings = "timeout=1s"};
    struct process *process = world_open(&world, &options);
    verrou_lock *locks[3];
    struct outcome outcomes[3];

    (void)state;
    world.fail_opens = INT32_MAX;
    for (int i = 0; i < 3; i++)
        locks[i] = new_lock(process, "k", 30000);
    start_acquire(&outcomes[0], locks[0], VERROU_FOREVER);
    start_acquire(&outcomes[1], locks[1], VERROU_FOREVER);
    world_pass(&world, 500);
    start_acquire(&outcomes[2], locks[2], VERROU_FOREVER);
    world_pass(&world, 500);
    assert_done(&outcomes[0], VERROU_ESTORAGE);
    assert_done(&outcomes[1], VERROU_ESTORAGE);
    assert_int_equal(outcomes[2].done, 0);
    world.fail_opens = 0;
    world_pass(&world, 3000);
    assert_done(&outcomes[2], VERROU_OK);
    free_locks(locks, 3);
}

/* A first waiter whose own deadline falls into a request does not take those behind it along. */
static void test_short_deadline_is_not_shared(void **state)
{
    struct world_options options = {.settings = "timeout=1s"};
    struct process *process = world_open(&world, &options);
    verrou_lock *first = new_lock(process, "k", 30000);
    verrou_lock *second = new_lock(process, "k", 30000);
    struct outcome outcomes[2];

    (void)state;
    world_seize(&world, "k", "stranger", 5000);
    start_acquire(&outcomes[0], first, 4999);
    start_acquire(&outcomes[1], second, VERROU_FOREVER);
    world_pass(&world, 4600);
    world_script(&world, (struct turn){.after_ms = 600});
    world_pass(&world, 399);
    assert_done(&outcomes[0], VERROU_EUNKNOWN);
    world_pass(&world, 2000);
    assert_done(&outcomes[1], VERROU_OK);
    verrou_lock_free(first);
    verrou_lock_free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_first_come_first_served),
        TEST(test_thousand_waiters),
        TEST(test_ten_thousand_waiters),
        TEST(test_idle_lock_is_small),
        TEST(test_hand_off_costs_nothing_extra),
        TEST(test_expiry_wakes),
        TEST(test_poll_with_jitter),
        TEST(test_slow_recheck_when_pushed),
        TEST(test_strangers_are_polled),
        TEST(test_push_wakes),
        TEST(test_event_while_flying),
        TEST(test_watch_lost_and_found),
        TEST(test_missing_wake_up),
        TEST(test_attempts),
        TEST(test_one_attempt),
        TEST(test_deadlines_of_waiters),
        TEST(test_stepping_back),
        TEST(test_stepping_back_ends),
        TEST(test_turn),
        TEST(test_turn_of_a_slow_store),
        TEST(test_turn_of_a_fast_store),
        TEST(test_passing_on),
        TEST(test_passing_on_in_turn),
        TEST(test_free_after_turn),
        TEST(test_no_blind_passing_on),
        TEST(test_failure_is_shared),
        TEST(test_short_deadline_is_not_shared),
    };

    verrou_set_allocator(measuring_malloc, realloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
