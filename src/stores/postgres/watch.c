/*
 * watch.c - being told of releases: a session that listens to the channel of the table.
 *
 * Who waits shows it, so that whoever releases a lock notifies only then: for every key that is waited for, the listening session holds a shared
 * advisory lock on one of 64 numbers. The server counts them, so that several keys with one number need no care here. A process that
 * waits itself learns from these nothing about others; so each who listens takes a place of its own, as far as there are any, by an exclusive lock,
 * and shows itself on the number of key and place as well.
 *
 * A key becomes fresh when its lock is held. The releaser looks for waiters within his transaction, so that one that is not committed may
 * have looked too early: asking for a fresh key waits for it (see STATEMENT_ACQUIRE). Later releases see the lock.
 *
 * Everything but opening runs on the keeper thread and must not block. What could not be sent at once is sent when the socket becomes readable: as
 * long as something is left, the socket's buffer is full, so it holds a whole request at least, and that will be answered.
 */
#include "postgres_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOW_NAME "verrou_show"
#define HIDE_NAME "verrou_hide"

/* A request to show or hide waiters of a key. */
typedef struct watch_request {
    struct watch_request *next;
    int results; /* read so far: the result, nothing, the sync point */
    bool show;
    size_t key_len;
    char key[];
} watch_request;

typedef struct postgres_watch {
    postgres_session session;
    postgres_shape shape;
    int place;
    watch_request *first, *last; /* sent, and not answered */
} postgres_watch;

typedef struct watched_key {
    struct table_node node; /* node.key is `key` */
    uint64_t fresh_since;   /* 0: not fresh */
    char key[];
} watched_key;

/* ---- the keys ---- */

static watched_key *find_key(postgres_state *state, const char *key, size_t len)
{
    return (watched_key *)table_find(&state->watched, key, len, table_hash(key, len, state->seed));
}

static bool add_key(postgres_state *state, const char *key, size_t len)
{
    watched_key *watched;

    pthread_mutex_lock(&state->mutex);
    watched = find_key(state, key, len);
    if (!watched) {
        watched = state->host->malloc(sizeof *watched + len + 1);
        if (watched) {
            memset(watched, 0, sizeof *watched);
            memcpy(watched->key, key, len);
            watched->key[len] = '\0';
            watched->node.key = watched->key;
            watched->node.key_len = (uint32_t)len;
            watched->node.hash = table_hash(key, len, state->seed);
            table_add(&state->watched, &watched->node, state->host->malloc, state->host->free);
            atomic_store(&state->watched_count, state->watched.count);
        }
    }
    pthread_mutex_unlock(&state->mutex);
    return watched != NULL;
}

static void remove_key(postgres_state *state, const char *key, size_t len)
{
    watched_key *watched;

    pthread_mutex_lock(&state->mutex);
    watched = find_key(state, key, len);
    if (watched)
        table_remove(&state->watched, &watched->node);
    atomic_store(&state->watched_count, state->watched.count);
    pthread_mutex_unlock(&state->mutex);
    state->host->free(watched);
}

/* False: it is not waited for any more. */
static bool make_fresh(postgres_state *state, const char *key, size_t len)
{
    watched_key *watched;

    pthread_mutex_lock(&state->mutex);
    watched = find_key(state, key, len);
    if (watched)
        watched->fresh_since = ++state->fresh_count;
    pthread_mutex_unlock(&state->mutex);
    return watched != NULL;
}

postgres_asking verrou__postgres_how_to_ask(postgres_state *state, const char *key, size_t key_len, uint64_t *ret_since)
{
    const watched_key *watched;
    postgres_asking how = ASK_FIRST;

    pthread_mutex_lock(&state->mutex);
    watched = find_key(state, key, key_len);
    *ret_since = watched ? watched->fresh_since : 0;
    if (watched)
        how = watched->fresh_since ? ASK_FRESH : ASK_AGAIN;
    pthread_mutex_unlock(&state->mutex);
    return how;
}

void verrou__postgres_was_asked(postgres_state *state, const char *key, size_t key_len, uint64_t since)
{
    watched_key *watched;

    pthread_mutex_lock(&state->mutex);
    watched = find_key(state, key, key_len);
    if (watched && watched->fresh_since == since)
        watched->fresh_since = 0;
    pthread_mutex_unlock(&state->mutex);
}

static void clear_keys(postgres_state *state)
{
    pthread_mutex_lock(&state->mutex);
    TABLE_EACH(&state->watched, bucket, node, following)
    {
        table_remove(&state->watched, node);
        state->host->free(node);
    }
    atomic_store(&state->watched_count, 0);
    atomic_store(&state->place, -1);
    pthread_mutex_unlock(&state->mutex);
}

