/* scripted.c - see scripted.h. One world at a time, one thread. */
#include "scripted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/host.h"

static struct world *the_world;

static int64_t world_now(void)
{
    the_world->now_ms += the_world->stutter_ms;
    return the_world->now_ms;
}

/* xorshift64* (Marsaglia; Vigna). */
uint64_t world_random(struct world *world)
{
    world->random ^= world->random >> 12;
    world->random ^= world->random << 25;
    world->random ^= world->random >> 27;
    return world->random * UINT64_C(2685821657736338717);
}

static uint64_t host_random(void)
{
    return world_random(the_world);
}

/* ---- the truth ---- */

struct truth *world_truth(struct world *world, const char *key)
{
    struct truth *truth;

    for (size_t i = 0; i < world->truth_count; i++)
        if (strcmp(world->truths[i].key, key) == 0)
            return &world->truths[i];
    assert_true(world->truth_count < MAX_TRUTHS);
    truth = &world->truths[world->truth_count++];
    memset(truth, 0, sizeof(*truth));
    snprintf(truth->key, sizeof(truth->key), "%s", key);
    return truth;
}

static bool truth_is_live(const struct world *world, const struct truth *truth)
{
    return truth->owner[0] && truth->expires_ms > world->now_ms;
}

bool world_held(struct world *world, const char *key)
{
    return truth_is_live(world, world_truth(world, key));
}

static int64_t end_of(const struct world *world, int64_t ttl_ms)
{
    return ttl_ms == VERROU_FOREVER ? VERROU_FOREVER : world->now_ms + ttl_ms;
}

static void tell_watches(struct world *world, const char *key)
{
    for (int p = 0; p < world->process_count && !world->deaf; p++)
        for (size_t i = 0; i < world->processes[p].watched_count; i++)
            if (strcmp(world->processes[p].watched[i].key, key) == 0)
                world->processes[p].watched[i].freed = true;
}

void world_seize(struct world *world, const char *key, const char *owner, int64_t ttl_ms)
{
    struct truth *truth = world_truth(world, key);

    snprintf(truth->owner, sizeof(truth->owner), "%s", owner);
    truth->expires_ms = end_of(world, ttl_ms);
    truth->fence++;
}

void world_free_key(struct world *world, const char *key)
{
    world_truth(world, key)->owner[0] = '\0';
    tell_watches(world, key);
}

static bool truth_matches(const struct world *world, const struct truth *truth, const char *owner, uint64_t fence)
{
    return truth_is_live(world, truth) && strcmp(truth->owner, owner) == 0 &&
           (fence == 0 || world->no_fence || fence == truth->fence);
}

/* Do to the truth what a request says. */
static bool truth_apply(struct world *world, verrou_op_kind kind, const char *key, const char *owner, int64_t ttl_ms,
                        uint64_t fence)
{
    struct truth *truth = world_truth(world, key);

    switch (kind) {
    case VERROU_OP_ACQUIRE:
        if (truth_is_live(world, truth))
            return false;
        snprintf(truth->owner, sizeof(truth->owner), "%s", owner);
        truth->expires_ms = end_of(world, ttl_ms);
        truth->fence++;
        return true;
    case VERROU_OP_RELEASE:
        if (!truth_matches(world, truth, owner, fence))
            return false;
        truth->owner[0] = '\0';
        tell_watches(world, key);
        return true;
    case VERROU_OP_EXTEND:
        if (!truth_matches(world, truth, owner, fence))
            return false;
        truth->expires_ms = end_of(world, ttl_ms);
        return true;
    case VERROU_OP_FORCE:
        truth->owner[0] = '\0';
        truth->forced_fence = truth->fence;
        tell_watches(world, key);
        return true;
    default:
        return truth_is_live(world, truth);
    }
}

