/*
 * bare.h - the reference for SQLite: a loop over sqlite3 itself. Two prepared statements, which are those of the store, each in BEGIN
 * IMMEDIATE and COMMIT, with the same pragmas, on a table that the store made. The store's acquire hands the stored token out through an
 * SQL function of its own, where this one has max() and does without the token.
 */
#ifndef VERROU_BENCH_BARE_H
#define VERROU_BENCH_BARE_H

#include <sqlite3.h>

#include "bench.h"

enum { BARE_BEGIN, BARE_COMMIT, BARE_ACQUIRE, BARE_RELEASE, BARE_STATEMENTS };

struct bare {
    sqlite3 *db;
    sqlite3_stmt *statements[BARE_STATEMENTS];
};

static inline void bare_check(const struct bare *bare, int rc, int expected)
{
    if (rc != expected)
        bench_die("sqlite3", sqlite3_errmsg(bare->db));
}

static inline void bare_open(struct bare *bare, const char *folder, const char *name, const char *synchronous)
{
    static const char *const sql[BARE_STATEMENTS] = {
        [BARE_BEGIN] = "BEGIN IMMEDIATE",
        [BARE_COMMIT] = "COMMIT",
        [BARE_ACQUIRE] = "INSERT INTO main.verrou (key, owner, expiration, fence) VALUES (?1, ?2, ?5, ?4)"
                         " ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, expiration = excluded.expiration,"
                         " fence = max(coalesce(fence, 0) + 1, excluded.fence)"
                         " WHERE expiration <= ?3 AND coalesce(fence, 0) < 9007199254740991",
        [BARE_RELEASE] = "UPDATE main.verrou SET owner = '', expiration = 0 WHERE key = ?1 COLLATE BINARY"
                         " AND owner = ?2 COLLATE BINARY AND (expiration IS NULL OR expiration > ?3)"
                         " AND (?4 = 0 OR fence = ?4)",
    };
    char text[512];
    verrou_error err = VERROU_ERROR_INIT;
    verrou_store *store;

    snprintf(text, sizeof(text), "sqlite:%s/%s", folder, name);
    store = bench_open(text);
    bench_need(verrou_store_schema_apply(store, NULL, &err), &err, text);
    verrou_store_close(store);
    snprintf(text, sizeof(text), "%s/%s", folder, name);
    if (sqlite3_open_v2(text, &bare->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        bench_die(text, "cannot be opened");
    snprintf(text, sizeof(text), "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s", synchronous);
    bare_check(bare, sqlite3_exec(bare->db, text, NULL, NULL, NULL), SQLITE_OK);
    for (int i = 0; i < BARE_STATEMENTS; i++)
        bare_check(bare,
                   sqlite3_prepare_v3(bare->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &bare->statements[i], NULL),
                   SQLITE_OK);
}

static inline void bare_close(struct bare *bare)
{
    for (int i = 0; i < BARE_STATEMENTS; i++)
        sqlite3_finalize(bare->statements[i]);
    sqlite3_close(bare->db);
}

static inline void bare_step(const struct bare *bare, int which)
{
    bare_check(bare, sqlite3_step(bare->statements[which]), SQLITE_DONE);
    sqlite3_reset(bare->statements[which]);
}

static inline void bare_bind(const struct bare *bare, int which, int64_t now_us)
{
    sqlite3_stmt *stmt = bare->statements[which];

    sqlite3_bind_text(stmt, 1, "account:bare", -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, "0123456789abcdef0123456789abcdef@localhost:12345", -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, now_us / 1000);
}

static inline void bare_changed_one(const struct bare *bare)
{
    if (sqlite3_changes(bare->db) != 1)
        bench_die("sqlite3", "a statement changed nothing");
}

static inline void bare_pair(const struct bare *bare)
{
    sqlite3_stmt *acquire = bare->statements[BARE_ACQUIRE];
    sqlite3_stmt *release = bare->statements[BARE_RELEASE];
    struct timespec wall;
    int64_t now_us;

    clock_gettime(CLOCK_REALTIME, &wall);
    now_us = (int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000;
    bare_step(bare, BARE_BEGIN);
    bare_bind(bare, BARE_ACQUIRE, now_us);
    sqlite3_bind_int64(acquire, 4, now_us);
    sqlite3_bind_int64(acquire, 5, now_us / 1000 + 30000);
    bare_step(bare, BARE_ACQUIRE);
    bare_changed_one(bare);
    bare_step(bare, BARE_COMMIT);

    bare_step(bare, BARE_BEGIN);
    bare_bind(bare, BARE_RELEASE, now_us);
    sqlite3_bind_int64(release, 4, 0); /* whatever the token */
    bare_step(bare, BARE_RELEASE);
    bare_changed_one(bare);
    bare_step(bare, BARE_COMMIT);
}

/* Pairs a second. */
static inline double bare_rate(const struct bare *bare, int64_t ms)
{
    int64_t begun_ns = bench_now_ns();
    int pairs = 0;

    do {
        bare_pair(bare);
        pairs++;
    } while (bench_now_ns() - begun_ns < ms * 1000000);
    return pairs * 1e9 / (double)(bench_now_ns() - begun_ns);
}

#endif