void verrou__postgres_watched_free(postgres_state *state)
{
    clear_keys(state);
    table_done(&state->watched, state->host->free);
}

/* ---- opening and closing ---- */

/* There is no listening here, and there will be none. */
static verrou_status refuse(postgres_state *state, const char *why, verrou_error *err)
{
    pthread_mutex_lock(&state->mutex);
    state->watch_refused = true;
    pthread_mutex_unlock(&state->mutex);
    atomic_fetch_and(&state->caps, ~VERROU_CAP_PUSH);
    state->host->log(state->log_context, VERROU_WARN, "store.subscribe_refused", NULL,
                     "%s: waiters ask again and again", why);
    return state->host->fail(err, VERROU_ENOTSUP, 0, NULL, "postgres: %s", why);
}

static bool prepare(postgres_watch *watch, const char *name, const char *function, int64_t deadline_ms,
                    postgres_fault *fault)
{
    const int class = watch->shape.lock_class;
    char sql[512];

    snprintf(sql, sizeof sql,
             "PREPARE %s(text) AS SELECT %s(%d, " POSTGRES_NUMBER "), %s(%d, " POSTGRES_PLACE_NUMBER " + %d)", name,
             function, class, "$1", function, class, "$1", watch->place);
    return verrou__postgres_run(&watch->session, deadline_ms, fault, sql);
}

/* The first place that is free. */
static bool take_place(postgres_watch *watch, int64_t deadline_ms, postgres_fault *fault)
{
    char sql[256];
    PGresult *result;

    snprintf(sql, sizeof sql,
             "SELECT place FROM generate_series(0, %d) AS place WHERE pg_try_advisory_lock(%d, %d + place) LIMIT 1",
             POSTGRES_PLACES - 1, watch->shape.lock_class, POSTGRES_FIRST_PLACE);
    result = verrou__postgres_ask(&watch->session, deadline_ms, fault, sql, 0, NULL);
    if (!result)
        return false;
    watch->place = PQntuples(result) > 0 ? atoi(PQgetvalue(result, 0, 0)) : POSTGRES_PLACES;
    PQclear(result);
    return true;
}

static bool listen_to(postgres_watch *watch, int64_t deadline_ms, postgres_fault *fault)
{
    char sql[64];

    snprintf(sql, sizeof sql, "LISTEN %s", watch->shape.channel);
    return verrou__postgres_run(&watch->session, deadline_ms, fault, sql) && take_place(watch, deadline_ms, fault) &&
           prepare(watch, SHOW_NAME, "pg_advisory_lock_shared", deadline_ms, fault) &&
           prepare(watch, HIDE_NAME, "pg_advisory_unlock_shared", deadline_ms, fault) &&
           verrou__postgres_begin(&watch->session, fault);
}

verrou_status verrou__postgres_watch_open(void *context, int64_t deadline_ms, void **ret_watch, verrou_error *err)
{
    postgres_state *state = context;
    const verrou_host *host = state->host;
    postgres_watch *watch = host->malloc(sizeof *watch);
    postgres_fault fault;
    verrou_status status = VERROU_OK;
    bool refused;

    if (!watch)
        return host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    pthread_mutex_lock(&state->mutex);
    refused = state->watch_refused;
    pthread_mutex_unlock(&state->mutex);
    memset(watch, 0, sizeof *watch);
    if (refused)
        status = host->fail(err, VERROU_ENOTSUP, 0, NULL, "postgres: this store cannot be told of releases");
    else if (!verrou__postgres_open(state, &watch->session, POSTGRES_FOR_WATCH, deadline_ms, &fault))
        status = verrou__postgres_fail(state, &fault, err);
    if (status != VERROU_OK) {
        host->free(watch);
        return status;
    }

    verrou__postgres_fault_set(&fault, VERROU_OP_RETRY, true, NULL, "there is no table yet");
    if (watch->session.pooled)
        status = refuse(state, "behind a pooler nobody can listen", err);
    else if (!verrou__postgres_shape(&watch->session, &watch->shape, deadline_ms, &fault) || !watch->shape.exists)
        status = verrou__postgres_fail(state, &fault, err);
    else if (watch->shape.folded)
        status = refuse(state, "in this table a key is freed under other names too", err);
    else if (!watch->shape.may_look)
        status = refuse(state, "no right to advisory locks", err);
    else if (!listen_to(watch, deadline_ms, &fault))
        status = verrou__postgres_fail(state, &fault, err);
    if (status != VERROU_OK) {
        verrou__postgres_watch_close(state, watch);
        return status;
    }
    atomic_store(&state->place, watch->place);
    *ret_watch = watch;
    return VERROU_OK;
}

