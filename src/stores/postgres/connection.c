/*
 * connection.c - sessions: connecting, results with deadlines, what errors mean.
 *
 * libpq's own calls that wait have no limit, so that none of them is used: everything is sent and read without blocking, and poll(2) waits.
 * After a failure or a missed deadline a session is broken: what may still arrive belongs to a request that was given up. The server's
 * process may even be at work on that request, and is ended before anything else is asked.
 */
#include "postgres_store.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* Of the session that listens: its locks are refused by nobody for long. */
#define WATCH_LOCK_TIMEOUT_MS "1000"

#define KILL_LIMIT_MS 500

/* ---- faults and events ---- */

void verrou__postgres_fault_set(postgres_fault *fault, verrou_op_result result, bool retriable, const char *code,
                                const char *format, ...)
{
    va_list args;

    *fault = (postgres_fault){.result = result, .retriable = retriable};
    snprintf(fault->code, sizeof fault->code, "%s", code ? code : "");
    va_start(args, format);
    vsnprintf(fault->text, sizeof fault->text, format, args);
    va_end(args);
}

verrou_status verrou__postgres_fail(const postgres_state *state, const postgres_fault *fault, verrou_error *err)
{
    return state->host->fail(err, VERROU_ESTORAGE, fault->retriable, fault->code[0] ? fault->code : NULL,
                             "postgres: %s", fault->text);
}

/* What codes mean that are not simply an error of one statement. The first that fits; a class of codes stands behind its members. */
static const struct meaning {
    const char *code;
    bool retry, stale, moved;
} meanings[] = {
    {"0A000", false, true, false},  /* a plan that was made for another shape */
    {"08", true, false, false},     /* the connection */
    {"25006", true, false, true},   /* read-only: a standby */
    {"25P02", true, false, false},  /* the transaction has failed before */
    {"26000", false, true, false},  /* no such prepared statement */
    {"40", true, false, false},     /* serialization, deadlock */
    {"42703", false, true, false},  /* no such column */
    {"42804", false, true, false},  /* a column of another type */
    {"42883", false, true, false},  /* no such operator */
    {"42P01", false, true, false},  /* no such table */
    {"42P10", false, true, false},  /* no unique key */
    {"53100", false, false, false}, /* the disk is full */
    {"53", true, false, false},     /* resources */
    {"55P03", true, false, false},  /* lock_timeout */
    {"57", true, false, false},     /* cancelled, shut down, starting up */
    {"58", true, false, false},     /* the operating system */
};

static const struct meaning *find_meaning(const char *code)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strncmp(code, meanings[i].code, strlen(meanings[i].code)) == 0)
            return &meanings[i];
    return NULL;
}

/* Whatever was asked for. */
static void explain(const postgres_session *session, const PGresult *result, postgres_fault *fault)
{
    const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *neutral = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED); /* which a pooler may leave out */
    const char *severity = neutral ? neutral : PQresultErrorField(result, PG_DIAG_SEVERITY);
    const struct meaning *meaning = code ? find_meaning(code) : NULL;
    /* Without a code it is libpq that speaks: the connection has ended, or there is no memory. */
    bool retry = !code || (meaning && meaning->retry);

    if (!text)
        text = PQresultErrorMessage(result);
    if (!severity) /* pgbouncer has only the word that others translate */
        severity = PQresultErrorField(result, PG_DIAG_SEVERITY);
    verrou__postgres_fault_set(fault, retry ? VERROU_OP_RETRY : VERROU_OP_FAILED, retry, code, "%s: %.*s",
                               session->name, (int)strcspn(text, "\n"), text);
    fault->stale = meaning && meaning->stale;
    fault->moved = meaning && meaning->moved;
    fault->fatal = severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
    /* A pooler speaks like a server, and may have lost it long after the commit. 40003: a server that does not know. */
    fault->doubt =
        (fault->fatal && session->pooled) || (code && (strncmp(code, "08", 2) == 0 || strcmp(code, "40003") == 0));
}

/*
 * What it means here. Whether a right is missing on the table or on something else is in the server's text only, which may be in any language,
 * but for the name.
 */
