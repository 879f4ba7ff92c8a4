/*
 * simulation_test.c - several processes, a few keys, a store that fails in every way it can, and random calls: after each
 * moment what the processes believe is compared with the truth.
 *
 * A run is decided by its seed alone. VERROU_SIMULATION_SEEDS and VERROU_SIMULATION_FIRST choose others than the few hundred of every
 * test run; a failure names its seed and the last things that happened. VERROU_SIMULATION_TRACE shows everything.
 */
#include "support/scripted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 4
#define HANDLES 30
#define STEPS 2000
#define PENDING 400
#define TRACE 40

static long live_blocks;

static void *counting_malloc(size_t size)
{
    void *block = malloc(size);

    live_blocks += block != NULL;
    return block;
}

static void *counting_realloc(void *block, size_t size)
{
    void *grown = realloc(block, size);

    live_blocks += block == NULL && grown != NULL;
    return grown;
}

static void counting_free(void *block)
{
    live_blocks -= block != NULL;
    free(block);
}

enum what { ACQUIRE, RELEASE, EXTEND, INSPECT, FORCE, WAIT, WHATS };
static const char *const what_names[] = {"acquire", "release", "extend", "inspect", "force", "wait"};

struct handle {
    verrou_lock *lock;
    struct process *process;
    int key;
    bool fixed_owner;
    int acquiring, releasing, extending, waiting;
};

struct call {
    enum what what;
    struct handle *handle;
    verrou_lock *lock;
    struct process *process;
    int key;
    int64_t begun_ms;
    int64_t deadline_ms;
    uint64_t number; /* in order of submission */
    bool in_line;    /* an acquire that waits without counting attempts */
    bool busy;
    verrou_cancel *cancel;
    bool canceled;
};

static struct simulation {
    struct world world;
    verrou_queue *queue;
    struct handle handles[HANDLES];
    struct call calls[PENDING];
    uint64_t numbers;
    uint32_t fault_per_mille;
    uint32_t slow_per_mille;
    bool calm; /* no more faults */
    bool loud;
    uint64_t seed;
    int step;
    char trace[TRACE][160];
    unsigned traced;
    long done[WHATS][13];
} sim;

static uint64_t chance(uint64_t n)
{
    return (world_random(&sim.world) >> 11) % n;
}

static void trace(const char *format, ...) VERROU_PRINTF(1, 2);
static void trace(const char *format, ...)
{
    char *line = sim.trace[sim.traced++ % TRACE];
    va_list args;
    int used =
        snprintf(line, sizeof(sim.trace[0]), "step %d, %lld ms: ", sim.step, (long long)(sim.world.now_ms - 1000000));

    va_start(args, format);
    vsnprintf(line + used, sizeof(sim.trace[0]) - (size_t)used, format, args);
    va_end(args);
    if (sim.loud)
        print_message("%s\n", line);
}

static void broken(const char *format, ...) VERROU_PRINTF(1, 2);
static void broken(const char *format, ...)
{
    va_list args;

    print_error("seed %llu: ", (unsigned long long)sim.seed);
    va_start(args, format);
    vprint_error(format, args);
    va_end(args);
    print_error("\n");
    for (unsigned i = sim.traced > TRACE ? sim.traced - TRACE : 0; i < sim.traced; i++)
        print_error("    %s\n", sim.trace[i % TRACE]);
    fail();
}

static const char *key_name(int key)
{
    static const char *const names[KEYS] = {"a", "b", "c", "d"};

    return names[key];
}

static int handle_number(const struct handle *handle)
{
    return (int)(handle - sim.handles);
}

/* ---- what must hold at any moment ---- */

