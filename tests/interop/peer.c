/*
 * peer.c - see peer.h. One pipe each way; what arrives while something else is waited for is kept: answers by their number, refusals by
 * counting them.
 */
#include "peer.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_PEERS 8

struct peer {
    pid_t pid;
    int in;
    int out;
    int last_id;
    int refused;
    json_t *answers; /* by number, as text */
    char error[64];
    size_t used;
    char line[16384];
};

static peer *peers[MAX_PEERS];

static void replace(peer *old, peer *with)
{
    for (int i = 0; i < MAX_PEERS; i++) {
        if (peers[i] == old) {
            peers[i] = with;
            return;
        }
    }
    process_fail("more than %d peers at once", MAX_PEERS);
}

/* ---- starting and ending ---- */

/* posix_spawn() rather than fork(): threads of a store may be running. */
static pid_t spawn(const char *const *argv, int in, int out)
{
    extern char **environ;
    posix_spawn_file_actions_t actions;
    pid_t pid = 0;
    int failure;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    failure = posix_spawn(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failure)
        process_fail("%s: %s. The test interop/install makes it", argv[0], strerror(failure));
    return pid;
}

static void pipe_closed_on_exec(int ends[2])
{
    if (pipe(ends) != 0 || fcntl(ends[0], F_SETFD, FD_CLOEXEC) != 0 || fcntl(ends[1], F_SETFD, FD_CLOEXEC) != 0)
        process_fail("no pipe: %s", strerror(errno));
}

