/*
 * fault_proxy.c - see fault_proxy.h. One thread polls all descriptors. A connection has two sides; what is read from a side waits in its
 * `in` until it is a complete frame (a request or a reply), is judged, and goes to the `out` of the other side. A connection
 * that holds something back simply stops judging frames.
 *
 * The mutex protects everything and is held by the thread except while it polls. What has to be done to descriptors is asked of the
 * thread by flags, because nobody else may close a descriptor that is being polled.
 */
#include "fault_proxy.h"
#include "fault_protocol.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 1024
#define CHUNK 65536

typedef struct bytes {
    char *data;
    size_t length;
    size_t room;
} bytes;

typedef struct side {
    int fd; /* -1: closed by us */
    bytes in;
    bytes out;
    bool eof;    /* nothing more will come */
    bool broken; /* nothing more can be sent */
    bool shut;   /* it was told that nothing more will come */
} side;

/* A request whose answer has not come. */
typedef struct pending {
    proxy_fault fault; /* what to do to the answer; a kind that concerns requests: nothing */
    int replies;       /* SUBSCRIBE a b c of Redis is answered three times */
    int command;
} pending;

typedef struct connection {
    side client, server;
    pending *pending;
    size_t pending_count, pending_room;
    session session;
    bool raw;           /* the protocol is not understood */
    bool hold_requests; /* until proxy_let_go() */
    bool hold_replies;
    bool judged;    /* the first request in client.in has been held once and is not to be judged again */
    bool releasing; /* proxy_let_go() waits for its answers */
    bool silent;    /* in a black hole */
    bool stopped;   /* takes no request any more, and closes when all are answered */
    bool closing;   /* as soon as client.out is sent */
    bool dead;
    struct connection *next;
} connection;

typedef struct set_fault {
    proxy_fault fault;
    char *match;
    struct set_fault *next;
} set_fault;

struct fault_proxy {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* broadcast after each round of the thread */
    int wake[2];
    const protocol *protocol;
    process_port port;
    int listener; /* -1: refusing */
    int server_port;
    connection *connections;
    set_fault *faults;
    char *counted; /* proxy_count_matching() */
    long counters[PROXY_COUNTERS];
    /* What the thread is asked to do, and how many times it has looked. */
    bool stop, refuse, black_hole, let_go, close_all, reset_all;
    unsigned long asked, done;
};

/* ---- bytes ---- */

/* The thread cannot make a test fail; without memory there is no way on. */
static void *need(void *memory)
{
    if (!memory) {
        fprintf(stderr, "fault_proxy: out of memory\n");
        abort();
    }
    return memory;
}

static void bytes_add(bytes *b, const char *data, size_t length)
{
    if (b->length + length > b->room) {
        b->room = 2 * (b->length + length);
        b->data = need(realloc(b->data, b->room));
    }
    if (length) /* there may be no memory at all yet */
        memcpy(b->data + b->length, data, length);
    b->length += length;
}

static void bytes_drop(bytes *b, size_t length)
{
    b->length -= length;
    if (length)
        memmove(b->data, b->data + length, b->length);
}

/* ---- faults ---- */

static bool contains(const char *data, size_t length, const char *text)
{
    return !text || memmem(data, length, text, strlen(text)) != NULL;
}

/* Count a request or message against the faults; true and the fault if one hits it. */
static bool judge(fault_proxy *p, const char *data, size_t length, bool message, proxy_fault *ret)
{
    set_fault **link = &p->faults;
    bool hit = false;

    while (*link) {
        set_fault *f = *link;

        if ((f->fault.kind == PROXY_DROP_MESSAGE) == message && contains(data, length, f->match)) {
            if (f->fault.skip > 0) {
                f->fault.skip--;
            } else if (!hit) {
                hit = true;
                *ret = f->fault;
                if (f->fault.times > 0 && --f->fault.times == 0) {
                    *link = f->next;
                    free(f->match);
                    free(f);
                    continue;
                }
            }
        }
        link = &f->next;
    }
    return hit;
}

