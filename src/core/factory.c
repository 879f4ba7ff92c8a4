/*
 * factory.c - a store together with defaults for its locks. Nothing more: the locks are made by lock.c, which fills
 * what its own options leave open from the factory's.
 */
#include "core/core.h"

#include <string.h>

struct verrou_factory {
    verrou_store *store;
    verrou_factory_options defaults; /* the label is in the same block */
    char label[];
};

/* "Not set" and "without end" lie outside of every range. */
static verrou_status check_number(const char *what, int64_t value, int64_t min, int64_t max, verrou_error *err)
{
    if (value == VERROU_DEFAULT || value == VERROU_FOREVER || (value >= min && value <= max))
        return VERROU_OK;
    return verrou__fail(err, VERROU_EINVAL, "%s: %lld is not between %lld and %lld", what, (long long)value,
                        (long long)min, (long long)max);
}

verrou_status verrou__factory_options_read(const verrou_factory_options *from, verrou_factory_options *ret,
                                           verrou_error *err)
{
    verrou_factory_options options = VERROU_FACTORY_OPTIONS_INIT;
    verrou_status status;

    verrou__options_read(&options, sizeof(options), from);
    status = check_number("ttl_ms", options.ttl_ms, 1, VERROU_MAX_MS, err);
    if (status == VERROU_OK)
        status = check_number("attempts", options.attempts, 1, INT64_MAX, err);
    if (status == VERROU_OK && options.delay_ms == VERROU_FOREVER)
        status = verrou__fail(err, VERROU_EINVAL, "delay_ms: a pause without end");
    if (status == VERROU_OK)
        status = check_number("delay_ms", options.delay_ms, 1, VERROU_MAX_MS, err);
    if (status == VERROU_OK)
        status = check_number("timeout_ms", options.timeout_ms, 0, VERROU_MAX_MS, err);
    if (status == VERROU_OK && options.label != NULL && options.label[0] != '\0')
        status = verrou__check_text("label", options.label, VERROU__MAX_LABEL, err);
    if (status == VERROU_OK)
        *ret = options;
    return status;
}

verrou_status verrou_factory_new(verrou_store *store, const verrou_factory_options *options,
                                 verrou_factory **ret_factory, verrou_error *err)
{
    verrou_factory_options defaults;
    verrou_factory *factory;
    verrou_status status;
    size_t label_size;

    if (store == NULL || ret_factory == NULL)
        return verrou__fail(err, VERROU_EINVAL, "factory: %s is NULL", store == NULL ? "store" : "ret_factory");
    status = verrou__factory_options_read(options, &defaults, err);
    if (status != VERROU_OK)
        return status;

    label_size = defaults.label != NULL ? strlen(defaults.label) + 1 : 0;
    factory = verrou__malloc(sizeof(*factory) + label_size);
    if (factory == NULL)
        return verrou__nomem(err);
    factory->store = store;
    factory->defaults = defaults;
    if (defaults.label != NULL)
        factory->defaults.label = memcpy(factory->label, defaults.label, label_size);
    *ret_factory = factory;
    return VERROU_OK;
}

void verrou_factory_free(verrou_factory *factory)
{
    verrou__free(factory);
}

verrou_store *verrou_factory_store(verrou_factory *factory)
{
    return factory->store;
}

verrou_status verrou_factory_create_lock(verrou_factory *factory, const char *key, const verrou_lock_options *options,
                                         verrou_lock **ret_lock, verrou_error *err)
{
    return verrou__lock_new(factory->store, key, options, &factory->defaults, ret_lock, err);
}

verrou_status verrou_factory_restore_lock(verrou_factory *factory, const char *json, const verrou_lock_options *options,
                                          verrou_lock **ret_lock, verrou_error *err)
{
    return verrou__lock_restore(factory->store, json, options, &factory->defaults, ret_lock, err);
}
