/*
 * lock_store_answers_test.c - what becomes of the statuses that the five calls of a store return.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <verrou/conformance.h>

/* All calls return `status`, and fail with or without hope; `asked` counts them. */
static struct answers {
    verrou_status status;
    int retriable;
    int asked;
    int closed;
} answers;

static verrou_status answer(verrou_error *err)
{
    answers.asked++;
    if (answers.status != VERROU_ESTORAGE && answers.status != VERROU_EUNKNOWN)
        return answers.status;
    return verrou_error_set(err, answers.status, answers.retriable, "E42", "the disk is on fire");
}

static verrou_status save(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err)
{
    (void)user, (void)key, (void)owner, (void)ttl_ms;
    return answer(err);
}

static verrou_status release(void *user, const char *key, const char *owner, verrou_error *err)
{
    (void)user, (void)key, (void)owner;
    return answer(err);
}

static verrou_status force(void *user, const char *key, verrou_error *err)
{
    (void)user, (void)key;
    return answer(err);
}

static verrou_status exists(void *user, const char *key, int *ret_exists, verrou_error *err)
{
    (void)user, (void)key;
    *ret_exists = 1;
    return answer(err);
}

static void closed(void *user)
{
    (void)user;
    answers.closed++;
}

static const verrou_lock_store five = {
    .version = VERROU_STORE_VERSION,
    .save = save,
    .remove = release,
    .force_remove = force,
    .exists = exists,
    .extend = save,
    .close = closed,
};

struct fixture {
    verrou_store *store;
    verrou_lock *lock;
    verrou_error err;
};

static int begin(void **state)
{
    static struct fixture f;

    f = (struct fixture){NULL, NULL, VERROU_ERROR_INIT};
    answers = (struct answers){VERROU_OK, 0, 0, 0};
    *state = &f;
    if (verrou_store_from_lock_store(&five, NULL, "timeout=200ms", NULL, &f.store, &f.err) != VERROU_OK)
        return -1;
    return verrou_lock_new(f.store, "key", NULL, &f.lock, &f.err) == VERROU_OK ? 0 : -1;
}

static int end(void **state)
{
    struct fixture *f = *state;

    verrou_lock_free(f->lock);
    verrou_store_close(f->store);
    return answers.closed == 1 ? 0 : -1; /* the store's close() is called once */
}

/* A failure without hope is told at once, with its text and code. */
static void failure_is_told(void **state)
{
    struct fixture *f = *state;

    answers.status = VERROU_ESTORAGE;
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_ESTORAGE);
    assert_int_equal(answers.asked, 1);
    assert_non_null(strstr(f->err.message, "the disk is on fire"));
    assert_non_null(strstr(f->err.message, "save"));
    assert_string_equal(f->err.store_code, "E42");
}

/* A passing failure is tried again until the store's time limit. */
static void passing_failure_is_repeated(void **state)
{
    struct fixture *f = *state;

    answers.status = VERROU_ESTORAGE;
    answers.retriable = 1;
    assert_int_equal(verrou_lock_acquire(f->lock, NULL, NULL, &f->err), VERROU_ESTORAGE);
    assert_true(answers.asked > 1);
}

/* A lost answer is neither "acquired" nor "not acquired". */
static void lost_answer_is_unknown(void **state)
{
    struct fixture *f = *state;

    answers.status = VERROU_EUNKNOWN;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_EUNKNOWN);
}

/* A status that a call may not return is a failure that names it and the call. */
static void odd_status_is_named(void **state)
{
    struct fixture *f = *state;

    answers.status = VERROU_ELOST;
    assert_int_equal(verrou_lock_acquire_immediately(f->lock, NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "VERROU_ELOST"));
    answers.status = VERROU_ENOTOWNED;
    assert_int_equal(verrou_store_force_release(f->store, "key", NULL, &f->err), VERROU_ESTORAGE);
    assert_non_null(strstr(f->err.message, "force_remove"));
}

/* A store that cannot tell who holds a key says so, and has no tokens. */
static void holder_is_not_known(void **state)
{
    struct fixture *f = *state;
    verrou_info info = VERROU_INFO_INIT;

    assert_int_equal(verrou_store_inspect(f->store, "key", NULL, &info, &f->err), VERROU_OK);
    assert_int_equal(info.locked, 1);
    assert_string_equal(info.owner, "");
    assert_int_equal(info.remaining_ms, -1);
    assert_int_equal(info.fence, 0);
    assert_int_equal(verrou_store_caps(f->store), 0);
}

#define ANSWER_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ANSWER_TEST(failure_is_told),     ANSWER_TEST(passing_failure_is_repeated), ANSWER_TEST(lost_answer_is_unknown),
        ANSWER_TEST(odd_status_is_named), ANSWER_TEST(holder_is_not_known),
    };

    return cmocka_run_group_tests_name("five calls", tests, NULL, NULL);
}
