/*
 * limits.c - claims about what is accepted: numbers outside their range, keys and owners of any length and content.
 * What is refused is refused before the store sees it, and nothing is changed; what is accepted is compared byte by
 * byte.
 */
#include "conf.h"
#include <stdio.h>
#include <string.h>

static void repeat(char *text, char letter, size_t length)
{
    memset(text, letter, length);
    text[length] = 0;
}

/* Try to make a handle, and say with what status. */
static verrou_status try_lock(struct conf *c, const char *key, const verrou_lock_options *options)
{
    verrou_lock *lock = NULL;
    verrou_status status = verrou_lock_new(c->store, key, options, &lock, ERR);

    if (status == VERROU_OK)
        verrou_lock_free(lock);
    else
        REQUIRE(lock == NULL && c->error.message[0]);
    return status;
}

static void bad_ttl_is_refused(struct conf *c)
{
    static const int64_t bad[] = {0, -1, -30000, VERROU_MAX_MS + 1, VERROU_FOREVER - 1, VERROU_DEFAULT + 1};
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;

    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        options.ttl_ms = bad[at];
        EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &options));
    }
    options.ttl_ms = VERROU_MAX_MS;
    EXPECT(VERROU_OK, try_lock(c, verrou__conf_key(c, "lock"), &options));
    options.ttl_ms = 1;
    EXPECT(VERROU_OK, try_lock(c, verrou__conf_key(c, "lock"), &options));
}

static void bad_defaults_are_refused(struct conf *c)
{
    static const int64_t bad[] = {0, -1, VERROU_DEFAULT + 1};

    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        verrou_lock_options attempts = VERROU_LOCK_OPTIONS_INIT, delay = VERROU_LOCK_OPTIONS_INIT;
        verrou_lock_options timeout = VERROU_LOCK_OPTIONS_INIT, hold = VERROU_LOCK_OPTIONS_INIT;

        attempts.attempts = delay.delay_ms = timeout.timeout_ms = hold.max_hold_ms = bad[at];
        hold.keep_alive = 1;
        EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &attempts));
        EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &delay));
        EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &hold));
        if (bad[at] != 0)
            EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &timeout));
    }
}

/* The original skipped its loop on 0 attempts and reported success. */
static void no_attempts_acquire_nothing(struct conf *c)
{
    verrou_lock *a = verrou__conf_lock(c, LONG_MS), *b = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options options = VERROU_ACQUIRE_OPTIONS_INIT;

    options.attempts = 0;
    EXPECT(VERROU_EINVAL, verrou_lock_acquire(a, &options, NULL, ERR));
    verrou__conf_expect_free(c, a);
    verrou__conf_hold(c, a);
    EXPECT(VERROU_EINVAL, verrou_lock_acquire(b, &options, NULL, ERR));
    EXPECT(VERROU_EINVAL, verrou_lock_acquire(a, &options, NULL, ERR));
    EXPECT(VERROU_OK, verrou_lock_check(a));
    verrou__conf_expect_held_by(c, a);
    verrou__conf_drop(c, a);
}

static void bad_numbers_acquire_nothing(struct conf *c)
{
    static const int64_t bad[] = {-1, -250, VERROU_DEFAULT + 1};
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_acquire_options zero = VERROU_ACQUIRE_OPTIONS_INIT;

    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        verrou_acquire_options attempts = VERROU_ACQUIRE_OPTIONS_INIT, delay = VERROU_ACQUIRE_OPTIONS_INIT;
        verrou_acquire_options timeout = VERROU_ACQUIRE_OPTIONS_INIT;

        attempts.attempts = delay.delay_ms = timeout.timeout_ms = bad[at];
        EXPECT(VERROU_EINVAL, verrou_lock_acquire(lock, &attempts, NULL, ERR));
        EXPECT(VERROU_EINVAL, verrou_lock_acquire(lock, &delay, NULL, ERR));
        EXPECT(VERROU_EINVAL, verrou_lock_acquire(lock, &timeout, NULL, ERR));
    }
    zero.delay_ms = 0;
    EXPECT(VERROU_EINVAL, verrou_lock_acquire(lock, &zero, NULL, ERR));
    verrou__conf_expect_free(c, lock);
}

