/*
 * fault_proxy.h - a TCP proxy in front of a server that loses, delays, repeats and cuts what passes through it.
 *
 * It runs in a thread of its own and knows where requests and replies of Redis, PostgreSQL or MySQL begin and end, so that a fault hits
 * exactly one of them: "the second request from now that contains GET". Faults are counted, never timed. Which reply belongs to which
 * request is known by their order; a published message is no reply and is passed on. A connection that does not speak the protocol (TLS,
 * another server's) is passed through as it comes; only what is said of whole connections below holds for it.
 *
 * PostgreSQL: a request is all that a client sends up to a Sync or a simple Query, so one round trip; its reply all up to ReadyForQuery;
 * a message a notification, notice or changed parameter that comes between replies. COPY and Flush are not known.
 * MySQL: a request is a command; its reply all results of it. Commands that are not answered, and logging in, are neither counted nor hit.
 *
 * Any thread may call these; they return when what they say is in force, and make the test fail if that takes too long.
 */
#ifndef VERROU_TESTS_FAULT_PROXY_H
#define VERROU_TESTS_FAULT_PROXY_H

#include <stdbool.h>
#include <stddef.h>

typedef struct fault_proxy fault_proxy;

typedef enum proxy_protocol { PROXY_REDIS, PROXY_POSTGRES, PROXY_MYSQL } proxy_protocol;

/* A proxy on a free port of 127.0.0.1 that connects to a server on another; proxy_start() is for Redis. */
fault_proxy *proxy_start_for(proxy_protocol spoken, int server_port);
fault_proxy *proxy_start(int server_port);
int proxy_port(const fault_proxy *proxy);
/* Connect to another server from now on; connections that exist keep theirs. */
void proxy_retarget(fault_proxy *proxy, int server_port);
/* Close all connections, also the held ones, whose bytes are lost. NULL is allowed. */
void proxy_stop(fault_proxy *proxy);

/* ---- faults of single requests, replies and messages ---- */

typedef enum fault_kind {
    /* Close the connection instead of passing the request on: not carried out. What came before it is answered first. */
    PROXY_DROP_REQUEST,
    /* Pass the request on, wait for the answer, and close the connection instead of passing that on: carried out. */
    PROXY_DROP_REPLY,
    /* Pass only the first `bytes` of the answer on, then close the connection. */
    PROXY_TRUNCATE_REPLY,
    /* Pass the answer on twice. */
    PROXY_DUPLICATE_REPLY,
    /* Keep the request, and all that follow it on its connection, until proxy_let_go(): even if the client has gone by then. */
    PROXY_HOLD_REQUEST,
    /* Keep the answer, and all that follow it on its connection, until proxy_let_go(). */
    PROXY_HOLD_REPLY,
    /* Swallow a published message that contains `match`; the connection stays. */
    PROXY_DROP_MESSAGE,
} fault_kind;

#define PROXY_ALWAYS (-1)

typedef struct proxy_fault {
    fault_kind kind;
    const char
        *match; /* only requests that contain this text count, for PROXY_DROP_MESSAGE messages; NULL: all. Is copied */
    int skip;   /* how many of them are left alone first */
    int times;  /* how many of them it then hits; 0 is 1; or PROXY_ALWAYS */
    size_t bytes; /* PROXY_TRUNCATE_REPLY */
} proxy_fault;

/*
 * Faults are looked through in the order in which they were set, and a request is hit by the first one that is due.
 *
 *     proxy_set(proxy, PROXY_DROP_REPLY, .match = "EVALSHA", .skip = 1);
 */
void proxy_set_fault(fault_proxy *proxy, proxy_fault fault);
#define proxy_set(proxy, ...) proxy_set_fault((proxy), (proxy_fault){.kind = __VA_ARGS__})
/* Forget all faults that have not happened yet. */
void proxy_clear(fault_proxy *proxy);

/*
 * Pass on what is held, in the order in which it came. Returns when the server has answered the requests, or closed the connection, and
 * all answers were sent to clients that are still there.
 */
void proxy_let_go(fault_proxy *proxy);

/* ---- faults of connections ---- */

/* A black hole accepts connections and answers nothing. On: all present and new connections fall into it, with what is under way
 * in them. Off: new ones work again; those that fell in stay silent. */
void proxy_black_hole(fault_proxy *proxy, bool on);
/* Refuse new connections. Present ones go on. Off: listen again, on the same port. */
void proxy_refuse(fault_proxy *proxy, bool on);
/* Close all connections, in the usual way or by a reset (RST) to the client; held bytes are lost. */
void proxy_close_all(fault_proxy *proxy);
void proxy_reset_all(fault_proxy *proxy);

/* ---- looking ---- */

typedef enum proxy_counter {
    PROXY_ACCEPTED,  /* connections so far */
    PROXY_CLOSED,    /* connections gone so far, on both sides */
    PROXY_REQUESTS,  /* complete requests that came from clients */
    PROXY_FORWARDED, /* of them, those that were passed on */
    PROXY_MATCHING,  /* of the latter, those that contain the text of proxy_count_matching(), since it was called */
    PROXY_REPLIES,   /* complete replies that came from the server, messages excluded */
    PROXY_MESSAGES,  /* published messages that came from the server */
    PROXY_FIRED,     /* faults that happened */
    PROXY_HELD,      /* requests and replies that are held now */
    PROXY_ORPHANED,  /* connections whose client has gone while requests of its are held, now */
    PROXY_COUNTERS
} proxy_counter;

long proxy_count(fault_proxy *proxy, proxy_counter counter);
/* Wait until a counter is at least so large. */
void proxy_wait(fault_proxy *proxy, proxy_counter counter, long at_least);
/* What PROXY_MATCHING counts, from now on. NULL: all requests. */
void proxy_count_matching(fault_proxy *proxy, const char *match);

#endif