static int32_t count_others(const struct process *process, const char *key)
{
    const struct world *world = process->world;
    int32_t others = 0;

    if (world->others != -1)
        return world->others == OTHERS_UNKNOWN ? -1 : world->others;
    for (int p = 0; p < world->process_count; p++)
        for (size_t i = 0; i < world->processes[p].watched_count; i++)
            others += p != process->index && strcmp(world->processes[p].watched[i].key, key) == 0;
    return others;
}

/* Carry out a request and, unless nobody will hear of it, write down the answer. */
static void op_apply(struct process *process, verrou_op *op, bool answer)
{
    struct world *world = process->world;
    struct truth *truth = world_truth(world, op->key);
    bool done = truth_apply(world, op->kind, op->key, op->owner ? op->owner : "", op->ttl_ms, op->fence);

    if (!answer)
        return;
    op->result = done ? VERROU_OP_APPLIED : VERROU_OP_REFUSED;
    if (op->kind == VERROU_OP_RELEASE || op->kind == VERROU_OP_FORCE)
        op->others = count_others(process, op->key);
    if (done && (op->kind == VERROU_OP_ACQUIRE || op->kind == VERROU_OP_EXTEND))
        op->fence = world->no_fence ? 0 : truth->fence;
    if (truth_is_live(world, truth) && !world->no_holder &&
        ((op->kind == VERROU_OP_ACQUIRE && !done) || op->kind == VERROU_OP_INSPECT))
        verrou__host.holder(op, truth->owner, strlen(truth->owner),
                            truth->expires_ms == VERROU_FOREVER ? VERROU_FOREVER : truth->expires_ms - world->now_ms,
                            world->no_fence ? 0 : truth->fence);
}

/* ---- requests that arrive late ---- */

static void late_add(struct world *world, const verrou_op *op, int64_t at_ms)
{
    struct late *late = &world->late[world->late_count];

    if (world->late_count == MAX_LATE)
        return; /* it got lost after all */
    world->late_count++;
    late->kind = op->kind;
    snprintf(late->key, sizeof(late->key), "%s", op->key);
    snprintf(late->owner, sizeof(late->owner), "%s", op->owner ? op->owner : "");
    late->ttl_ms = op->ttl_ms;
    late->fence = op->fence;
    late->at_ms = at_ms;
}

static void late_arrive(struct world *world)
{
    for (size_t i = 0; i < world->late_count;) {
        struct late late = world->late[i];

        if (late.at_ms > world->now_ms) {
            i++;
            continue;
        }
        world->late[i] = world->late[--world->late_count];
        truth_apply(world, late.kind, late.key, late.owner, late.ttl_ms, late.fence);
    }
}

/* ---- time ---- */

void world_settle(struct world *world)
{
    bool any = true;

    for (int rounds = 0; any; rounds++) {
        any = false;
        assert_true(rounds < 1000000); /* else something goes round in circles */
        late_arrive(world);
        for (int p = 0; p < world->process_count; p++)
            if (!world->processes[p].destroyed)
                any |= verrou__engine_step(world->processes[p].engine);
    }
    if (world->passing)
        world->passing(world);
}

static int64_t next_moment(const struct world *world, int64_t until_ms)
{
    int64_t next_ms = until_ms;

    for (int p = 0; p < world->process_count; p++)
        if (!world->processes[p].destroyed && verrou__engine_next_ms(world->processes[p].engine) < next_ms)
            next_ms = verrou__engine_next_ms(world->processes[p].engine);
    for (size_t i = 0; i < world->late_count; i++)
        if (world->late[i].at_ms < next_ms)
            next_ms = world->late[i].at_ms;
    return next_ms > world->now_ms ? next_ms : world->now_ms;
}

void world_until(struct world *world, int64_t until_ms)
{
    world_settle(world);
    while (world->now_ms < until_ms) {
        int64_t next_ms = next_moment(world, until_ms);

        world->now_ms = next_ms > world->now_ms ? next_ms : world->now_ms + 1;
        world_settle(world);
    }
}

