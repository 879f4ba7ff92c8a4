/*
 * addon.h - what the files of the addon share.
 *
 *   addon.c    the module: one `env` for each Node.js environment (main thread, worker threads), and its end
 *   loop.c     the event loop's side: completions, messages from the engine's threads, what keeps the process alive
 *   store.c    stores by address or behind a JavaScript backend
 *   lock.c     lock handles and the calls on them
 *   backend.c  the driver whose requests are answered by JavaScript
 *   values.c   arguments in, results and errors out
 *
 * The idea: everything that touches JavaScript happens on the thread of its environment. Asynchronous calls come back through one
 * completion queue an environment, whose descriptor its event loop polls. The engine's threads never call into JavaScript: they leave a
 * message (a log record, a request to a backend) and ring. docs/internals/node.md has the rest.
 */
#ifndef VERROU_NODE_ADDON_H
#define VERROU_NODE_ADDON_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>
#include <verrou/store.h>

struct call;
struct message;
struct request;
struct store;

/* An environment: a JavaScript thread of its own. Its own thread uses it, unless stated. */
struct env {
    napi_env napi;
    uv_loop_t *loop;
    verrou_queue *queue;
    uv_poll_t poll;   /* the queue's descriptor; referenced while calls are pending that keep the process alive */
    uv_async_t async; /* the bell of the engine's threads; never referenced */
    unsigned handles; /* of these two, not closed yet */
    napi_async_cleanup_hook_handle hook;
    napi_async_context context;
    napi_ref fail; /* the JavaScript function that makes errors */
    unsigned keeping_alive;
    struct call *calls; /* not completed yet */
    struct store *stores;

    _Atomic uint32_t refs; /* one is the environment's, one of each store */

    /* Any thread, with the mutex. */
    pthread_mutex_t mutex;
    bool closing;   /* nothing is delivered any more */
    bool listening; /* its thread looks at the messages before it returns to JavaScript: no need to ring */
    struct message *first, *last;
    unsigned logs, logs_dropped;
    struct request **slots; /* requests that a backend is working on, by number */
    uint32_t slot_count, slots_used, slot_next;
    uint64_t generation;
    _Atomic uint32_t messages; /* how many there are; read without the mutex */
};

/* A store. The hooks of the engine's threads get it; it lives until the last lock handle of it is gone, too. */
struct store {
    struct env *env;
    verrou_store *native;
    _Atomic uint32_t refs; /* one is the wrapper's, one of each lock handle, one of the closing in progress */
    napi_ref wrapper;      /* strong while calls are pending, so that nobody loses a store that he waits for */
    unsigned pins;
    bool immediate; /* answers without blocking: its calls are made synchronously */
    bool is_backend;
    uint32_t caps; /* of a backend: VERROU_CAP_ bits */
    atomic_bool closed;
    const verrou_host *host; /* backend.c */
    void *host_context;
    struct store *next, *prev;
};

/* ---- addon.c ---- */
struct env *env_of(napi_env napi);
void env_unref(struct env *env);

/* ---- loop.c ---- */

/* A pending asynchronous call. `finish` makes its result (NULL: undefined), or NULL with an exception pending. */
typedef napi_value (*call_result_fn)(struct env *env, const verrou_result *result);
struct call {
    struct env *env;
    struct store *store; /* pinned; or NULL */
    napi_deferred deferred;
    call_result_fn finish;
    void (*done_with)(void *subject);
    void *subject; /* kept until the call is over */
    bool keeps_alive;
    struct call *next, *prev;
};

int loop_init(struct env *env);
void loop_close(struct env *env); /* ends in env_unref() */

/* Make a call and its promise. `subject` is given to done_with() when the call is over. NULL with an exception pending; done_with() is not called. */
struct call *call_new(struct env *env, struct store *store, call_result_fn finish, bool keeps_alive,
                      napi_value *ret_promise);
void call_refuse(struct call *call); /* one that was not accepted */
void call_free(struct call *call);
void call_done(void *user, const verrou_result *result); /* verrou_done_fn */

/* Between these two, messages of the engine need no bell: the second one delivers them. Around all calls of the library that may run it. */
void loop_enter(struct env *env);
void loop_leave(struct env *env);
/* Settle the promises of the calls that are complete. Not within verrou_dispatch(). */
void loop_dispatch(struct env *env);

/* A message from any thread. `deliver` is called on the environment's thread, in a handle scope; or, when that has ended, `drop` anywhere. */
struct message {
    struct message *next;
    void (*deliver)(struct env *env, struct message *message);
    void (*drop)(struct message *message);
};
bool loop_post(struct env *env, struct message *message); /* false: the environment is closing, and nothing was done */

/* ---- store.c ---- */
napi_status store_define(napi_env napi, napi_value exports);
struct store *store_arg(napi_env napi, napi_value value); /* NULL with an exception pending */
void store_ref(struct store *store);
void store_unref(struct store *store);
void store_pin(struct store *store);
void store_unpin(struct store *store);
napi_value store_wrapper(struct store *store); /* NULL if it is gone */
void stores_close(struct env *env);            /* at the end of the environment */

/* ---- lock.c ---- */
napi_status lock_define(napi_env napi, napi_value exports);

/* ---- backend.c ---- */
verrou_status backend_register(verrou_error *err);
verrou_status backend_open(struct store *store, const char *settings, const verrou_store_options *options,
                           verrou_error *err);
void backend_fail_all(struct store *store); /* answer its requests in progress: their outcome is unknown */
napi_value backend_answer(napi_env napi, napi_callback_info info);
void backend_slots_free(struct env *env);

/* ---- values.c ---- */
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Throws if `status` is not napi_ok and nothing is thrown yet. */
bool napi_ok_or_throw(napi_env napi, napi_status status);
void throw_status(napi_env napi, verrou_status status, const verrou_error *error);
/* The Error for an outcome; NULL if none could be made. */
napi_value error_value(struct env *env, verrou_status status, const verrou_error *error);

/* Arguments: false (or NULL) with an exception pending. */
bool arg_text(napi_env napi, napi_value value, const char *what,
              char **ret_text);                             /* undefined, null: NULL. To be freed */
bool arg_ms(napi_env napi, napi_value value, int64_t *ret); /* undefined: VERROU_DEFAULT, Infinity: VERROU_FOREVER */
bool arg_bool(napi_env napi, napi_value value, bool *ret);  /* undefined: false */

napi_value value_undefined(napi_env napi);
napi_value value_ms(napi_env napi, int64_t ms); /* VERROU_FOREVER: Infinity; below 0: undefined */
napi_value value_text(napi_env napi, const char *text);
napi_value value_info(napi_env napi, const verrou_info *info);
bool set_property(napi_env napi, napi_value object, const char *name, napi_value value);

#endif
