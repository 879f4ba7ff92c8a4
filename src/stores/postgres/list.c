/*
 * list.c - the live locks whose key has a prefix, row by row as they come.
 */
#include "postgres_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The prefix is compared by bytes: it is no pattern, and no collation has a say. */
static const char list_sql[] = "SELECT key::text, owner, expiration - (" POSTGRES_NOW_US " + 999) / 1000, %s FROM %s.%s"
                               " WHERE (expiration IS NULL OR expiration > " POSTGRES_NOW_US " / 1000)"
                               " AND starts_with(key::text COLLATE \"C\", $1)";

static bool add_row(const verrou_host *host, const PGresult *row, verrou_sink *sink)
{
    int64_t remaining_ms = VERROU_FOREVER;

    if (!PQgetisnull(row, 0, 2))
        remaining_ms = strtoll(PQgetvalue(row, 0, 2), NULL, 10);
    return host->list_add(sink, PQgetvalue(row, 0, 0), (size_t)PQgetlength(row, 0, 0), PQgetvalue(row, 0, 1),
                          (size_t)PQgetlength(row, 0, 1), remaining_ms, strtoull(PQgetvalue(row, 0, 3), NULL, 10)) == 0;
}

static verrou_status read_rows(postgres_session *session, int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    const postgres_state *state = session->state;
    verrou_status status = VERROU_OK;
    postgres_fault fault;
    PGresult *result;

    while ((result = verrou__postgres_result(session, deadline_ms, &fault))) {
        if (PQresultStatus(result) == PGRES_FATAL_ERROR) {
            verrou__postgres_explain(session, result, &fault);
            status = verrou__postgres_fail(state, &fault, err);
        } else if (status == VERROU_OK && PQntuples(result) > 0 && !add_row(state->host, result, sink)) {
            status = state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
        }
        PQclear(result);
    }
    return session->broken ? verrou__postgres_fail(state, &fault, err) : status;
}

verrou_status verrou__postgres_list(void *context, void *opened, const char *prefix, size_t prefix_len,
                                    int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    const postgres_state *state = context;
    postgres_lane *lane = opened;
    char text[VERROU_MAX_KEY + 1] = "";
    const char *values[] = {text};
    char sql[768];
    postgres_fault fault;

    if (prefix_len > VERROU_MAX_KEY)
        return VERROU_OK;
    if (prefix_len)
        memcpy(text, prefix, prefix_len);
    if (verrou__postgres_has_ended(&lane->session, &fault) || !verrou__postgres_ready(lane, deadline_ms, &fault))
        return verrou__postgres_fail(state, &fault, err);
    snprintf(sql, sizeof sql, list_sql, lane->shape.fenced ? "fence" : "0", lane->shape.schema, lane->shape.table);
    if (!PQsendQueryParams(lane->session.conn, sql, 1, NULL, values, NULL, NULL, 0) ||
        !PQsetSingleRowMode(lane->session.conn)) {
        verrou__postgres_unsent(&lane->session, &fault);
        return verrou__postgres_fail(state, &fault, err);
    }
    return read_rows(&lane->session, deadline_ms, sink, err);
}