/* ---- requests ---- */

static void push_pending(connection *c, pending one)
{
    if (c->pending_count == c->pending_room) {
        c->pending_room = 2 * c->pending_room + 16;
        c->pending = need(realloc(c->pending, c->pending_room * sizeof *c->pending));
    }
    c->pending[c->pending_count++] = one;
}

static void forward_request(fault_proxy *p, connection *c, const frame *request, proxy_fault fault)
{
    push_pending(c, (pending){fault, request->replies, request->command});
    p->counters[PROXY_FORWARDED]++;
    p->counters[PROXY_MATCHING] += contains(c->client.in.data, request->length, p->counted);
    bytes_add(&c->server.out, c->client.in.data, request->length);
    bytes_drop(&c->client.in, request->length);
}

/* False if the connection takes no further request now. */
static bool handle_request(fault_proxy *p, connection *c, const frame *request)
{
    proxy_fault fault = {.kind = PROXY_DROP_REQUEST};
    bool hit = false;

    if (!c->judged) {
        p->counters[PROXY_REQUESTS]++;
        hit = judge(p, c->client.in.data, request->length, false, &fault);
    }
    c->judged = false;
    if (hit && fault.kind == PROXY_DROP_REQUEST) {
        p->counters[PROXY_FIRED]++;
        c->stopped = true;
        return false;
    }
    if (hit && fault.kind == PROXY_HOLD_REQUEST) {
        p->counters[PROXY_FIRED]++;
        c->hold_requests = c->judged = true;
        return false;
    }
    forward_request(p, c, request, hit ? fault : (proxy_fault){.kind = PROXY_DROP_REQUEST});
    return true;
}

static void pass(side *from, side *to, size_t length)
{
    bytes_add(&to->out, from->in.data, length);
    bytes_drop(&from->in, length);
}

static void pass_raw(side *from, side *to)
{
    pass(from, to, from->in.length);
}

/* False if nothing more can be done with what the client has sent. */
static bool handle_request_frame(fault_proxy *p, connection *c)
{
    frame f = p->protocol->request(&c->session, c->client.in.data, c->client.in.length);

    switch (f.kind) {
    case FRAME_UNIT:
        return handle_request(p, c, &f);
    case FRAME_PASS:
        pass(&c->client, &c->server, f.length);
        return true;
    default:
        c->raw = f.kind == FRAME_RAW;
        return false;
    }
}

static void handle_requests(fault_proxy *p, connection *c)
{
    while (!c->hold_requests && !c->stopped && !c->closing && !c->raw && c->client.in.length) {
        if (!handle_request_frame(p, c))
            break;
    }
    if (c->raw && c->client.in.length)
        pass_raw(&c->client, &c->server);
}

/* ---- replies ---- */

static void pop_pending(connection *c)
{
    if (--c->pending[0].replies == 0)
        memmove(c->pending, c->pending + 1, --c->pending_count * sizeof *c->pending);
}

static void handle_message(fault_proxy *p, connection *c, size_t length)
{
    proxy_fault fault;

    p->counters[PROXY_MESSAGES]++;
    if (judge(p, c->server.in.data, length, true, &fault))
        p->counters[PROXY_FIRED]++;
    else
        bytes_add(&c->client.out, c->server.in.data, length);
    bytes_drop(&c->server.in, length);
}

static void handle_reply(fault_proxy *p, connection *c, size_t length)
{
    proxy_fault *fault = &c->pending[0].fault;
    const char *data = c->server.in.data;
    size_t send = length;

    switch (fault->kind) {
    case PROXY_HOLD_REPLY:
        p->counters[PROXY_FIRED]++;
        fault->kind = PROXY_DROP_REQUEST; /* once only */
        c->hold_replies = true;
        return;
    case PROXY_DROP_REPLY:
    case PROXY_TRUNCATE_REPLY:
        p->counters[PROXY_FIRED]++;
        c->closing = true;
        send = fault->kind == PROXY_DROP_REPLY ? 0 : (fault->bytes < length ? fault->bytes : length);
        break;
    case PROXY_DUPLICATE_REPLY:
        p->counters[PROXY_FIRED]++;
        bytes_add(&c->client.out, data, length);
        break;
    default:
        break;
    }
    p->counters[PROXY_REPLIES]++;
    bytes_add(&c->client.out, data, send);
    bytes_drop(&c->server.in, length);
    pop_pending(c);
}

