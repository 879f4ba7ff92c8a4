/*
 * connection.c - connecting and asking, each with a deadline, and what a failure means.
 *
 * The client library knows time limits in whole seconds only, but lets others wait for its sockets: io_wait() does, until the deadline that
 * the thread has set. Statements go as text, several in one packet, and their answers come in order. After a failure of the connection or a
 * missed deadline it is broken: what may still arrive belongs to a request that was given up.
 */
#include "mysql_store.h"

#include <errmsg.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define KEEPALIVE_S 15 /* an idle connection whose peer is gone is noticed after some four times this */
#define KEEPALIVE_PROBES 3
#define REST_MS 100     /* after a pause of this length it is looked whether the connection is still there */
#define FAREWELL_MS 100 /* for the last word of a connection that is closed */
#define END_LOST_MS 2000
#define IDLE_LIMIT_S 2000000 /* when the server closes an idle connection: as late as it allows everywhere */

/* How passwords may be proved where the connection is not encrypted: all but those that send the password itself. */
#define AUTHENTICATIONS \
    "mysql_native_password,client_ed25519,caching_sha2_password,sha256_password,parsec,auth_gssapi_client"

/* ---- waiting ---- */

static _Thread_local struct {
    const verrou_host *host;
    int64_t deadline_ms;
    bool connecting;
    bool tls;
} io;

void verrou__mysql_until(const mysql_state *state, int64_t deadline_ms)
{
    io.host = state->host;
    io.deadline_ms = deadline_ms;
    io.tls = state->tls;
}