void verrou__postgres_watch_close(void *context, void *opened)
{
    postgres_state *state = context;
    postgres_watch *watch = opened;

    clear_keys(state);
    /* What is left unread would turn the goodbye into a reset, which the server logs. */
    (void)PQconsumeInput(watch->session.conn);
    verrou__postgres_close(&watch->session);
    while (watch->first) {
        watch_request *next = watch->first->next;

        state->host->free(watch->first);
        watch->first = next;
    }
    state->host->free(watch);
}

int verrou__postgres_watch_fd(void *context, void *opened)
{
    (void)context;
    return PQsocket(((const postgres_watch *)opened)->session.conn);
}

/* ---- showing and hiding ---- */

static verrou_status send_request(postgres_watch *watch, const char *key, size_t key_len, bool show, verrou_error *err)
{
    postgres_state *state = watch->session.state;
    watch_request *request = state->host->malloc(sizeof *request + key_len + 1);
    postgres_fault fault;

    if (!request)
        return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    memset(request, 0, sizeof *request);
    request->show = show;
    request->key_len = key_len;
    memcpy(request->key, key, key_len);
    request->key[key_len] = '\0';
    if (watch->last)
        watch->last->next = request;
    else
        watch->first = request;
    watch->last = request;

    if (PQsendQueryPrepared(watch->session.conn, show ? SHOW_NAME : HIDE_NAME, 1, (const char *const[]){request->key},
                            NULL, NULL, 0) &&
        verrou__postgres_sync(&watch->session, &fault))
        return VERROU_OK;
    verrou__postgres_unsent(&watch->session, &fault);
    return verrou__postgres_fail(state, &fault, err);
}

verrou_status verrou__postgres_watch_add(void *context, void *opened, const char *key, size_t key_len,
                                         verrou_error *err)
{
    postgres_state *state = context;

    if (!add_key(state, key, key_len))
        return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    return send_request(opened, key, key_len, true, err);
}

verrou_status verrou__postgres_watch_remove(void *context, void *opened, const char *key, size_t key_len,
                                            verrou_error *err)
{
    remove_key(context, key, key_len);
    return send_request(opened, key, key_len, false, err);
}

/* ---- reading ---- */

typedef struct listener {
    postgres_watch *watch;
    verrou_watch_fn report;
    void *context;
} listener;

/* The next result of what was sent, if it is there. False: it is an error. */
static bool read_result(const listener *to, postgres_fault *fault)
{
    postgres_watch *watch = to->watch;
    postgres_state *state = watch->session.state;
    watch_request *request = watch->first;
    PGresult *result = PQgetResult(watch->session.conn);
    ExecStatusType status = PQresultStatus(result);

    if (result && status != PGRES_TUPLES_OK && status != PGRES_PIPELINE_SYNC) {
        verrou__postgres_explain(&watch->session, result, fault);
        PQclear(result);
        return false;
    }
    PQclear(result);
    if (++request->results < 3)
        return true;
    if (request->show && make_fresh(state, request->key, request->key_len))
        to->report(to->context, VERROU_WATCH_ACTIVE, request->key, request->key_len);
    watch->first = request->next;
    if (!watch->first)
        watch->last = NULL;
    state->host->free(request);
    return true;
}

static bool is_own_lane(postgres_state *state, int pid)
{
    bool own = false;

    pthread_mutex_lock(&state->mutex);
    for (size_t i = 0; i < POSTGRES_MAX_LANES && !own; i++)
        own = state->lanes[i] == pid;
    pthread_mutex_unlock(&state->mutex);
    return own;
}

/* An empty notification, by whoever may notify, is about any key. */
static void read_notifications(const listener *to)
{
    PGnotify *notification;

    while ((notification = PQnotifies(to->watch->session.conn))) {
        const char *key = notification->extra;

        if (!*key)
            to->report(to->context, VERROU_WATCH_FREE, NULL, 0);
        else if (!is_own_lane(to->watch->session.state, notification->be_pid))
            to->report(to->context, VERROU_WATCH_RELEASED, key, strlen(key));
        PQfreemem(notification);
    }
}

verrou_status verrou__postgres_watch_read(void *store, void *opened, verrou_watch_fn report, void *report_context,
                                          verrou_error *err)
{
    postgres_state *state = store;
    postgres_watch *watch = opened;
    listener to = {watch, report, report_context};
    postgres_fault fault;

    if (!PQconsumeInput(watch->session.conn) || PQflush(watch->session.conn) < 0) {
        verrou__postgres_unsent(&watch->session, &fault);
        return verrou__postgres_fail(state, &fault, err);
    }
    while (watch->first && !PQisBusy(watch->session.conn))
        if (!read_result(&to, &fault))
            return verrou__postgres_fail(state, &fault, err);
    read_notifications(&to);
    return VERROU_OK;
}