peer *peer_start(const char *store, const char *address)
{
    const char *const argv[] = {VERROU_INTEROP_PEER, store, address, NULL};
    peer *p = calloc(1, sizeof(*p));
    int in[2];
    int out[2];

    if (!p || !(p->answers = json_object()))
        process_fail("out of memory");
    signal(SIGPIPE, SIG_IGN);
    pipe_closed_on_exec(in);
    pipe_closed_on_exec(out);
    p->pid = spawn(argv, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    p->in = in[1];
    p->out = out[0];
    replace(NULL, p);
    return p;
}

static void drop(peer *p)
{
    replace(p, NULL);
    if (p->in >= 0)
        close(p->in);
    close(p->out);
    json_decref(p->answers);
    free(p);
}

/* Its output ends when the process does, so this needs no deadline for waitpid(). */
static bool read_more(peer *p, int64_t deadline_ms);

void peer_stop(peer *p)
{
    int64_t deadline_ms = process_clock_ms() + PROCESS_PATIENCE_MS;
    int status = 0;

    close(p->in);
    p->in = -1;
    while (read_more(p, deadline_ms))
        ;
    if (waitpid(p->pid, &status, 0) != p->pid || status != 0)
        process_fail("the peer ended with status %d", status);
    drop(p);
}

void peer_stop_all(void)
{
    for (int i = 0; i < MAX_PEERS; i++) {
        if (!peers[i])
            continue;
        kill(peers[i]->pid, SIGKILL);
        waitpid(peers[i]->pid, NULL, 0);
        drop(peers[i]);
    }
}

pid_t peer_pid(const peer *p)
{
    return p->pid;
}

/* ---- reading ---- */

static void take_line(peer *p, const char *line)
{
    json_error_t error;
    json_t *object = json_loads(line, JSON_DECODE_ANY, &error);
    const char *event = json_string_value(json_object_get(object, "event"));
    char id[16];

    if (!object)
        process_fail("the peer said \"%s\"", line);
    if (event) {
        p->refused += strcmp(event, "refused") == 0;
        json_decref(object);
        return;
    }
    snprintf(id, sizeof(id), "%d", (int)json_integer_value(json_object_get(object, "id")));
    json_object_set_new(p->answers, id, object);
}

/* Wait for output and take its whole lines; false at its end. */
static bool read_more(peer *p, int64_t deadline_ms)
{
    struct pollfd readable = {p->out, POLLIN, 0};
    int64_t left_ms = deadline_ms - process_clock_ms();
    char *end;
    ssize_t got;

    if (left_ms < 0 || poll(&readable, 1, (int)left_ms) == 0)
        process_fail("the peer has not said what the test waits for");
    got = read(p->out, p->line + p->used, sizeof(p->line) - 1 - p->used);
    if (got < 0 && errno == EINTR)
        return true;
    if (got <= 0)
        return false;
    p->used += (size_t)got;
    p->line[p->used] = '\0';
    while ((end = strchr(p->line, '\n'))) {
        *end = '\0';
        take_line(p, p->line);
        p->used -= (size_t)(end + 1 - p->line);
        memmove(p->line, end + 1, p->used + 1);
    }
    if (p->used == sizeof(p->line) - 1)
        process_fail("the peer said a line that is too long");
    return true;
}

static void need_more(peer *p, int64_t deadline_ms)
{
    if (!read_more(p, deadline_ms))
        process_fail("the peer has ended");
}

/* ---- asking ---- */

static int send_call(peer *p, const char *call, json_t *arguments)
{
    char *line;
    size_t len;

    if (!arguments)
        process_fail("the arguments of %s cannot be packed", call);
    json_object_set_new(arguments, "id", json_integer(++p->last_id));
    json_object_set_new(arguments, "call", json_string(call));
    line = json_dumps(arguments, JSON_COMPACT);
    json_decref(arguments);
    len = line ? strlen(line) : 0;
    if (!line || dprintf(p->in, "%s\n", line) != (int)len + 1)
        process_fail("the peer does not take the call %s", call);
    free(line);
    return p->last_id;
}

static json_t *pack(const char *format, va_list list)
{
    json_error_t error;

    return json_vpack_ex(&error, 0, format, list);
}

int peer_send(peer *p, const char *call, const char *format, ...)
{
    va_list list;
    json_t *arguments;

    va_start(list, format);
    arguments = pack(format, list);
    va_end(list);
    return send_call(p, call, arguments);
}

/* The whole answer, a borrowed reference. */
static json_t *wait_answer(peer *p, int id)
{
    json_t *answer;
    char name[16];

    snprintf(name, sizeof(name), "%d", id);
    while (!(answer = json_object_get(p->answers, name)))
        need_more(p, process_clock_ms() + PROCESS_PATIENCE_MS);
    return answer;
}

json_t *peer_answer(peer *p, int id)
{
    json_t *answer = wait_answer(p, id);

    if (json_object_get(answer, "error"))
        process_fail("call %d of the peer: %s", id, json_string_value(json_object_get(answer, "message")));
    return json_incref(json_object_get(answer, "value"));
}

json_t *peer_ask(peer *p, const char *call, const char *format, ...)
{
    va_list list;
    json_t *arguments;

    va_start(list, format);
    arguments = pack(format, list);
    va_end(list);
    return peer_answer(p, send_call(p, call, arguments));
}

bool peer_true(peer *p, const char *call, const char *lock)
{
    json_t *value = peer_ask(p, call, "{s:s}", "lock", lock);
    bool is_true = json_is_true(value);

    if (!json_is_boolean(value))
        process_fail("%s of the peer is neither true nor false", call);
    json_decref(value);
    return is_true;
}

int64_t peer_number(peer *p, const char *call, const char *lock)
{
    json_t *value = peer_ask(p, call, "{s:s}", "lock", lock);
    int64_t number = json_integer_value(value);

    if (!json_is_integer(value))
        process_fail("%s of the peer is not a number", call);
    json_decref(value);
    return number;
}

char *peer_text(peer *p, const char *call, const char *lock)
{
    json_t *value = peer_ask(p, call, "{s:s}", "lock", lock);
    char *text = json_is_string(value) ? strdup(json_string_value(value)) : NULL;

    if (!text)
        process_fail("%s of the peer is not a text", call);
    json_decref(value);
    return text;
}

void peer_do(peer *p, const char *call, const char *lock)
{
    json_decref(peer_ask(p, call, "{s:s}", "lock", lock));
}

const char *peer_error(peer *p, const char *call, const char *lock)
{
    json_t *answer = wait_answer(p, peer_send(p, call, "{s:s}", "lock", lock));
    const char *error = json_string_value(json_object_get(answer, "error"));

    snprintf(p->error, sizeof(p->error), "%s", error ? error : "");
    return p->error;
}

bool peer_answered(peer *p, int id)
{
    char name[16];
    json_t *sync = peer_ask(p, "nothing", "{}");

    /* Lines come in the order in which things happened over there. */
    json_decref(sync);
    snprintf(name, sizeof(name), "%d", id);
    return json_object_get(p->answers, name) != NULL;
}

void peer_forget_refusals(peer *p)
{
    p->refused = 0;
}

void peer_wait_refused(peer *p)
{
    int64_t deadline_ms = process_clock_ms() + PROCESS_PATIENCE_MS;

    while (p->refused == 0)
        need_more(p, deadline_ms);
    p->refused--;
}
