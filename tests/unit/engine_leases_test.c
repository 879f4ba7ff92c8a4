/* engine_leases_test.c - keeping leases alive, the calls of one lease, losing it, and what the log says. */
#include "support/fixture.h"

#include <stdio.h>

#define MAX_RECORDS 200
#define THIRD_MS (1000 - ROUNDING_MS) /* when a lease of 3 seconds is renewed */

static struct process *process;
static struct {
    char event[40];
    char key[40];
    char text[600]; /* owner and message */
} records[MAX_RECORDS];
static size_t record_count;
static bool mutex_was_held;

static void log_record(void *user, const verrou_log_record *record)
{
    (void)user;
    if (pthread_mutex_trylock(&process->engine->mutex) != 0)
        mutex_was_held = true;
    else
        pthread_mutex_unlock(&process->engine->mutex);
    if (record_count == MAX_RECORDS)
        return;
    snprintf(records[record_count].event, sizeof(records[0].event), "%s", record->event);
    snprintf(records[record_count].key, sizeof(records[0].key), "%s", record->key ? record->key : "");
    snprintf(records[record_count++].text, sizeof(records[0].text), "%s %s", record->owner ? record->owner : "",
             record->message ? record->message : "");
}

static size_t events(const char *event)
{
    size_t count = 0;

    for (size_t i = 0; i < record_count; i++)
        count += strcmp(records[i].event, event) == 0;
    return count;
}

static int setup_process(void **state)
{
    struct world_options options = {.settings = "timeout=1s", .log = log_record, .log_level = VERROU_TRACE};

    if (setup(state) < 0)
        return -1;
    record_count = 0;
    mutex_was_held = false;
    process = world_open(&world, &options);
    return process ? 0 : -1;
}

static int teardown_process(void **state)
{
    int failed = teardown(state);

    assert_false(mutex_was_held);
    return failed;
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_process, teardown_process)

/* ---- keeping alive ---- */

/* A kept lease is renewed every third of its TTL, and so never ends. */
static void test_renewed_every_third(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    int64_t began_ms = world.now_ms;

    (void)state;
    hold(lock);
    world_pass(&world, 10500);
    assert_int_equal(world_requests(&world, VERROU_OP_EXTEND, "k"), 10);
    for (size_t i = 1; i < world.request_count; i++)
        assert_int_equal(world.requests[i].at_ms, began_ms + (int64_t)i * THIRD_MS);
    assert_int_equal(verrou_lock_check(lock), VERROU_OK);
    verrou_lock_free(lock);
    world_pass(&world, 10000);
    assert_int_equal(world_requests(&world, VERROU_OP_EXTEND, "k"), 10);
}

/* A renewal that fails is tried again until it works; the log says so. */
static void test_renewal_recovers(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);

    (void)state;
    hold(lock);
    world_pass(&world, THIRD_MS - 1);
    for (int i = 0; i < 3; i++)
        world_script(&world, (struct turn){.fate = SAY_FAILED});
    world_pass(&world, 1500);
    assert_int_equal(events("lease.renewal_failed"), 3);
    assert_int_equal(events("lease.lost"), 0);
    assert_true(verrou_lock_remaining_ms(lock) > 1500);
    verrou_lock_free(lock);
}

/* Renewals that fail to the end: the lease is lost when it has run out, and that is told once. */
static void test_renewal_fails_to_the_end(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    struct outcome lost;
    int64_t began_ms = world.now_ms;

    (void)state;
    hold(lock);
    world.fail_opens = 0;
    start_wait_lost(&lost, lock, VERROU_FOREVER);
    world_pass(&world, THIRD_MS - 1);
    for (int i = 0; i < 60; i++)
        world_script(&world, (struct turn){.fate = SAY_FAILED});
    world_pass(&world, 20000);
    assert_done(&lost, VERROU_ELOST);
    assert_int_equal(lost.at_ms, began_ms + 3000 - ROUNDING_MS);
    assert_int_equal(events("lease.lost"), 1);
    assert_int_equal(verrou_lock_check(lock), VERROU_ELOST);
    verrou_lock_free(lock);
}