static void bad_call_limits_are_refused(struct conf *c)
{
    static const int64_t bad[] = {0, -1, VERROU_DEFAULT + 1};
    verrou_lock *lock = verrou__conf_lock(c, LONG_MS);
    verrou_info info = VERROU_INFO_INIT;

    verrou__conf_hold(c, lock);
    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        verrou_call_options options = VERROU_CALL_OPTIONS_INIT;

        options.timeout_ms = bad[at];
        EXPECT(VERROU_EINVAL, verrou_lock_release(lock, &options, ERR));
        EXPECT(VERROU_EINVAL, verrou_lock_extend(lock, LONG_MS, &options, ERR));
        EXPECT(VERROU_EINVAL, verrou_lock_force_release(lock, &options, ERR));
        EXPECT(VERROU_EINVAL, verrou_lock_inspect(lock, &options, &info, ERR));
    }
    EXPECT(VERROU_OK, verrou_lock_check(lock));
    verrou__conf_drop(c, lock);
}

/* ---- texts ---- */

/* Overlong forms, surrogates, cut sequences, bytes that never occur, values past the end of Unicode. */
static const char *const invalid_utf8[] = {
    "\x80",
    "k\xff",
    "k\xfe",
    "\xc3",
    "k\xe2\x82",
    "\xf0\x9f\x94",
    "\xc0\xaf",
    "\xc1\x81",
    "\xe0\x80\xaf",
    "\xf0\x80\x80\xaf",
    "\xed\xa0\x80",
    "\xed\xbf\xbf",
    "\xf4\x90\x80\x80",
    "\xf8\x88\x80\x80\x80",
    "\xc3\x28",
    "a\x80z",
};

static void bad_keys_are_refused(struct conf *c)
{
    verrou_info info = VERROU_INFO_INIT;
    char key[VERROU_MAX_KEY + 64];

    EXPECT(VERROU_EINVAL, try_lock(c, "", NULL));
    EXPECT(VERROU_EINVAL, verrou_store_inspect(c->store, "", NULL, &info, ERR));
    EXPECT(VERROU_EINVAL, verrou_store_force_release(c->store, "", NULL, ERR));
    repeat(key, 'k', VERROU_MAX_KEY + 1);
    EXPECT(VERROU_EINVAL, try_lock(c, key, NULL));
    EXPECT(VERROU_EINVAL, verrou_store_inspect(c->store, key, NULL, &info, ERR));
    EXPECT(VERROU_EINVAL, verrou_store_force_release(c->store, key, NULL, ERR));
    for (size_t at = 0; at < sizeof invalid_utf8 / sizeof invalid_utf8[0]; at++) {
        EXPECT(VERROU_EINVAL, try_lock(c, invalid_utf8[at], NULL));
        EXPECT(VERROU_EINVAL, verrou_store_inspect(c->store, invalid_utf8[at], NULL, &info, ERR));
    }
}

static void bad_owners_are_refused(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    char owner[VERROU_MAX_OWNER + 2];

    options.owner = "";
    EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &options));
    repeat(owner, 'o', VERROU_MAX_OWNER + 1);
    options.owner = owner;
    EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &options));
    for (size_t at = 0; at < sizeof invalid_utf8 / sizeof invalid_utf8[0]; at++) {
        options.owner = invalid_utf8[at];
        EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &options));
    }
}

static void bad_labels_are_refused(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    char label[66];

    repeat(label, 'l', 65);
    options.label = label;
    EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &options));
    repeat(label, 'l', 64);
    EXPECT(VERROU_OK, try_lock(c, verrou__conf_key(c, "lock"), &options));
    options.label = "l\xff";
    EXPECT(VERROU_EINVAL, try_lock(c, verrou__conf_key(c, "lock"), &options));
}