static void check_handle(const struct handle *handle)
{
    const struct truth *truth = world_truth(&sim.world, key_name(handle->key));
    int64_t left_ms = verrou_lock_remaining_ms(handle->lock);
    char *owner = NULL;

    /* An extend by a fixed owner does not know which lease it will meet. */
    if (handle->releasing || (handle->fixed_owner && handle->extending) || handle->process->destroyed ||
        verrou_lock_check(handle->lock) != VERROU_OK || verrou_lock_fence(handle->lock) <= truth->forced_fence)
        return;
    assert_int_equal(verrou_lock_owner(handle->lock, &owner, NULL), VERROU_OK);
    if (strcmp(owner, truth->owner) != 0)
        broken("handle %d believes that it holds %s, which is of \"%s\"", handle_number(handle), truth->key,
               truth->owner);
    if (truth->fence != verrou_lock_fence(handle->lock))
        broken("handle %d has token %llu of %s, the store %llu", handle_number(handle),
               (unsigned long long)verrou_lock_fence(handle->lock), truth->key, (unsigned long long)truth->fence);
    if (left_ms == VERROU_FOREVER ? truth->expires_ms != VERROU_FOREVER
                                  : truth->expires_ms - sim.world.now_ms < left_ms)
        broken("handle %d believes in %lld ms of %s, the store gives it %lld", handle_number(handle),
               (long long)left_ms, truth->key, (long long)(truth->expires_ms - sim.world.now_ms));
    verrou_free(owner);
}

static void check_all(struct world *world)
{
    verrou_dispatch(sim.queue, 0);
    for (int i = 0; i < HANDLES; i++)
        if (sim.handles[i].lock)
            check_handle(&sim.handles[i]);
    for (int i = 0; i < PENDING; i++)
        if (sim.calls[i].busy && sim.calls[i].deadline_ms <= world->now_ms)
            broken("%s by handle %d is not answered at its deadline", what_names[sim.calls[i].what],
                   handle_number(sim.calls[i].handle));
}

/* ---- calls ---- */

static void check_order(const struct call *call)
{
    for (int i = 0; i < PENDING; i++) {
        const struct call *other = &sim.calls[i];

        if (other->busy && other->what == ACQUIRE && other->in_line && other->process == call->process &&
            other->key == call->key && other->number < call->number && !other->canceled)
            broken("handle %d got %s before handle %d, which came first", handle_number(call->handle),
                   key_name(call->key), handle_number(other->handle));
    }
}

/* What each kind of call may end with here. */
#define STATUS(status) (1u << (status))
#define FAULTS (STATUS(VERROU_ESTORAGE) | STATUS(VERROU_OK))
static const unsigned allowed[WHATS] = {
    [ACQUIRE] = FAULTS | STATUS(VERROU_ENOTACQUIRED) | STATUS(VERROU_ECANCELED) | STATUS(VERROU_EUNKNOWN),
    [RELEASE] = FAULTS | STATUS(VERROU_ENOTOWNED) | STATUS(VERROU_EUNKNOWN),
    [EXTEND] = FAULTS | STATUS(VERROU_ENOTOWNED) | STATUS(VERROU_EUNKNOWN),
    [INSPECT] = FAULTS,
    [FORCE] = FAULTS | STATUS(VERROU_EUNKNOWN),
    [WAIT] = STATUS(VERROU_OK) | STATUS(VERROU_ELOST) | STATUS(VERROU_ENOTOWNED) | STATUS(VERROU_ECANCELED) |
             STATUS(VERROU_EUNKNOWN),
};

