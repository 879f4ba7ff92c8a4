/*
 * faults_testing.c - see faults_testing.h. A scene is one store, one lock, one call, and what became of it.
 */
#include "faults_testing.h"

#include "process.h"

#include <poll.h>
#include <pthread.h>

/* Longer than anything is waited for: none that is left behind ends by itself. */
#define LEASE_MS 120000
#define LONGER_MS 240000

#define COUNT(array) (sizeof(array) / sizeof *(array))

fault_proxy *faults_proxy;
static const faulty_store *faulty;

void faults_use(const faulty_store *store)
{
    faulty = store;
}

int faults_begin(void **unused)
{
    (void)unused;
    faulty->empty();
    faults_proxy = proxy_start_for(faulty->protocol, faulty->port());
    return 0;
}

int faults_end(void **unused)
{
    (void)unused;
    proxy_stop(faults_proxy);
    faults_proxy = NULL;
    return 0;
}

/* ---- stores and locks ---- */

const verrou_call_options faults_patient = {sizeof faults_patient, PROCESS_PATIENCE_MS / 2, VERROU_FOREVER, 0};

verrou_store *faults_open(const char *address)
{
    verrou_store *store = NULL;
    verrou_error err = VERROU_ERROR_INIT;

    if (verrou_store_open(address, NULL, &store, &err) != VERROU_OK)
        fail_msg("%s: %s", address, err.message);
    return store;
}

verrou_store *faults_open_proxy(const char *settings)
{
    return faults_open(faulty->address(proxy_port(faults_proxy), settings));
}

verrou_lock *faults_lock(verrou_store *store, const char *key, int64_t ttl_ms)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    verrou_lock *lock = NULL;

    options.ttl_ms = ttl_ms;
    assert_int_equal(verrou_lock_new(store, key, &options, &lock, NULL), VERROU_OK);
    return lock;
}

void faults_acquire(verrou_lock *lock)
{
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;
    int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS / 2;

    options.timeout_ms = PROCESS_PATIENCE_MS / 2;
    while (verrou_lock_acquire(lock, &options, NULL, NULL) != VERROU_OK)
        assert_true(verrou_now_ms() < limit_ms);
}

void faults_release(verrou_lock *lock)
{
    assert_int_equal(verrou_lock_release(lock, &faults_patient, NULL), VERROU_OK);
}

void faults_done(verrou_lock *lock, verrou_store *store)
{
    verrou_lock_free(lock);
    verrou_store_close(store);
}

void faults_wait_until_free(const char *what)
{
    int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS; /* giving up is tried for half as long */

    while (*faulty->holder()) {
        if (verrou_now_ms() > limit_ms)
            fail_msg("%s: the lease of %s is left behind", what, faulty->holder());
        process_pause();
    }
}

/* ---- one fault, one call ---- */

static const char *const call_names[CALLS] = {"acquire", "acquire_immediately", "release", "extend", "force",
                                              "inspect"};

typedef struct scene {
    verrou_store *store;
    verrou_lock *lock;
    fault_call call;
    verrou_info info;
    verrou_status status;
    verrou_error err;
    bool answered;
    long fired; /* how many faults there had been before that of this scene */
    char what[96];
} scene;

/* A store behind the proxy with so much time for a request, and a lock that is held if the call is not to acquire it. */
static void scene_open(scene *s, fault_call call, int limit_ms, const char *what)
{
    char settings[48];

    *s = (scene){.call = call, .info = VERROU_INFO_INIT, .err = VERROU_ERROR_INIT};
    snprintf(s->what, sizeof s->what, "%s, %s", call_names[call], what);
    snprintf(settings, sizeof settings, "?timeout=%dms&lanes=1", limit_ms);
    s->store = faults_open_proxy(settings);
    s->lock = faults_lock(s->store, FAULTS_KEY, LEASE_MS);
    faults_acquire(s->lock); /* connects, in any case */
    if (call < CALL_RELEASE) {
        assert_int_equal(verrou_lock_release(s->lock, NULL, NULL), VERROU_OK);
        if (faulty->settle)
            faulty->settle();
    }
}

