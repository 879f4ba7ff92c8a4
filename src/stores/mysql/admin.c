/*
 * admin.c - list, check (doctor) and schema. None of it is on the path of a lock.
 */
#include "mysql_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static verrou_status fail_nomem(const mysql_state *state, verrou_error *err)
{
    return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
}

static int64_t number(const char *text)
{
    return text ? strtoll(text, NULL, 10) : 0;
}

/* ---- list ---- */

/* Keys that begin with the prefix: a range where keys are bytes, so that the others are not even read. */
static void write_prefix(mysql_lane *lane, const char *prefix, size_t prefix_len)
{
    mysql_text *text = &lane->text;

    if (prefix_len == 0)
        return;
    if (!lane->shape.key_text) {
        verrou__mysql_text_addf(text, " AND `key`>=");
        verrou__mysql_text_hex(text, prefix, prefix_len);
    }
    verrou__mysql_text_addf(
        text, " AND LEFT(%s,%zu)=", lane->shape.key_text ? "CAST(CONVERT(`key` USING utf8mb4) AS BINARY)" : "`key`",
        prefix_len);
    verrou__mysql_text_hex(text, prefix, prefix_len);
}

static int list_rows(const mysql_lane *lane, MYSQL_RES *rows, verrou_sink *sink)
{
    const verrou_host *host = lane->state->host;
    MYSQL_ROW row;

    while ((row = mysql_fetch_row(rows))) {
        const unsigned long *lengths = mysql_fetch_lengths(rows);
        int64_t remaining_ms = row[2] ? number(row[2]) - number(row[4]) : VERROU_FOREVER;

        if (!row[0] || !row[1] || lengths[0] > VERROU_MAX_KEY)
            continue; /* not a key of ours */
        if (host->list_add(sink, row[0], lengths[0], row[1], lengths[1], remaining_ms, (uint64_t)number(row[3])) != 0)
            return -1;
    }
    return 0;
}

verrou_status verrou__mysql_list(void *context, void *lane_context, const char *prefix, size_t prefix_len,
                                 int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    mysql_state *state = context;
    mysql_lane *lane = lane_context;
    mysql_fault fault;
    MYSQL_RES *rows;
    int bad;

    verrou__mysql_until(state, deadline_ms);
    if (!verrou__mysql_is_at_rest(lane, &fault) || !verrou__mysql_ready(lane, true, &fault))
        return verrou__mysql_fail(state, &fault, err);
    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text,
                            "SELECT `key`,`owner`,`expiration`,%s," MYSQL_NOW_MS
                            " FROM %s WHERE (`expiration` IS NULL OR `expiration`>" MYSQL_NOW_MS ")",
                            lane->shape.fenced ? "`fence`" : "0", state->name);
    write_prefix(lane, prefix, prefix_len);
    rows = verrou__mysql_query(lane, &fault);
    if (!rows)
        return verrou__mysql_fail(state, &fault, err);
    bad = list_rows(lane, rows, sink);
    mysql_free_result(rows);
    return bad ? fail_nomem(state, err) : VERROU_OK;
}

/* ---- check ---- */

/*
 * What the server says of itself, one line a question: a server that does not know one, as MySQL does not know all of MariaDB's, is not asked
 * further about that.
 */
static bool ask(mysql_lane *lane, const char *question, char *out, size_t size)
{
    mysql_fault fault;
    MYSQL_RES *rows;
    MYSQL_ROW row;

    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text, "%s", question);
    *out = '\0';
    rows = verrou__mysql_query(lane, &fault);
    row = rows ? mysql_fetch_row(rows) : NULL;
    if (row && row[0])
        snprintf(out, size, "%s", row[0]);
    mysql_free_result(rows);
    return *out != '\0';
}

static bool is_on(const char *value)
{
    return strcmp(value, "1") == 0 || strcasecmp(value, "ON") == 0;
}

