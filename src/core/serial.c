/*
 * serial.c - the serialised lock: {"key","owner","ttl","expirationTime"} as Verrou for Node.js writes it, with "store"
 * and "fence" added where there is one.
 *
 * The owner in it authorises a release, so no message quotes any of its text: of what jansson says about malformed JSON
 * only the place is passed on.
 */
#include "core/core.h"

#include <jansson.h>
#include <string.h>

#define MAX_EXACT \
    (INT64_C(9007199254740991)) /* 2^53 - 1: the largest integer that a JavaScript number holds exactly \
                                 */
#define MAX_STORE_NAME VERROU__MAX_STORE_NAME

static const char *const members[] = {"key", "owner", "ttl", "expirationTime", "store", "fence"};

/* ---- reading ---- */

/*
 * Running out of memory, jansson says nothing at all in some places, and in others finds fault with a complete string
 * where a string may stand, which cannot be.
 */
static bool ran_out_of_memory(const char *json, const json_error_t *json_error)
{
    static const char *const faults[] = {"invalid token", "string or '}' expected"};

    if (json_error->text[0] == '\0')
        return true;
    if (json_error->position < 2 || json[json_error->position - 1] != '"')
        return false;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        if (strncmp(json_error->text, faults[i], strlen(faults[i])) == 0)
            return true;
    return false;
}

static verrou_status fail_json(const char *json, const json_error_t *json_error, verrou_error *err)
{
    if (ran_out_of_memory(json, json_error))
        return verrou__nomem(err);
    switch (json_error_code(json_error)) {
    case json_error_out_of_memory:
        return verrou__nomem(err);
    case json_error_duplicate_key:
        /* jansson quotes the name in its own message; compare it with those that we know. */
        for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
            char quoted[32];

            snprintf(quoted, sizeof(quoted), "\"%s\"", members[i]);
            if (strstr(json_error->text, quoted) != NULL)
                return verrou__fail(err, VERROU_EINVAL, "serialised lock: \"%s\" is given twice", members[i]);
        }
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: a member is given twice");
    case json_error_numeric_overflow:
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: line %d, column %d: a number is too large",
                            json_error->line, json_error->column);
    case json_error_end_of_input_expected:
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: line %d, column %d: something follows it",
                            json_error->line, json_error->column);
    default:
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: line %d, column %d: not valid JSON", json_error->line,
                            json_error->column);
    }
}

static verrou_status read_text(const json_t *object, const char *name, size_t max, bool required, char **ret_text,
                               verrou_error *err)
{
    const json_t *value = json_object_get(object, name);
    char what[48];
    verrou_status status;

    if (value == NULL && !required)
        return VERROU_OK;
    if (value == NULL)
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: \"%s\" is missing", name);
    if (!json_is_string(value))
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: \"%s\" is not a string", name);

    snprintf(what, sizeof(what), "serialised lock: \"%s\"", name);
    status = verrou__check_text(what, json_string_value(value), max, err);
    if (status != VERROU_OK)
        return status;
    *ret_text = verrou__strdup(json_string_value(value));
    return *ret_text == NULL ? verrou__nomem(err) : VERROU_OK;
}

/* A whole number; JSON may spell it 3e4 as well. */
static bool whole_number(const json_t *value, int64_t *ret)
{
    if (json_is_integer(value)) {
        *ret = json_integer_value(value);
        return true;
    }
    if (json_is_real(value)) {
        double real = json_real_value(value);

        if (real < -(double)MAX_EXACT || real > (double)MAX_EXACT || real != (double)(int64_t)real)
            return false;
        *ret = (int64_t)real;
        return true;
    }
    return false;
}

/* A time in milliseconds from min to max, or null for "never". A missing one is no "never": that would keep a lease
 * alive for good. */
static verrou_status read_ms(const json_t *object, const char *name, int64_t min, int64_t max, int64_t *ret_ms,
                             verrou_error *err)
{
    const json_t *value = json_object_get(object, name);
    int64_t ms;

    if (value == NULL)
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: \"%s\" is missing", name);
    if (json_is_null(value)) {
        *ret_ms = VERROU_FOREVER;
        return VERROU_OK;
    }
    if (!whole_number(value, &ms))
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: \"%s\" is neither a whole number nor null", name);
    if (ms < min || ms > max)
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: \"%s\" is not between %lld and %lld", name,
                            (long long)min, (long long)max);
    *ret_ms = ms;
    return VERROU_OK;
}

/* Digits only, so that no sign, space or exponent slips through. */
static bool decimal(const char *text, uint64_t *ret)
{
    uint64_t value = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        unsigned digit = (unsigned)(*text - '0');

        if (*text < '0' || *text > '9' || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret = value;
    return true;
}

static verrou_status read_fence(const json_t *object, uint64_t *ret_fence, verrou_error *err)
{
    const json_t *value = json_object_get(object, "fence");
    int64_t number;

    if (value == NULL)
        return VERROU_OK;
    if (json_is_string(value)) {
        if (!decimal(json_string_value(value), ret_fence))
            return verrou__fail(err, VERROU_EINVAL, "serialised lock: \"fence\" is not a decimal number of 64 bits");
        return VERROU_OK;
    }
    if (!whole_number(value, &number) || number < 0 || number > MAX_EXACT)
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: \"fence\" is not a whole number from 0 to 2^53 - 1");
    *ret_fence = (uint64_t)number;
    return VERROU_OK;
}

