/*
 * listing.c - claims about looking at locks: inspection of one key and listings of many.
 */
#include "conf.h"
#include <string.h>

static void free_key_is_inspected(struct conf *c)
{
    verrou_info info = VERROU_INFO_INIT;

    EXPECT(VERROU_OK, verrou_store_inspect(c->store, verrou__conf_key(c, "lock"), NULL, &info, ERR));
    assert_int_equal(info.locked, 0);
    assert_string_equal(info.owner, "");
    assert_int_equal(info.remaining_ms, 0);
    assert_int_equal(info.fence, 0);
}

static void held_key_is_inspected(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_info by_key = VERROU_INFO_INIT, by_lock;

    verrou__conf_hold(c, lock);
    EXPECT(VERROU_OK, verrou_store_inspect(c->store, verrou__conf_key(c, "lock"), NULL, &by_key, ERR));
    by_lock = verrou__conf_inspect(c, lock);
    assert_int_equal(by_key.locked, 1);
    assert_int_equal(by_lock.locked, 1);
    assert_string_equal(by_key.owner, by_lock.owner);
    assert_int_equal(by_key.fence, by_lock.fence);
    if (by_key.remaining_ms != -1)
        assert_in_range(by_key.remaining_ms, 1, LONG_MS);
}

static void ended_lease_is_inspected_as_free(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, SHORT_MS);
    verrou_info info;

    verrou__conf_hold(c, lock);
    verrou__conf_let_expire(c, lock);
    info = verrou__conf_inspect(c, lock);
    assert_int_equal(info.locked, 0);
    assert_string_equal(info.owner, "");
    assert_int_equal(info.remaining_ms, 0);
    assert_int_equal(info.fence, 0);
}

static void released_lease_is_inspected_as_free(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_info info;

    verrou__conf_hold(c, lock);
    verrou__conf_drop(c, lock);
    info = verrou__conf_inspect(c, lock);
    assert_int_equal(info.locked, 0);
    assert_string_equal(info.owner, "");
    assert_int_equal(info.fence, 0);
}

static void inspecting_changes_nothing(struct conf *c)
{
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);

    for (int round = 0; round < 5; round++)
        verrou__conf_expect_free(c, lock);
    verrou__conf_hold(c, lock);
    for (int round = 0; round < 5; round++)
        verrou__conf_expect_held_by(c, lock);
    verrou__conf_drop(c, lock);
}

/* ---- listings ---- */

enum { LISTED = 16 };

struct listing {
    size_t count;
    size_t stop_at;
    char keys[LISTED][VERROU_MAX_KEY + 1];
    verrou_info infos[LISTED];
};

static int listing_add(void *user, const char *key, const verrou_info *info)
{
    struct listing *listing = user;

    if (listing->count < LISTED) {
        strncpy(listing->keys[listing->count], key, VERROU_MAX_KEY);
        listing->infos[listing->count] = *info;
    }
    listing->count++;
    return listing->count == listing->stop_at;
}

static struct listing *list(struct conf *c, const char *prefix)
{
    struct listing *listing = verrou__conf_alloc(c, sizeof *listing);

    EXPECT(VERROU_OK, verrou_store_list(c->store, prefix, NULL, listing_add, listing, ERR));
    return listing;
}

static verrou_lock *hold_named(struct conf *c, const char *name, int64_t ttl_ms)
{
    verrou_lock *lock = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, name), ttl_ms);

    verrou__conf_hold(c, lock);
    return lock;
}

static void live_locks_are_listed_in_order(struct conf *c)
{
    static const char *const names[] = {"l/b", "l/a", "l/B", "l/\xc3\xa9", "l/aa", "l/ "};
    static const char *const sorted[] = {"l/ ", "l/B", "l/a", "l/aa", "l/b", "l/\xc3\xa9"};
    struct listing *listing;

    for (size_t at = 0; at < 6; at++)
        hold_named(c, names[at], LONG_MS);
    listing = list(c, verrou__conf_key(c, "l/"));
    assert_int_equal(listing->count, 6);
    for (size_t at = 0; at < 6; at++)
        assert_string_equal(listing->keys[at], verrou__conf_key(c, sorted[at]));
}

static void listing_tells_holders(struct conf *c)
{
    verrou_lock *a = hold_named(c, "l/a", LONG_MS), *b = hold_named(c, "l/b", VERROU_FOREVER);
    struct listing *listing = list(c, verrou__conf_key(c, "l/"));

    assert_int_equal(listing->count, 2);
    assert_int_equal(listing->infos[0].locked, 1);
    assert_string_equal(listing->infos[0].owner, verrou__conf_owner(c, a));
    assert_in_range(listing->infos[0].remaining_ms, 1, LONG_MS);
    REQUIRE(listing->infos[0].fence == 0 || listing->infos[0].fence == verrou_lock_fence(a));
    assert_string_equal(listing->infos[1].owner, verrou__conf_owner(c, b));
    REQUIRE(listing->infos[1].remaining_ms == VERROU_FOREVER);
}

