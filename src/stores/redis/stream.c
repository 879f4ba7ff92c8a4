/*
 * stream.c - bytes with deadlines, over a plain socket, TLS (tls.c) or a transport that the application made.
 *
 * Writing never blocks, reading takes a deadline. A plain socket is in blocking mode, so that the common wait for an answer is one
 * recv() instead of a poll() and a recv(): it comes back by itself every PATIENCE_MS, and closer to the deadline poll() is used.
 */
#include "redis_store.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_MS 1000
#define KEEPALIVE_S 15 /* an idle connection whose peer is gone is noticed after some four times this */
#define KEEPALIVE_PROBES 3
#define WRITE_AGAIN_MS 2

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* SO_NOSIGPIPE is set instead */
#endif

/* ---- waiting ---- */

/* Wait for `events`; false at the deadline. */
static bool wait_for(const redis_state *state, int fd, short events, int64_t deadline_ms)
{
    for (;;) {
        struct pollfd in = {fd, events, 0};
        int64_t left_ms = deadline_ms - state->host->now_ms();
        int ready;

        if (left_ms <= 0)
            return false;
        ready = poll(&in, 1, left_ms > 60000 ? 60000 : (int)left_ms);
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return true; /* what comes next will fail and say why */
    }
}

bool verrou__redis_stream_wants_read(const redis_stream *stream)
{
    return stream->tls && verrou__redis_tls_wants_read(stream->tls);
}

/* The descriptor of a transport with calls of its own tells of reading only, so writing is simply tried again. */
bool verrou__redis_stream_wait_write(redis_state *state, redis_stream *stream, int64_t deadline_ms)
{
    if (stream->transport.write) {
        int64_t again_ms = state->host->now_ms() + WRITE_AGAIN_MS;

        if (again_ms < deadline_ms) {
            poll(NULL, 0, WRITE_AGAIN_MS);
            return true;
        }
    }
    return wait_for(state, stream->fd, verrou__redis_stream_wants_read(stream) ? POLLIN : POLLOUT, deadline_ms);
}

/* ---- raw bytes ---- */