void world_pass(struct world *world, int64_t ms)
{
    world_until(world, world->now_ms + ms);
}

/* ---- what becomes of a request ---- */

void world_script(struct world *world, struct turn turn)
{
    assert_true(world->script_end < MAX_SCRIPT);
    world->script[world->script_end++] = turn;
}

static struct turn next_turn(struct world *world, const verrou_op *op)
{
    if (world->script_at < world->script_end)
        return world->script[world->script_at++];
    if (world->decide)
        return world->decide(world, op);
    return (struct turn){.fate = HONEST};
}

static size_t request_add(struct process *process, const verrou_op *op, size_t batch, enum fate fate)
{
    struct world *world = process->world;
    struct request *request;

    if (world->request_count == world->request_room) {
        world->request_room = world->request_room ? world->request_room * 2 : 64;
        world->requests = realloc(world->requests, world->request_room * sizeof(*world->requests));
        assert_non_null(world->requests);
    }
    request = &world->requests[world->request_count];
    memset(request, 0, sizeof(*request));
    request->process = process->index;
    request->kind = op->kind;
    snprintf(request->key, sizeof(request->key), "%.*s", (int)sizeof(request->key) - 1, op->key);
    snprintf(request->owner, sizeof(request->owner), "%.*s", (int)sizeof(request->owner) - 1,
             op->owner ? op->owner : "");
    request->at_ms = world->now_ms;
    request->ttl_ms = op->ttl_ms;
    request->fence = op->fence;
    request->batch = batch;
    request->fate = fate;
    return world->request_count++;
}

size_t world_requests(const struct world *world, verrou_op_kind kind, const char *key)
{
    size_t count = 0;

    for (size_t i = 0; i < world->request_count; i++)
        count += (kind == 0 || world->requests[i].kind == kind) && (!key || strcmp(world->requests[i].key, key) == 0);
    return count;
}

static void check_op(const struct world *world, const verrou_op *op)
{
    bool has_owner = op->kind != VERROU_OP_FORCE && op->kind != VERROU_OP_INSPECT;

    assert_int_equal(op->result, VERROU_OP_UNSENT);
    assert_int_equal(op->others, -1);
    assert_int_equal(op->remaining_ms, -1);
    assert_int_equal(op->holder_is_owner, 0);
    assert_null(op->holder);
    assert_null(op->error);
    assert_int_equal(op->sent_ms, world->now_ms);
    assert_int_equal(strlen(op->key), op->key_len);
    assert_int_equal(op->owner != NULL, has_owner);
    if (op->owner)
        assert_int_equal(strlen(op->owner), op->owner_len);
    if (op->kind == VERROU_OP_ACQUIRE) {
        assert_true(op->ttl_ms > 0);
        assert_int_equal(op->fence, 0);
    }
}

/* Time that a driver's call takes: never past its deadline. */
static void take_time(struct world *world, int64_t ms, int64_t deadline_ms)
{
    int64_t until_ms = ms > deadline_ms - world->now_ms ? deadline_ms : world->now_ms + ms;

    if (ms > 0)
        world_until(world, until_ms);
}

static void op_no_answer(verrou_op *op)
{
    verrou__host.op_fail(op, VERROU_OP_UNKNOWN, 1, "LOST", "the answer got lost");
}