/* The store says that the lease is gone: told at once, and once. */
static void test_renewal_finds_lease_gone(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    struct outcome lost;
    int64_t began_ms = world.now_ms;

    (void)state;
    hold(lock);
    start_wait_lost(&lost, lock, VERROU_FOREVER);
    world_seize(&world, "k", "stranger", 60000);
    world_pass(&world, 20000);
    assert_done(&lost, VERROU_ELOST);
    assert_int_equal(lost.at_ms, began_ms + THIRD_MS);
    assert_int_equal(events("lease.lost"), 1);
    assert_int_equal(world_requests(&world, VERROU_OP_EXTEND, "k"), 1);
    verrou_lock_free(lock);
}

/* max_hold_ms ends the renewals, and with them the lease. */
static void test_max_hold(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, 2500);

    (void)state;
    hold(lock);
    world_pass(&world, 2 * THIRD_MS + 3000 - ROUNDING_MS - 1);
    assert_int_equal(world_requests(&world, VERROU_OP_EXTEND, "k"), 2);
    assert_int_equal(verrou_lock_check(lock), VERROU_OK);
    world_pass(&world, 1);
    assert_int_equal(verrou_lock_check(lock), VERROU_ELOST);
    verrou_lock_free(lock);
}

/* It counts for a restored lock too, from when it was restored. */
static void test_max_hold_of_restored_lock(void **state)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = new_lock(process, "k", 3000);
    verrou_lock *restored = NULL;
    char *json = NULL;

    (void)state;
    hold(lock);
    assert_int_equal(verrou_lock_serialize(lock, &json, NULL), VERROU_OK);
    options.keep_alive = 1;
    options.max_hold_ms = 2500;
    assert_int_equal(verrou_lock_restore(process->store, json, &options, &restored, NULL), VERROU_OK);
    world_pass(&world, 20000);
    assert_int_equal(verrou_lock_check(restored), VERROU_ELOST);
    verrou_free(json);
    verrou_lock_free(lock);
    verrou_lock_free(restored);
}

/* A lease that was extended for longer is not renewed before it needs it. */
static void test_extended_lease_is_not_renewed_early(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    struct outcome outcome;

    (void)state;
    hold(lock);
    start_extend(&outcome, lock, 60000, 1000);
    world_pass(&world, 50000);
    assert_int_equal(world_requests(&world, VERROU_OP_EXTEND, "k"), 1);
    world_pass(&world, 30000);
    assert_int_equal(verrou_lock_check(lock), VERROU_OK);
    verrou_lock_free(lock);
}

/* ---- the calls of one lease ---- */

static struct outcome later;
static verrou_lock *the_lock;
static int64_t at_ms;
static enum { NOTHING, START_RELEASE, START_EXTEND } what;

static void start_later(struct world *of)
{
    verrou_dispatch(queue, 0);
    if (of->now_ms != at_ms || what == NOTHING)
        return;
    if (what == START_RELEASE)
        start_release(&later, the_lock, 1000);
    else
        start_extend(&later, the_lock, 60000, 1000);
    what = NOTHING;
}

/* A release waits for the renewal that is on its way, and no renewal follows it. */
static void test_release_waits_for_renewal(void **state)
{
    (void)state;
    the_lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    hold(the_lock);
    world_pass(&world, THIRD_MS - 1);
    world.passing = start_later;
    what = START_RELEASE;
    at_ms = world.now_ms + 51;
    world_script(&world, (struct turn){.before_ms = 50, .after_ms = 50});
    world_pass(&world, 1000);
    assert_done(&later, VERROU_OK);
    assert_int_equal(later.at_ms, at_ms + 50);
    assert_false(world_held(&world, "k"));
    world_pass(&world, 20000);
    assert_int_equal(world_requests(&world, VERROU_OP_EXTEND, "k"), 1);
    assert_int_equal(events("lease.lost"), 0);
    verrou_lock_free(the_lock);
}