/* The longest key that fits beside the store's prefix, starting with this run's own text. */
static size_t longest_key(struct conf *c, char key[VERROU_MAX_KEY + 1])
{
    size_t length = VERROU_MAX_KEY, begin = strlen(verrou__conf_key(c, "long"));

    repeat(key, 'k', VERROU_MAX_KEY);
    memcpy(key, verrou__conf_key(c, "long"), begin);
    while (length > begin && try_lock(c, key, NULL) == VERROU_EINVAL)
        key[--length] = 0;
    REQUIRE(length > begin);
    return length;
}

static void longest_keys_differ_at_the_end(struct conf *c)
{
    char key[VERROU_MAX_KEY + 1], other[VERROU_MAX_KEY + 1];
    size_t length = longest_key(c, key);
    verrou_lock *a, *b, *again;

    memcpy(other, key, sizeof other);
    other[length - 1] = 'z';
    a = verrou__conf_lock_on(c, c->store, verrou__conf_key_exact(c, key), LONG_MS);
    b = verrou__conf_lock_on(c, c->store, verrou__conf_key_exact(c, other), LONG_MS);
    again = verrou__conf_lock_on(c, c->store, verrou__conf_key_exact(c, key), LONG_MS);
    verrou__conf_hold(c, a);
    verrou__conf_hold(c, b);
    EXPECT(VERROU_ENOTACQUIRED, verrou_lock_acquire_immediately(again, NULL, ERR));
    verrou__conf_drop(c, a);
    verrou__conf_expect_free(c, again);
    verrou__conf_expect_held_by(c, b);
    verrou__conf_drop(c, b);
}

/* 255 bytes, not 255 characters. */
static void longest_key_is_counted_in_bytes(struct conf *c)
{
    char key[VERROU_MAX_KEY + 1];
    size_t length = longest_key(c, key), at = strlen(verrou__conf_key(c, "long"));
    verrou_lock *lock;

    while (at + 4 <= length) {
        memcpy(key + at, "\xf0\x9f\x94\x92", 4);
        at += 4;
    }
    lock = verrou__conf_lock_on(c, c->store, verrou__conf_key_exact(c, key), LONG_MS);
    verrou__conf_hold(c, lock);
    verrou__conf_expect_held_by(c, lock);
    verrou__conf_drop(c, lock);
}

static void longest_owner_works(struct conf *c)
{
    verrou_lock_options options = VERROU_LOCK_OPTIONS_INIT;
    char owner[VERROU_MAX_OWNER + 1], other[VERROU_MAX_OWNER + 1];
    verrou_lock *lock;

    repeat(owner, 'o', VERROU_MAX_OWNER);
    memcpy(other, owner, sizeof other);
    other[VERROU_MAX_OWNER - 1] = 'x';
    options.owner = owner;
    options.ttl_ms = LONG_MS;
    lock = verrou__conf_lock_with(c, c->store, verrou__conf_key(c, "lock"), &options);
    verrou__conf_hold(c, lock);
    verrou__conf_expect_held_by(c, lock);
    EXPECT(VERROU_ENOTOWNED,
           verrou_lock_release(verrou__conf_believer(c, c->store, verrou__conf_key(c, "lock"), other), NULL, ERR));
    verrou__conf_drop(c, lock);
}

/* All are held at once, by an owner each: so no two of them are one lock. */
static void hold_all(struct conf *c, const char *const *names, size_t count)
{
    verrou_lock *locks[64];

    REQUIRE(count <= 64);
    for (size_t at = 0; at < count; at++) {
        locks[at] = verrou__conf_lock_on(c, c->store, verrou__conf_key(c, names[at]), LONG_MS);
        verrou__conf_hold(c, locks[at]);
    }
    for (size_t at = 0; at < count; at++) {
        verrou__conf_expect_held_by(c, locks[at]);
        verrou__conf_drop(c, locks[at]);
        verrou__conf_expect_free(c, locks[at]);
        if (at + 1 < count)
            verrou__conf_expect_held_by(c, locks[at + 1]);
    }
}