static void handle_reply_frame(fault_proxy *p, connection *c)
{
    int command = c->pending_count ? c->pending[0].command : -1;
    frame f = p->protocol->reply(&c->session, command, c->server.in.data, c->server.in.length);

    if (f.kind == FRAME_UNIT)
        handle_reply(p, c, f.length);
    else if (f.kind == FRAME_MESSAGE)
        handle_message(p, c, f.length);
    else if (f.kind == FRAME_PASS)
        pass(&c->server, &c->client, f.length);
    else
        c->raw = f.kind == FRAME_RAW;
}

static void handle_replies(fault_proxy *p, connection *c)
{
    size_t before = c->server.in.length + 1;

    while (!c->hold_replies && !c->closing && !c->raw && c->server.in.length && c->server.in.length < before) {
        before = c->server.in.length;
        handle_reply_frame(p, c);
    }
    if (c->raw && c->server.in.length)
        pass_raw(&c->server, &c->client);
}

/* ---- descriptors ---- */

static void side_read(side *s)
{
    char buffer[CHUNK];
    ssize_t got = recv(s->fd, buffer, sizeof buffer, 0);

    if (got > 0)
        bytes_add(&s->in, buffer, (size_t)got);
    else if (got == 0)
        s->eof = true;
    else if (errno != EAGAIN && errno != EINTR)
        s->eof = s->broken = true;
}

static void side_write(side *s)
{
    ssize_t put = 0;

    if (s->out.length && !s->broken) {
        put = send(s->fd, s->out.data, s->out.length, MSG_NOSIGNAL);
        s->broken = put < 0 && errno != EAGAIN && errno != EINTR;
        if (put > 0)
            bytes_drop(&s->out, (size_t)put);
    }
    if (s->broken)
        s->out.length = 0;
}

/* shutdown() first: a child process that the test has forked may have the descriptor as well, and would keep the connection. */
static void side_close(side *s, bool reset)
{
    if (s->fd < 0)
        return;
    if (reset)
        setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    else
        shutdown(s->fd, SHUT_RDWR);
    close(s->fd);
    s->fd = -1;
}

static void connection_kill(fault_proxy *p, connection *c, bool reset)
{
    if (c->dead)
        return;
    side_close(&c->client, reset);
    side_close(&c->server, false);
    c->dead = true;
    p->counters[PROXY_CLOSED]++;
}

static void connection_free(connection *c)
{
    free(c->client.in.data);
    free(c->client.out.data);
    free(c->server.in.data);
    free(c->server.out.data);
    free(c->pending);
    free(c);
}