static void call_done(void *user, const verrou_result *result)
{
    struct call *call = user;

    trace("%s by handle %d of %s: %s", what_names[call->what], handle_number(call->handle), key_name(call->key),
          verrou_status_name(result->status));
    sim.done[call->what][result->status]++;
    if (!call->busy)
        broken("a call was answered twice");
    if (sim.world.now_ms > call->deadline_ms)
        broken("%s by handle %d was answered %lld ms after its deadline", what_names[call->what],
               handle_number(call->handle), (long long)(sim.world.now_ms - call->deadline_ms));
    if (call->canceled && result->status != VERROU_ECANCELED)
        broken("a cancelled call ended with %s", verrou_status_name(result->status));
    if (!(allowed[call->what] & STATUS(result->status)))
        broken("%s ended with %s", what_names[call->what], verrou_status_name(result->status));
    call->busy = false;
    if (call->what == ACQUIRE) {
        call->handle->acquiring--;
        if (result->status == VERROU_OK && call->in_line)
            check_order(call);
        if (result->status == VERROU_OK && result->info->remaining_ms <= 0)
            broken("handle %d got a lease that has run out", handle_number(call->handle));
    }
    call->handle->releasing -= call->what == RELEASE;
    call->handle->extending -= call->what == EXTEND;
    call->handle->waiting -= call->what == WAIT;
    verrou_cancel_free(call->cancel);
    call->cancel = NULL;
}

static struct call *call_begin_any(enum what what, struct handle *handle, int64_t deadline_ms)
{
    int i = 0;

    while (i < PENDING && sim.calls[i].busy)
        i++;
    if (i == PENDING)
        return NULL;
    sim.calls[i] = (struct call){.what = what,
                                 .handle = handle,
                                 .process = handle->process,
                                 .key = handle->key,
                                 .begun_ms = sim.world.now_ms,
                                 .deadline_ms = deadline_ms,
                                 .number = ++sim.numbers,
                                 .busy = true};
    return &sim.calls[i];
}

static void accepted(struct call *call, verrou_status status)
{
    if (status == VERROU_OK)
        return;
    call->busy = false;
    if (status != VERROU_EINVAL && status != VERROU_ENOTOWNED)
        broken("%s was not accepted: %s", what_names[call->what], verrou_status_name(status));
    call->handle->acquiring -= call->what == ACQUIRE;
    call->handle->releasing -= call->what == RELEASE;
    call->handle->extending -= call->what == EXTEND;
    call->handle->waiting -= call->what == WAIT;
}

static void do_acquire(struct handle *handle)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    struct call *call = call_begin_any(ACQUIRE, handle, VERROU_FOREVER);

    if (!call)
        return;
    switch (chance(6)) {
    case 0:
        options.attempts = 1;
        break;
    case 1:
        options.attempts = 2 + (int64_t)chance(5);
        break;
    case 2:
        options.timeout_ms = 0;
        break;
    case 3:
        break;
    default:
        options.timeout_ms = 1 + (int64_t)chance(3000);
        call->deadline_ms = sim.world.now_ms + options.timeout_ms;
        break;
    }
    options.delay_ms = 1 + (int64_t)chance(300);
    call->in_line = options.attempts == VERROU_DEFAULT && options.timeout_ms != 0;
    if (chance(4) == 0) {
        assert_int_equal(verrou_cancel_new(&call->cancel, NULL), VERROU_OK);
        options.cancel = call->cancel;
    }
    handle->acquiring++;
    trace("handle %d acquires %s (attempts %lld, timeout %lld)", handle_number(handle), key_name(handle->key),
          (long long)(options.attempts < 0 ? -1 : options.attempts),
          (long long)(options.timeout_ms < 0 ? -1 : options.timeout_ms));
    accepted(call, verrou_lock_acquire_async(handle->lock, &options, sim.queue, call_done, call, NULL));
}

