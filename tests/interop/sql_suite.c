/*
 * sql_suite.c - see sql_suite.h.
 */
#include "sql_suite.h"
#include "process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MINUTE_MS 60000
#define MAX_TESTS 32

static const interop_database *db;
static const interop_store *under_test;
static CMFixtureFunction start_server;

const char *interop_sql(const char *format, ...)
{
    char sql[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(sql, sizeof(sql), format, args);
    va_end(args);
    return db->text(sql);
}

static const char *row_of(const char *columns, const char *key)
{
    return interop_sql("SELECT %s FROM verrou WHERE %s = '%s'", columns, db->key, key);
}

static bool has_fence(void)
{
    return strcmp(interop_sql("SELECT count(*) FROM information_schema.columns"
                              " WHERE table_name = 'verrou' AND column_name = 'fence'"),
                  "1") == 0;
}

/* Either side makes the table when it first needs it. */
static int make_table(void **state)
{
    verrou_lock *lock = NULL;
    int failed = start_server ? start_server(state) : 0;

    if (failed)
        return failed;
    if (db->of_theirs) {
        them = peer_start(under_test->name, under_test->their_address());
        they_take("first", "first", MINUTE_MS);
        peer_stop_all();
    } else {
        us = our_store("");
        if (verrou_lock_new(us, "first", NULL, &lock, NULL) != VERROU_OK ||
            verrou_lock_acquire_immediately(lock, NULL, NULL) != VERROU_OK)
            process_fail("our table cannot be made");
        verrou_lock_free(lock);
        verrou_store_close(us);
        us = NULL;
    }
    if (has_fence() == db->of_theirs)
        process_fail("the table was made by the other side");
    return 0;
}

/* Both sides write the same: the owner, and the end in milliseconds of the server's clock, which is also that of the test. */
static void both_write_the_same(void **state)
{
    verrou_lock *ours = our_lock_for("ours", MINUTE_MS);
    char *owner = NULL, *their_owner, in_time[256];

    (void)state;
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    assert_ok(verrou_lock_owner(ours, &owner, NULL));
    they_take("a", "theirs", MINUTE_MS);
    their_owner = peer_text(them, "owner", "a");
    assert_string_equal(row_of("owner", "ours"), owner);
    assert_string_equal(row_of("owner", "theirs"), their_owner);
    snprintf(in_time, sizeof(in_time), "CASE WHEN expiration BETWEEN %s AND %s + %d THEN 'yes' ELSE 'no' END",
             db->now_ms, db->now_ms, MINUTE_MS);
    assert_string_equal(row_of(in_time, "ours"), "yes");
    assert_string_equal(row_of(in_time, "theirs"), "yes");
    verrou_free(owner);
    free(their_owner);
}

/* A lease that never expires has no end, on both sides; also if it was made so by us. */
static void never_is_null(void **state)
{
    (void)state;
    assert_ok(verrou_lock_acquire_immediately(our_lock_for("our-never", VERROU_FOREVER), NULL, NULL));
    they_take("a", "their-never", VERROU_FOREVER);
    they_take("b", "made-never", MINUTE_MS);
    assert_ok(verrou_lock_extend(restored_by_us("b"), VERROU_FOREVER, NULL, NULL));
    assert_string_equal(row_of("expiration", "our-never"), "(null)");
    assert_string_equal(row_of("expiration", "their-never"), "(null)");
    assert_string_equal(row_of("expiration", "made-never"), "(null)");
}

/* What we release is free for them: a row that remembers its token, or, in a table of theirs, no row, as they do it. */
static void our_release_is_free_for_them(void **state)
{
    verrou_lock *ours = our_lock_for("freed", MINUTE_MS);

    (void)state;
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    restored_by_them("a", ours);
    assert_ok(verrou_lock_release(ours, NULL, NULL));
    assert_string_equal(row_of("owner, expiration", "freed"), db->of_theirs ? "" : "|0");
    assert_false(peer_true(them, "isLocked", "a"));
    assert_string_equal(peer_error(them, "release", "a"), "E_LOCK_NOT_OWNED");
    assert_string_equal(peer_error(them, "extend", "a"), "E_LOCK_NOT_OWNED");
    they_take("b", "freed", MINUTE_MS);
    assert_status(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(ours, NULL, NULL));
}

/* What they release is gone from the table, and we can take it; so is what they free by force. */
static void their_release_is_free_for_us(void **state)
{
    (void)state;
    they_take("a", "theirs-freed", MINUTE_MS);
    peer_do(them, "release", "a");
    assert_string_equal(row_of("owner", "theirs-freed"), "");
    assert_ok(verrou_lock_acquire_immediately(our_lock("theirs-freed"), NULL, NULL));
    peer_do(them, "forceRelease", "a");
    assert_string_equal(row_of("owner", "theirs-freed"), "");
    assert_ok(verrou_lock_acquire_immediately(our_lock("theirs-freed"), NULL, NULL));
}

/* They take our released row over and leave its token alone; the next token of ours is greater, also after they removed the row. */
static void tokens_grow_past_theirs(void **state)
{
    verrou_lock *ours = our_lock_for("token", MINUTE_MS);
    uint64_t first, second;
    char kept[32];

    (void)state;
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    first = verrou_lock_fence(ours);
    assert_ok(verrou_lock_release(ours, NULL, NULL));
    they_take("a", "token", 1);
    snprintf(kept, sizeof(kept), "%llu", (unsigned long long)first);
    if (!db->of_theirs)
        assert_string_equal(row_of("fence", "token"), kept);
    while (verrou_lock_acquire_immediately(ours, NULL, NULL) == VERROU_ENOTACQUIRED)
        process_pause();
    second = verrou_lock_fence(ours);
    assert_true(second > first);
    peer_do(them, "forceRelease", "a");
    assert_ok(verrou_lock_acquire_immediately(ours, NULL, NULL));
    assert_true(verrou_lock_fence(ours) > second);
}

/* A row that they insert beside our column has token 0, and is refused to us as any other. */
static void their_row_has_no_token(void **state)
{
    (void)state;
    if (db->of_theirs) { /* there is no such column; that we did not add one is what is left to see */
        assert_false(has_fence());
        return;
    }
    they_take("a", "their-row", MINUTE_MS);
    assert_string_equal(row_of("fence", "their-row"), "0");
    assert_status(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(our_lock("their-row"), NULL, NULL));
}

/* The store says whether tokens are kept beside the leases. */
static void capabilities_tell_whose_table_it_is(void **state)
{
    (void)state;
    assert_ok(verrou_lock_acquire_immediately(our_lock("capable"), NULL, NULL)); /* the table is known by now */
    assert_int_equal((verrou_store_caps(us) & VERROU_CAP_FENCE_STORED) != 0, !db->of_theirs);
}

static const struct CMUnitTest suite[] = {
    INTEROP_TEST(both_write_the_same),
    INTEROP_TEST(never_is_null),
    INTEROP_TEST(our_release_is_free_for_them),
    INTEROP_TEST(their_release_is_free_for_us),
    INTEROP_TEST(tokens_grow_past_theirs),
    INTEROP_TEST(their_row_has_no_token),
    INTEROP_TEST(capabilities_tell_whose_table_it_is),
};

int interop_run_sql(const interop_store *store, const interop_database *database, const struct CMUnitTest *own,
                    size_t count, CMFixtureFunction start)
{
    struct CMUnitTest all[MAX_TESTS];
    size_t shared = sizeof(suite) / sizeof(suite[0]);

    if (shared + count > MAX_TESTS)
        process_fail("more than %d tests of SQL stores", MAX_TESTS);
    db = database;
    under_test = store;
    start_server = start;
    memcpy(all, suite, sizeof(suite));
    memcpy(all + shared, own, count * sizeof(*own));
    return interop_run(store, all, shared + count, make_table);
}