/* A descriptor connected to the server, or -1. On the loopback interface this does not wait. */
static int connect_to(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void prepare(int fd)
{
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void accept_one(fault_proxy *p)
{
    int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    connection *c;

    if (fd < 0)
        return;
    c = need(calloc(1, sizeof *c));
    c->client.fd = fd;
    c->server.fd = p->black_hole ? -1 : connect_to(p->server_port);
    c->silent = p->black_hole;
    c->next = p->connections;
    p->connections = c;
    p->counters[PROXY_ACCEPTED]++;
    prepare(fd);
    if (c->server.fd >= 0)
        prepare(c->server.fd);
    else if (!c->silent)
        connection_kill(p, c, true); /* the nearest to the refusal that the client would have seen */
}

static int listen_on(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) != 0 ||
                    bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 128) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* ---- a round of the thread ---- */

static bool holds(const connection *c)
{
    return c->hold_requests || c->hold_replies;
}

/* What follows from the ends of the two sides. */
static void handle_ends(fault_proxy *p, connection *c)
{
    if (c->silent) {
        if (c->client.eof)
            connection_kill(p, c, false);
        return;
    }
    if (c->server.eof && !c->hold_replies && !c->closing) {
        pass_raw(&c->server, &c->client); /* the beginning of an answer that the server did not complete */
        c->closing = true;
        side_write(&c->client);
    }
    if (c->closing || (c->stopped && c->pending_count == 0)) {
        c->closing = true;
        if (c->client.out.length == 0)
            connection_kill(p, c, false);
    } else if (c->client.eof && c->hold_replies && !c->hold_requests) {
        connection_kill(p, c, false); /* nobody is there to get them */
    } else if (c->client.eof && !holds(c) && c->server.out.length == 0 && !c->server.shut) {
        c->server.shut = true;
        shutdown(c->server.fd, SHUT_WR); /* the server ends the connection when it has read everything */
    }
}

static void handle_connection(fault_proxy *p, connection *c)
{
    if (c->dead)
        return;
    if (c->silent) {
        c->client.in.length = 0;
    } else {
        handle_requests(p, c);
        side_write(&c->server);
        handle_replies(p, c);
        side_write(&c->client);
    }
    handle_ends(p, c);
    if (c->dead || holds(c) || (c->pending_count == 0 && c->client.out.length == 0 && c->server.out.length == 0))
        c->releasing = false;
}

static void fall_silent(connection *c)
{
    side_close(&c->server, false);
    c->silent = true;
    c->hold_requests = c->hold_replies = c->releasing = c->closing = c->stopped = false;
    c->client.out.length = c->pending_count = 0;
}

/* What was asked for since the last round. */
static void obey(fault_proxy *p)
{
    for (connection *c = p->connections; c; c = c->next) {
        if (p->stop || p->close_all || p->reset_all)
            connection_kill(p, c, p->reset_all);
        else if (p->black_hole && !c->silent)
            fall_silent(c);
        else if (p->let_go && holds(c)) {
            c->hold_requests = c->hold_replies = false;
            c->releasing = true;
        }
    }
    p->let_go = p->close_all = p->reset_all = false;
    if (p->refuse && p->listener >= 0) {
        close(p->listener);
        p->listener = -1;
    } else if (!p->refuse && p->listener < 0) {
        p->listener = listen_on(p->port.number);
    }
    p->done = p->asked;
}

static long requests_in(const fault_proxy *p, connection *c)
{
    size_t at = 0;
    long count = 0;

    while (at < c->client.in.length) {
        frame f = p->protocol->request(&c->session, c->client.in.data + at, c->client.in.length - at);

        if (f.kind < FRAME_PASS)
            break;
        count += f.kind == FRAME_UNIT;
        at += f.length;
    }
    return count;
}

static long replies_in(const fault_proxy *p, connection *c)
{
    size_t at = 0, next = 0;
    long count = 0;

    while (at < c->server.in.length) {
        int command = next < c->pending_count ? c->pending[next].command : -1;
        frame f = p->protocol->reply(&c->session, command, c->server.in.data + at, c->server.in.length - at);

        if (f.kind < FRAME_PASS)
            break;
        next += f.kind == FRAME_UNIT;
        count++;
        at += f.length;
    }
    return count;
}

static void count_held(fault_proxy *p)
{
    p->counters[PROXY_HELD] = p->counters[PROXY_ORPHANED] = 0;
    for (connection *c = p->connections; c; c = c->next) {
        if (c->hold_requests)
            p->counters[PROXY_HELD] += requests_in(p, c);
        if (c->hold_replies)
            p->counters[PROXY_HELD] += replies_in(p, c);
        p->counters[PROXY_ORPHANED] += c->hold_requests && c->client.eof;
    }
}

static void remove_dead(fault_proxy *p)
{
    connection **link = &p->connections;

    while (*link) {
        connection *c = *link;

        if (c->dead) {
            *link = c->next;
            connection_free(c);
        } else {
            link = &c->next;
        }
    }
}

/* A side that has ended is not polled: it would be ready for ever. */
static struct pollfd poll_side(const side *s)
{
    bool reads = s->fd >= 0 && !s->eof, writes = s->fd >= 0 && !s->broken && s->out.length > 0;

    return (struct pollfd){reads || writes ? s->fd : -1, (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)), 0};
}