static void do_on_lease(struct handle *handle, enum what what)
{
    verrou_call_options options = VERROU_CALL_OPTIONS_INIT;
    struct call *call;
    verrou_status status;
    int64_t ttl_ms = chance(20) == 0 ? VERROU_FOREVER : 1 + (int64_t)chance(4000);

    if (chance(3) == 0)
        options.timeout_ms = 1 + (int64_t)chance(300);
    call = call_begin_any(what, handle, sim.world.now_ms + (options.timeout_ms > 0 ? options.timeout_ms : 1000));
    if (!call)
        return;
    if (what == WAIT && options.timeout_ms < 0)
        call->deadline_ms = VERROU_FOREVER;
    handle->releasing += what == RELEASE;
    handle->extending += what == EXTEND;
    handle->waiting += what == WAIT;
    trace("handle %d: %s %s (timeout %lld)", handle_number(handle), what_names[what], key_name(handle->key),
          (long long)(options.timeout_ms < 0 ? -1 : options.timeout_ms));
    if (what == RELEASE)
        status = verrou_lock_release_async(handle->lock, &options, sim.queue, call_done, call, NULL);
    else if (what == EXTEND)
        status = verrou_lock_extend_async(handle->lock, ttl_ms, &options, sim.queue, call_done, call, NULL);
    else if (what == INSPECT)
        status = verrou_lock_inspect_async(handle->lock, &options, sim.queue, call_done, call, NULL);
    else if (what == FORCE)
        status = verrou_lock_force_release_async(handle->lock, &options, sim.queue, call_done, call, NULL);
    else
        status = verrou_lock_wait_lost_async(handle->lock, &options, sim.queue, call_done, call, NULL);
    accepted(call, status);
}

static void do_cancel(void)
{
    int start = (int)chance(PENDING);

    for (int n = 0; n < PENDING; n++) {
        struct call *call = &sim.calls[(start + n) % PENDING];

        if (!call->busy || !call->cancel || call->canceled)
            continue;
        verrou_dispatch(sim.queue, 0);
        if (!call->busy)
            return;
        trace("cancel of handle %d", handle_number(call->handle));
        call->canceled = true;
        verrou_cancel_fire(call->cancel);
        return;
    }
}

/* ---- the actors ---- */

static void make_handle(struct handle *handle)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    char owner[32];

    handle->process = &sim.world.processes[chance((uint64_t)sim.world.process_count)];
    handle->key = (int)chance(KEYS);
    options.ttl_ms = 20 + (int64_t)chance(3000);
    if (chance(8) == 0)
        options.ttl_ms = VERROU_FOREVER;
    if (chance(3) == 0)
        options.keep_alive = 1;
    if (options.keep_alive && chance(2) == 0)
        options.max_hold_ms = 1 + (int64_t)chance(5000);
    handle->fixed_owner = chance(6) == 0;
    if (handle->fixed_owner) {
        snprintf(owner, sizeof(owner), "fixed-%d", handle_number(handle));
        options.owner = owner;
    }
    handle->acquiring = handle->releasing = handle->extending = handle->waiting = 0;
    assert_int_equal(verrou_lock_new(handle->process->store, key_name(handle->key), &options, &handle->lock, NULL),
                     VERROU_OK);
}

/* A lease that never ends would stay for ever. */
static bool may_drop(const struct handle *handle)
{
    return verrou_lock_ttl_ms(handle->lock) != VERROU_FOREVER &&
           verrou_lock_remaining_ms(handle->lock) != VERROU_FOREVER &&
           world_truth(&sim.world, key_name(handle->key))->expires_ms != VERROU_FOREVER;
}

static struct turn decide(struct world *world, const verrou_op *op)
{
    struct turn turn = {.fate = HONEST};

    (void)world;
    if (sim.calm)
        return turn;
    if (chance(1000) < sim.slow_per_mille) {
        turn.before_ms = chance(4) == 0 ? (int64_t)chance(1500) : (int64_t)chance(20);
        turn.after_ms = chance(4) == 0 ? (int64_t)chance(1500) : (int64_t)chance(20);
    }
    if (chance(1000) < sim.fault_per_mille)
        turn.fate = (enum fate)(1 + chance(LOSE_LANE));
    /*
     * Three known limits. Arriving late, a forced release frees whatever is there by then, an extend shortens a lease that was extended for
     * longer since, and a release without token frees a later lease of the same fixed owner.
     */
    if (turn.fate == LATE && (op->kind == VERROU_OP_FORCE || op->kind == VERROU_OP_EXTEND ||
                              (op->kind == VERROU_OP_RELEASE && op->fence == 0)))
        turn.fate = LOSE_REQUEST;
    /* A release in the background that is refused for good leaves its lock, and an event; here nothing may be left. */
    if (turn.fate == SAY_FAILED && op->kind == VERROU_OP_RELEASE)
        turn.fate = SAY_RETRY;
    turn.late_ms = (int64_t)chance(5000);
    if (turn.fate != HONEST)
        trace("fate %d of %s %s by %.8s", (int)turn.fate,
              op->kind == VERROU_OP_INSPECT ? "inspect" : what_names[op->kind - 1], op->key,
              op->owner ? op->owner : "");
    return turn;
}

