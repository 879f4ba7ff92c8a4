/*
 * values.c - arguments in, results and errors out. Errors are made by a JavaScript function (lib/errors.js), so that their classes live
 * there; this file only tells it the status, the message and the store's code.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "addon.h"

bool napi_ok_or_throw(napi_env napi, napi_status status)
{
    const napi_extended_error_info *info = NULL;
    const char *message = NULL;
    bool pending = false;

    if (status == napi_ok)
        return true;
    /* The next call clears what `info` points to; the texts are constants. */
    if (napi_get_last_error_info(napi, &info) == napi_ok)
        message = info->error_message;
    napi_is_exception_pending(napi, &pending);
    if (!pending)
        napi_throw_error(napi, NULL, message ? message : "Node-API failed");
    return false;
}

napi_value error_value(struct env *env, verrou_status status, const verrou_error *error)
{
    napi_env napi = env->napi;
    napi_value fail = NULL, made = NULL, self = NULL, args[4];

    if (napi_get_reference_value(napi, env->fail, &fail) != napi_ok || !fail)
        return NULL;
    args[0] = value_text(napi, verrou_status_name(status));
    args[1] = value_text(napi, error && error->message[0] ? error->message : verrou_status_text(status));
    args[2] = value_text(napi, error ? error->store_code : "");
    napi_get_boolean(napi, error && error->retriable, &args[3]);
    napi_get_undefined(napi, &self);
    if (!args[0] || !args[1] || !args[2] || napi_call_function(napi, self, fail, COUNT(args), args, &made) != napi_ok)
        return NULL;
    return made;
}

void throw_status(napi_env napi, verrou_status status, const verrou_error *error)
{
    napi_value made = error_value(env_of(napi), status, error);

    if (made)
        napi_throw(napi, made);
    else
        napi_ok_or_throw(napi, napi_generic_failure);
}

static bool is_nothing(napi_env napi, napi_value value)
{
    napi_valuetype type = napi_undefined;

    return napi_typeof(napi, value, &type) != napi_ok || type == napi_undefined || type == napi_null;
}

bool arg_text(napi_env napi, napi_value value, const char *what, char **ret_text)
{
    verrou_error error = VERROU_ERROR_INIT;
    size_t len = 0;
    char *text;

    *ret_text = NULL;
    if (is_nothing(napi, value))
        return true;
    if (napi_get_value_string_utf8(napi, value, NULL, 0, &len) != napi_ok) {
        verrou_error_set(&error, VERROU_EINVAL, 0, NULL, "%s: not a string", what);
        throw_status(napi, VERROU_EINVAL, &error);
        return false;
    }
    text = malloc(len + 1);
    if (!text) {
        throw_status(napi, VERROU_ENOMEM, NULL);
        return false;
    }
    napi_get_value_string_utf8(napi, value, text, len + 1, &len);
    if (strlen(text) != len) {
        free(text);
        verrou_error_set(&error, VERROU_EINVAL, 0, NULL, "%s: it holds a NUL character", what);
        throw_status(napi, VERROU_EINVAL, &error);
        return false;
    }
    *ret_text = text;
    return true;
}

bool arg_ms(napi_env napi, napi_value value, int64_t *ret)
{
    double number = 0;

    if (is_nothing(napi, value)) {
        *ret = VERROU_DEFAULT;
        return true;
    }
    if (!napi_ok_or_throw(napi, napi_get_value_double(napi, value, &number)))
        return false;
    if (isinf(number) && number > 0)
        *ret = VERROU_FOREVER;
    else if (number >= -9007199254740992.0 && number <= 9007199254740992.0)
        *ret = (int64_t)number;
    else
        *ret = -1; /* refused by whoever reads it */
    return true;
}

bool arg_bool(napi_env napi, napi_value value, bool *ret)
{
    *ret = false;
    return is_nothing(napi, value) || napi_ok_or_throw(napi, napi_get_value_bool(napi, value, ret));
}

napi_value value_undefined(napi_env napi)
{
    napi_value value = NULL;

    napi_get_undefined(napi, &value);
    return value;
}

napi_value value_ms(napi_env napi, int64_t ms)
{
    napi_value value = NULL;

    if (ms < 0)
        return value_undefined(napi);
    napi_create_double(napi, ms == VERROU_FOREVER ? INFINITY : (double)ms, &value);
    return value;
}

napi_value value_text(napi_env napi, const char *text)
{
    napi_value value = NULL;

    napi_create_string_utf8(napi, text, NAPI_AUTO_LENGTH, &value);
    return value;
}

bool set_property(napi_env napi, napi_value object, const char *name, napi_value value)
{
    return value && napi_set_named_property(napi, object, name, value) == napi_ok;
}

napi_value value_info(napi_env napi, const verrou_info *info)
{
    napi_value object = NULL, locked = NULL, fence = NULL;

    if (napi_create_object(napi, &object) != napi_ok)
        return NULL;
    napi_get_boolean(napi, info->locked, &locked);
    napi_create_double(napi, (double)info->fence, &fence);
    if (!set_property(napi, object, "locked", locked) || !set_property(napi, object, "fence", fence) ||
        !set_property(napi, object, "remaining", value_ms(napi, info->remaining_ms)) ||
        !set_property(napi, object, "owner", value_text(napi, info->owner)))
        return NULL;
    return object;
}