/* The fault that is to hit the request of the call. */
static void scene_set(scene *s, proxy_fault fault)
{
    fault.match = faulty->match[s->call];
    s->fired = proxy_count(faults_proxy, PROXY_FIRED);
    proxy_set_fault(faults_proxy, fault);
}

static void scene_answered(void *user, const verrou_result *result)
{
    scene *s = user;

    s->status = result->status;
    s->answered = true;
    if (result->error)
        s->err = *result->error;
    if (result->info)
        s->info = *result->info;
}

/* The same, as an event loop does it. */
static void scene_call_async(scene *s, const verrou_call_options *options)
{
    verrou_acquire_options once = VERROU_ACQUIRE_OPTIONS_INIT;
    verrou_queue *queue = NULL;
    verrou_status submitted;

    once.attempts = 1;
    assert_int_equal(verrou_queue_new(&queue, NULL), VERROU_OK);
    switch (s->call) {
    case CALL_ACQUIRE:
    case CALL_IMMEDIATELY:
        submitted =
            verrou_lock_acquire_async(s->lock, s->call == CALL_ACQUIRE ? NULL : &once, queue, scene_answered, s, NULL);
        break;
    case CALL_RELEASE:
        submitted = verrou_lock_release_async(s->lock, options, queue, scene_answered, s, NULL);
        break;
    case CALL_EXTEND:
        submitted = verrou_lock_extend_async(s->lock, LONGER_MS, options, queue, scene_answered, s, NULL);
        break;
    case CALL_FORCE:
        submitted = verrou_lock_force_release_async(s->lock, options, queue, scene_answered, s, NULL);
        break;
    default:
        submitted = verrou_lock_inspect_async(s->lock, options, queue, scene_answered, s, NULL);
        break;
    }
    assert_int_equal(submitted, VERROU_OK);
    while (!s->answered) {
        struct pollfd in = {verrou_queue_fd(queue), POLLIN, 0};

        assert_int_equal(poll(&in, 1, PROCESS_PATIENCE_MS), 1);
        verrou_dispatch(queue, 0);
    }
    verrou_queue_free(queue);
}

static void scene_call(scene *s, const verrou_call_options *options)
{
    if (test_by_loop()) {
        scene_call_async(s, options);
        return;
    }
    switch (s->call) {
    case CALL_ACQUIRE:
        s->status = verrou_lock_acquire(s->lock, NULL, NULL, &s->err);
        break;
    case CALL_IMMEDIATELY:
        s->status = verrou_lock_acquire_immediately(s->lock, NULL, &s->err);
        break;
    case CALL_RELEASE:
        s->status = verrou_lock_release(s->lock, options, &s->err);
        break;
    case CALL_EXTEND:
        s->status = verrou_lock_extend(s->lock, LONGER_MS, options, &s->err);
        break;
    case CALL_FORCE:
        s->status = verrou_lock_force_release(s->lock, options, &s->err);
        break;
    default:
        s->status = verrou_lock_inspect(s->lock, options, &s->info, &s->err);
        break;
    }
}

static bool is_ours(const scene *s)
{
    char *owner = NULL;
    bool ours;

    assert_int_equal(verrou_lock_owner(s->lock, &owner, NULL), VERROU_OK);
    ours = strcmp(faulty->holder(), owner) == 0;
    verrou_free(owner);
    return ours;
}

