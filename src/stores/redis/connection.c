/*
 * connection.c - commands and replies on a stream, and the first words of a connection.
 *
 * Replies come in the order of the commands; nobody here knows what they mean. After a failure or a missed deadline the connection is
 * broken: what may still arrive belongs to a request that was given up.
 */
#include "redis_store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_SIZE 16384
#define MAX_WORDS 8

/* ---- faults and events ---- */

void verrou__redis_fault_set(redis_fault *fault, verrou_op_result result, bool retriable, const char *code,
                             const char *format, ...)
{
    va_list args;

    *fault = (redis_fault){.result = result, .retriable = retriable};
    snprintf(fault->code, sizeof fault->code, "%s", code ? code : "");
    va_start(args, format);
    vsnprintf(fault->text, sizeof fault->text, format, args);
    va_end(args);
}

verrou_status verrou__redis_fail(const redis_state *state, const redis_fault *fault, verrou_error *err)
{
    return state->host->fail(err, VERROU_ESTORAGE, fault->retriable, fault->code[0] ? fault->code : NULL, "redis: %s",
                             fault->text);
}

/* The first cause counts. */
void verrou__redis_break(redis_connection *connection, redis_fault *fault, const char *code, const char *what)
{
    if (!connection->broken)
        verrou__redis_fault_set(&connection->fault, VERROU_OP_RETRY, true, code, "%s: %s", connection->address.name,
                                what);
    connection->broken = connection->fault.broken = true;
    *fault = connection->fault;
}

/* Reading or writing failed with errno. TLS may know better why, and then it may be for good. */
static void break_by_errno(redis_connection *connection, redis_fault *fault)
{
    int error = errno;
    bool final = false;
    const char *text = connection->stream.tls ? verrou__redis_tls_failure(connection->stream.tls, &final) : NULL;
    char tls_text[300];

    snprintf(tls_text, sizeof tls_text, "TLS: %s", text ? text : "");
    verrou__redis_break(connection, fault, text ? "TLS" : NULL, text ? tls_text : strerror(error));
    if (final) {
        connection->fault.result = VERROU_OP_FAILED;
        connection->fault.retriable = false;
        *fault = connection->fault;
    }
}

/* ---- writing ---- */

static bool reserve(redis_connection *connection, size_t more)
{
    const verrou_host *host = connection->state->host;
    size_t size = connection->out_size ? connection->out_size : 4096;
    char *grown;

    while (size - connection->out_len < more)
        size *= 2;
    if (size == connection->out_size)
        return true;
    grown = host->realloc(connection->out, size);
    if (!grown)
        return false;
    connection->out = grown;
    connection->out_size = size;
    return true;
}

bool verrou__redis_append(redis_connection *connection, int argc, const char **argv, const size_t *lens)
{
    char *command = NULL;
    int len = (int)redisFormatCommandArgv(&command, argc, argv, lens);

    if (len < 0 || !command)
        return false;
    if (!reserve(connection, (size_t)len)) {
        redisFreeCommand(command);
        return false;
    }
    memcpy(connection->out + connection->out_len, command, (size_t)len);
    connection->out_len += (size_t)len;
    redisFreeCommand(command);
    return true;
}

bool verrou__redis_flush_some(redis_connection *connection, redis_fault *fault)
{
    while (connection->out_at < connection->out_len) {
        ssize_t put = verrou__redis_stream_write(&connection->stream, connection->out + connection->out_at,
                                                 connection->out_len - connection->out_at);

        if (put < 0 && errno == EAGAIN)
            return true;
        if (put < 0)
            break_by_errno(connection, fault);
        else if (put == 0)
            verrou__redis_break(connection, fault, NULL, "the connection was closed");
        if (put <= 0)
            return false;
        connection->out_at += (size_t)put;
    }
    connection->out_at = connection->out_len = 0;
    return true;
}

