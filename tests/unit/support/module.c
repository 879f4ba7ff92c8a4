/*
 * module.c - a store module for registry_test.c, compiled once for each library name (MODULE) with the schemes that it serves (SCHEMES).
 * It only has to be found: nothing is ever stored in it.
 */
#include <verrou/store.h>

#define PASTE(a, b, c) a##b##c
#define DRIVER_OF(module) PASTE(verrou_, module, _driver)

static const char *const schemes[] = {SCHEMES, NULL};

static uint32_t module_caps(void *state)
{
    (void)state;
    return 0;
}

static verrou_status module_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                    verrou_error *err)
{
    (void)state, (void)lane, (void)deadline_ms, (void)err;
    for (size_t i = 0; i < n; i++)
        ops[i]->result = VERROU_OP_REFUSED;
    return VERROU_OK;
}

static const verrou_driver driver = {
    .version = VERROU_STORE_VERSION,
    .schemes = schemes,
    .flags = VERROU_DRIVER_INLINE,
    .caps = module_caps,
    .execute = module_execute,
};

VERROU_API const verrou_driver *DRIVER_OF(MODULE)(void);
const verrou_driver *DRIVER_OF(MODULE)(void)
{
    return &driver;
}