void verrou__postgres_explain(const postgres_session *session, const PGresult *result, postgres_fault *fault)
{
    const postgres_state *state = session->state;
    size_t len;

    explain(session, result, fault);
    len = strlen(fault->text);
    if (strcmp(fault->code, "55P03") == 0)
        verrou__postgres_fault_set(fault, VERROU_OP_RETRY, true, "55P03", "%s: somebody else has the row locked",
                                   session->name);
    else if (strcmp(fault->code, "42501") == 0 && strstr(fault->text + strlen(session->name), state->table.table))
        snprintf(fault->text + len, sizeof fault->text - len,
                 "; SELECT, INSERT, UPDATE and DELETE on table %s are needed", state->name);
}

/* The first cause counts. */
static void break_session(postgres_session *session, postgres_fault *fault, const char *code, const char *text)
{
    if (!session->broken)
        verrou__postgres_fault_set(&session->fault, VERROU_OP_RETRY, true, code, "%s: %.*s", session->name,
                                   (int)strcspn(text, "\n"), text);
    session->broken = true;
    *fault = session->fault;
}

static void break_by_libpq(postgres_session *session, postgres_fault *fault)
{
    const char *text = PQerrorMessage(session->conn);

    break_session(session, fault, NULL, text && *text ? text : "the connection has ended");
}

void verrou__postgres_break(postgres_session *session, postgres_fault *fault, const postgres_fault *why)
{
    if (!session->broken)
        session->fault = *why;
    session->broken = true;
    *fault = session->fault;
}

void verrou__postgres_unsent(postgres_session *session, postgres_fault *fault)
{
    break_by_libpq(session, fault);
}

/* ---- waiting ---- */

/* Wait until the socket can be read from or written to; false at the deadline. */
static bool wait_socket(const postgres_state *state, const PGconn *conn, short events, int64_t deadline_ms)
{
    struct pollfd fd = {PQsocket(conn), events, 0};

    for (;;) {
        int64_t left_ms = deadline_ms - state->host->now_ms();
        int ready;

        if (left_ms <= 0)
            return false;
        ready = poll(&fd, 1, left_ms > 60000 ? 60000 : (int)left_ms);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return true;
    }
}

/* Send what is to be sent, and read until PQgetResult() would not block. */
static bool wait_result(postgres_session *session, int64_t deadline_ms, postgres_fault *fault)
{
    for (;;) {
        int unsent = PQflush(session->conn);

        if (unsent < 0)
            break;
        if (!PQisBusy(session->conn))
            return true;
        if (!wait_socket(session->state, session->conn, (short)(unsent ? POLLIN | POLLOUT : POLLIN), deadline_ms)) {
            break_session(session, fault, "TIMEOUT", "no answer in time");
            return false;
        }
        if (!PQconsumeInput(session->conn))
            break;
    }
    break_by_libpq(session, fault);
    return false;
}

PGresult *verrou__postgres_result(postgres_session *session, int64_t deadline_ms, postgres_fault *fault)
{
    PGresult *result;

    if (session->broken) {
        *fault = session->fault;
        return NULL;
    }
    if (!wait_result(session, deadline_ms, fault))
        return NULL;
    result = PQgetResult(session->conn);
    /* After the end of the connection libpq makes a result of its own, without a code. */
    if (result && PQresultStatus(result) == PGRES_FATAL_ERROR && !PQresultErrorField(result, PG_DIAG_SQLSTATE)) {
        break_session(session, fault, NULL, PQresultErrorMessage(result));
        PQclear(result);
        return NULL;
    }
    return result;
}