bool verrou__redis_flush(redis_connection *connection, int64_t deadline_ms, redis_fault *fault)
{
    /* What is left was taken for not sent. */
    if (connection->broken) {
        *fault = connection->fault;
        return false;
    }
    while (verrou__redis_flush_some(connection, fault)) {
        if (connection->out_len == 0)
            return true;
        if (!verrou__redis_stream_wait_write(connection->state, &connection->stream, deadline_ms)) {
            verrou__redis_break(connection, fault, "TIMEOUT", "the request could not be sent in time");
            return false;
        }
    }
    return false;
}

/* ---- reading ---- */

/* A CLIENT KILL that was refused for a passing reason is said again: whom it was meant for may still be heard. */
static void note_skipped(redis_connection *connection, const redisReply *reply)
{
    redis_fault fault;

    if (reply->type != REDIS_REPLY_ERROR || !connection->killing)
        return;
    verrou__redis_explain(connection, reply, &fault);
    if (fault.result == VERROU_OP_RETRY)
        connection->killing = 0;
}

/* The next reply that has arrived, if any; what is to be skipped is. */
static bool parse_reply(redis_connection *connection, redisReply **ret_reply, redis_fault *fault)
{
    for (;;) {
        void *reply = NULL;

        if (redisReaderGetReply(connection->reader, &reply) != REDIS_OK) {
            verrou__redis_break(connection, fault, "PROTOCOL", connection->reader->errstr);
            return false;
        }
        *ret_reply = reply;
        if (!reply || connection->skip == 0)
            return true;
        connection->skip--;
        note_skipped(connection, *ret_reply);
        freeReplyObject(reply);
    }
}

bool verrou__redis_reply_now(redis_connection *connection, int64_t deadline_ms, redisReply **ret_reply,
                             redis_fault *fault)
{
    char buffer[READ_SIZE];

    while (parse_reply(connection, ret_reply, fault)) {
        ssize_t got;

        if (*ret_reply)
            return true;
        got = verrou__redis_stream_read(connection->state, &connection->stream, buffer, sizeof buffer, deadline_ms);
        if (got < 0 && errno == EAGAIN)
            return true;
        connection->heard = connection->heard || got > 0;
        connection->reads += got > 0;
        if (got > 0 && redisReaderFeed(connection->reader, buffer, (size_t)got) == REDIS_OK)
            continue;
        if (got < 0)
            break_by_errno(connection, fault);
        else
            verrou__redis_break(connection, fault, NULL,
                                got > 0 ? "out of memory" : "the server closed the connection");
        return false;
    }
    return false;
}

redisReply *verrou__redis_reply(redis_connection *connection, int64_t deadline_ms, redis_fault *fault)
{
    redisReply *reply = NULL;

    if (connection->broken)
        *fault = connection->fault;
    else if (verrou__redis_reply_now(connection, deadline_ms, &reply, fault) && !reply)
        verrou__redis_break(connection, fault, "TIMEOUT", "no answer in time");
    return reply;
}

/* A command of words, ended with NULL, without answer yet. */
static bool say_words(redis_connection *connection, const char *const *words)
{
    const char *argv[MAX_WORDS];
    size_t lens[MAX_WORDS];
    int argc = 0;

    for (; words[argc] && argc < MAX_WORDS; argc++) {
        argv[argc] = words[argc];
        lens[argc] = strlen(words[argc]);
    }
    return verrou__redis_append(connection, argc, argv, lens);
}

#define say(connection, ...) say_words((connection), (const char *const[]){__VA_ARGS__, NULL})

redisReply *verrou__redis_ask_words(redis_connection *connection, int64_t deadline_ms, redis_fault *fault,
                                    const char *const *words)
{
    redisReply *reply;

    if (!say_words(connection, words)) {
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "out of memory");
        return NULL;
    }
    if (!verrou__redis_flush(connection, deadline_ms, fault))
        return NULL;
    reply = verrou__redis_reply(connection, deadline_ms, fault);
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        verrou__redis_explain(connection, reply, fault);
        freeReplyObject(reply);
        return NULL;
    }
    return reply;
}