static size_t fill_poll(fault_proxy *p, struct pollfd *fds)
{
    size_t n = 2;

    fds[0] = (struct pollfd){p->wake[0], POLLIN, 0};
    fds[1] = (struct pollfd){p->listener, POLLIN, 0};
    for (const connection *c = p->connections; c && n < 2 + 2 * MAX_CONNECTIONS; c = c->next) {
        fds[n++] = poll_side(&c->client);
        fds[n++] = poll_side(&c->server);
    }
    return n;
}

/* The list is as it was when `fds` was filled. */
static void read_ready(fault_proxy *p, const struct pollfd *fds, size_t n)
{
    size_t i = 2;

    for (connection *c = p->connections; c && i < n; c = c->next, i += 2) {
        if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
            side_read(&c->client);
        if (fds[i + 1].revents & (POLLIN | POLLHUP | POLLERR))
            side_read(&c->server);
    }
}

static void *run(void *argument)
{
    fault_proxy *p = argument;
    struct pollfd *fds = need(calloc(2 + 2 * MAX_CONNECTIONS, sizeof *fds));
    char drain[256];

    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        size_t n = fill_poll(p, fds);

        pthread_mutex_unlock(&p->mutex);
        poll(fds, n, -1);
        pthread_mutex_lock(&p->mutex);
        while (read(p->wake[0], drain, sizeof drain) > 0)
            continue;
        read_ready(p, fds, n);
        if (p->listener >= 0 && fds[1].revents)
            accept_one(p);
        obey(p);
        for (connection *c = p->connections; c; c = c->next)
            handle_connection(p, c);
        remove_dead(p);
        count_held(p);
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->mutex);
    free(fds);
    return NULL;
}

/* ---- the caller's side ---- */

static void wake_locked(fault_proxy *p)
{
    ssize_t put = write(p->wake[1], "x", 1);

    (void)put; /* a full pipe wakes as well */
    p->asked++;
}

/* Wait for a change; false if the time is over. */
static bool wait_locked(fault_proxy *p, int64_t deadline_ms)
{
    int64_t now = process_clock_ms();
    struct timespec until = {deadline_ms / 1000, deadline_ms % 1000 * 1000000};

    return now < deadline_ms && pthread_cond_timedwait(&p->changed, &p->mutex, &until) != ETIMEDOUT;
}

/* Have the thread look at what it is asked for, and unlock. */
static void ask_and_unlock(fault_proxy *p)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    unsigned long mine;
    bool done;

    wake_locked(p);
    mine = p->asked;
    while (p->done < mine && wait_locked(p, deadline))
        continue;
    done = p->done >= mine;
    pthread_mutex_unlock(&p->mutex);
    if (!done)
        process_fail("the proxy does not do what it is asked for");
}

fault_proxy *proxy_start_for(proxy_protocol spoken, int server_port)
{
    static const protocol *const protocols[] = {
        [PROXY_REDIS] = &fault__redis, [PROXY_POSTGRES] = &fault__postgres, [PROXY_MYSQL] = &fault__mysql};
    fault_proxy *p = need(calloc(1, sizeof *p));
    pthread_condattr_t monotonic;

    p->protocol = protocols[spoken];
    p->port = process_port_new();
    p->listener = listen_on(p->port.number);
    p->server_port = server_port;
    if (p->listener < 0 || pipe2(p->wake, O_CLOEXEC | O_NONBLOCK) != 0)
        process_fail("cannot start the proxy: %s", strerror(errno));
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&p->mutex, NULL);
    if (pthread_create(&p->thread, NULL, run, p) != 0)
        process_fail("cannot start the proxy's thread");
    return p;
}

fault_proxy *proxy_start(int server_port)
{
    return proxy_start_for(PROXY_REDIS, server_port);
}