/* The original writes 0, and no end, for a lock that it was told to make with a TTL of 0: to it that means "never". */
static verrou_status read_ttl(const json_t *object, int64_t *ret_ms, verrou_error *err)
{
    const json_t *ttl = json_object_get(object, "ttl");

    if (json_is_integer(ttl) && json_integer_value(ttl) == 0 &&
        json_is_null(json_object_get(object, "expirationTime"))) {
        *ret_ms = VERROU_FOREVER;
        return VERROU_OK;
    }
    return read_ms(object, "ttl", 1, VERROU_MAX_MS, ret_ms, err);
}

verrou_status verrou__serial_parse(const char *json, verrou__serial *ret, verrou_error *err)
{
    return verrou__serial_parse_key(json, VERROU_MAX_KEY, ret, err);
}

verrou_status verrou__serial_parse_key(const char *json, size_t max_key, verrou__serial *ret, verrou_error *err)
{
    verrou__serial serial = {NULL, NULL, NULL, 0, 0, 0};
    json_t *object = NULL;
    json_error_t json_error;
    verrou_status status;

    if (json == NULL)
        return verrou__fail(err, VERROU_EINVAL, "serialised lock: missing");
    object = json_loads(json, JSON_REJECT_DUPLICATES, &json_error);
    if (object == NULL)
        return fail_json(json, &json_error, err);
    if (!json_is_object(object)) {
        status = verrou__fail(err, VERROU_EINVAL, "serialised lock: not a JSON object");
        goto done;
    }

    status = read_text(object, "key", max_key, true, &serial.key, err);
    if (status == VERROU_OK)
        status = read_text(object, "owner", VERROU_MAX_OWNER, true, &serial.owner, err);
    if (status == VERROU_OK)
        status = read_ttl(object, &serial.ttl_ms, err);
    if (status == VERROU_OK)
        status = read_ms(object, "expirationTime", 0, MAX_EXACT, &serial.expiration_ms, err);
    if (status == VERROU_OK)
        status = read_text(object, "store", MAX_STORE_NAME, false, &serial.store, err);
    if (status == VERROU_OK)
        status = read_fence(object, &serial.fence, err);
    if (status != VERROU_OK)
        goto done;

    *ret = serial;
    memset(&serial, 0, sizeof(serial));
done:
    verrou__serial_done(&serial);
    json_decref(object);
    return status;
}

/* ---- writing ---- */

static json_t *ms_or_null(int64_t ms)
{
    return ms == VERROU_FOREVER ? json_null() : json_integer(ms);
}

static json_t *fence_value(uint64_t fence)
{
    char digits[24];

    if (fence <= (uint64_t)MAX_EXACT)
        return json_integer((json_int_t)fence);
    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)fence);
    return json_string(digits);
}

/* json_dumps() would return memory of whatever allocator the application gave to jansson; this asks for the size, then
 * fills ours. */
static char *dump(const json_t *object)
{
    size_t size = json_dumpb(object, NULL, 0, JSON_COMPACT);
    char *text = size > 0 ? verrou__malloc(size + 1) : NULL;

    if (text == NULL)
        return NULL;
    if (json_dumpb(object, text, size, JSON_COMPACT) != size) {
        verrou__free(text);
        return NULL;
    }
    text[size] = '\0';
    return text;
}

/* json_object_set_new() answers -1 for a NULL value too, so one test finds any failed allocation. The order is that of
 * the original. */
verrou_status verrou__serial_format(const verrou__serial *serial, char **ret_json, verrou_error *err)
{
    json_t *object = json_object();
    char *text = NULL;
    int failed = object == NULL;

    failed |= json_object_set_new(object, "key", json_string(serial->key));
    failed |= json_object_set_new(object, "owner", json_string(serial->owner));
    failed |= json_object_set_new(object, "ttl", ms_or_null(serial->ttl_ms));
    failed |= json_object_set_new(object, "expirationTime", ms_or_null(serial->expiration_ms));
    if (serial->store != NULL)
        failed |= json_object_set_new(object, "store", json_string(serial->store));
    if (serial->fence != 0)
        failed |= json_object_set_new(object, "fence", fence_value(serial->fence));
    if (!failed)
        text = dump(object);
    json_decref(object);
    if (text == NULL)
        return verrou__nomem(err);
    *ret_json = text;
    return VERROU_OK;
}

void verrou__serial_done(verrou__serial *serial)
{
    verrou__free(serial->key);
    verrou__free(serial->owner);
    verrou__free(serial->store);
    serial->key = serial->owner = serial->store = NULL;
}
