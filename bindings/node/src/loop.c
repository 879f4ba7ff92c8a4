/*
 * loop.c - the event loop's side of an environment.
 *
 * Two handles: a poll of the completion queue's descriptor, and an async, the bell of the engine's threads. The poll is referenced while
 * calls are pending, because who waits for a lock wants the process to wait, too; an open store, a held lock or its renewal does not
 * keep it. Both handles lead to the same function, which delivers messages first: a log record comes before the outcome that it is about.
 */
#include <stdlib.h>

#include "addon.h"

#define MAX_LOGS 1000 /* waiting for a thread that is busy */

/* ---- messages ---- */

bool loop_post(struct env *env, struct message *message)
{
    bool ring = false;
    bool closing;

    message->next = NULL;
    pthread_mutex_lock(&env->mutex);
    closing = env->closing;
    if (!closing) {
        if (env->last)
            env->last->next = message;
        else
            env->first = message;
        env->last = message;
        atomic_fetch_add(&env->messages, 1);
        ring = !env->listening;
        /* Under the mutex: after `closing` is set the handle may be closed any time. */
        if (ring)
            uv_async_send(&env->async);
    }
    pthread_mutex_unlock(&env->mutex);
    return !closing;
}

static struct message *take_messages(struct env *env)
{
    struct message *first;

    pthread_mutex_lock(&env->mutex);
    first = env->first;
    env->first = env->last = NULL;
    atomic_store(&env->messages, 0);
    if (!first)
        env->listening = false;
    pthread_mutex_unlock(&env->mutex);
    return first;
}

/* Until there are none: what is delivered may cause more. */
static void deliver_messages(struct env *env)
{
    struct message *message;

    while ((message = take_messages(env))) {
        while (message) {
            struct message *next = message->next;
            napi_handle_scope scope = NULL;

            napi_open_handle_scope(env->napi, &scope);
            message->deliver(env, message);
            napi_close_handle_scope(env->napi, scope);
            message = next;
        }
    }
}

void loop_enter(struct env *env)
{
    pthread_mutex_lock(&env->mutex);
    env->listening = true;
    pthread_mutex_unlock(&env->mutex);
}

void loop_leave(struct env *env)
{
    bool pending = false;

    /* Not with an exception on its way: then the bell brings us here again. */
    napi_is_exception_pending(env->napi, &pending);
    if (!pending) {
        deliver_messages(env);
        return;
    }
    pthread_mutex_lock(&env->mutex);
    env->listening = false;
    if (env->first && !env->closing)
        uv_async_send(&env->async);
    pthread_mutex_unlock(&env->mutex);
}

void loop_dispatch(struct env *env)
{
    if (!env->closing)
        verrou_dispatch(env->queue, 0);
}

/* ---- pending calls ---- */

static void call_link(struct call *call)
{
    struct env *env = call->env;

    call->next = env->calls;
    if (env->calls)
        env->calls->prev = call;
    env->calls = call;
    if (call->keeps_alive && env->keeping_alive++ == 0)
        uv_ref((uv_handle_t *)&env->poll);
    if (call->store)
        store_pin(call->store);
}

static void call_unlink(struct call *call)
{
    struct env *env = call->env;

    if (call->prev)
        call->prev->next = call->next;
    else
        env->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    if (call->keeps_alive && --env->keeping_alive == 0)
        uv_unref((uv_handle_t *)&env->poll);
    if (call->store)
        store_unpin(call->store);
}

struct call *call_new(struct env *env, struct store *store, call_result_fn finish, bool keeps_alive,
                      napi_value *ret_promise)
{
    struct call *call = calloc(1, sizeof(*call));

    if (!call) {
        throw_status(env->napi, VERROU_ENOMEM, NULL);
        return NULL;
    }
    if (!napi_ok_or_throw(env->napi, napi_create_promise(env->napi, &call->deferred, ret_promise))) {
        free(call);
        return NULL;
    }
    call->env = env;
    call->store = store;
    call->finish = finish;
    call->keeps_alive = keeps_alive;
    call_link(call);
    return call;
}