ssize_t verrou__redis_stream_raw_write(redis_stream *stream, const void *bytes, size_t size)
{
    ssize_t put;

    do {
        put = stream->transport.write ? stream->transport.write(stream->transport.user, bytes, size)
                                      : send(stream->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (put < 0 && errno == EINTR);
    if (put < 0 && errno == EWOULDBLOCK)
        errno = EAGAIN;
    return put;
}

ssize_t verrou__redis_stream_raw_read(redis_stream *stream, void *buffer, size_t size)
{
    ssize_t got;

    do {
        got = stream->transport.read ? stream->transport.read(stream->transport.user, buffer, size)
                                     : recv(stream->fd, buffer, size, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EWOULDBLOCK)
        errno = EAGAIN;
    return got;
}

/* ---- writing and reading ---- */

ssize_t verrou__redis_stream_write(redis_stream *stream, const void *bytes, size_t size)
{
    if (stream->tls)
        return verrou__redis_tls_write(stream->tls, bytes, size);
    return verrou__redis_stream_raw_write(stream, bytes, size);
}

static ssize_t read_now(redis_stream *stream, void *buffer, size_t size)
{
    if (stream->tls)
        return verrou__redis_tls_read(stream->tls, buffer, size);
    return verrou__redis_stream_raw_read(stream, buffer, size);
}

ssize_t verrou__redis_stream_read(redis_state *state, redis_stream *stream, void *buffer, size_t size,
                                  int64_t deadline_ms)
{
    while (stream->patient && deadline_ms - state->host->now_ms() > PATIENCE_MS) {
        ssize_t got = recv(stream->fd, buffer, size, 0);

        if (got >= 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
            return got;
    }
    for (;;) {
        ssize_t got = read_now(stream, buffer, size);
        bool writes = stream->tls && verrou__redis_tls_wants_write(stream->tls);

        if (got >= 0 || errno != EAGAIN || deadline_ms == 0)
            return got;
        if (writes ? !verrou__redis_stream_wait_write(state, stream, deadline_ms)
                   : !wait_for(state, stream->fd, POLLIN, deadline_ms)) {
            errno = EAGAIN;
            return -1;
        }
    }
}

/* ---- opening ---- */

bool verrou__redis_address_set(redis_address *address, const char *host, int port)
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

static int new_socket(int family, int type, int protocol)
{
#ifdef SOCK_CLOEXEC
    return socket(family, type | SOCK_CLOEXEC, protocol);
#else
    int fd = socket(family, type, protocol);

    if (fd >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
#endif
}

static void set_blocking(int fd, bool blocking)
{
    int flags = fcntl(fd, F_GETFL);

    fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

static void set_number(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

/* What a connected socket of ours, or of the application, is to be like. */
static void settle(redis_stream *stream, int family)
{
    struct timeval patience = {PATIENCE_MS / 1000, PATIENCE_MS % 1000 * 1000};

    if (family == AF_INET || family == AF_INET6) {
        set_number(stream->fd, IPPROTO_TCP, TCP_NODELAY, 1);
        set_number(stream->fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
        set_number(stream->fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S);
#endif
#ifdef TCP_KEEPINTVL
        set_number(stream->fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_S);
        set_number(stream->fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
#endif
    }
#ifdef SO_NOSIGPIPE
    set_number(stream->fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
    stream->patient = setsockopt(stream->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0;
    if (stream->patient)
        set_blocking(stream->fd, true);
}

/* A connected socket, or -1 and errno. */
static int connect_to(redis_state *state, const struct sockaddr *address, socklen_t len, int64_t deadline_ms)
{
    int fd = new_socket(address->sa_family, SOCK_STREAM, 0);
    socklen_t size = sizeof errno;
    int error = 0;

    if (fd < 0)
        return -1;
    set_blocking(fd, false);
    if (connect(fd, address, len) < 0) {
        error = errno;
        /* EAGAIN, of a unix socket, is a refusal: its queue is full. */
        if (error == EINPROGRESS || error == EINTR) {
            if (!wait_for(state, fd, POLLOUT, deadline_ms))
                error = ETIMEDOUT;
            else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
                error = errno;
        }
    }
    if (error) {
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static bool open_path(redis_state *state, redis_stream *stream, const char *path, int64_t deadline_ms,
                      redis_fault *fault)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path) {
        verrou__redis_fault_set(fault, VERROU_OP_FAILED, false, NULL, "the path of the socket %s is too long", path);
        return false;
    }
    strcpy(address.sun_path, path);
    stream->fd = connect_to(state, (const struct sockaddr *)&address, sizeof address, deadline_ms);
    if (stream->fd < 0) {
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "cannot connect to %s: %s", path, strerror(errno));
        return false;
    }
    settle(stream, AF_UNIX);
    return true;
}

/* Each address of the name in turn, each with an equal share of what time is left. */
static bool open_host(redis_state *state, redis_stream *stream, const redis_address *address, int64_t deadline_ms,
                      redis_fault *fault)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *all = NULL;
    char port[16];
    int left = 0;
    int error;

    snprintf(port, sizeof port, "%d", address->port);
    error = getaddrinfo(address->host, port, &hints, &all);
    if (error) {
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "cannot resolve %s: %s", address->host,
                                error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
        return false;
    }
    for (const struct addrinfo *at = all; at; at = at->ai_next)
        left++;
    for (const struct addrinfo *at = all; at && stream->fd < 0; at = at->ai_next, left--) {
        int64_t now_ms = state->host->now_ms();

        stream->fd = connect_to(state, at->ai_addr, at->ai_addrlen, now_ms + (deadline_ms - now_ms) / left);
        if (stream->fd >= 0)
            settle(stream, at->ai_family);
        else
            verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "cannot connect to %s: %s", address->name,
                                    strerror(errno));
    }
    freeaddrinfo(all);
    return stream->fd >= 0;
}

/* The application connects. */
static bool open_given(redis_state *state, redis_stream *stream, const redis_address *address, int64_t deadline_ms,
                       redis_fault *fault)
{
    verrou_transport transport = {NULL, -1, NULL, NULL, NULL};
    verrou_error error = VERROU_ERROR_INIT;
    verrou_status status =
        state->connect(state->connect_user, address->host, address->port, deadline_ms, &transport, &error);

    if (status != VERROU_OK) {
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, error.store_code, "%s",
                                error.message[0] ? error.message : "the application's connect function failed");
        return false;
    }
    if (transport.fd < 0 || !transport.read != !transport.write) {
        if (transport.close)
            transport.close(transport.user);
        verrou__redis_fault_set(fault, VERROU_OP_FAILED, false, NULL,
                                "the application's connect function gave a transport without %s",
                                transport.fd < 0 ? "descriptor" : "both read and write");
        return false;
    }
    stream->transport = transport;
    stream->given = true;
    stream->fd = transport.fd;
    if (!transport.read)
        set_blocking(stream->fd, false);
    return true;
}

bool verrou__redis_stream_open(redis_state *state, redis_stream *stream, const redis_address *address,
                               int64_t deadline_ms, redis_fault *fault)
{
    bool opened;

    *stream = (redis_stream){.fd = -1};
    if (state->connect)
        opened = open_given(state, stream, address, deadline_ms, fault);
    else if (address->port == 0)
        opened = open_path(state, stream, address->host, deadline_ms, fault);
    else
        opened = open_host(state, stream, address, deadline_ms, fault);
    if (!opened)
        return false;
    if (state->tls && !verrou__redis_tls_open(state, stream, address->host, deadline_ms, fault)) {
        verrou__redis_stream_close(stream);
        return false;
    }
    return true;
}

void verrou__redis_stream_close(redis_stream *stream)
{
    if (stream->tls)
        verrou__redis_tls_close(stream->tls);
    if (stream->given && stream->transport.close)
        stream->transport.close(stream->transport.user);
    else if (stream->fd >= 0)
        close(stream->fd);
    *stream = (redis_stream){.fd = -1};
}