/* What was said is so. */
static void scene_compare(const scene *s)
{
    bool there = *faulty->holder();
    bool right = s->status == VERROU_EUNKNOWN && s->call != CALL_INSPECT;

    if (s->status == VERROU_OK && s->call <= CALL_IMMEDIATELY)
        right = there && is_ours(s) && verrou_lock_check(s->lock) == VERROU_OK;
    else if (s->status == VERROU_OK && (s->call == CALL_RELEASE || s->call == CALL_FORCE))
        right = !there;
    else if (s->status == VERROU_OK && s->call == CALL_EXTEND)
        right = there && faulty->left_ms() > LEASE_MS;
    else if (s->status == VERROU_OK)
        right = there && s->info.locked && is_ours(s);
    else if (s->status == VERROU_ESTORAGE && s->call <= CALL_IMMEDIATELY)
        right = !there;
    else if (s->status == VERROU_ESTORAGE && s->call == CALL_EXTEND)
        right = there && faulty->left_ms() <= LEASE_MS;
    else if (s->status == VERROU_ESTORAGE)
        right = there;
    if (!right)
        fail_msg("%s: %s (%s), and the key is%s there", s->what, verrou_status_name(s->status), s->err.message,
                 there ? "" : " not");
}

/* The fault is over: the store works again and nothing is left of the lease. */
static void scene_close(scene *s)
{
    if (s->call == CALL_EXTEND || s->call == CALL_INSPECT || (s->call <= CALL_IMMEDIATELY && s->status == VERROU_OK) ||
        ((s->call == CALL_RELEASE || s->call == CALL_FORCE) && s->status == VERROU_ESTORAGE) ||
        (s->call == CALL_FORCE && s->status == VERROU_EUNKNOWN)) {
        int64_t limit_ms = verrou_now_ms() + PROCESS_PATIENCE_MS / 2;
        verrou_status status;

        do /* a busy machine may not answer within the short limit of these stores */
            status = verrou_lock_release(s->lock, &faults_patient, &s->err);
        while (status == VERROU_EUNKNOWN && verrou_now_ms() < limit_ms);
        if (status != VERROU_OK && !(s->call == CALL_FORCE && status == VERROU_ENOTOWNED))
            fail_msg("%s: then release: %s", s->what, s->err.message);
    }
    faults_wait_until_free(s->what);
    faults_done(s->lock, s->store);
}

static void must_be_ok(const scene *s)
{
    if (s->status != VERROU_OK)
        fail_msg("%s: %s", s->what, s->err.message);
}

/* Otherwise nothing was tried: `match` of the table is not what a request contains. */
static void must_have_fired(const scene *s)
{
    if (proxy_count(faults_proxy, PROXY_FIRED) <= s->fired)
        fail_msg("%s: the fault did not happen", s->what);
}

/* A fault that happens once is got over: the request is repeated and the answer is right. */
void single_faults_are_got_over(void **unused)
{
    static const struct {
        fault_kind kind;
        bool is_late; /* a call without a time limit of its own has no time for more than one request */
        const char *name;
    } faults[] = {{PROXY_DROP_REQUEST, false, "request lost"},
                  {PROXY_DROP_REPLY, false, "reply lost"},
                  {PROXY_DUPLICATE_REPLY, false, "reply twice"},
                  {PROXY_HOLD_REPLY, true, "reply too late"},
                  {PROXY_HOLD_REQUEST, true, "request too late"}};

    (void)unused;
    for (size_t f = 0; f < COUNT(faults); f++) {
        for (fault_call call = 0; call < CALLS; call++) {
            scene s;

            scene_open(&s, call, 800, faults[f].name);
            scene_set(&s, (proxy_fault){.kind = faults[f].kind});
            scene_call(&s, &faults_patient);
            scene_compare(&s);
            if (call != CALL_IMMEDIATELY || !faults[f].is_late)
                must_be_ok(&s);
            proxy_let_go(faults_proxy);
            if (s.status == VERROU_OK)
                scene_compare(&s);
            must_have_fired(&s);
            scene_close(&s);
            proxy_clear(faults_proxy);
        }
    }
}