/* Not left to be inherited, and with TLS, where the library would block in read(), never blocking. */
static void settle(int fd, bool tls)
{
    int flags = fcntl(fd, F_GETFL);

    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (tls && flags >= 0)
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/*
 * The library's poll(): 1, or 0 and ETIMEDOUT. A name may have several addresses, tried one after the other: a silent one gets half of the
 * time that is left.
 */
static int io_wait(my_socket fd, my_bool reading, int timeout)
{
    int64_t until_ms = io.deadline_ms;

    (void)timeout;
    if (io.connecting) {
        settle(fd, io.tls);
        if (!reading && until_ms != VERROU_FOREVER)
            until_ms -= (until_ms - io.host->now_ms()) / 2;
    }
    for (;;) {
        struct pollfd in = {fd, reading ? POLLIN : POLLOUT, 0};
        int64_t left_ms = until_ms - io.host->now_ms();
        int ready;

        if (left_ms <= 0) {
            errno = ETIMEDOUT;
            return 0;
        }
        ready = poll(&in, 1, left_ms > 60000 ? 60000 : (int)left_ms);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return 1; /* what comes next will fail and say why */
    }
}

/* ---- SIGPIPE ---- */

/* TLS writes with write(2). The signal is held off for this thread, and taken away if it came. */
typedef struct guard {
    bool active;
    sigset_t before;
} guard;

static guard guard_begin(const mysql_lane *lane)
{
    guard g = {.active = false};
    sigset_t pipe_only, pending;

    if (!lane->state->tls)
        return g;
    sigemptyset(&pending);
    sigpending(&pending);
    if (sigismember(&pending, SIGPIPE) == 1)
        return g; /* somebody else's, and it blocks it already */
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    g.active = pthread_sigmask(SIG_BLOCK, &pipe_only, &g.before) == 0;
    return g;
}

static void guard_end(const guard *g)
{
    const struct timespec at_once = {0, 0};
    sigset_t pipe_only;
    int error = errno;

    if (!g->active)
        return;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    while (sigtimedwait(&pipe_only, NULL, &at_once) < 0 && errno == EINTR)
        continue;
    pthread_sigmask(SIG_SETMASK, &g->before, NULL);
    errno = error;
}

/* The client library sets SIGPIPE to be ignored by the whole process when it is initialised: that is undone. */
static void library_init(void)
{
    struct sigaction before;
    bool known = sigaction(SIGPIPE, NULL, &before) == 0;

    (void)mysql_library_init(0, NULL, NULL);
    if (known)
        (void)sigaction(SIGPIPE, &before, NULL);
}

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

/* ---- faults ---- */

void verrou__mysql_fault_set(mysql_fault *fault, mysql_meaning meaning, unsigned code, const char *format, ...)
{
    va_list args;

    *fault = (mysql_fault){.meaning = meaning, .code = code};
    if (code)
        snprintf(fault->name, sizeof fault->name, "%u", code);
    va_start(args, format);
    vsnprintf(fault->text, sizeof fault->text, format, args);
    va_end(args);
}

verrou_status verrou__mysql_fail(const mysql_state *state, const mysql_fault *fault, verrou_error *err)
{
    return state->host->fail(err, VERROU_ESTORAGE, fault->meaning != MEANS_FAILED, fault->name[0] ? fault->name : NULL,
                             "mysql: %s", fault->text);
}

void verrou__mysql_break(mysql_lane *lane, mysql_fault *fault, const char *code, const char *what)
{
    if (!lane->broken) {
        verrou__mysql_fault_set(&lane->fault, MEANS_RETRY, 0, "%s: %s", lane->address.name, what);
        snprintf(lane->fault.name, sizeof lane->fault.name, "%s", code ? code : "");
    }
    lane->broken = lane->fault.broken = true;
    *fault = lane->fault;
}

/* The server's errors that do not mean MEANS_FAILED. `broken`: this connection is of no use any more, another one may be. */
static const struct {
    unsigned code;
    mysql_meaning meaning;
    bool broken;
} meanings[] = {
    {1020, MEANS_RETRY, false},  /* the row has changed since it was read */
    {1213, MEANS_RETRY, false},  /* deadlock */
    {1412, MEANS_STALE, false},  /* the table has changed since the transaction began */
    {1615, MEANS_STALE, false},  /* the statement needs to be prepared again */
    {1040, MEANS_RETRY, true},   /* too many connections */
    {1203, MEANS_RETRY, true},   /* too many connections of this user */
    {1226, MEANS_RETRY, true},   /* a limit of this user is reached */
    {1037, MEANS_RETRY, false},  /* out of memory */
    {1041, MEANS_RETRY, false},  /* out of memory */
    {1206, MEANS_RETRY, false},  /* too many row locks */
    {1637, MEANS_RETRY, false},  /* too many transactions */
    {1684, MEANS_LOCKED, false}, /* the table cannot be described: it is being made or altered */
    {3572, MEANS_LOCKED, false}, /* locked, NOWAIT */
    {ERROR_LOCKED, MEANS_LOCKED, false},
    {ERROR_NO_SUCH_TABLE, MEANS_STALE, false},
    {ERROR_UNKNOWN_COLUMN, MEANS_STALE, false},
    {ERROR_UNKNOWN_STATEMENT, MEANS_STALE, false},
    /* A server that may not write, or not at the moment: a standby after a failover, a node that left its cluster. */
    {ERROR_READ_ONLY, MEANS_RETRY, true},
    {1792, MEANS_RETRY, true},
    {1836, MEANS_RETRY, true},
    {3100, MEANS_DOUBT, true},
    {1047, MEANS_RETRY, true},
    {1053, MEANS_DOUBT, true}, /* the server is being shut down */
    {1152, MEANS_DOUBT, true}, /* the connection was aborted */
    {1158, MEANS_DOUBT, true}, /* reading from the network failed, or was late; writing */
    {1159, MEANS_DOUBT, true},
    {1160, MEANS_DOUBT, true},
    {1161, MEANS_DOUBT, true},
    {1180, MEANS_DOUBT, true},  /* the commit failed */
    {1317, MEANS_DOUBT, false}, /* the statement was killed */
    {1927, MEANS_DOUBT, true},  /* the connection was killed */
    {1969, MEANS_DOUBT, false}, /* the statement took too long, MariaDB */
    {3024, MEANS_DOUBT, false}, /* the same, MySQL */
    {4031, MEANS_RETRY, true},  /* the connection was idle for too long */
};

/* TLS failures for good are about a certificate, the protocol or its absence; the others come with the number of an error of the system. */
static bool is_passing_tls_failure(const char *text)
{
    size_t len = strlen(text);

    return (len > 0 && text[len - 1] == ')') || strstr(text, "unexpected eof");
}

/* The text ends with what getaddrinfo() said. Who resolves names may be away, and a name that is not there does not come. */
static bool is_passing_name_failure(const char *text)
{
    static const int passing[] = {EAI_AGAIN, EAI_MEMORY, EAI_SYSTEM};
    char number[16];

    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        snprintf(number, sizeof number, "(%d)", passing[i]);
        if (strstr(text, number))
            return true;
    }
    return false;
}