int proxy_port(const fault_proxy *p)
{
    return p->port.number;
}

void proxy_retarget(fault_proxy *p, int server_port)
{
    pthread_mutex_lock(&p->mutex);
    p->server_port = server_port;
    pthread_mutex_unlock(&p->mutex);
}

void proxy_stop(fault_proxy *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    wake_locked(p);
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
    proxy_clear(p);
    remove_dead(p);
    if (p->listener >= 0)
        close(p->listener);
    close(p->wake[0]);
    close(p->wake[1]);
    process_port_free(&p->port);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->mutex);
    free(p->counted);
    free(p);
}

static char *copy(const char *text)
{
    return text ? need(strdup(text)) : NULL;
}

void proxy_set_fault(fault_proxy *p, proxy_fault fault)
{
    set_fault *f = need(calloc(1, sizeof *f)), **link = &p->faults;

    f->fault = fault;
    f->match = copy(fault.match);
    f->fault.match = NULL;
    if (f->fault.times == 0)
        f->fault.times = 1;
    pthread_mutex_lock(&p->mutex);
    while (*link)
        link = &(*link)->next;
    *link = f;
    pthread_mutex_unlock(&p->mutex);
}

void proxy_clear(fault_proxy *p)
{
    pthread_mutex_lock(&p->mutex);
    while (p->faults) {
        set_fault *f = p->faults;

        p->faults = f->next;
        free(f->match);
        free(f);
    }
    pthread_mutex_unlock(&p->mutex);
}

static bool any_releasing(const fault_proxy *p)
{
    const connection *c = p->connections;

    while (c && !c->releasing)
        c = c->next;
    return p->let_go || c;
}

void proxy_let_go(fault_proxy *p)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    bool released;

    pthread_mutex_lock(&p->mutex);
    p->let_go = true;
    wake_locked(p);
    while (any_releasing(p) && wait_locked(p, deadline))
        continue;
    released = !any_releasing(p);
    pthread_mutex_unlock(&p->mutex);
    if (!released)
        process_fail("what the proxy let go is not answered");
}

void proxy_black_hole(fault_proxy *p, bool on)
{
    pthread_mutex_lock(&p->mutex);
    p->black_hole = on;
    ask_and_unlock(p);
}

void proxy_refuse(fault_proxy *p, bool on)
{
    bool listens;

    pthread_mutex_lock(&p->mutex);
    p->refuse = on;
    ask_and_unlock(p);
    pthread_mutex_lock(&p->mutex);
    listens = p->listener >= 0;
    pthread_mutex_unlock(&p->mutex);
    if (listens == on)
        process_fail("the proxy cannot listen on port %d again", p->port.number);
}

void proxy_close_all(fault_proxy *p)
{
    pthread_mutex_lock(&p->mutex);
    p->close_all = true;
    ask_and_unlock(p);
}

void proxy_reset_all(fault_proxy *p)
{
    pthread_mutex_lock(&p->mutex);
    p->reset_all = true;
    ask_and_unlock(p);
}

long proxy_count(fault_proxy *p, proxy_counter counter)
{
    long value;

    pthread_mutex_lock(&p->mutex);
    value = p->counters[counter];
    pthread_mutex_unlock(&p->mutex);
    return value;
}

void proxy_wait(fault_proxy *p, proxy_counter counter, long at_least)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    long value;

    pthread_mutex_lock(&p->mutex);
    while (p->counters[counter] < at_least && wait_locked(p, deadline))
        continue;
    value = p->counters[counter];
    pthread_mutex_unlock(&p->mutex);
    if (value < at_least)
        process_fail("the proxy's counter %d is %ld and does not become %ld", (int)counter, value, at_least);
}

void proxy_count_matching(fault_proxy *p, const char *match)
{
    pthread_mutex_lock(&p->mutex);
    free(p->counted);
    p->counted = copy(match);
    p->counters[PROXY_MATCHING] = 0;
    pthread_mutex_unlock(&p->mutex);
}
