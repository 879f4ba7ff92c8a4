/*
 * watch.c - telling releasers that somebody waits elsewhere. Waiters themselves are told nothing: the server cannot push.
 *
 * A process with waiters has a connection that holds a user lock for each key that it waits for. A release reads in the same statement
 * whether somebody holds one, so that its process knows whether to keep the key among its own waiters or to leave it to others for a
 * moment. Several processes wait for one key: there are a few locks for each, MYSQL_SLOTS, of which a process takes one that is free.
 */
#include "mysql_store.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MS 50 /* an answer is small, and comes whole */
#define AT_ONCE 16   /* keys registered by one statement */

typedef struct mysql_watch {
    mysql_lane *lane;
    bool asking;
    bool too_old; /* what is asked was asked before it was to be tried again */
    uint64_t asked[AT_ONCE];
    size_t asked_count;
} mysql_watch;

/* FNV-1a, the same in all processes: of the database, the table and the key. */
uint64_t verrou__mysql_watch_hash(const mysql_state *state, const char *key, size_t key_len)
{
    const char *parts[] = {state->settings.schema[0] ? state->settings.schema : state->database, state->settings.table};
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < 2; i++)
        for (const char *at = parts[i]; *at; at++)
            hash = (hash ^ (unsigned char)*at) * UINT64_C(1099511628211);
    for (size_t i = 0; i < key_len; i++)
        hash = (hash ^ (unsigned char)key[i]) * UINT64_C(1099511628211);
    return hash;
}

/* ---- the keys, which lanes look at too ---- */

static mysql_waited *find(mysql_state *state, uint64_t hash)
{
    for (size_t i = 0; i < state->waited_count; i++)
        if (state->waited[i].hash == hash)
            return &state->waited[i];
    return NULL;
}

int verrou__mysql_watch_slot(mysql_state *state, uint64_t hash)
{
    const mysql_waited *one;
    int slot;

    pthread_mutex_lock(&state->mutex);
    one = find(state, hash);
    slot = one ? one->slot : -1;
    pthread_mutex_unlock(&state->mutex);
    return slot;
}

/* Two keys may have one hash. More keys than there is room for are asked about only. */
static void add(mysql_state *state, uint64_t hash)
{
    mysql_waited *one;

    pthread_mutex_lock(&state->mutex);
    one = find(state, hash);
    if (!one && state->waited_count < MYSQL_MAX_WAITED) {
        one = &state->waited[state->waited_count++];
        *one = (mysql_waited){hash, 0, -1, false};
    }
    if (one)
        one->keys++;
    pthread_mutex_unlock(&state->mutex);
}

static void drop(mysql_state *state, uint64_t hash)
{
    mysql_waited *one;

    pthread_mutex_lock(&state->mutex);
    one = find(state, hash);
    if (one && one->keys > 0)
        one->keys--;
    pthread_mutex_unlock(&state->mutex);
}

static void drop_all(mysql_state *state)
{
    pthread_mutex_lock(&state->mutex);
    state->waited_count = 0;
    pthread_mutex_unlock(&state->mutex);
}

/* ---- registering ---- */

/* Keys that nobody waits for any more, and whose lock is not held. */
static void purge(mysql_state *state)
{
    size_t kept = 0;

    for (size_t i = 0; i < state->waited_count; i++)
        if (state->waited[i].keys > 0 || state->waited[i].slot >= 0)
            state->waited[kept++] = state->waited[i];
    state->waited_count = kept;
}

/* One column for each key whose lock is to be taken or let go: the slot, or -1. */
static void write_registering(mysql_watch *watch)
{
    mysql_state *state = watch->lane->state;
    mysql_text *text = &watch->lane->text;

    text->len = 0;
    watch->asked_count = 0;
    pthread_mutex_lock(&state->mutex);
    purge(state);
    for (size_t i = 0; i < state->waited_count && watch->asked_count < AT_ONCE; i++) {
        const mysql_waited *one = &state->waited[i];

        if ((one->keys > 0) == (one->slot >= 0) || one->tried)
            continue;
        verrou__mysql_text_addf(text, "%s", watch->asked_count ? "," : "SELECT ");
        if (one->slot >= 0)
            verrou__mysql_text_addf(text, "RELEASE_LOCK('" MYSQL_WAIT_NAME "')-2", (unsigned long long)one->hash,
                                    one->slot);
        for (int slot = 0; slot < MYSQL_SLOTS && one->slot < 0; slot++)
            verrou__mysql_text_addf(text, "IF(GET_LOCK('" MYSQL_WAIT_NAME "',0)=1,%d,", (unsigned long long)one->hash,
                                    slot, slot);
        verrou__mysql_text_addf(text, "%s", one->slot < 0 ? "-1))))" : "");
        watch->asked[watch->asked_count++] = one->hash;
    }
    pthread_mutex_unlock(&state->mutex);
}