/* Whether an error is the client library's own: of the connection, and not an answer of the server. */
static bool is_of_client(unsigned code)
{
    return code == 0 || (code >= CR_MIN_ERROR && code <= CR_MAX_ERROR) ||
           (code >= CER_MIN_ERROR && code <= CER_MAX_ERROR);
}

/* What has to be granted to who only wants locks. The text begins with the rights that are missing. */
static void add_rights(const mysql_lane *lane, const char *text, mysql_fault *fault)
{
    static const char *const needed[] = {"SELECT", "INSERT", "UPDATE", "DELETE"};
    size_t len = strlen(fault->text);

    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (strncmp(text, needed[i], strlen(needed[i])) == 0)
            snprintf(fault->text + len, sizeof fault->text - len,
                     "; SELECT, INSERT, UPDATE and DELETE on table %s are needed", lane->state->name);
}

static void explain(const mysql_lane *lane, mysql_fault *fault)
{
    unsigned code = mysql_errno(lane->mysql);
    const char *text = mysql_error(lane->mysql);

    verrou__mysql_fault_set(fault, MEANS_FAILED, code, "%s: %s", lane->address.name, text);
    if (strncmp(mysql_sqlstate(lane->mysql), "40", 2) == 0)
        fault->meaning = MEANS_RETRY;
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++) {
        if (meanings[i].code == code) {
            fault->meaning = meanings[i].meaning;
            fault->broken = meanings[i].broken;
        }
    }
    fault->refused = !is_of_client(code);
    if (!fault->refused) {
        fault->broken = true;
        fault->meaning = code == CR_SSL_CONNECTION_ERROR && !is_passing_tls_failure(text) ? MEANS_FAILED : MEANS_RETRY;
    }
    if (code == CR_AUTH_PLUGIN_CANNOT_LOAD || code == CR_AUTH_PLUGIN_ERR || code == CR_SECURE_AUTH ||
        code == CR_VERSION_ERROR || code == CR_PLUGIN_NOT_ALLOWED ||
        (code == CR_UNKNOWN_HOST && !is_passing_name_failure(text)))
        fault->meaning = MEANS_FAILED;
    if (code == ERROR_TABLE_RIGHT)
        add_rights(lane, text, fault);
}

/* A call of the client library failed. */
static void note_failure(mysql_lane *lane, mysql_fault *fault)
{
    explain(lane, fault);
    if (!fault->broken)
        return;
    if (!fault->refused && io.host->now_ms() >= io.deadline_ms) {
        verrou__mysql_break(lane, fault, "TIMEOUT", "no answer in time");
        return;
    }
    if (!lane->broken)
        lane->fault = *fault;
    lane->broken = true;
    lane->fault.broken = true;
}

/* ---- text ---- */

static bool reserve(mysql_text *text, size_t more)
{
    size_t size = text->size ? text->size : 1024;
    char *grown;

    if (text->failed)
        return false;
    while (size - text->len <= more)
        size *= 2;
    if (size == text->size)
        return true;
    grown = text->host->realloc(text->at, size);
    if (!grown) {
        text->failed = true;
        return false;
    }
    text->at = grown;
    text->size = size;
    return true;
}

void verrou__mysql_text_add(mysql_text *text, const char *bytes, size_t len)
{
    if (!reserve(text, len))
        return;
    memcpy(text->at + text->len, bytes, len);
    text->len += len;
    text->at[text->len] = '\0';
}