/* ---- requests whose answer was lost ---- */

void verrou__redis_lost_answer(redis_connection *connection)
{
    redis_state *state = connection->state;
    redis_lost *lost;
    redis_fault fault;

    verrou__redis_break(connection, &fault, NULL, "an answer was lost");
    if (!connection->client_id || !connection->run_id[0])
        return;
    pthread_mutex_lock(&state->mutex);
    if (state->lost_count == REDIS_MAX_LOST) { /* the oldest is the least likely to be of interest still */
        memmove(state->lost, state->lost + 1, (REDIS_MAX_LOST - 1) * sizeof *lost);
        state->lost_count--;
    }
    lost = &state->lost[state->lost_count++];
    lost->serial = ++state->lost_serial;
    lost->client_id = connection->client_id;
    memcpy(lost->run_id, connection->run_id, sizeof lost->run_id);
    pthread_mutex_unlock(&state->mutex);
    connection->client_id = 0;
}

/*
 * Only to the server that knows them: ids begin anew with every server process. They are forgotten when it is known to be done: until then
 * this connection may be lost as well, and what is asked on others must not overtake the killing.
 */
bool verrou__redis_kill_lost(redis_connection *connection)
{
    redis_state *state = connection->state;
    bool said = true;

    if (connection->broken || !connection->run_id[0])
        return true;
    pthread_mutex_lock(&state->mutex);
    for (size_t i = 0; i < state->lost_count && said; i++) {
        const redis_lost *lost = &state->lost[i];
        char id[32];

        if (lost->serial <= connection->killing || strcmp(lost->run_id, connection->run_id) != 0)
            continue;
        snprintf(id, sizeof id, "%lld", lost->client_id);
        said = say(connection, "CLIENT", "KILL", "ID", id);
        if (said) {
            connection->skip++;
            connection->killing = lost->serial;
        }
    }
    pthread_mutex_unlock(&state->mutex);
    return said;
}

void verrou__redis_lost_killed(redis_connection *connection)
{
    redis_state *state = connection->state;
    size_t kept = 0;

    if (!connection->killing)
        return;
    pthread_mutex_lock(&state->mutex);
    for (size_t i = 0; i < state->lost_count; i++)
        if (state->lost[i].serial > connection->killing || strcmp(state->lost[i].run_id, connection->run_id) != 0)
            state->lost[kept++] = state->lost[i];
    state->lost_count = kept;
    pthread_mutex_unlock(&state->mutex);
    connection->killing = 0;
}

/* ---- replies that belong to no request ---- */

bool verrou__redis_is_at_rest(redis_connection *connection, redis_fault *fault)
{
    redisReply *reply = NULL;

    if (!verrou__redis_reply_now(connection, 0, &reply, fault))
        return false;
    if (!reply && (connection->skip || connection->reader->pos == connection->reader->len))
        return true;
    freeReplyObject(reply);
    verrou__redis_break(connection, fault, "PROTOCOL", "a reply to nothing that was asked");
    return false;
}

bool verrou__redis_prove(redis_connection *connection, int64_t deadline_ms, bool *ret_refused, redis_fault *fault)
{
    char number[16];
    redisReply *reply = NULL;

    snprintf(number, sizeof number, "%lu", (unsigned long)++connection->number);
    *ret_refused = false;
    if (!say(connection, "PING", number))
        verrou__redis_break(connection, fault, NULL, "out of memory");
    else if (verrou__redis_flush(connection, deadline_ms, fault))
        reply = verrou__redis_reply(connection, deadline_ms, fault);
    if (reply && reply->type == REDIS_REPLY_ERROR)
        *ret_refused = true;
    else if (reply && (reply->type != REDIS_REPLY_STRING || strcmp(reply->str, number) != 0))
        verrou__redis_break(connection, fault, "PROTOCOL", "a reply to something else than what was asked");
    freeReplyObject(reply);
    return !connection->broken;
}