/* One request. Returns false if the connection is gone. */
static bool run_op(struct process *process, verrou_op *op, const struct turn *turn, int64_t deadline_ms)
{
    struct world *world = process->world;
    bool slow = world->now_ms + turn->before_ms >= deadline_ms && turn->before_ms > 0;

    if (turn->fate == KILL_LANE)
        return false;
    take_time(world, turn->before_ms, deadline_ms);
    if (slow && turn->fate != LATE) {
        op_no_answer(op); /* too slow: it never got there */
        return true;
    }
    switch (turn->fate) {
    case HONEST:
        op_apply(process, op, true);
        break;
    case LOSE_REPLY:
    case LOSE_LANE:
        op_apply(process, op, false);
        break;
    case LATE:
        late_add(world, op, world->now_ms + turn->late_ms);
        break;
    case SAY_RETRY:
        verrou__host.op_fail(op, VERROU_OP_RETRY, 1, "BUSY", "the store is busy");
        break;
    case SAY_FAILED:
        verrou__host.op_fail(op, VERROU_OP_FAILED, 0, "DENIED", "no right to do that");
        break;
    default:
        break;
    }
    if (world->now_ms + turn->after_ms >= deadline_ms && turn->after_ms > 0 && op->result != VERROU_OP_UNSENT) {
        take_time(world, turn->after_ms, deadline_ms);
        verrou__op_done(op);
        op->holder_is_owner = 0;
        op->remaining_ms = -1;
        op->others = -1;
        op_no_answer(op);
        return true;
    }
    take_time(world, turn->after_ms, deadline_ms);
    if (turn->fate == LOSE_REPLY || turn->fate == LOSE_REQUEST || turn->fate == LATE || turn->fate == LOSE_LANE)
        op_no_answer(op);
    return turn->fate != LOSE_LANE;
}

static verrou_status scripted_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                      verrou_error *err)
{
    struct process *process = state;
    struct world *world = process->world;
    bool *busy = lane;
    bool alive = true;

    assert_false(process->destroyed);
    if (busy) {
        assert_false(*busy);
        *busy = true;
        assert_true(deadline_ms > world->now_ms);
    }
    for (size_t i = 0; i < n; i++)
        check_op(world, ops[i]);
    for (size_t i = 0; i < n && alive; i++) {
        struct turn turn = next_turn(world, ops[i]);
        size_t request = request_add(process, ops[i], n, turn.fate);

        if (world->now_ms >= deadline_ms)
            break; /* the rest stays unsent */
        alive = run_op(process, ops[i], &turn, deadline_ms);
        world->requests[request].result = ops[i]->result;
    }
    if (busy)
        *busy = false;
    return alive ? VERROU_OK : verrou_error_set(err, VERROU_ESTORAGE, 1, "EPIPE", "the connection broke");
}

/* ---- the rest of the driver ---- */

static void scripted_destroy(void *state)
{
    struct process *process = state;

    for (int i = 0; i < MAX_LANES; i++)
        assert_false(process->lane_open[i]);
    assert_false(process->watch_open);
    process->destroyed = true;
}

static uint32_t scripted_caps(void *state)
{
    const struct process *process = state;

    return VERROU_CAP_SERVER_CLOCK | VERROU_CAP_FENCE | VERROU_CAP_SHARED |
           (process->world->no_fence ? 0 : VERROU_CAP_FENCE_STORED);
}

static verrou_status scripted_open(void *state, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    struct process *process = state;
    struct world *world = process->world;
    int i = 0;

    assert_true(deadline_ms > world->now_ms);
    world->opens++;
    take_time(world, world->open_ms, deadline_ms);
    if (world->fail_opens > 0) {
        world->fail_opens--;
        return verrou_error_set(err, VERROU_ESTORAGE, !world->fail_opens_for_good, "ECONNREFUSED",
                                "cannot connect to 10.0.0.7");
    }
    while (process->lane_open[i])
        i++;
    process->lane_open[i] = true;
    process->lane_busy[i] = false;
    *ret_lane = &process->lane_busy[i];
    return VERROU_OK;
}

static void scripted_close(void *state, void *lane)
{
    struct process *process = state;
    size_t i = (size_t)((bool *)lane - process->lane_busy);

    assert_true(process->lane_open[i]);
    assert_false(process->lane_busy[i]);
    process->lane_open[i] = false;
    process->world->closes++;
}