/* A promise that is never settled stays in memory for as long as the environment. Nobody has seen this one. */
void call_refuse(struct call *call)
{
    napi_resolve_deferred(call->env->napi, call->deferred, value_undefined(call->env->napi));
    call_free(call);
}

void call_free(struct call *call)
{
    call_unlink(call);
    if (call->done_with)
        call->done_with(call->subject);
    free(call);
}

/* An exception that making a result left behind, or undefined. */
static napi_value take_exception(napi_env napi)
{
    napi_value exception = NULL;
    bool pending = false;

    napi_is_exception_pending(napi, &pending);
    if (pending)
        napi_get_and_clear_last_exception(napi, &exception);
    return exception ? exception : value_undefined(napi);
}

static void call_settle(struct call *call, const verrou_result *result)
{
    napi_env napi = call->env->napi;
    napi_value value = NULL;

    value = call->finish(call->env, result);
    if (value) {
        napi_resolve_deferred(napi, call->deferred, value);
        return;
    }
    value = result->status == VERROU_OK ? NULL : error_value(call->env, result->status, result->error);
    napi_reject_deferred(napi, call->deferred, value ? value : take_exception(napi));
}

void call_done(void *user, const verrou_result *result)
{
    struct call *call = user;
    napi_env napi = call->env->napi;
    napi_handle_scope scope = NULL;

    napi_open_handle_scope(napi, &scope);
    call_settle(call, result);
    call_free(call);
    napi_close_handle_scope(napi, scope);
}

/* ---- the two handles ---- */

/*
 * What completions make ready runs when the callback scope is closed. What that submits is held back until then, so that it goes to the
 * store as one batch.
 */
static void loop_turn(struct env *env)
{
    napi_handle_scope scope = NULL;
    napi_callback_scope callback = NULL;
    napi_value resource = NULL;

    if (env->closing)
        return;
    napi_open_handle_scope(env->napi, &scope);
    napi_create_object(env->napi, &resource);
    if (napi_open_callback_scope(env->napi, resource, env->context, &callback) == napi_ok) {
        verrou_hold();
        loop_enter(env);
        deliver_messages(env);
        verrou_dispatch(env->queue, 0);
        napi_close_callback_scope(env->napi, callback);
        verrou_let_go();
    }
    napi_close_handle_scope(env->napi, scope);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    loop_turn(poll->data);
}

static void on_bell(uv_async_t *async)
{
    loop_turn(async->data);
}

int loop_init(struct env *env)
{
    if (uv_async_init(env->loop, &env->async, on_bell) < 0)
        return -1;
    env->handles++;
    env->async.data = env;
    uv_unref((uv_handle_t *)&env->async);
    if (uv_poll_init(env->loop, &env->poll, verrou_queue_fd(env->queue)) < 0)
        return -1;
    env->handles++;
    env->poll.data = env;
    uv_unref((uv_handle_t *)&env->poll);
    return uv_poll_start(&env->poll, UV_READABLE, on_readable);
}

static void on_closed(uv_handle_t *handle)
{
    struct env *env = handle->data;

    if (--env->handles > 0)
        return;
    napi_remove_async_cleanup_hook(env->hook);
    env_unref(env);
}

/* Their promises are never settled: there is nobody left. */
static void drop_calls(struct env *env)
{
    struct call *call;

    while ((call = env->calls)) {
        call->keeps_alive = false;
        call->store = NULL;
        call_free(call);
    }
}

void loop_close(struct env *env)
{
    struct message *message;

    pthread_mutex_lock(&env->mutex);
    env->closing = true;
    message = env->first;
    env->first = env->last = NULL;
    pthread_mutex_unlock(&env->mutex);
    while (message) {
        struct message *next = message->next;

        message->drop(message);
        message = next;
    }
    uv_close((uv_handle_t *)&env->async, on_closed);
    uv_close((uv_handle_t *)&env->poll, on_closed);
    verrou_queue_free(env->queue);
    env->queue = NULL;
    stores_close(env);
    drop_calls(env);
}