bool verrou__postgres_has_ended(postgres_session *session, postgres_fault *fault)
{
    char byte;
    ssize_t got = recv(PQsocket(session->conn), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    int tries = 2;

    if (session->broken) {
        *fault = session->fault;
        return true;
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        tries = 0;
    (void)PQisBusy(session->conn); /* takes in what has come, if only with the last answer */
    /* A notice, or the reason why the session ends, and then its end. */
    for (int i = 0; i < tries; i++) {
        if (!PQconsumeInput(session->conn)) {
            break_by_libpq(session, fault);
            return true;
        }
        (void)PQisBusy(session->conn);
    }
    if (session->stray)
        break_session(session, fault, NULL, "an answer that nobody had asked for");
    return session->stray;
}

/* ---- asking ---- */

/* The last result of what was sent outside of a pipeline; the first that is an error counts. */
static PGresult *last_result(postgres_session *session, int64_t deadline_ms, postgres_fault *fault,
                             void (*explain_error)(const postgres_session *, const PGresult *, postgres_fault *))
{
    PGresult *last = NULL;
    PGresult *result;

    while ((result = verrou__postgres_result(session, deadline_ms, fault))) {
        if (last && PQresultStatus(last) == PGRES_FATAL_ERROR) {
            PQclear(result);
            continue;
        }
        PQclear(last);
        last = result;
    }
    if (session->broken) {
        PQclear(last);
        return NULL;
    }
    if (last && PQresultStatus(last) != PGRES_FATAL_ERROR)
        return last;
    if (last)
        explain_error(session, last, fault);
    else
        verrou__postgres_fault_set(fault, VERROU_OP_RETRY, true, NULL, "out of memory");
    PQclear(last);
    return NULL;
}

PGresult *verrou__postgres_ask(postgres_session *session, int64_t deadline_ms, postgres_fault *fault, const char *sql,
                               int count, const char *const *values)
{
    if (session->broken) {
        *fault = session->fault;
        return NULL;
    }
    if (!PQsendQueryParams(session->conn, sql, count, NULL, values, NULL, NULL, 0)) {
        break_by_libpq(session, fault);
        return NULL;
    }
    return last_result(session, deadline_ms, fault, verrou__postgres_explain);
}

PGresult *verrou__postgres_ask_plain(postgres_session *session, int64_t deadline_ms, postgres_fault *fault,
                                     const char *sql)
{
    if (session->broken) {
        *fault = session->fault;
        return NULL;
    }
    if (!PQsendQuery(session->conn, sql)) {
        break_by_libpq(session, fault);
        return NULL;
    }
    return last_result(session, deadline_ms, fault, explain);
}

bool verrou__postgres_run(postgres_session *session, int64_t deadline_ms, postgres_fault *fault, const char *sql)
{
    PGresult *result = verrou__postgres_ask_plain(session, deadline_ms, fault, sql);

    PQclear(result);
    return result != NULL;
}

bool verrou__postgres_begin(postgres_session *session, postgres_fault *fault)
{
    if (!session->broken && PQenterPipelineMode(session->conn))
        return true;
    break_by_libpq(session, fault);
    return false;
}

bool verrou__postgres_sync(postgres_session *session, postgres_fault *fault)
{
    if (PQpipelineSync(session->conn))
        return true;
    break_by_libpq(session, fault);
    return false;
}

void verrou__postgres_end(postgres_session *session)
{
    postgres_fault fault;

    if (!session->broken && !PQexitPipelineMode(session->conn))
        break_by_libpq(session, &fault);
}

/* ---- requests whose answer was lost ---- */

void verrou__postgres_lost_answer(postgres_session *session)
{
    postgres_state *state = session->state;
    size_t count;

    if (!session->pid || !session->started[0])
        return;
    pthread_mutex_lock(&state->mutex);
    count = atomic_load(&state->lost_count);
    if (count == POSTGRES_MAX_LOST) /* the oldest is the least likely to be of interest still */
        memmove(state->lost, state->lost + 1, --count * sizeof *state->lost);
    state->lost[count].pid = session->pid;
    memcpy(state->lost[count].started, session->started, sizeof session->started);
    atomic_store(&state->lost_count, count + 1);
    pthread_mutex_unlock(&state->mutex);
    session->started[0] = '\0';
}

static bool first_lost(postgres_state *state, postgres_lost *ret_lost)
{
    bool any;

    pthread_mutex_lock(&state->mutex);
    any = atomic_load(&state->lost_count) > 0;
    if (any)
        *ret_lost = state->lost[0];
    pthread_mutex_unlock(&state->mutex);
    return any;
}

static void forget_lost(postgres_state *state, const postgres_lost *lost)
{
    size_t kept = 0;

    pthread_mutex_lock(&state->mutex);
    for (size_t i = 0; i < atomic_load(&state->lost_count); i++)
        if (state->lost[i].pid != lost->pid || strcmp(state->lost[i].started, lost->started) != 0)
            state->lost[kept++] = state->lost[i];
    atomic_store(&state->lost_count, kept);
    pthread_mutex_unlock(&state->mutex);
}

/* A signal is only a wish: it is over when the process is gone. False: it is not (or may not be asked for), and time is up. */
static bool kill_one(postgres_session *session, const postgres_lost *lost, int64_t deadline_ms)
{
    /* When it was started tells it from a later process of the same number. */
    static const char sql[] = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                              " WHERE pid = $1::int AND date_part('epoch', backend_start)::text = $2::text";
    const verrou_host *host = session->state->host;
    struct timespec pause = {0, 1000000};
    char pid[16];
    const char *values[] = {pid, lost->started};
    bool gone = false;

    snprintf(pid, sizeof pid, "%d", lost->pid);
    while (!gone) {
        postgres_fault fault;
        PGresult *result = verrou__postgres_ask(session, deadline_ms, &fault, sql, 2, values);

        gone = result && PQntuples(result) == 0;
        PQclear(result);
        if (!result || (!gone && host->now_ms() >= deadline_ms))
            break;
        if (!gone)
            nanosleep(&pause, NULL);
        if (pause.tv_nsec < 16000000)
            pause.tv_nsec *= 2;
    }
    return gone;
}

/*
 * A process that does not go, because the machine is that slow or we may not end it, is given up: the engine lives with late requests, but for
 * the two kinds that docs/internals/engine.md names. Until this returns other lanes find it in the list and wait for it as well.
 */
void verrou__postgres_kill_lost(postgres_session *session, int64_t deadline_ms)
{
    postgres_state *state = session->state;
    int64_t limit_ms = state->host->now_ms() + KILL_LIMIT_MS;
    postgres_lost lost;

    if (limit_ms > deadline_ms)
        limit_ms = deadline_ms;
    while (!session->pooled && atomic_load(&state->lost_count) > 0 && first_lost(state, &lost)) {
        kill_one(session, &lost, limit_ms);
        if (session->broken)
            return;
        forget_lost(state, &lost);
    }
}

/* ---- connecting ---- */

static void ignore_notice(void *context, const char *message)
{
    (void)context;
    (void)message; /* libpq would print it */
}

/*
 * libpq drops an answer that comes while none is waited for, and says so in a notice of its own, which has no code. Whatever comes then
 * may belong to an earlier request.
 */
static void look_for_strays(void *context, const PGresult *notice)
{
    postgres_session *session = context;

    if (!PQresultErrorField(notice, PG_DIAG_SQLSTATE))
        session->stray = true;
}

static size_t make_keywords(const postgres_state *state, const postgres_place *place, const char **names,
                            const char **values)
{
    const verrou_setting own[] = {
        {"client_encoding", "UTF8"},
        {"host", place->host},
        {"hostaddr", place->hostaddr},
        {"port", place->port},
    };
    size_t count = 0;

    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        names[count] = own[i].name;
        values[count] = own[i].value;
        count += own[i].value != NULL;
    }
    for (size_t i = 0; i < state->option_count; i++) {
        names[count] = state->options[i].name;
        values[count++] = state->options[i].value;
    }
    names[count] = values[count] = NULL;
    return count;
}

/* Find the code in a line like "... failed: FATAL:  28P01: password authentication failed", as it is told on request while connecting. */
static const char *find_code(const char *line, size_t len)
{
    for (size_t i = 0; i + 10 <= len; i++) {
        const char *at = line + i;

        if (strncmp(at, ":  ", 3) == 0 && strspn(at + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && at[8] == ':')
            return at + 3;
    }
    return NULL;
}

/* Whether trying again is of no use. libpq has no codes for what it finds out by itself. */
static bool is_final(const PGconn *conn, const char *code, const char *text)
{
    static const char *const phrases[] = {
        "certificate", "not support SSL", "SSL was required", "channel binding",
        "invalid ",    "service",         "GSSAPI",           "authentication method"};

    if (PQconnectionNeedsPassword(conn) || strncmp(code, "28", 2) == 0 || strcmp(code, "3D000") == 0)
        return true;
    for (size_t i = 0; code[0] == '\0' && i < sizeof phrases / sizeof phrases[0]; i++)
        if (strstr(text, phrases[i]))
            return true;
    return false;
}

#define ATTEMPT "connection to server " /* how libpq begins to tell of an address, and a way, that it tried */

/* What was tried last, or the last of them that a server answered to: its lines up to the next one. */
static const char *find_attempt(const char *text, const char **ret_code)
{
    const char *found = text;
    const char *begin = text;

    *ret_code = NULL;
    for (const char *at = text; *at; at += strspn(at, "\n")) {
        size_t len = strcspn(at, "\n");
        const char *code = find_code(at, len);

        if (strncmp(at, ATTEMPT, strlen(ATTEMPT)) == 0)
            begin = at;
        if (code || !*ret_code)
            found = begin;
        *ret_code = code ? code : *ret_code;
        at += len;
    }
    return found;
}

/* The lines from there on that tell of the same attempt, as one, and without the code. Those with a tab are general advice. */
static void join_lines(const char *at, const char *code, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (bool first = true; *at && used < size; at += strspn(at, "\n")) {
        size_t len = strcspn(at, "\n");
        size_t head = code && code >= at && code < at + len ? (size_t)(code - at) : len;
        size_t skip = head < len ? strlen("28P01: ") : 0;

        if (!first && strncmp(at, ATTEMPT, strlen(ATTEMPT)) == 0)
            return;
        if (*at != '\t' && strncmp(at, "LOCATION:", 9) != 0) {
            used += (size_t)snprintf(out + used, size - used, "%s%.*s%.*s", first ? "" : "; ", (int)head, at,
                                     (int)(len - head - skip), at + head + skip);
            first = false;
        }
        at += len;
    }
}

static void explain_connect(const PGconn *conn, postgres_fault *fault)
{
    const char *text = conn ? PQerrorMessage(conn) : "out of memory\n";
    const char *code;
    const char *attempt = find_attempt(text, &code);
    char kept[8] = "";
    char joined[sizeof fault->text];

    if (code)
        snprintf(kept, sizeof kept, "%.5s", code);
    join_lines(attempt, code, joined, sizeof joined);
    verrou__postgres_fault_set(fault, VERROU_OP_RETRY, true, kept, "%s", joined);
    if (conn && is_final(conn, kept, text)) {
        fault->result = VERROU_OP_FAILED;
        fault->retriable = false;
    }
}

static bool poll_connect(const postgres_state *state, PGconn *conn, int64_t deadline_ms, postgres_fault *fault)
{
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;

    while (next != PGRES_POLLING_OK) {
        if (next == PGRES_POLLING_FAILED || PQstatus(conn) == CONNECTION_BAD) {
            explain_connect(conn, fault);
            return false;
        }
        if (!wait_socket(state, conn, next == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_ms)) {
            verrou__postgres_fault_set(fault, VERROU_OP_RETRY, true, "TIMEOUT", "%s%s%s: no connection in time",
                                       PQhost(conn), PQport(conn)[0] ? ":" : "", PQport(conn));
            return false;
        }
        next = PQconnectPoll(conn);
    }
    return true;
}

static PGconn *connect_place(const postgres_state *state, const postgres_place *place, int64_t deadline_ms,
                             postgres_fault *fault)
{
    const char *names[POSTGRES_MAX_OPTIONS + 8];
    const char *values[POSTGRES_MAX_OPTIONS + 8];
    int64_t limit_ms = state->host->now_ms() + state->connect_timeout_ms;
    PGconn *conn;

    make_keywords(state, place, names, values);
    conn = PQconnectStartParams(names, values, 0);
    if (!conn || PQstatus(conn) == CONNECTION_BAD) {
        explain_connect(conn, fault);
        PQfinish(conn);
        return NULL;
    }
    PQsetNoticeProcessor(conn, ignore_notice, NULL);
    PQsetErrorVerbosity(conn, PQERRORS_VERBOSE); /* with the code */
    if (poll_connect(state, conn, limit_ms < deadline_ms ? limit_ms : deadline_ms, fault)) {
        PQsetErrorVerbosity(conn, PQERRORS_DEFAULT);
        if (PQsetnonblocking(conn, 1) == 0)
            return conn;
        explain_connect(conn, fault);
    }
    PQfinish(conn);
    return NULL;
}

/*
 * All hosts, beginning with the one that was good last; each gets its share of the time, so that a silent one leaves some for the others. Another try is
 * of use if it is for one of them.
 */
static PGconn *connect_any(postgres_state *state, int64_t deadline_ms, postgres_fault *fault)
{
    size_t first = atomic_load(&state->good_place);
    bool retriable = false;

    for (size_t i = 0; i < state->place_count; i++) {
        size_t at = (first + i) % state->place_count;
        int64_t now_ms = state->host->now_ms();
        int64_t share_ms = (deadline_ms - now_ms) / (int64_t)(state->place_count - i);
        PGconn *conn = connect_place(state, &state->places[at], now_ms + share_ms, fault);

        if (conn) {
            atomic_store(&state->good_place, at);
            return conn;
        }
        retriable = retriable || fault->retriable;
    }
    if (retriable && !fault->retriable) {
        fault->retriable = true;
        fault->result = VERROU_OP_RETRY;
    }
    return NULL;
}

/* A file that was named and cannot be read is no use to try again, whatever libpq would make of it. */
static bool check_files(const postgres_state *state, postgres_fault *fault)
{
    for (size_t i = 0; i < state->option_count; i++)
        if (strcmp(state->options[i].name, "sslmode") == 0 && strcmp(state->options[i].value, "disable") == 0)
            return true;
    for (size_t i = 0; i < state->option_count; i++) {
        const postgres_option *option = &state->options[i];
        int error = option->file ? settings_file_error(option->value) : 0;

        if (error) {
            verrou__postgres_fault_set(fault, VERROU_OP_FAILED, false, NULL, "%s=%s: %s", option->file, option->value,
                                       strerror(error));
            return false;
        }
    }
    return true;
}

static void name_session(postgres_session *session)
{
    const char *host = PQhost(session->conn);
    const char *port = PQport(session->conn);

    if (host[0] == '/')
        snprintf(session->name, sizeof session->name, "%s/.s.PGSQL.%s", host, port);
    else
        snprintf(session->name, sizeof session->name, "%s:%s", host, port);
}

/*
 * One statement makes the settings, and finds out whether they last: behind a pooler the process that answers is not the one that the greeting
 * named. There they are made for this statement only. (The pooler of a session's length is taken for one as well, unless pooler=none.)
 */
static bool greet(postgres_session *session, postgres_purpose purpose, int64_t deadline_ms, postgres_fault *fault)
{
    static const char sql[] =
        "SELECT pg_backend_pid(),"
        " (SELECT date_part('epoch', backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid()),"
        " w.pooled, set_config('lock_timeout', $3, w.pooled),"
        " CASE WHEN $4 THEN set_config('idle_session_timeout', '0', w.pooled) END,"
        " set_config('default_transaction_isolation', 'read committed', w.pooled),"
        " set_config('enable_seqscan', 'off', w.pooled), set_config('enable_bitmapscan', 'off', w.pooled),"
        " set_config('plan_cache_mode', 'force_generic_plan', w.pooled)"
        " FROM (SELECT CASE $2::int WHEN 0 THEN pg_backend_pid() <> $1::int ELSE $2::int = 2 END AS pooled) AS w";
    postgres_state *state = session->state;
    char pid[16], pooler[16];
    const char *values[] = {pid, pooler,
                            purpose == POSTGRES_FOR_WATCH ? WATCH_LOCK_TIMEOUT_MS : POSTGRES_LOCK_TIMEOUT_MS,
                            PQserverVersion(session->conn) >= 140000 ? "t" : "f"};
    PGresult *result;

    snprintf(pid, sizeof pid, "%d", PQbackendPID(session->conn));
    snprintf(pooler, sizeof pooler, "%d", (int)state->pooler);
    result = verrou__postgres_ask(session, deadline_ms, fault, sql, 4, values);
    if (!result)
        return false;
    session->pooled = PQgetvalue(result, 0, 2)[0] == 't';
    if (!session->pooled)
        session->pid = PQbackendPID(session->conn);
    snprintf(session->started, sizeof session->started, "%s", PQgetvalue(result, 0, 1));
    PQclear(result);
    if (PQserverVersion(session->conn) >= POSTGRES_OLDEST)
        return true;
    verrou__postgres_fault_set(fault, VERROU_OP_FAILED, false, NULL, "%s: PostgreSQL 12 or later is needed",
                               session->name);
    return false;
}

bool verrou__postgres_open(postgres_state *state, postgres_session *session, postgres_purpose purpose,
                           int64_t deadline_ms, postgres_fault *fault)
{
    *session = (postgres_session){.state = state};
    if (!check_files(state, fault))
        return false;
    session->conn = connect_any(state, deadline_ms, fault);
    if (!session->conn)
        return false;
    PQsetNoticeReceiver(session->conn, look_for_strays, session);
    name_session(session);
    if (greet(session, purpose, deadline_ms, fault))
        return true;
    verrou__postgres_close(session);
    return false;
}

/* Nothing is waited for: the last word is sent only if there is room for it. */
void verrou__postgres_close(postgres_session *session)
{
    PQfinish(session->conn);
    session->conn = NULL;
}