/* A reply that is cut off anywhere is no reply. */
void truncated_replies_are_none(void **unused)
{
    char name[48];

    (void)unused;
    for (size_t bytes = 0; bytes < faulty->reply_bytes; bytes += bytes < 12 ? 1 : 7) {
        for (fault_call call = 0; call < CALLS; call++) {
            scene s;

            snprintf(name, sizeof name, "reply cut at %zu", bytes);
            scene_open(&s, call, 5000, name);
            scene_set(&s, (proxy_fault){.kind = PROXY_TRUNCATE_REPLY, .bytes = bytes});
            scene_call(&s, &faults_patient);
            scene_compare(&s);
            must_be_ok(&s);
            must_have_fired(&s);
            scene_close(&s);
            proxy_clear(faults_proxy);
        }
    }
}

static void must_not_know(const scene *s)
{
    if (s->status != VERROU_EUNKNOWN && s->status != VERROU_ESTORAGE)
        fail_msg("%s: %s", s->what, verrou_status_name(s->status));
}

/* While every answer is lost nothing is claimed, and what was done in secret is undone when answers come again. */
void lasting_loss_is_unknown(void **unused)
{
    static const fault_kind kinds[] = {PROXY_DROP_REQUEST, PROXY_DROP_REPLY, PROXY_HOLD_REPLY};
    static const char *const names[] = {"all requests lost", "all answers lost", "all answers too late"};

    (void)unused;
    for (size_t f = 0; f < COUNT(kinds); f++) {
        for (fault_call call = 0; call < CALLS; call++) {
            scene s;

            scene_open(&s, call, 400, names[f]);
            scene_set(&s, (proxy_fault){.kind = kinds[f], .times = PROXY_ALWAYS});
            scene_call(&s, NULL);
            must_not_know(&s);
            must_have_fired(&s);
            scene_compare(&s);
            proxy_clear(faults_proxy);
            proxy_let_go(faults_proxy);
            scene_close(&s);
        }
    }
}

/* ---- servers and connections ---- */

static void close_connections(void)
{
    proxy_close_all(faults_proxy);
}

static void reset_connections(void)
{
    proxy_reset_all(faults_proxy);
}

static void kill_and_restart(void)
{
    faulty->kill();
    faulty->restart();
}

/* Connections that are closed, reset or killed are made anew; a server that comes back with its data still knows the lock. */
void broken_connections_are_renewed(void **unused)
{
    const struct {
        void (*cause)(void);
        const char *name;
    } ends[] = {{close_connections, "connection closed"},
                {reset_connections, "connection reset"},
                {kill_and_restart, "server restarted"},
                {faulty->end_sessions, "session killed"}};

    (void)unused;
    for (size_t end = 0; end < COUNT(ends) && ends[end].cause; end++) {
        for (fault_call call = 0; call < CALLS; call++) {
            scene s;

            scene_open(&s, call, 5000, ends[end].name);
            ends[end].cause();
            scene_call(&s, &faults_patient);
            scene_compare(&s);
            must_be_ok(&s);
            scene_close(&s);
        }
    }
}

static void *call_in_thread(void *user)
{
    scene_call(user, &faults_patient);
    return NULL;
}

/* The server is killed, and comes back, after a request was sent and before its answer came: carried out (the answer is held) or not. */
void server_killed_before_the_answer(void **unused)
{
    (void)unused;
    for (int carried_out = 0; carried_out < 2; carried_out++) {
        for (fault_call call = 0; call < CALLS; call++) {
            pthread_t thread;
            scene s;

            scene_open(&s, call, 10000, carried_out ? "killed after it was done" : "killed before it was done");
            scene_set(&s, (proxy_fault){.kind = carried_out ? PROXY_HOLD_REPLY : PROXY_HOLD_REQUEST});
            assert_int_equal(pthread_create(&thread, NULL, call_in_thread, &s), 0);
            proxy_wait(faults_proxy, PROXY_HELD, 1);
            kill_and_restart();
            proxy_close_all(faults_proxy);
            pthread_join(thread, NULL);
            scene_compare(&s);
            must_be_ok(&s);
            scene_close(&s);
            proxy_clear(faults_proxy);
        }
    }
}