static verrou_status scripted_list(void *state, void *lane, const char *prefix, size_t prefix_len, int64_t deadline_ms,
                                   verrou_sink *sink, verrou_error *err)
{
    struct process *process = state;
    struct world *world = process->world;
    bool *busy = lane;

    (void)deadline_ms;
    world->lists++;
    if (busy)
        assert_false(*busy);
    for (size_t i = 0; i < world->truth_count; i++) {
        struct truth *truth = &world->truths[i];

        if (!truth_is_live(world, truth) || strncmp(truth->key, prefix, prefix_len) != 0)
            continue;
        if (verrou__host.list_add(sink, truth->key, strlen(truth->key), truth->owner, strlen(truth->owner),
                                  truth->expires_ms - world->now_ms, truth->fence) < 0)
            return verrou_error_set(err, VERROU_ENOMEM, 0, NULL, "out of memory");
    }
    return VERROU_OK;
}

static verrou_status scripted_check(void *state, void *lane, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    struct process *process = state;

    (void)lane;
    (void)deadline_ms;
    (void)err;
    process->world->checks++;
    verrou__host.finding(sink, VERROU_INFO, "clock", "moved by hand");
    return VERROU_OK;
}

static verrou_status scripted_schema(void *state, void *lane, int apply, int64_t deadline_ms, verrou_sink *sink,
                                     verrou_error *err)
{
    struct process *process = state;

    (void)lane;
    (void)apply;
    (void)deadline_ms;
    (void)err;
    process->world->schemas++;
    verrou__host.text_add(sink, "CREATE TABLE locks;");
    return VERROU_OK;
}

static verrou_status scripted_watch_open(void *state, int64_t deadline_ms, void **ret_watch, verrou_error *err)
{
    struct process *process = state;

    assert_false(process->watch_open);
    assert_true(deadline_ms > process->world->now_ms);
    process->world->watch_opens++;
    if (process->world->fail_watch_opens > 0) {
        process->world->fail_watch_opens--;
        return verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "no watch today");
    }
    process->watch_open = true;
    process->watched_count = 0;
    *ret_watch = process;
    return VERROU_OK;
}

static void scripted_watch_close(void *state, void *watch)
{
    struct process *process = state;

    assert_ptr_equal(watch, process);
    assert_true(process->watch_open);
    process->watch_open = false;
    process->watched_count = 0;
    process->world->watch_closes++;
}

static int scripted_watch_fd(void *state, void *watch)
{
    (void)state;
    (void)watch;
    return -1;
}

static size_t watched_find(const struct process *process, const char *key)
{
    size_t i = 0;

    while (i < process->watched_count && strcmp(process->watched[i].key, key) != 0)
        i++;
    return i;
}

static verrou_status scripted_watch_add(void *state, void *watch, const char *key, size_t key_len, verrou_error *err)
{
    struct process *process = state;

    (void)watch;
    assert_int_equal(strlen(key), key_len);
    assert_int_equal(watched_find(process, key), process->watched_count); /* not watched yet */
    assert_true(process->watched_count < MAX_WATCHED);
    if (process->world->fail_watch_adds > 0) {
        process->world->fail_watch_adds--;
        return verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "too many keys");
    }
    memset(&process->watched[process->watched_count], 0, sizeof(process->watched[0]));
    snprintf(process->watched[process->watched_count].key, sizeof(process->watched[0].key), "%s", key);
    process->watched_count++;
    return VERROU_OK;
}

static verrou_status scripted_watch_remove(void *state, void *watch, const char *key, size_t key_len, verrou_error *err)
{
    struct process *process = state;
    size_t i = watched_find(process, key);

    (void)watch;
    (void)key_len;
    (void)err;
    assert_true(i < process->watched_count);
    process->watched[i] = process->watched[--process->watched_count];
    return VERROU_OK;
}