/* Case, blanks, composed and decomposed accents, letters that collations take for one another. */
static void similar_keys_are_apart(struct conf *c)
{
    static const char *const names[] = {
        "foo",
        "FOO",
        "Foo",
        "foo ",
        "foo  ",
        "foo\t",
        "foo\n",
        " foo",
        "foo.",
        "f\xc3\xb6o",
        "fo\xcc\x88o",
        "caf\xc3\xa9",
        "cafe\xcc\x81",
        "cafe",
        "stra\303\237e",
        "strasse",
        "STRASSE",
        "\xef\xac\x80",
        "ff",
        "\xc4\xb0",
        "i",
        "\xc4\xb1",
        "I",
        "\xe2\x84\xaa",
        "K",
        "k",
        "0",
        "00",
        "0.0",
        "1",
        "1.0",
        "01",
        "null",
        "NULL",
        "a\xe2\x80\x8b",
        "a",
        "\xef\xbc\xa1",
        "A",
        "\xce\xb1",
        "\xd0\xb0",
    };

    hold_all(c, names, sizeof names / sizeof names[0]);
}

/* Letters that mean something to SQL, shells, patterns, addresses, Redis clusters, JSON and terminals. */
static void odd_keys_are_keys(struct conf *c)
{
    static const char *const names[] = {
        "o'clock",
        "o''clock",
        "\"quoted\"",
        "back\\slash",
        "back\\\\slash",
        "percent%",
        "percent%%",
        "under_score",
        "star*",
        "?",
        "[a-z]",
        "{slot}",
        "{}",
        "a{b}c",
        "{{x}}",
        "a:b",
        "a/b",
        "../b",
        "a?table=x&prefix=y",
        "%41",
        "a b",
        "a;DROP TABLE verrou;--",
        "$1",
        "?1",
        ":key",
        "@key",
        "a=b",
        "a,b",
        "<b>",
        "`x`",
        "$(x)",
        "\x01",
        "\x7f",
        "\x1b[0m",
        "line\nbreak",
        "cr\r\nlf",
        "\xf0\x9f\x94\x92",
        "\xef\xbf\xbf",
        "\xef\xbb\xbfmark",
        "verrou:fence",
        "fence",
        "conformance:",
        "-x",
        "#",
        "~",
        "|",
    };

    hold_all(c, names, sizeof names / sizeof names[0]);
}

static void null_arguments_are_refused(struct conf *c)
{
    verrou_lock *lock = NULL;
    verrou_info info = VERROU_INFO_INIT;

    EXPECT(VERROU_EINVAL, verrou_lock_new(c->store, NULL, NULL, &lock, ERR));
    EXPECT(VERROU_EINVAL, verrou_lock_restore(c->store, NULL, NULL, &lock, ERR));
    EXPECT(VERROU_EINVAL, verrou_store_inspect(c->store, NULL, NULL, &info, ERR));
    EXPECT(VERROU_EINVAL, verrou_store_force_release(c->store, NULL, NULL, ERR));
}

const struct conf_claim verrou__conf_limits_claims[] = {
    {"a TTL out of range is refused", bad_ttl_is_refused, CONF_ANY, 0},
    {"retry defaults out of range are refused", bad_defaults_are_refused, CONF_ANY, 0},
    {"0 attempts are refused and acquire nothing", no_attempts_acquire_nothing, 0, 0},
    {"numbers out of range are refused and acquire nothing", bad_numbers_acquire_nothing, 0, 0},
    {"time limits out of range are refused and change nothing", bad_call_limits_are_refused, CONF_ANY, 0},
    {"keys that are empty, too long or no UTF-8 are refused", bad_keys_are_refused, CONF_ANY, 0},
    {"owners that are empty, too long or no UTF-8 are refused", bad_owners_are_refused, CONF_ANY, 0},
    {"labels that are too long or no UTF-8 are refused", bad_labels_are_refused, CONF_ANY, 0},
    {"missing keys and texts are refused", null_arguments_are_refused, CONF_ANY, 0},
    {"the longest keys are told apart by their last byte", longest_keys_differ_at_the_end, 0, 0},
    {"the longest key may be of any characters", longest_key_is_counted_in_bytes, 0, 0},
    {"the longest owner works", longest_owner_works, 0, 0},
    {"similar keys are different locks", similar_keys_are_apart, 0, 0},
    {"odd keys are keys like any other", odd_keys_are_keys, 0, 0},
    {NULL, NULL, 0, 0},
};
