/*
 * fault_protocol.h - what the proxy has to know of a protocol: where a request, its answer or a message ends. For fault_proxy.c only.
 */
#ifndef VERROU_TESTS_FAULT_PROTOCOL_H
#define VERROU_TESTS_FAULT_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum frame_kind {
    FRAME_NONE,    /* not complete yet */
    FRAME_RAW,     /* not this protocol, or encrypted from here on: the connection is not understood any more */
    FRAME_PASS,    /* to be passed on and not counted: logging in, and what is not answered */
    FRAME_UNIT,    /* a request, or the answer to the oldest one */
    FRAME_MESSAGE, /* from the server, not an answer */
} frame_kind;

/* The beginning of what one side has sent. */
typedef struct frame {
    frame_kind kind;
    size_t length; /* FRAME_PASS, FRAME_UNIT, FRAME_MESSAGE */
    int replies;   /* of a request that is a unit: how many answers it gets */
    int command;   /* the same: to be given to reply() for its answer */
} frame;

/* What a protocol remembers of a connection. Zero at first. */
typedef struct session {
    bool logged_in;
    bool asked_tls;
    uint32_t capabilities;
    uint32_t more_capabilities;
} session;

typedef struct protocol {
    /* The first frame of what the client has sent. */
    frame (*request)(session *s, const char *data, size_t length);
    /* The same of the server; `command` is that of the oldest request that is not answered, -1 if all are. */
    frame (*reply)(session *s, int command, const char *data, size_t length);
} protocol;

extern const protocol fault__redis, fault__postgres, fault__mysql;

#endif