static verrou_status scripted_watch_read(void *state, void *watch, verrou_watch_fn report, void *context,
                                         verrou_error *err)
{
    struct process *process = state;

    (void)watch;
    if (process->world->fail_watch_reads > 0) {
        process->world->fail_watch_reads--;
        return verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "the watch broke");
    }
    for (size_t i = 0; i < process->watched_count; i++) {
        const char *key = process->watched[i].key;

        if (!process->watched[i].told_active) {
            process->watched[i].told_active = true;
            report(context, VERROU_WATCH_ACTIVE, key, strlen(key));
        }
        if (process->watched[i].freed) {
            process->watched[i].freed = false;
            report(context, process->world->by_another ? VERROU_WATCH_RELEASED : VERROU_WATCH_FREE, key, strlen(key));
        }
    }
    if (process->wake_all) {
        process->wake_all = false;
        report(context, VERROU_WATCH_FREE, NULL, 0);
    }
    return VERROU_OK;
}

#define SCRIPTED(the_flags)                                                                               \
    .version = VERROU_STORE_VERSION, .flags = (the_flags) | VERROU_DRIVER_COMPARES, .default_lanes = 1,   \
    .max_lanes = 8, .destroy = scripted_destroy, .caps = scripted_caps, .open = scripted_open,            \
    .close = scripted_close, .execute = scripted_execute, .list = scripted_list, .check = scripted_check, \
    .schema = scripted_schema

static const char *const no_settings[] = {NULL};
static const verrou_driver plain_driver = {SCRIPTED(0), .settings = no_settings};
static const verrou_driver inline_driver = {SCRIPTED(VERROU_DRIVER_INLINE), .settings = no_settings};
static const verrou_driver watching_driver = {
    SCRIPTED(0),
    .settings = no_settings,
    .watch_open = scripted_watch_open,
    .watch_close = scripted_watch_close,
    .watch_fd = scripted_watch_fd,
    .watch_add = scripted_watch_add,
    .watch_remove = scripted_watch_remove,
    .watch_read = scripted_watch_read,
};

/* ---- worlds ---- */

void world_init(struct world *world)
{
    memset(world, 0, sizeof(*world));
    world->now_ms = 1000000;
    world->random = 1;
    world->others = -1;
    the_world = world;
    verrou__set_test_clock(world_now);
    verrou__set_test_manual(true);
}

struct process *world_open(struct world *world, const struct world_options *options)
{
    static const struct world_options plain = {0};
    const verrou_driver *driver = &plain_driver;
    struct process *process = &world->processes[world->process_count];
    verrou_store_options store = VERROU_STORE_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    char url[128];

    assert_true(world->process_count < MAX_PROCESSES);
    if (!options)
        options = &plain;
    if (options->watch)
        driver = &watching_driver;
    if (options->is_inline)
        driver = &inline_driver;
    memset(process, 0, sizeof(*process));
    process->world = world;
    process->index = world->process_count;
    store.log = options->log;
    store.log_user = options->log_user;
    store.log_level = options->log_level;
    snprintf(url, sizeof(url), "scripted:%s%s", options->settings ? "?" : "",
             options->settings ? options->settings : "");
    if (verrou__store_open_driver(driver, url, &store, process, &process->store, &err) != VERROU_OK) {
        print_error("%s\n", err.message);
        return NULL;
    }
    process->engine = verrou__store_engine_here(process->store);
    process->host = verrou__host;
    process->host.random = host_random;
    process->engine->host = &process->host;
    process->engine->seed = 1;
    world->process_count++;
    return process;
}

void world_close(struct process *process)
{
    if (!process->destroyed)
        verrou_store_close(process->store);
}

void world_done(struct world *world)
{
    for (int p = 0; p < world->process_count; p++)
        world_close(&world->processes[p]);
    free(world->requests);
    verrou__set_test_clock(NULL);
    verrou__set_test_manual(false);
    the_world = NULL;
}

void outcome_done(void *user, const verrou_result *result)
{
    struct outcome *outcome = user;

    outcome->done++;
    outcome->status = result->status;
    outcome->at_ms = outcome->world->now_ms;
    if (result->info)
        outcome->info = *result->info;
    if (result->error)
        outcome->error = *result->error;
}