/* ---- the first words ---- */

void verrou__redis_info_field(const char *info, const char *name, char *value, size_t size)
{
    size_t name_len = strlen(name);

    value[0] = '\0';
    for (const char *at = strstr(info, name); at; at = strstr(at + 1, name)) {
        size_t len = strcspn(at, "\r\n");

        if ((at != info && at[-1] != '\n') || at[name_len] != ':')
            continue;
        if (len - name_len <= size) {
            memcpy(value, at + name_len + 1, len - name_len - 1);
            value[len - name_len - 1] = '\0';
        }
        return;
    }
}

bool verrou__redis_is_sharded(const redis_connection *connection)
{
    return connection->state->topology == REDIS_CLUSTER &&
           (connection->version == 0 || connection->version >= REDIS_SHARDED_PUBLISH);
}

static void read_info(redis_connection *connection, const redisReply *reply)
{
    char version[32];
    char *rest = NULL;

    if (reply->type != REDIS_REPLY_STRING)
        return;
    verrou__redis_info_field(reply->str, "run_id", connection->run_id, sizeof connection->run_id);
    verrou__redis_info_field(reply->str, "redis_version", version, sizeof version);
    connection->version = (int)strtol(version, &rest, 10) * 100;
    if (rest && *rest == '.')
        connection->version += (int)strtol(rest + 1, NULL, 10);
}

/* The server's words are not repeated here: some quote the arguments of the command, and those are user and password. */
static bool read_auth(const redis_connection *connection, const redisReply *reply, redis_fault *fault)
{
    if (reply->type != REDIS_REPLY_ERROR)
        return true;
    verrou__redis_explain(connection, reply, fault);
    snprintf(fault->text, sizeof fault->text, "%s %s (%s)", connection->address.name,
             strstr(reply->str, "without any password") ? "has no password, and refuses one"
                                                        : "refuses the user or the password",
             fault->code);
    return false;
}

typedef struct greeting {
    const char *user;
    const char *password;
    char db[16];
    bool auth, select, client_id, info, role, scripts;
} greeting;

static greeting greeting_for(const redis_state *state, redis_purpose purpose)
{
    bool sentinel = purpose == REDIS_FOR_SENTINEL;
    greeting first = {
        .user = sentinel ? state->sentinel_user : state->user,
        .password = sentinel ? state->sentinel_password : state->password,
        .select = purpose == REDIS_FOR_LOCKS && state->db != 0,
        .client_id = purpose == REDIS_FOR_LOCKS,
        .info = !sentinel,
        .role = !sentinel && state->topology == REDIS_SENTINEL,
        .scripts = purpose == REDIS_FOR_LOCKS,
    };

    first.auth = first.password || (first.user && first.user[0]);
    if (!first.password)
        first.password = ""; /* for users without one: the name alone decides what is allowed */
    snprintf(first.db, sizeof first.db, "%d", state->db);
    return first;
}

/* Everything at once: a new connection costs one round trip. */
static bool send_greeting(redis_connection *connection, const greeting *first)
{
    bool said = true;

    if (first->auth && first->user && first->user[0])
        said = say(connection, "AUTH", first->user, first->password);
    else if (first->auth)
        said = say(connection, "AUTH", first->password);
    if (first->select)
        said = said && say(connection, "SELECT", first->db);
    if (first->client_id)
        said = said && say(connection, "CLIENT", "ID");
    if (first->info)
        said = said && say(connection, "INFO", "server");
    if (first->role)
        said = said && say(connection, "ROLE");
    for (int i = 0; first->scripts && i < SCRIPT_COUNT; i++)
        said = said && say(connection, "SCRIPT", "LOAD", verrou__redis_script_text((redis_script)i));
    return said;
}