/* An extend that is asked for while a renewal is on its way has the last word. */
static void test_renewal_does_not_undo_extend(void **state)
{
    (void)state;
    the_lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    hold(the_lock);
    world_pass(&world, THIRD_MS - 1);
    world.passing = start_later;
    what = START_EXTEND;
    at_ms = world.now_ms + 51;
    world_script(&world, (struct turn){.before_ms = 50, .after_ms = 50});
    world_pass(&world, 1000);
    assert_done(&later, VERROU_OK);
    assert_int_equal(world_truth(&world, "k")->expires_ms, at_ms + 50 + 60000);
    verrou_lock_free(the_lock);
}

/* A renewal that falls due while an extend is on its way is dropped when it is its turn. */
static void test_parked_renewal_is_dropped(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    struct outcome outcome;

    (void)state;
    hold(lock);
    world_pass(&world, 950);
    world_script(&world, (struct turn){.before_ms = 50, .after_ms = 50});
    start_extend(&outcome, lock, 60000, 1000);
    world_pass(&world, 200);
    assert_done(&outcome, VERROU_OK);
    assert_int_equal(world_requests(&world, VERROU_OP_EXTEND, "k"), 1);
    assert_true(verrou_lock_remaining_ms(lock) > 50000);
    verrou_lock_free(lock);
}

/* Two releases: one frees the lock, the other is told that there is nothing to free. */
static void test_two_releases(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 30000);
    struct outcome first;
    struct outcome second;

    (void)state;
    hold(lock);
    start_release(&first, lock, 1000);
    start_release(&second, lock, 1000);
    world_settle(&world);
    assert_done(&first, VERROU_OK);
    assert_done(&second, VERROU_ENOTOWNED);
    assert_int_equal(events("lease.lost"), 0);
    verrou_lock_free(lock);
}

/* A release that names the token of an earlier acquisition frees nothing. */
static void test_release_of_an_earlier_lease(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 1000);
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
    uint64_t first;

    (void)state;
    hold(lock);
    first = verrou_lock_fence(lock);
    world_pass(&world, 1000);
    hold(lock);
    options.fence = first;
    assert_int_equal(verrou_lock_release(lock, &options, NULL), VERROU_ENOTOWNED);
    assert_int_equal(verrou_lock_check(lock), VERROU_OK);
    assert_true(world_held(&world, "k"));
    verrou_lock_free(lock);
}

/* A release that failed leaves the lease, and its renewals go on. */
static void test_failed_release_keeps_renewing(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    struct outcome outcome;

    (void)state;
    hold(lock);
    world_script(&world, (struct turn){.fate = SAY_FAILED});
    start_release(&outcome, lock, 1000);
    world_settle(&world);
    assert_done(&outcome, VERROU_ESTORAGE);
    world_pass(&world, 10000);
    assert_int_equal(verrou_lock_check(lock), VERROU_OK);
    verrou_lock_free(lock);
}

/* ---- waiting for the end ---- */

/* The lease runs out: ELOST at that moment. Without a lease: NOTOWNED. The limit first: ECANCELED. Released: OK. */
static void test_wait_lost(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 1000);
    struct outcome outcome;
    struct outcome released;
    int64_t began_ms = world.now_ms;

    (void)state;
    start_wait_lost(&outcome, lock, VERROU_FOREVER);
    world_settle(&world);
    assert_done(&outcome, VERROU_ENOTOWNED);

    hold(lock);
    start_wait_lost(&outcome, lock, VERROU_FOREVER);
    world_pass(&world, 3000);
    assert_done(&outcome, VERROU_ELOST);
    assert_int_equal(outcome.at_ms, began_ms + 1000 - ROUNDING_MS);

    hold(lock);
    began_ms = world.now_ms;
    start_wait_lost(&outcome, lock, 400);
    world_pass(&world, 500);
    assert_done(&outcome, VERROU_ECANCELED);
    assert_int_equal(outcome.at_ms, began_ms + 400);

    start_wait_lost(&outcome, lock, VERROU_FOREVER);
    start_release(&released, lock, 1000);
    world_settle(&world);
    assert_done(&released, VERROU_OK);
    assert_done(&outcome, VERROU_OK);
    verrou_lock_free(lock);
}