static void silence(bool is_frozen, bool on)
{
    if (!is_frozen)
        proxy_black_hole(faults_proxy, on);
    else if (on)
        faulty->freeze();
    else
        faulty->thaw();
}

/* A server that stands still, and a network that swallows everything: no answer by the time limit, and none is made up. */
void silence_is_not_an_answer(void **unused)
{
    (void)unused;
    for (int is_frozen = 0; is_frozen < 2; is_frozen++) {
        for (fault_call call = 0; call < CALLS; call++) {
            scene s;

            scene_open(&s, call, 600, is_frozen ? "server frozen" : "black hole");
            silence(is_frozen, true);
            scene_call(&s, NULL);
            silence(is_frozen, false);
            must_not_know(&s);
            if (call != CALL_RELEASE && call > CALL_IMMEDIATELY) /* those go on in the background */
                scene_compare(&s);
            scene_close(&s);
        }
    }
}

/* ---- late requests ---- */

/* So much time for a request that a stuck one is soon repeated. */
#define SHORT_LIMIT "?timeout=400ms"

/* What the fault for the request of this call is to be. */
static void hold_request(fault_call call)
{
    proxy_set(faults_proxy, PROXY_HOLD_REQUEST, .match = faulty->match[call]);
}

bool faults_late_extend(const char *address, proxy_counter fate)
{
    verrou_store *store = faults_open(address);
    verrou_lock *lock = faults_lock(store, FAULTS_KEY, LEASE_MS);
    bool shortened;
    long before;

    faults_acquire(lock);
    before = proxy_count(faults_proxy, fate);
    hold_request(CALL_EXTEND);
    assert_int_equal(verrou_lock_extend(lock, 20000, &faults_patient, NULL), VERROU_OK);
    proxy_wait(faults_proxy, fate, before + 1);
    assert_int_equal(verrou_lock_extend(lock, LONGER_MS, &faults_patient, NULL), VERROU_OK);
    proxy_let_go(faults_proxy);
    shortened = faulty->left_ms() <= 20000;
    faults_release(lock);
    faults_done(lock, store);
    return shortened;
}

/* An extend that is repeated because its request is stuck: when that arrives at last, it does not shorten what was extended since. */
void late_extend_changes_nothing(void **unused)
{
    (void)unused;
    assert_false(faults_late_extend(faulty->address(proxy_port(faults_proxy), SHORT_LIMIT), PROXY_CLOSED));
}

/* An acquire that arrives when the lock was acquired by its repetition and released, leaves no lease. */
void late_acquire_changes_nothing(void **unused)
{
    verrou_store *store = faults_open_proxy(SHORT_LIMIT);
    verrou_lock *lock = faults_lock(store, FAULTS_KEY, LEASE_MS);
    verrou_info info = VERROU_INFO_INIT;

    (void)unused;
    while (verrou_lock_inspect(lock, NULL, &info, NULL) != VERROU_OK) /* connects */
        continue;
    hold_request(CALL_ACQUIRE);
    assert_int_equal(verrou_lock_acquire(lock, NULL, NULL, NULL), VERROU_OK);
    faults_release(lock);
    proxy_let_go(faults_proxy);
    assert_string_equal(faulty->holder(), "");
    faults_done(lock, store);
}

/* A force-release that arrives when somebody else has the lock, does not take it from them. */
void late_force_changes_nothing(void **unused)
{
    verrou_store *store = faults_open_proxy(SHORT_LIMIT);
    verrou_lock *lock = faults_lock(store, FAULTS_KEY, LEASE_MS);
    verrou_lock *next = faults_lock(store, FAULTS_KEY, LEASE_MS);

    (void)unused;
    faults_acquire(lock);
    hold_request(CALL_FORCE);
    assert_int_equal(verrou_lock_force_release(lock, &faults_patient, NULL), VERROU_OK);
    faults_acquire(next);
    proxy_let_go(faults_proxy);
    assert_string_not_equal(faulty->holder(), "");
    faults_release(next);
    verrou_lock_free(lock);
    faults_done(next, store);
}
