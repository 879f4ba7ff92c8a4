/*
 * failing_alloc.h - makes every single allocation of a piece of code fail once.
 *
 * failing_alloc_each() runs a case with the first allocation failing, then the second, and so on until a run goes
 * through without a failure. After each run nothing that the case allocated may be left. Only the thread that runs the
 * case may allocate meanwhile. A program that includes this calls failing_alloc_install() first.
 */
#ifndef VERROU_TESTS_FAILING_ALLOC_H
#define VERROU_TESTS_FAILING_ALLOC_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <verrou/verrou.h>
#include <cmocka.h>

static struct {
    long until; /* allocations that still succeed before one fails; negative: none fails */
    bool failed;
    atomic_long live; /* blocks */
} failing_alloc = {-1, false, 0};

static inline bool failing_alloc_now(void)
{
    if (failing_alloc.until < 0 || failing_alloc.until-- > 0)
        return false;
    failing_alloc.failed = true;
    return true;
}

/* malloc(0) may be NULL, so here it is. */
static inline void *failing_malloc(size_t size)
{
    void *block = size == 0 || failing_alloc_now() ? NULL : malloc(size);

    failing_alloc.live += block != NULL;
    return block;
}

static inline void *failing_realloc(void *block, size_t size)
{
    void *grown = failing_alloc_now() ? NULL : realloc(block, size);

    failing_alloc.live += block == NULL && grown != NULL;
    return grown;
}

static inline void failing_free(void *block)
{
    failing_alloc.live -= block != NULL;
    free(block);
}

static inline void failing_alloc_install(void)
{
    assert_int_equal(verrou_set_allocator(failing_malloc, failing_realloc, failing_free), VERROU_OK);
}

/* A case: VERROU_OK if everything worked, in which case it has also freed everything again. */
typedef verrou_status (*failing_case)(void *user, verrou_error *err);

/* Returns how many allocations the case makes. A run with a failure has to end with VERROU_ENOMEM. */
static inline long failing_alloc_each(failing_case run, void *user)
{
    for (long n = 0;; n++) {
        verrou_error err = VERROU_ERROR_INIT;
        long before = failing_alloc.live;
        verrou_status status;

        failing_alloc.failed = false;
        failing_alloc.until = n;
        status = run(user, &err);
        failing_alloc.until = -1;

        assert_int_equal(failing_alloc.live, before);
        if (!failing_alloc.failed) {
            assert_int_equal(status, VERROU_OK);
            return n;
        }
        if (status != VERROU_ENOMEM)
            fail_msg("allocation %ld failed, and the result is %s: %s", n + 1, verrou_status_name(status), err.message);
        assert_int_equal(err.status, VERROU_ENOMEM);
    }
}

#endif