void verrou__mysql_text_addf(mysql_text *text, const char *format, ...)
{
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0 || !reserve(text, (size_t)len))
        return;
    va_start(args, format);
    vsnprintf(text->at + text->len, (size_t)len + 1, format, args);
    va_end(args);
    text->len += (size_t)len;
}

void verrou__mysql_text_hex(mysql_text *text, const void *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *from = bytes;
    char *to;

    if (!reserve(text, 2 * len + 3))
        return;
    to = text->at + text->len;
    *to++ = 'X';
    *to++ = '\'';
    for (size_t i = 0; i < len; i++) {
        *to++ = digits[from[i] >> 4];
        *to++ = digits[from[i] & 15];
    }
    *to++ = '\'';
    *to = '\0';
    text->len += 2 * len + 3;
}

/* ---- asking ---- */

bool verrou__mysql_send(mysql_lane *lane, mysql_fault *fault)
{
    guard g;
    int failed;

    if (lane->broken) {
        *fault = lane->fault;
        return false;
    }
    if (lane->text.failed) {
        lane->text.failed = false;
        verrou__mysql_fault_set(fault, MEANS_RETRY, 0, "out of memory");
        return false;
    }
    lane->replies = 0;
    g = guard_begin(lane);
    failed = mysql_send_query(lane->mysql, lane->text.at, lane->text.len);
    guard_end(&g);
    if (!failed)
        return true;
    note_failure(lane, fault);
    if (!lane->broken)
        verrou__mysql_break(lane, fault, NULL, "the request could not be sent");
    return false;
}

bool verrou__mysql_reply(mysql_lane *lane, mysql_reply *reply, mysql_fault *fault)
{
    guard g = guard_begin(lane);
    int failed;

    *reply = (mysql_reply){.rows = NULL};
    failed = lane->replies++ ? mysql_next_result(lane->mysql) : (int)mysql_read_query_result(lane->mysql);
    if (failed == 0 && mysql_field_count(lane->mysql) > 0) {
        reply->rows = mysql_store_result(lane->mysql);
        failed = reply->rows ? 0 : 1;
    }
    guard_end(&g);
    if (failed == 0) {
        reply->affected = mysql_affected_rows(lane->mysql);
        reply->insert_id = mysql_insert_id(lane->mysql);
        lane->used_ms = io.host->now_ms();
        return true;
    }
    if (failed < 0 || mysql_errno(lane->mysql) == 0)
        verrou__mysql_break(lane, fault, "PROTOCOL", "fewer answers than statements");
    else
        note_failure(lane, fault);
    return false;
}

bool verrou__mysql_end(mysql_lane *lane, mysql_fault *fault)
{
    if (!lane->broken && mysql_more_results(lane->mysql))
        verrou__mysql_break(lane, fault, "PROTOCOL", "more answers than statements");
    return !lane->broken;
}

bool verrou__mysql_run(mysql_lane *lane, unsigned count, unsigned *ret_done, mysql_fault *fault)
{
    mysql_reply reply;

    *ret_done = 0;
    if (!verrou__mysql_send(lane, fault))
        return false;
    for (; *ret_done < count; ++*ret_done) {
        if (!verrou__mysql_reply(lane, &reply, fault))
            return false;
        mysql_free_result(reply.rows);
    }
    return verrou__mysql_end(lane, fault);
}

MYSQL_RES *verrou__mysql_query(mysql_lane *lane, mysql_fault *fault)
{
    mysql_reply reply;

    if (!verrou__mysql_send(lane, fault) || !verrou__mysql_reply(lane, &reply, fault))
        return NULL;
    if (!reply.rows)
        verrou__mysql_break(lane, fault, "PROTOCOL", "an answer without rows");
    else if (verrou__mysql_end(lane, fault))
        return reply.rows;
    mysql_free_result(reply.rows);
    return NULL;
}