static void only_live_locks_are_listed(struct conf *c)
{
    verrou_lock *expired = hold_named(c, "l/expired", SHORT_MS), *released = hold_named(c, "l/released", LONG_MS);
    struct listing *listing;

    hold_named(c, "l/forced", LONG_MS);
    hold_named(c, "l/live", LONG_MS);
    verrou__conf_drop(c, released);
    EXPECT(VERROU_OK, verrou_store_force_release(c->store, verrou__conf_key(c, "l/forced"), NULL, ERR));
    verrou__conf_let_expire(c, expired);
    listing = list(c, verrou__conf_key(c, "l/"));
    assert_int_equal(listing->count, 1);
    assert_string_equal(listing->keys[0], verrou__conf_key(c, "l/live"));
}

/* A prefix is a text: no pattern of SQL or of a shell, and case counts. */
static void prefix_is_no_pattern(struct conf *c)
{
    static const char *const names[] = {"p%q", "p_q", "p*q", "p?q", "p[a-z]q", "p\\q", "pxq", "Pxq", "p'q", "p{x}q"};
    char name[32];

    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++)
        hold_named(c, names[at], LONG_MS);
    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++) {
        struct listing *listing;

        strcpy(name, names[at]);
        name[strlen(name) - 1] = 0;
        listing = list(c, verrou__conf_key(c, name));
        assert_int_equal(listing->count, 1);
        assert_string_equal(listing->keys[0], verrou__conf_key(c, names[at]));
    }
}

static void nothing_is_listed(struct conf *c)
{
    assert_int_equal(list(c, verrou__conf_key(c, "nothing/"))->count, 0);
}

static int find(void *user, const char *key, const verrou_info *info)
{
    const char **sought = user;

    (void)info;
    if (*sought && strcmp(key, *sought) == 0)
        *sought = NULL;
    return 0;
}

static void all_are_listed(struct conf *c)
{
    const char *no_prefix = verrou__conf_key(c, "l/a"), *empty_prefix = no_prefix;

    hold_named(c, "l/a", LONG_MS);
    EXPECT(VERROU_OK, verrou_store_list(c->store, NULL, NULL, find, &no_prefix, ERR));
    assert_null(no_prefix);
    EXPECT(VERROU_OK, verrou_store_list(c->store, "", NULL, find, &empty_prefix, ERR));
    assert_null(empty_prefix);
}

static void listing_is_stopped(struct conf *c)
{
    struct listing *listing = verrou__conf_alloc(c, sizeof *listing);

    hold_named(c, "l/a", LONG_MS);
    hold_named(c, "l/b", LONG_MS);
    hold_named(c, "l/c", LONG_MS);
    listing->stop_at = 2;
    EXPECT(VERROU_OK, verrou_store_list(c->store, verrou__conf_key(c, "l/"), NULL, listing_add, listing, ERR));
    assert_int_equal(listing->count, 2);
}

static void listing_is_not_supported(struct conf *c)
{
    struct listing *listing = verrou__conf_alloc(c, sizeof *listing);

    EXPECT(VERROU_ENOTSUP, verrou_store_list(c->store, NULL, NULL, listing_add, listing, ERR));
    assert_int_equal(listing->count, 0);
}

const struct conf_claim verrou__conf_listing_claims[] = {
    {"a free key is inspected as such", free_key_is_inspected, 0, 0},
    {"a held key is inspected as such", held_key_is_inspected, 0, 0},
    {"a lease that ran out is inspected as free", ended_lease_is_inspected_as_free, 0, 0},
    {"a released lease is inspected as free", released_lease_is_inspected_as_free, 0, 0},
    {"inspecting changes nothing", inspecting_changes_nothing, 0, 0},
    {"live locks are listed in the order of their bytes", live_locks_are_listed_in_order, 0, VERROU_CAP_LIST},
    {"a listing tells holders and what is left", listing_tells_holders, 0, VERROU_CAP_LIST},
    {"only live locks are listed", only_live_locks_are_listed, 0, VERROU_CAP_LIST},
    {"the prefix of a listing is no pattern", prefix_is_no_pattern, 0, VERROU_CAP_LIST},
    {"a listing may be empty", nothing_is_listed, 0, VERROU_CAP_LIST},
    {"without a prefix all locks are listed", all_are_listed, 0, VERROU_CAP_LIST},
    {"a listing can be stopped", listing_is_stopped, 0, VERROU_CAP_LIST},
    {"a store without listing says so", listing_is_not_supported, CONF_ANY | CONF_NO_LIST, 0},
    {NULL, NULL, 0, 0},
};