static int check_server(mysql_lane *lane, verrou_sink *sink)
{
    const verrou_host *host = lane->state->host;
    const char *product = lane->mariadb ? "MariaDB" : "MySQL";
    bool old = lane->version < (lane->mariadb ? 100200 : 80000);
    char value[200];
    int bad = 0;

    if (ask(lane, "SELECT VERSION()", value, sizeof value))
        bad |= host->finding(sink, old ? VERROU_WARN : VERROU_INFO, "server", "%s %s%s", product, value,
                             old ? ": older than what this store is tested with" : "");
    bad |= host->finding(sink, lane->marker[0] ? VERROU_INFO : VERROU_WARN, "user locks", "%s",
                         lane->marker[0] ? "yes: a request whose answer was lost can be ended"
                                         : "none: a request whose answer was lost may still be carried out later");
    if (ask(lane, "SELECT @@sql_mode", value, sizeof value))
        bad |= host->finding(sink, strstr(value, "STRICT_ALL_TABLES") ? VERROU_INFO : VERROU_ERROR_LEVEL, "sql_mode",
                             "%s (of our sessions)", value);
    if (lane->state->tls)
        bad |= host->finding(sink, lane->state->ca ? VERROU_INFO : VERROU_WARN, "tls", "%s%s",
                             mysql_get_ssl_cipher(lane->mysql) ? mysql_get_ssl_cipher(lane->mysql) : "none",
                             lane->state->ca ? "" : ": the server's certificate is not verified, for want of ca=");
    return bad;
}

/* What is lost when the server, or its machine, fails. */
static int check_durability(mysql_lane *lane, verrou_sink *sink)
{
    const verrou_host *host = lane->state->host;
    char value[64];
    int bad = 0;

    if (ask(lane, "SELECT @@global.innodb_flush_log_at_trx_commit", value, sizeof value))
        bad |= host->finding(sink, strcmp(value, "1") == 0 ? VERROU_INFO : VERROU_WARN, "durability",
                             "innodb_flush_log_at_trx_commit=%s%s", value,
                             strcmp(value, "1") == 0 ? "" : ": after a crash the last locks may be forgotten");
    if (ask(lane, "SELECT @@global.log_bin", value, sizeof value) && is_on(value) &&
        ask(lane, "SELECT @@global.sync_binlog", value, sizeof value) && strcmp(value, "1") != 0)
        bad |= host->finding(sink, VERROU_WARN, "durability",
                             "sync_binlog=%s: after a crash the last locks may be missing on replicas", value);
    if (ask(lane, "SELECT @@global.binlog_format", value, sizeof value) && strcasecmp(value, "STATEMENT") == 0 &&
        ask(lane, "SELECT @@global.log_bin", value, sizeof value) && is_on(value))
        bad |= host->finding(sink, VERROU_ERROR_LEVEL, "binlog_format",
                             "STATEMENT: refused by InnoDB at READ COMMITTED; MIXED or ROW is needed");
    return bad;
}

/* A cluster that replicates before it answers, or replicas that are told afterwards. */
static int check_replication(mysql_lane *lane, verrou_sink *sink)
{
    const verrou_host *host = lane->state->host;
    char value[64];
    int bad = 0;

    if (ask(lane, "SELECT @@global.wsrep_on", value, sizeof value) && is_on(value))
        bad |= host->finding(sink, VERROU_INFO, "cluster",
                             "Galera: a lock holds in the whole cluster; conflicts between nodes are tried again");
    if (ask(lane, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'", value,
            sizeof value) &&
        strcmp(value, "0") != 0)
        bad |= host->finding(sink, VERROU_WARN, "replicas",
                             "%s: unless they acknowledge each commit, a failover may forget the last locks", value);
    return bad;
}

/* Leases end by the server's clock, so that a difference does no harm; but people compare logs. */
static int check_clock(mysql_lane *lane, verrou_sink *sink)
{
    const verrou_host *host = lane->state->host;
    struct timespec before, after;
    int64_t ahead_us;
    char value[64];

    clock_gettime(CLOCK_REALTIME, &before);
    if (!ask(lane, "SELECT " MYSQL_NOW_US, value, sizeof value))
        return 0;
    clock_gettime(CLOCK_REALTIME, &after);
    ahead_us = number(value) - ((int64_t)before.tv_sec + after.tv_sec) * 500000 -
               ((int64_t)before.tv_nsec + after.tv_nsec) / 2000;
    return host->finding(sink, VERROU_INFO, "clock",
                         "the server's is %" PRId64 " ms %s this machine's; leases end by the server's",
                         (ahead_us < 0 ? -ahead_us : ahead_us) / 1000, ahead_us < 0 ? "behind" : "ahead of");
}

