/*
 * sqlite_bench.c - how much of plain SQLite's speed the driver keeps: acquire and release through execute(), against a loop
 * of the same two prepared statements with BEGIN IMMEDIATE and COMMIT around each. Not a test: run it by hand.
 *
 *     sqlite_driver_bench [ROUNDS [PAIRS]]
 *
 * Both sides take turns within a round, so that a change of the machine's load hits both; the ratio of each round is taken,
 * and the median reported.
 */
#include "sqlite_testing.h"

#include <time.h>

/* Without syncs the time on the processor is compared, which other programs disturb less. */
static clockid_t stopwatch = CLOCK_MONOTONIC;

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(stopwatch, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- the plain loop ---- */

enum { BEGIN, COMMIT, TAKE, FREE, PLAIN_COUNT };

typedef struct plain {
    sqlite3 *db;
    sqlite3_stmt *stmts[PLAIN_COUNT];
} plain;

static plain plain_open(const char *synchronous)
{
    static const char *const sql[PLAIN_COUNT] = {
        "BEGIN IMMEDIATE",
        "COMMIT",
        "INSERT INTO verrou (key, owner, expiration, fence) VALUES (?1, ?2, ?5, ?4) ON CONFLICT (key) DO UPDATE SET"
        " owner = excluded.owner, expiration = excluded.expiration, fence = max(fence + 1, excluded.fence)"
        " WHERE expiration <= ?3",
        "UPDATE verrou SET owner = '', expiration = 0 WHERE key = ?1 AND owner = ?2"
        " AND (expiration IS NULL OR expiration > ?3)",
    };
    plain p = {NULL};
    char pragma[128];

    snprintf(pragma, sizeof pragma, "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s", synchronous);
    if (sqlite3_open_v2(test_file("-plain"), &p.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK ||
        sqlite3_exec(p.db, pragma, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(p.db,
                     "create table if not exists verrou (key varchar(255) primary key not null,"
                     " owner varchar(255) not null, expiration bigint, fence bigint not null default 0)",
                     NULL, NULL, NULL) != SQLITE_OK)
        abort();
    for (int i = 0; i < PLAIN_COUNT; i++) {
        if (sqlite3_prepare_v3(p.db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &p.stmts[i], NULL) != SQLITE_OK)
            abort();
    }
    return p;
}

static void plain_step(plain *p, int which)
{
    while (sqlite3_step(p->stmts[which]) == SQLITE_ROW)
        continue;
    sqlite3_reset(p->stmts[which]);
}

static void plain_close(plain *p)
{
    for (int i = 0; i < PLAIN_COUNT; i++)
        sqlite3_finalize(p->stmts[i]);
    sqlite3_close(p->db);
}

static double plain_run(plain *p, int pairs)
{
    double start = seconds();

    for (int i = 0; i < pairs; i++) {
        int64_t now_ms = test_wall_ms();

        sqlite3_bind_text(p->stmts[TAKE], 1, "key", 3, SQLITE_STATIC);
        sqlite3_bind_text(p->stmts[TAKE], 2, "owner", 5, SQLITE_STATIC);
        sqlite3_bind_int64(p->stmts[TAKE], 3, now_ms);
        sqlite3_bind_int64(p->stmts[TAKE], 4, now_ms * 1000);
        sqlite3_bind_int64(p->stmts[TAKE], 5, now_ms + 30000);
        plain_step(p, BEGIN);
        plain_step(p, TAKE);
        plain_step(p, COMMIT);
        sqlite3_bind_text(p->stmts[FREE], 1, "key", 3, SQLITE_STATIC);
        sqlite3_bind_text(p->stmts[FREE], 2, "owner", 5, SQLITE_STATIC);
        sqlite3_bind_int64(p->stmts[FREE], 3, test_wall_ms());
        plain_step(p, BEGIN);
        plain_step(p, FREE);
        plain_step(p, COMMIT);
    }
    return pairs / (seconds() - start);
}

/* ---- the driver ---- */

static double driver_run(test_store *store, int pairs)
{
    double start = seconds();

    for (int i = 0; i < pairs; i++) {
        verrou_op op = test_op(VERROU_OP_ACQUIRE, "key", "owner", 30000, 0);
        uint64_t fence;

        if (test_execute(store, &op, 1, NULL) != VERROU_OK || op.result != VERROU_OP_APPLIED)
            abort();
        fence = op.fence;
        op = test_op(VERROU_OP_RELEASE, "key", "owner", 0, fence);
        if (test_execute(store, &op, 1, NULL) != VERROU_OK || op.result != VERROU_OP_APPLIED)
            abort();
    }
    return pairs / (seconds() - start);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void bench(const char *synchronous, int rounds, int pairs)
{
    char settings[64];
    double *ratios = calloc((size_t)rounds, sizeof *ratios);
    double mine = 0, theirs = 0;
    void *unused = NULL;
    test_store store;
    plain p;

    if (!ratios || test_setup(&unused) != 0)
        abort();
    snprintf(settings, sizeof settings, "synchronous=%s", synchronous);
    store = test_open(settings);
    p = plain_open(synchronous);
    sleep(5); /* the folder's change must lie a while back, as in normal use; see connect.c */
    plain_run(&p, pairs / 4 + 1);
    driver_run(&store, pairs / 4 + 1);
    for (int i = 0; i < rounds; i++) {
        if (i % 2)
            theirs = plain_run(&p, pairs);
        mine = driver_run(&store, pairs);
        if (!(i % 2))
            theirs = plain_run(&p, pairs);
        ratios[i] = mine / theirs;
    }
    qsort(ratios, (size_t)rounds, sizeof *ratios, compare);
    printf("synchronous=%-6s driver %8.0f pairs/s   plain %8.0f pairs/s   ratio: median %.3f (%.3f to %.3f)\n",
           synchronous, mine, theirs, ratios[rounds / 2], ratios[0], ratios[rounds - 1]);
    test_close(&store);
    plain_close(&p);
    test_teardown(&unused);
    free(ratios);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 15;
    int pairs = argc > 2 ? atoi(argv[2]) : 2000;

    bench("full", rounds, pairs / 10 + 1);
    stopwatch = CLOCK_PROCESS_CPUTIME_ID;
    bench("normal", rounds, pairs);
    bench("off", rounds, pairs);
    return 0;
}