/* An extend moves the moment at which those who wait for the end are told. */
static void test_wait_lost_after_extend(void **state)
{
    verrou_lock *lock = new_lock(process, "k", 1000);
    struct outcome outcome;
    struct outcome extended;
    int64_t began_ms = world.now_ms;

    (void)state;
    hold(lock);
    start_wait_lost(&outcome, lock, VERROU_FOREVER);
    start_extend(&extended, lock, 5000, 1000);
    world_pass(&world, 5000 - ROUNDING_MS - 1);
    assert_int_equal(outcome.done, 0);
    world_pass(&world, 1);
    assert_done(&outcome, VERROU_ELOST);
    assert_int_equal(outcome.at_ms, began_ms + 5000 - ROUNDING_MS);
    verrou_lock_free(lock);
}

/* ---- the log ---- */

/* No record holds the random part of an owner: it authorises a release. (That the mutex is free is checked after every test.) */
static void test_log_has_no_secrets(void **state)
{
    verrou_lock *lock = new_kept_lock(process, "k", 3000, VERROU_FOREVER);
    verrou_lock *other = new_lock(process, "k", 3000);
    struct outcome outcome;
    char *owner = NULL;

    (void)state;
    hold(lock);
    assert_int_equal(verrou_lock_owner(lock, &owner, NULL), VERROU_OK);
    owner[32] = '\0';
    start_acquire(&outcome, other, 100);
    world_pass(&world, 2000);
    world_script(&world, (struct turn){.fate = LOSE_REPLY});
    start_release(&outcome, lock, 1000);
    world_settle(&world);
    assert_true(record_count > 5);
    for (size_t i = 0; i < record_count; i++)
        assert_null(strstr(records[i].text, owner));
    assert_int_equal(events("lock.acquired"), 1);
    assert_int_equal(events("lock.not_acquired"), 1);
    assert_int_equal(events("call.answer_lost"), 1);
    assert_int_equal(events("lock.released"), 1);
    verrou_free(owner);
    verrou_lock_free(lock);
    verrou_lock_free(other);
}

/* What a driver logs comes out formatted, at most 255 bytes of it, with the key as the application knows it. */
static void test_events_of_drivers(void **state)
{
    struct world_options options = {.settings = "prefix=app:", .log = log_record, .log_level = VERROU_WARN};
    char cut[256];

    (void)state;
    process = world_open(&world, &options);
    process->host.log(process->engine, VERROU_INFO, "driver.quiet", NULL, "below the level");
    process->host.log(process->engine, VERROU_WARN, "driver.keyed", "app:k", "%d of %s", 3, "four");
    process->host.log(process->engine, VERROU_WARN, "driver.long", NULL, "%0300d", 0);
    world_settle(&world);
    assert_int_equal(record_count, 2);
    assert_string_equal(records[0].event, "driver.keyed");
    assert_string_equal(records[0].key, "k");
    assert_string_equal(records[0].text, " 3 of four");
    assert_string_equal(records[1].key, "");
    memset(cut, '0', sizeof(cut));
    cut[255] = '\0';
    assert_string_equal(records[1].text + 1, cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_renewed_every_third),
        TEST(test_renewal_recovers),
        TEST(test_renewal_fails_to_the_end),
        TEST(test_renewal_finds_lease_gone),
        TEST(test_max_hold),
        TEST(test_max_hold_of_restored_lock),
        TEST(test_extended_lease_is_not_renewed_early),
        TEST(test_release_waits_for_renewal),
        TEST(test_renewal_does_not_undo_extend),
        TEST(test_parked_renewal_is_dropped),
        TEST(test_two_releases),
        TEST(test_release_of_an_earlier_lease),
        TEST(test_failed_release_keeps_renewing),
        TEST(test_wait_lost),
        TEST(test_wait_lost_after_extend),
        TEST(test_log_has_no_secrets),
        TEST(test_events_of_drivers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
