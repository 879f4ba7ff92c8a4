/*
 * engine_races_test.c - moments between two steps, each brought about on purpose: a driver that lets something else happen in the middle
 * of a request, a close that comes while a connection is being closed, a fork.
 */
#include "support/fixture.h"

#include "core/registry.h"

/* ---- between the store's answer and what is made of it ---- */

static verrou_driver between; /* the memory store's, with a hook behind its requests */
static verrou_op_kind after;
static verrou_lock *the_lock;
static verrou_status released;

static verrou_status between_execute(void *state, void *lane, verrou_op *const *ops, size_t n, int64_t deadline_ms,
                                     verrou_error *err)
{
    verrou_status status = verrou__memory_driver()->execute(state, lane, ops, n, deadline_ms, err);

    if (ops[0]->kind == after) {
        after = 0;
        released = verrou_lock_release(the_lock, NULL, NULL);
    }
    return status;
}

/* Another thread's release comes right behind an extend in the memory store: the handle holds nothing any more. */
static void test_release_overtakes_extend(void **state)
{
    verrou_store *store = NULL;

    (void)state;
    between = *verrou__memory_driver();
    between.execute = between_execute;
    assert_int_equal(verrou__store_open_driver(&between, "memory:", NULL, NULL, &store, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_new(store, "k", NULL, &the_lock, NULL), VERROU_OK);
    assert_int_equal(verrou_lock_acquire(the_lock, NULL, NULL, NULL), VERROU_OK);
    after = VERROU_OP_EXTEND;
    assert_int_equal(verrou_lock_extend(the_lock, VERROU_DEFAULT, NULL, NULL), VERROU_OK);
    assert_int_equal(released, VERROU_OK);
    assert_int_equal(verrou_lock_check(the_lock), VERROU_ENOTOWNED);
    assert_int_equal(verrou_lock_remaining_ms(the_lock), 0);
    verrou_lock_free(the_lock);
    verrou_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_release_overtakes_extend),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