static void bad_luck(void)
{
    switch (chance(6)) {
    case 0:
        sim.world.fail_opens = (int)chance(4);
        sim.world.fail_opens_for_good = chance(4) == 0;
        break;
    case 1:
        sim.world.open_ms = (int64_t)chance(50);
        break;
    case 2:
        sim.world.fail_watch_reads = 1;
        break;
    case 3:
        sim.world.fail_watch_opens = (int)chance(3);
        break;
    case 4:
        sim.world.processes[chance((uint64_t)sim.world.process_count)].wake_all = true;
        break;
    default:
        sim.world.deaf = chance(2) == 0;
        break;
    }
}

static void step(void)
{
    struct handle *handle = &sim.handles[chance(HANDLES)];
    uint64_t dice = chance(100);

    if (dice < 30) {
        if (handle->acquiring < 2)
            do_acquire(handle);
    } else if (dice < 50) {
        /* So may a release by a fixed owner, which has no token to tell the leases of that owner apart: known limits. */
        if (verrou_lock_check(handle->lock) == VERROU_OK ? !(handle->fixed_owner && handle->acquiring)
                                                         : chance(10) == 0 && !handle->fixed_owner)
            do_on_lease(handle, RELEASE);
    } else if (dice < 60) {
        /* An extend by a fixed owner may meet a lease of an acquisition that is being given up. */
        if (!handle->fixed_owner || (!handle->acquiring && verrou_lock_check(handle->lock) == VERROU_OK))
            do_on_lease(handle, EXTEND);
    } else if (dice < 62) {
        do_on_lease(handle, INSPECT);
    } else if (dice < 63) {
        if (chance(5) == 0)
            do_on_lease(handle, FORCE);
    } else if (dice < 65) {
        do_on_lease(handle, WAIT);
    } else if (dice < 70) {
        do_cancel();
    } else if (dice < 72) {
        bad_luck();
    } else if (dice < 74) {
        if (!handle->acquiring && !handle->releasing && !handle->extending && !handle->waiting && may_drop(handle)) {
            verrou_lock_free(handle->lock);
            make_handle(handle);
        }
    } else {
        world_pass(&sim.world, chance(20) == 0 ? (int64_t)chance(6000) : (int64_t)chance(60));
    }
    world_settle(&sim.world);
}

/* ---- a run ---- */

static bool any_busy(void)
{
    for (int i = 0; i < PENDING; i++)
        if (sim.calls[i].busy)
            return true;
    return false;
}

/* What was asked of the store by the one who has the key now. */
static void show_requests(const char *owner)
{
    static const char *const kinds[] = {"?", "acquire", "release", "extend", "force", "inspect"};

    for (size_t i = 0; i < sim.world.request_count; i++) {
        const struct request *request = &sim.world.requests[i];

        if (strncmp(request->owner, owner, 32) == 0)
            print_error("    %lld ms: %s %s ttl %lld token %llu, fate %d, result %d\n",
                        (long long)(request->at_ms - 1000000), kinds[request->kind], request->key,
                        (long long)request->ttl_ms, (unsigned long long)request->fence, (int)request->fate,
                        (int)request->result);
    }
}