static int check_counts(mysql_lane *lane, const mysql_shape *shape, verrou_sink *sink, mysql_fault *fault)
{
    const mysql_state *state = lane->state;
    const verrou_host *host = state->host;
    int64_t rows_count = 0, tombstones = 0, ahead_us = 0;
    MYSQL_RES *rows;
    MYSQL_ROW row;
    int bad;

    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text,
                            "SELECT COUNT(*),IFNULL(SUM(`owner`='' AND `expiration`=0),0),"
                            "IFNULL(MAX(CAST(%s AS SIGNED)),0)-" MYSQL_NOW_US " FROM %s",
                            shape->fenced ? "`fence`" : "0", state->name);
    rows = verrou__mysql_query(lane, fault);
    if (!rows)
        return -1;
    row = mysql_fetch_row(rows);
    if (row) {
        rows_count = number(row[0]);
        tombstones = number(row[1]);
        ahead_us = number(row[2]);
    }
    mysql_free_result(rows);
    bad = host->finding(sink, VERROU_INFO, "rows", "%" PRId64 ", of which %" PRId64 " released (kept for their tokens)",
                        rows_count, tombstones);
    if (ahead_us > 0)
        bad |= host->finding(sink, VERROU_WARN, "tokens",
                             "the newest is %" PRId64 " ms ahead of the server's clock, which was set back",
                             ahead_us / 1000);
    if (bad)
        verrou__mysql_fault_set(fault, MEANS_RETRY, 0, "out of memory");
    return bad;
}

/* Those that we may see: it takes the right TRIGGER. */
static int check_triggers(mysql_lane *lane, verrou_sink *sink, mysql_fault *fault)
{
    const lock_table_settings *names = &lane->state->settings;
    const char *quote = names->schema[0] ? "'" : "";
    MYSQL_RES *rows;
    MYSQL_ROW row;
    int bad = 0;

    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text,
                            "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA=%s%s%s"
                            " AND EVENT_OBJECT_TABLE='%s'",
                            quote, names->schema[0] ? names->schema : "DATABASE()", quote, names->table);
    rows = verrou__mysql_query(lane, fault);
    if (!rows)
        return -1;
    row = mysql_fetch_row(rows);
    if (row)
        bad = lane->state->host->finding(sink, VERROU_WARN, "triggers",
                                         "the table has triggers, %s among them: acquisitions take a look more, and "
                                         "those with an owner given in code may have an unknown outcome",
                                         row[0]);
    mysql_free_result(rows);
    return bad;
}

static int check_shape(const mysql_lane *lane, const mysql_shape *shape, verrou_sink *sink)
{
    const verrou_host *host = lane->state->host;
    const char *name = lane->state->name;
    int bad = 0;

    bad |= host->finding(sink, shape->fenced ? VERROU_INFO : VERROU_WARN, "table", "%s%s", name,
                         shape->fenced ? ""
                                       : " has no column `fence`: fencing tokens come from the clock alone; "
                                         "`schema apply` adds it");
    if (shape->folded)
        bad |= host->finding(sink, VERROU_WARN, "collation",
                             "keys are compared with %s: different keys may exclude each other; `schema apply` "
                             "makes them compared byte by byte",
                             shape->collation);
    else
        bad |= host->finding(sink, VERROU_INFO, "collation", "keys are compared byte by byte");
    if (shape->owner_folded)
        bad |= host->finding(sink, VERROU_WARN, "owner",
                             "Verrou for Node.js compares owners with %s: different ones may be taken for equal; "
                             "`schema apply` changes that",
                             shape->owner_collation);
    bad |= host->finding(sink, shape->transactional ? VERROU_INFO : VERROU_ERROR_LEVEL, "engine", "%s%s",
                         shape->engine[0] ? shape->engine : "unknown",
                         shape->transactional ? ""
                                              : " has no transactions: a crash may damage the table, and requests "
                                                "that come together are slow; `schema apply` changes it to InnoDB");
    return bad;
}

/* False: `fault` says why. */
static bool check_table(mysql_lane *lane, verrou_sink *sink, mysql_fault *fault)
{
    const mysql_state *state = lane->state;
    const verrou_host *host = state->host;
    mysql_shape shape;
    int bad;

    if (!verrou__mysql_shape(lane, &shape, fault)) {
        if (fault->code || lane->broken)
            return false;
        bad = host->finding(sink, VERROU_ERROR_LEVEL, "table", "%s", fault->text);
    } else if (!shape.exists) {
        bad = host->finding(sink, state->settings.autocreate ? VERROU_INFO : VERROU_ERROR_LEVEL, "table",
                            "%s does not exist%s", state->name,
                            state->settings.autocreate ? " yet: the first lock makes it"
                                                       : ", and autocreate is off: `verrou schema apply` makes it");
    } else {
        bad = check_shape(lane, &shape, sink);
        if (!bad && (check_triggers(lane, sink, fault) != 0 || check_counts(lane, &shape, sink, fault) != 0))
            return false;
    }
    if (bad)
        verrou__mysql_fault_set(fault, MEANS_RETRY, 0, "out of memory");
    return !bad;
}