/* An idle server says nothing, but that it goes. */
bool verrou__mysql_is_at_rest(mysql_lane *lane, mysql_fault *fault)
{
    int64_t now_ms = lane->state->host->now_ms();
    struct pollfd in = {(int)mysql_get_socket(lane->mysql), POLLIN, 0};

    if (now_ms - lane->used_ms >= REST_MS) {
        lane->used_ms = now_ms;
        if (poll(&in, 1, 0) > 0)
            verrou__mysql_break(lane, fault, NULL, "the server closed the connection");
    }
    if (lane->broken)
        *fault = lane->fault;
    return !lane->broken;
}

/* ---- requests whose answer was lost ---- */

/*
 * A request that was sent may be carried out after its connection was closed. So the session it went to is ended first, with KILL, which a
 * user may say to his own sessions. Which one it is tells a user lock under a random name that every session of ours holds: unlike a session's
 * number it is not used again, not even by the server's next life, and once it is free all that the session did is done or undone.
 */
void verrou__mysql_lost_answer(mysql_lane *lane)
{
    mysql_state *state = lane->state;
    size_t count;
    mysql_lost *lost;
    mysql_fault fault;

    verrou__mysql_break(lane, &fault, NULL, "an answer was lost");
    if (!lane->marker[0])
        return;
    pthread_mutex_lock(&state->mutex);
    count = atomic_load(&state->lost_count);
    if (count == MYSQL_MAX_LOST) { /* the oldest is the least likely to be of interest still */
        memmove(state->lost, state->lost + 1, (MYSQL_MAX_LOST - 1) * sizeof *lost);
        count--;
    }
    lost = &state->lost[count++];
    lost->serial = ++state->lost_serial;
    memcpy(lost->marker, lane->marker, sizeof lost->marker);
    memcpy(lost->server, lane->server, sizeof lost->server);
    atomic_store(&state->lost_count, count);
    pthread_mutex_unlock(&state->mutex);
    lane->marker[0] = '\0';
}

/* The first one that this server knows. */
static bool lost_find(const mysql_lane *lane, mysql_lost *ret)
{
    mysql_state *state = lane->state;
    size_t count;
    bool found = false;

    if (atomic_load(&state->lost_count) == 0)
        return false;
    pthread_mutex_lock(&state->mutex);
    count = atomic_load(&state->lost_count);
    for (size_t i = 0; i < count && !found; i++) {
        found = strcmp(state->lost[i].server, lane->server) == 0;
        if (found)
            *ret = state->lost[i];
    }
    pthread_mutex_unlock(&state->mutex);
    return found;
}

static void lost_forget(mysql_state *state, uint64_t serial)
{
    size_t count, kept = 0;

    pthread_mutex_lock(&state->mutex);
    count = atomic_load(&state->lost_count);
    for (size_t i = 0; i < count; i++)
        if (state->lost[i].serial != serial)
            state->lost[kept++] = state->lost[i];
    atomic_store(&state->lost_count, kept);
    pthread_mutex_unlock(&state->mutex);
}

/* One value of one row; false: none. */
static bool ask_value(mysql_lane *lane, char *out, size_t size, mysql_fault *fault)
{
    MYSQL_RES *rows = verrou__mysql_query(lane, fault);
    MYSQL_ROW row = rows ? mysql_fetch_row(rows) : NULL;
    bool found = row && row[0];

    snprintf(out, size, "%s", found ? row[0] : "");
    mysql_free_result(rows);
    return found;
}

/*
 * Whoever still holds the lock after a second is within a commit, or cannot be killed. Its row is locked until it is done, so that what is
 * asked next comes after it all the same.
 */
static void end_one(mysql_lane *lane, const mysql_lost *lost, mysql_fault *fault)
{
    char id[24];
    unsigned done;

    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text, "SELECT IS_USED_LOCK('%s')", lost->marker);
    if (!ask_value(lane, id, sizeof id, fault))
        return;
    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text, "KILL %s", id);
    (void)verrou__mysql_run(lane, 1, &done, fault); /* refused: it has just gone */
    if (lane->broken)
        return;
    lane->text.len = 0;
    verrou__mysql_text_addf(&lane->text, "DO GET_LOCK('%s',1);DO RELEASE_LOCK('%s')", lost->marker, lost->marker);
    (void)verrou__mysql_run(lane, 2, &done, fault);
}