static void broken_pending(void)
{
    for (int i = 0; i < PENDING; i++)
        if (sim.calls[i].busy)
            show_requests(world_truth(&sim.world, key_name(sim.calls[i].key))->owner);
    for (int i = 0; i < PENDING; i++)
        if (sim.calls[i].busy)
            broken("%s of %s by handle %d is never answered (begun at %lld; the key is of \"%s\" for %lld ms)",
                   what_names[sim.calls[i].what], key_name(sim.calls[i].key), handle_number(sim.calls[i].handle),
                   (long long)(sim.calls[i].begun_ms - 1000000),
                   world_truth(&sim.world, key_name(sim.calls[i].key))->owner,
                   (long long)(world_truth(&sim.world, key_name(sim.calls[i].key))->expires_ms - sim.world.now_ms));
}

/* With a store that works again everything comes to rest, and nothing stays locked. */
static void come_to_rest(void)
{
    sim.calm = true;
    sim.world.fail_opens = sim.world.fail_watch_opens = sim.world.fail_watch_reads = 0;
    for (int round = 0; round < 3 || any_busy(); round++) {
        if (round == 200)
            broken_pending();
        if (round > 20)
            do_cancel();
        world_pass(&sim.world, 2000);
        for (int i = 0; i < HANDLES; i++)
            if (round > 20 || !sim.handles[i].acquiring || verrou_lock_check(sim.handles[i].lock) == VERROU_OK)
                do_on_lease(&sim.handles[i], RELEASE);
        world_pass(&sim.world, 2000);
    }
    for (int i = 0; i < HANDLES; i++)
        do_on_lease(&sim.handles[i], RELEASE);
    world_pass(&sim.world, 70000);
    for (size_t i = 0; i < sim.world.truth_count; i++)
        if (world_held(&sim.world, sim.world.truths[i].key))
            broken("%s is still locked by %s", sim.world.truths[i].key, sim.world.truths[i].owner);
}

static void run(uint64_t seed)
{
    static const char *const settings[] = {"timeout=1s&lanes=1", "timeout=1s&lanes=2", "timeout=1s&lanes=3"};
    long before = live_blocks;

    memset(&sim, 0, offsetof(struct simulation, done));
    sim.seed = seed;
    sim.loud = getenv("VERROU_SIMULATION_TRACE") != NULL;
    world_init(&sim.world);
    sim.world.random = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    sim.world.decide = decide;
    sim.world.passing = check_all;
    sim.fault_per_mille = (uint32_t)chance(300);
    sim.slow_per_mille = (uint32_t)chance(300);
    assert_int_equal(verrou_queue_new(&sim.queue, NULL), VERROU_OK);
    for (int p = 0; p < 3; p++) {
        struct world_options options = {.settings = settings[chance(3)], .watch = chance(2) == 0};

        assert_non_null(world_open(&sim.world, &options));
    }
    for (int i = 0; i < HANDLES; i++)
        make_handle(&sim.handles[i]);
    for (sim.step = 0; sim.step < STEPS; sim.step++)
        step();
    come_to_rest();
    for (int i = 0; i < HANDLES; i++)
        verrou_lock_free(sim.handles[i].lock);
    world_done(&sim.world);
    verrou_queue_free(sim.queue);
    if (live_blocks != before)
        broken("%ld blocks were not freed", live_blocks - before);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* Whatever fails, in whatever order: what the processes believe is true, calls end in time and once, nothing is left behind. */
static void test_random_runs(void **state)
{
    uint64_t first = number_from("VERROU_SIMULATION_FIRST", 1);
    uint64_t seeds = number_from("VERROU_SIMULATION_SEEDS", 300);

    (void)state;
    for (uint64_t seed = first; seed < first + seeds; seed++)
        run(seed);
    for (int w = 0; w < WHATS; w++) {
        print_message("%s:", what_names[w]);
        for (int s = 0; s < 13; s++)
            if (sim.done[w][s])
                print_message(" %s %ld", verrou_status_name((verrou_status)s), sim.done[w][s]);
        print_message("\n");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_runs)};

    verrou_set_allocator(counting_malloc, counting_realloc, counting_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