static void read_registering(mysql_watch *watch, MYSQL_RES *rows)
{
    mysql_state *state = watch->lane->state;
    MYSQL_ROW row = rows ? mysql_fetch_row(rows) : NULL;

    pthread_mutex_lock(&state->mutex);
    for (size_t i = 0; row && i < watch->asked_count && i < mysql_num_fields(rows); i++) {
        mysql_waited *one = find(state, watch->asked[i]);

        int slot = row[i] ? (int)strtol(row[i], NULL, 10) : -1;

        if (!one)
            continue;
        one->tried = one->slot < 0 && slot < 0 && !watch->too_old;
        one->slot = slot >= 0 && slot < MYSQL_SLOTS ? slot : -1;
    }
    pthread_mutex_unlock(&state->mutex);
}

/* Register what is to be registered, if nothing is under way. */
static bool next(mysql_watch *watch, mysql_fault *fault)
{
    if (watch->asking)
        return true;
    write_registering(watch);
    watch->asking = watch->asked_count > 0;
    watch->too_old = false;
    return !watch->asking || verrou__mysql_send(watch->lane, fault);
}

static void until_soon(const mysql_watch *watch)
{
    const mysql_state *state = watch->lane->state;

    verrou__mysql_until(state, state->host->now_ms() + ANSWER_MS);
}

/* ---- the calls ---- */

verrou_status verrou__mysql_watch_open(void *context, int64_t deadline_ms, void **ret_watch, verrou_error *err)
{
    mysql_state *state = context;
    mysql_watch *watch = state->host->malloc(sizeof *watch);
    mysql_fault fault;

    if (!watch)
        return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    *watch = (mysql_watch){.asking = false};
    watch->lane = verrou__mysql_connect(state, deadline_ms, &fault);
    if (!watch->lane) {
        state->host->free(watch);
        return verrou__mysql_fail(state, &fault, err);
    }
    if (!watch->lane->marker[0]) {
        verrou__mysql_lane_close(state, watch->lane);
        state->host->free(watch);
        return state->host->fail(err, VERROU_ENOTSUP, 0, NULL, "mysql: the server has no user locks");
    }
    drop_all(state);
    *ret_watch = watch;
    return VERROU_OK;
}

void verrou__mysql_watch_close(void *context, void *watch_context)
{
    mysql_state *state = context;
    mysql_watch *watch = watch_context;

    drop_all(state);
    verrou__mysql_lane_close(state, watch->lane);
    state->host->free(watch);
}

int verrou__mysql_watch_fd(void *context, void *watch_context)
{
    mysql_watch *watch = watch_context;

    (void)context;
    return (int)mysql_get_socket(watch->lane->mysql);
}

/* Where all locks for a key were taken, it is tried again when another key comes or goes. */
static void try_again(mysql_watch *watch)
{
    mysql_state *state = watch->lane->state;

    watch->too_old = watch->asking;
    pthread_mutex_lock(&state->mutex);
    for (size_t i = 0; i < state->waited_count; i++)
        state->waited[i].tried = false;
    pthread_mutex_unlock(&state->mutex);
}

static verrou_status go_on(mysql_watch *watch, verrou_error *err)
{
    mysql_fault fault;

    until_soon(watch);
    return next(watch, &fault) ? VERROU_OK : verrou__mysql_fail(watch->lane->state, &fault, err);
}

verrou_status verrou__mysql_watch_add(void *context, void *watch, const char *key, size_t key_len, verrou_error *err)
{
    mysql_state *state = context;

    add(state, verrou__mysql_watch_hash(state, key, key_len));
    try_again(watch);
    return go_on(watch, err);
}

verrou_status verrou__mysql_watch_remove(void *context, void *watch, const char *key, size_t key_len, verrou_error *err)
{
    mysql_state *state = context;

    drop(state, verrou__mysql_watch_hash(state, key, key_len));
    try_again(watch);
    return go_on(watch, err);
}

verrou_status verrou__mysql_watch_read(void *context, void *watch_context, verrou_watch_fn report, void *report_context,
                                       verrou_error *err)
{
    mysql_state *state = context;
    mysql_watch *watch = watch_context;
    struct pollfd in = {verrou__mysql_watch_fd(state, watch), POLLIN, 0};
    mysql_reply reply;
    mysql_fault fault;

    (void)report, (void)report_context;
    if (poll(&in, 1, 0) > 0) {
        until_soon(watch);
        if (!watch->asking) {
            verrou__mysql_break(watch->lane, &fault, NULL, "the server closed the connection");
            return verrou__mysql_fail(state, &fault, err);
        }
        watch->asking = false;
        if (!verrou__mysql_reply(watch->lane, &reply, &fault))
            return verrou__mysql_fail(state, &fault, err);
        read_registering(watch, reply.rows);
        mysql_free_result(reply.rows);
        if (!verrou__mysql_end(watch->lane, &fault))
            return verrou__mysql_fail(state, &fault, err);
    }
    return go_on(watch, err);
}