bool verrou__mysql_end_lost(mysql_lane *lane, int64_t deadline_ms, mysql_fault *fault)
{
    mysql_state *state = lane->state;
    int64_t limit_ms = state->host->now_ms() + END_LOST_MS;
    mysql_lost lost;

    if (atomic_load(&state->lost_count) == 0)
        return true;
    while (lost_find(lane, &lost)) {
        verrou__mysql_until(state, limit_ms < deadline_ms ? limit_ms : deadline_ms);
        end_one(lane, &lost, fault);
        verrou__mysql_until(state, deadline_ms);
        if (lane->broken)
            return false;
        lost_forget(state, lost.serial);
    }
    return true;
}

/* ---- connecting ---- */

bool verrou__mysql_address_set(mysql_address *address, const char *host, int port)
{
    size_t len = strlen(host);

    if (len >= sizeof address->host)
        return false;
    memcpy(address->host, host, len + 1);
    address->port = port;
    if (port == 0)
        memcpy(address->name, host, len + 1);
    else
        snprintf(address->name, sizeof address->name, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
    return true;
}

static void set_number(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

static void keep_alive(int fd)
{
    set_number(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
    set_number(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S);
#endif
#ifdef TCP_KEEPINTVL
    set_number(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_S);
    set_number(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
#endif
}

static void set_options(mysql_lane *lane, int64_t deadline_ms)
{
    const mysql_state *state = lane->state;
    int64_t left_ms = deadline_ms - state->host->now_ms();
    /* Only a limit for what does not go through io_wait(): resolving a name again and again. */
    unsigned seconds = left_ms < 0 ? 1 : (unsigned)((left_ms > INT_MAX ? INT_MAX : left_ms) / 1000) + 1;
    unsigned protocol = lane->address.port ? MYSQL_PROTOCOL_TCP : MYSQL_PROTOCOL_SOCKET;
    unsigned no_files = 0;
    my_bool on = 1, off = 0;
    MYSQL *mysql = lane->mysql;

    mysql_options(mysql, MYSQL_OPT_PROTOCOL, &protocol);
    mysql_options(mysql, MYSQL_OPT_CONNECT_TIMEOUT, &seconds);
    mysql_options(mysql, MYSQL_OPT_RECONNECT, &off);
    mysql_options(mysql, MYSQL_OPT_LOCAL_INFILE, &no_files);
    mysql_options(mysql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    mysql_options4(mysql, MYSQL_OPT_CONNECT_ATTR_ADD, "program_name", "verrou");
    mysql_optionsv(mysql, MARIADB_OPT_IO_WAIT, io_wait);
    if (!state->tls) {
        mysql_optionsv(mysql, MARIADB_OPT_RESTRICTED_AUTH, AUTHENTICATIONS);
        return;
    }
    mysql_ssl_set(mysql, state->key, state->cert, state->ca, NULL, NULL);
    mysql_options(mysql, MYSQL_OPT_SSL_ENFORCE, &on);
    mysql_options(mysql, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, state->ca ? &on : &off);
}

static bool connect_to(mysql_lane *lane, int64_t deadline_ms, mysql_fault *fault)
{
    const mysql_state *state = lane->state;
    const mysql_address *address = &lane->address;
    bool socket = address->port == 0;
    guard g;
    MYSQL *connected;

    verrou__mysql_fault_set(fault, MEANS_RETRY, 0, "out of memory");
    lane->mysql = mysql_init(NULL);
    if (!lane->mysql)
        return false;
    set_options(lane, deadline_ms);
    io.connecting = true;
    g = guard_begin(lane);
    connected =
        mysql_real_connect(lane->mysql, socket ? NULL : address->host, state->user, state->password, state->database,
                           (unsigned)address->port, socket ? address->host : NULL, CLIENT_MULTI_STATEMENTS);
    guard_end(&g);
    io.connecting = false;
    if (!connected) {
        bool late = state->host->now_ms() >= deadline_ms;

        explain(lane, fault);
        if (late && fault->broken && fault->meaning == MEANS_RETRY)
            verrou__mysql_fault_set(fault, MEANS_RETRY, fault->code, "cannot connect to %s in time", address->name);
        return false;
    }
    settle((int)mysql_get_socket(lane->mysql), state->tls);
    if (!socket)
        keep_alive((int)mysql_get_socket(lane->mysql));
    return true;
}

/* "5.5.5-10.11.6-MariaDB-log" and "8.0.36" */
static void read_version(mysql_lane *lane)
{
    const char *text = mysql_get_server_info(lane->mysql);
    unsigned major = 0, minor = 0, patch = 0;

    lane->mariadb = text && strstr(text, "MariaDB");
    if (text && strncmp(text, "5.5.5-", 6) == 0 && lane->mariadb)
        text += 6;
    if (text && sscanf(text, "%u.%u.%u", &major, &minor, &patch) >= 2)
        lane->version = (int)(major * 10000 + minor * 100 + patch);
}

/*
 * What a session of ours is like, whatever the server's defaults are. A row that is locked is not waited for: that is for the time between
 * two tries, when others are not held up; MySQL, unlike MariaDB, waits a second at least. No backslash escapes, so that an apostrophe is all that
 * has to be doubled in a string.
 */
static void write_session(mysql_lane *lane)
{
    unsigned wait_s = lane->mariadb ? 0 : 1;

    verrou__mysql_text_addf(&lane->text,
                            "SET NAMES utf8mb4;"
                            "SET SESSION wait_timeout=%d,autocommit=1,completion_type=0,sql_safe_updates=0,"
                            "sql_select_limit=DEFAULT,innodb_lock_wait_timeout=%u,lock_wait_timeout=%u,"
                            "sql_mode='STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION';"
                            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED,READ WRITE;"
                            "SELECT @@global.read_only,CONCAT_WS(':',@@hostname,@@port,@@server_id);"
                            "SELECT GET_LOCK('%s',0),CONNECTION_ID()",
                            IDLE_LIMIT_S, wait_s, wait_s, lane->marker);
}

#define SESSION_STATEMENTS 5

static bool is_yes(const char *value)
{
    return value && *value && strcmp(value, "0") != 0 && strcmp(value, "OFF") != 0 && strcmp(value, "off") != 0;
}

/* The reply to the last statement but one says what server that is, that to the last whether the lock could be had. */
static bool read_session(mysql_lane *lane, mysql_fault *fault)
{
    mysql_reply reply;
    bool read_only = false, marked = false;

    for (unsigned i = 0; i < SESSION_STATEMENTS; i++) {
        MYSQL_ROW row;

        if (!verrou__mysql_reply(lane, &reply, fault)) {
            if (lane->broken || i < SESSION_STATEMENTS - 1)
                return false;
            break; /* some clusters know no user locks */
        }
        row = reply.rows ? mysql_fetch_row(reply.rows) : NULL;
        if (row && i == SESSION_STATEMENTS - 2) {
            read_only = is_yes(row[0]);
            snprintf(lane->server, sizeof lane->server, "%s", row[1] ? row[1] : "");
        } else if (row) {
            /* Where a proxy has numbers of its own for sessions, KILL would mean another one. */
            marked = is_yes(row[0]) && row[1] && strtoul(row[1], NULL, 10) == mysql_thread_id(lane->mysql);
        }
        mysql_free_result(reply.rows);
    }
    if (!marked)
        lane->marker[0] = '\0';
    if (read_only) {
        verrou__mysql_fault_set(fault, MEANS_RETRY, ERROR_READ_ONLY, "%s: the server is read-only", lane->address.name);
        return false;
    }
    return verrou__mysql_end(lane, fault);
}

static bool begin_session(mysql_lane *lane, mysql_fault *fault)
{
    const verrou_host *host = lane->state->host;

    read_version(lane);
    snprintf(lane->marker, sizeof lane->marker, "verrou-%016llx%016llx", (unsigned long long)host->random(),
             (unsigned long long)host->random());
    lane->text.len = 0;
    write_session(lane);
    return verrou__mysql_send(lane, fault) && read_session(lane, fault);
}

static void disconnect(mysql_lane *lane)
{
    guard g;

    if (!lane->mysql)
        return;
    verrou__mysql_until(lane->state, lane->state->host->now_ms() + FAREWELL_MS);
    g = guard_begin(lane);
    mysql_close(lane->mysql);
    guard_end(&g);
    lane->mysql = NULL;
}

static bool open_at(mysql_lane *lane, const mysql_address *address, int64_t deadline_ms, mysql_fault *fault)
{
    int64_t limit_ms = lane->state->host->now_ms() + lane->state->connect_timeout_ms;

    if (limit_ms > deadline_ms)
        limit_ms = deadline_ms;
    lane->address = *address;
    lane->broken = false;
    verrou__mysql_until(lane->state, limit_ms);
    if (connect_to(lane, limit_ms, fault) && begin_session(lane, fault) &&
        verrou__mysql_end_lost(lane, deadline_ms, fault))
        return true;
    disconnect(lane);
    return false;
}

/* Of several servers the first that can be had and may write. Trying again is of use unless all of them refuse for good. */
static bool open_any(mysql_lane *lane, int64_t deadline_ms, mysql_fault *fault)
{
    const mysql_state *state = lane->state;
    bool passing = false;

    verrou__mysql_fault_set(fault, MEANS_RETRY, 0, "out of memory");
    for (size_t i = 0; i < state->endpoint_count; i++) {
        int64_t now_ms = state->host->now_ms();
        int64_t share_ms = (deadline_ms - now_ms) / (int64_t)(state->endpoint_count - i);

        if (open_at(lane, &state->endpoints[i], now_ms + share_ms, fault))
            return true;
        passing = passing || fault->meaning != MEANS_FAILED;
    }
    if (passing)
        fault->meaning = MEANS_RETRY;
    return false;
}

/* A file that was named and cannot be read is no use to try again. */
static bool check_files(const mysql_state *state, mysql_fault *fault)
{
    const verrou_setting files[] = {{"ca", state->ca}, {"cert", state->cert}, {"key", state->key}};

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        int error = files[i].value ? settings_file_error(files[i].value) : 0;

        if (error) {
            verrou__mysql_fault_set(fault, MEANS_FAILED, 0, "%s=%s: %s", files[i].name, files[i].value,
                                    strerror(error));
            return false;
        }
    }
    return true;
}

mysql_lane *verrou__mysql_connect(mysql_state *state, int64_t deadline_ms, mysql_fault *fault)
{
    mysql_lane *lane = state->host->malloc(sizeof *lane);

    verrou__mysql_fault_set(fault, MEANS_RETRY, 0, "out of memory");
    if (!lane)
        return NULL;
    memset(lane, 0, sizeof *lane);
    lane->state = state;
    lane->text.host = state->host;
    pthread_once(&library_once, library_init);
    if (check_files(state, fault) && open_any(lane, deadline_ms, fault))
        return lane;
    verrou__mysql_lane_close(state, lane);
    return NULL;
}

verrou_status verrou__mysql_lane_open(void *context, int64_t deadline_ms, void **ret_lane, verrou_error *err)
{
    mysql_state *state = context;
    mysql_fault fault;
    mysql_lane *lane = verrou__mysql_connect(state, deadline_ms, &fault);

    if (!lane)
        return verrou__mysql_fail(state, &fault, err);
    /* Looked at here so that the capabilities are known soon; what is wrong with it the calls report. */
    verrou__mysql_until(state, deadline_ms);
    (void)verrou__mysql_ready(lane, false, &fault);
    if (lane->broken) {
        verrou__mysql_lane_close(state, lane);
        return verrou__mysql_fail(state, &fault, err);
    }
    *ret_lane = lane;
    return VERROU_OK;
}

void verrou__mysql_lane_close(void *context, void *lane_context)
{
    mysql_state *state = context;
    mysql_lane *lane = lane_context;

    disconnect(lane);
    verrou__mysql_forget(lane);
    state->host->free(lane->text.at);
    state->host->free(lane);
}
