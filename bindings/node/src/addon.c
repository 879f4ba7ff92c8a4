/*
 * addon.c - the module: one `env` for each Node.js environment, and its end.
 *
 * An environment ends with pending calls, held locks and requests that a backend has not answered. The order then is: no more messages;
 * requests fail; the completion queue is given up, whose calls end without being reported; the stores are closed by a thread of their
 * own, since a server that hangs must not hold up the end. A process that exits (process.exit()) does none of this: its threads just stop.
 */
#include <stdlib.h>

#include "addon.h"

struct env *env_of(napi_env napi)
{
    void *env = NULL;

    napi_get_instance_data(napi, &env);
    return env;
}

void env_unref(struct env *env)
{
    if (atomic_fetch_sub(&env->refs, 1) != 1)
        return;
    backend_slots_free(env);
    pthread_mutex_destroy(&env->mutex);
    free(env);
}

static void env_end(napi_async_cleanup_hook_handle hook, void *arg)
{
    (void)hook;
    loop_close(arg);
}

static napi_value env_throw(napi_env napi, const char *message)
{
    napi_throw_error(napi, "E_LOCK_ADDON", message);
    return NULL;
}

/* The module's only exports beside its classes. */
static napi_value parse_duration(napi_env napi, napi_callback_info info)
{
    verrou_error error = VERROU_ERROR_INIT;
    napi_value arg = NULL;
    size_t argc = 1;
    char *text = NULL;
    int64_t ms = 0;
    verrou_status status;

    if (!napi_ok_or_throw(napi, napi_get_cb_info(napi, info, &argc, &arg, NULL, NULL)) ||
        !arg_text(napi, arg, "duration", &text))
        return NULL;
    status = verrou_duration_parse(text ? text : "", &ms, &error);
    free(text);
    if (status == VERROU_OK)
        return value_ms(napi, ms);
    throw_status(napi, status, &error);
    return NULL;
}

/* setFail(function): who makes errors. Before everything else. */
static napi_value set_fail(napi_env napi, napi_callback_info info)
{
    struct env *env = env_of(napi);
    napi_value arg = NULL;
    size_t argc = 1;

    if (napi_ok_or_throw(napi, napi_get_cb_info(napi, info, &argc, &arg, NULL, NULL)) && !env->fail)
        napi_ok_or_throw(napi, napi_create_reference(napi, arg, 1, &env->fail));
    return NULL;
}

static struct env *env_new(napi_env napi)
{
    struct env *env = calloc(1, sizeof(*env));

    if (!env)
        return NULL;
    env->napi = napi;
    atomic_init(&env->refs, 1);
    pthread_mutex_init(&env->mutex, NULL);
    if (napi_get_uv_event_loop(napi, &env->loop) != napi_ok || verrou_queue_new(&env->queue, NULL) != VERROU_OK) {
        env_unref(env);
        return NULL;
    }
    return env;
}

static bool env_define(napi_env napi, struct env *env, napi_value exports)
{
    const napi_property_descriptor functions[] = {
        {"parseDuration", NULL, parse_duration, NULL, NULL, NULL, napi_default, NULL},
        {"setFail", NULL, set_fail, NULL, NULL, NULL, napi_default, NULL},
    };
    napi_value name = value_text(napi, "verrou");

    return napi_async_init(napi, NULL, name, &env->context) == napi_ok &&
           napi_set_instance_data(napi, env, NULL, NULL) == napi_ok &&
           napi_define_properties(napi, exports, COUNT(functions), functions) == napi_ok &&
           set_property(napi, exports, "version", value_text(napi, verrou_version())) &&
           store_define(napi, exports) == napi_ok && lock_define(napi, exports) == napi_ok;
}

#ifdef NODE_API_MODULE_GET_API_VERSION /* which the next macro defines, in newer headers */
NAPI_MODULE_EXPORT int32_t NODE_API_MODULE_GET_API_VERSION(void);
#endif

NAPI_MODULE_INIT()
{
    verrou_error error = VERROU_ERROR_INIT;
    struct env *made;

    /* Registering again, for another environment, is nothing. */
    if (backend_register(&error) != VERROU_OK)
        return env_throw(env, error.message);
    made = env_new(env);
    if (!made)
        return env_throw(env, "out of memory or descriptors");
    if (loop_init(made) < 0 || napi_add_async_cleanup_hook(env, env_end, made, &made->hook) != napi_ok ||
        !env_define(env, made, exports))
        return env_throw(env, "the addon cannot be set up");
    return exports;
}
