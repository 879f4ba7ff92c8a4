/*
 * list.c - the live locks whose key has a prefix, in one answer. (Not row by row: a libpq that has been told to stays so for the first result of
 * the pipeline that follows.)
 */
#include "postgres_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The prefix is compared by bytes: it is no pattern, and no collation has a say. */
static const char list_sql[] = "SELECT key::text, owner, " POSTGRES_LEFT_MS ", %s FROM %s.%s WHERE " POSTGRES_LIVE
                               " AND starts_with(key::text COLLATE \"C\", $1)";

static bool add_row(const verrou_host *host, const PGresult *result, int row, verrou_sink *sink)
{
    int64_t remaining_ms = VERROU_FOREVER;

    if (!PQgetisnull(result, row, 2))
        remaining_ms = strtoll(PQgetvalue(result, row, 2), NULL, 10);
    return host->list_add(sink, PQgetvalue(result, row, 0), (size_t)PQgetlength(result, row, 0),
                          PQgetvalue(result, row, 1), (size_t)PQgetlength(result, row, 1), remaining_ms,
                          strtoull(PQgetvalue(result, row, 3), NULL, 10)) == 0;
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
    PGresult *result;
    bool good = true;

    if (prefix_len > VERROU_MAX_KEY)
        return VERROU_OK;
    if (prefix_len)
        memcpy(text, prefix, prefix_len);
    if (verrou__postgres_has_ended(&lane->session, &fault) || !verrou__postgres_ready(lane, deadline_ms, &fault))
        return verrou__postgres_fail(state, &fault, err);
    snprintf(sql, sizeof sql, list_sql, lane->shape.fenced ? "fence" : "0", lane->shape.schema, lane->shape.table);
    result = verrou__postgres_ask(&lane->session, deadline_ms, &fault, sql, 1, values);
    if (!result)
        return verrou__postgres_fail(state, &fault, err);
    for (int row = 0; good && row < PQntuples(result); row++)
        good = add_row(state->host, result, row, sink);
    PQclear(result);
    return good ? VERROU_OK : state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
}