/* Whether an error reply means that nothing will work on this connection. */
static bool is_refused(const redis_connection *connection, const redisReply *reply, redis_fault *fault)
{
    static const char *const final[] = {"NOAUTH", "DENIED", "ERR max number of clients", "BUSY "};
    const size_t passing = 2; /* from here on */

    if (reply->type != REDIS_REPLY_ERROR)
        return false;
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++) {
        if (strncmp(reply->str, final[i], strlen(final[i])) == 0) {
            verrou__redis_explain(connection, reply, fault);
            fault->result = i >= passing ? VERROU_OP_RETRY : VERROU_OP_FAILED;
            fault->retriable = i >= passing;
            return true;
        }
    }
    return false;
}

static bool is_master(const redisReply *role)
{
    return role->type != REDIS_REPLY_ARRAY || role->elements == 0 || role->element[0]->type != REDIS_REPLY_STRING ||
           strcmp(role->element[0]->str, "master") == 0;
}

static bool read_greeting(redis_connection *connection, const greeting *first, int64_t deadline_ms, redis_fault *fault)
{
    const bool *asked[] = {&first->auth, &first->select, &first->client_id, &first->info, &first->role};

    connection->master = true;
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        redisReply *reply;
        bool fits = true;

        if (!*asked[i])
            continue;
        reply = verrou__redis_reply(connection, deadline_ms, fault);
        if (!reply)
            return false;
        if (is_refused(connection, reply, fault)) {
            fits = false;
        } else if (asked[i] == &first->auth) {
            fits = read_auth(connection, reply, fault);
        } else if ((asked[i] == &first->select || asked[i] == &first->role) && reply->type == REDIS_REPLY_ERROR) {
            verrou__redis_explain(connection, reply, fault);
            fits = false;
        } else if (asked[i] == &first->client_id && reply->type == REDIS_REPLY_INTEGER) {
            connection->client_id = reply->integer;
        } else if (asked[i] == &first->info) {
            read_info(connection, reply);
        } else if (asked[i] == &first->role) {
            connection->master = is_master(reply);
        }
        freeReplyObject(reply);
        if (!fits)
            return false;
    }
    /* Whether the scripts could be loaded does not matter: those that are missing are sent as a whole. */
    connection->skip = first->scripts ? SCRIPT_COUNT : 0;
    return true;
}

/* A server with TLS closes a connection that begins without, and says nothing. */
static void suspect_tls(const redis_connection *connection, redis_fault *fault)
{
    size_t len = strlen(fault->text);

    if (!connection->state->tls && fault->broken && !connection->heard && fault->code[0] == '\0')
        snprintf(fault->text + len, sizeof fault->text - len,
                 "; if it wants TLS, the address has to begin with rediss");
}

redis_connection *verrou__redis_connect(redis_state *state, const redis_address *address, redis_purpose purpose,
                                        int64_t deadline_ms, redis_fault *fault)
{
    redis_connection *connection = state->host->malloc(sizeof *connection);
    int64_t limit_ms = state->host->now_ms() + state->connect_timeout_ms;
    greeting first = greeting_for(state, purpose);

    if (limit_ms < deadline_ms)
        deadline_ms = limit_ms;
    verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "out of memory");
    if (!connection)
        return NULL;
    memset(connection, 0, sizeof *connection);
    connection->state = state;
    connection->address = *address;
    connection->stream.fd = -1;
    connection->reader = redisReaderCreate();
    if (connection->reader && verrou__redis_stream_open(state, &connection->stream, address, deadline_ms, fault) &&
        send_greeting(connection, &first) && verrou__redis_flush(connection, deadline_ms, fault) &&
        read_greeting(connection, &first, deadline_ms, fault))
        return connection;
    suspect_tls(connection, fault);
    verrou__redis_disconnect(connection);
    return NULL;
}

void verrou__redis_disconnect(redis_connection *connection)
{
    const verrou_host *host;

    if (!connection)
        return;
    host = connection->state->host;
    verrou__redis_stream_close(&connection->stream);
    if (connection->reader)
        redisReaderFree(connection->reader);
    host->free(connection->out);
    host->free(connection);
}