verrou_status verrou__mysql_check(void *context, void *lane_context, int64_t deadline_ms, verrou_sink *sink,
                                  verrou_error *err)
{
    mysql_state *state = context;
    mysql_lane *lane = lane_context;
    mysql_fault fault;
    int bad;

    verrou__mysql_until(state, deadline_ms);
    if (!verrou__mysql_is_at_rest(lane, &fault))
        return verrou__mysql_fail(state, &fault, err);
    bad = check_server(lane, sink) | check_durability(lane, sink) | check_replication(lane, sink) |
          check_clock(lane, sink);
    if (lane->broken)
        return verrou__mysql_fail(state, &lane->fault, err);
    if (bad)
        return fail_nomem(state, err);
    return check_table(lane, sink, &fault) ? VERROU_OK : verrou__mysql_fail(state, &fault, err);
}

/* ---- schema ---- */

static const char schema_header[] = "-- Verrou lock table for MySQL and MariaDB, schema version 1. Can be run again.";
static const char fence_header[] =
    "-- Not so what follows: a second run fails at the column `fence`, and changes nothing.\n";

static bool schema_statements(mysql_lane *lane, const mysql_shape *shape, mysql_text *create, mysql_text *alter)
{
    verrou__mysql_create_sql(lane, "\n    ", "\n", create);
    if (shape->exists && verrou__mysql_needs_alter(shape))
        verrou__mysql_alter_sql(lane, shape, alter);
    return !create->failed && !alter->failed;
}

/* Others may be using the table: that is waited for, unlike a locked row. */
static bool schema_run(mysql_lane *lane, const mysql_text *sql, int64_t deadline_ms, mysql_fault *fault)
{
    int64_t left_s = (deadline_ms - lane->state->host->now_ms()) / 1000;
    unsigned done;

    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text, "SET SESSION lock_wait_timeout=%lld,innodb_lock_wait_timeout=%lld",
                            (long long)(left_s < 1      ? 1
                                        : left_s > 3600 ? 3600
                                                        : left_s),
                            (long long)(left_s < 1      ? 1
                                        : left_s > 3600 ? 3600
                                                        : left_s));
    if (!verrou__mysql_run(lane, 1, &done, fault))
        return false;
    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text, "%s", sql->at);
    if (!verrou__mysql_send(lane, fault))
        return false;
    do {
        mysql_reply reply;

        if (!verrou__mysql_reply(lane, &reply, fault)) {
            if (fault->code == ERROR_LOCKED)
                verrou__mysql_fault_set(fault, MEANS_LOCKED, ERROR_LOCKED, "%s: somebody else is using table %s",
                                        lane->address.name, lane->state->name);
            return false;
        }
        mysql_free_result(reply.rows);
    } while (mysql_more_results(lane->mysql));
    return true;
}

/* The session is not what it was: it gets its short waits back, or is not used again. */
static void schema_done(mysql_lane *lane)
{
    mysql_fault fault;
    unsigned done;

    verrou__mysql_forget(lane);
    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text, "SET SESSION lock_wait_timeout=%d,innodb_lock_wait_timeout=%d", !lane->mariadb,
                            !lane->mariadb);
    if (!verrou__mysql_run(lane, 1, &done, &fault))
        verrou__mysql_break(lane, &fault, fault.name, fault.text);
}

verrou_status verrou__mysql_schema(void *context, void *lane_context, int apply, int64_t deadline_ms, verrou_sink *sink,
                                   verrou_error *err)
{
    mysql_state *state = context;
    mysql_lane *lane = lane_context;
    mysql_text create = {.host = state->host}, alter = {.host = state->host};
    mysql_shape shape;
    mysql_fault fault;
    bool good, memory = true;

    verrou__mysql_until(state, deadline_ms);
    good = verrou__mysql_is_at_rest(lane, &fault) && verrou__mysql_shape(lane, &shape, &fault);
    if (good)
        memory = schema_statements(lane, &shape, &create, &alter);
    if (good && memory && apply && (!shape.exists || alter.len)) {
        good = schema_run(lane, shape.exists ? &alter : &create, deadline_ms, &fault);
        schema_done(lane);
    } else if (good && memory && !apply) {
        memory =
            state->host->text_add(sink, "%s\n%s;\n", schema_header, create.at) == 0 &&
            (!alter.len || state->host->text_add(sink, "%s%s;\n", shape.fenced ? "" : fence_header, alter.at) == 0);
    }
    state->host->free(create.at);
    state->host->free(alter.at);
    if (!good)
        return verrou__mysql_fail(state, &fault, err);
    return memory ? VERROU_OK : fail_nomem(state, err);
}
