/*
 * fault_postgres.c - PostgreSQL's protocol as the proxy needs it. A message is a letter and a length that counts itself; only those that
 * open a connection have no letter. A request ends with Sync, Query or FunctionCall, each of which is answered by one ReadyForQuery.
 */
#include "fault_protocol.h"

#include <string.h>

#define SSL_REQUEST 80877103
#define GSS_REQUEST 80877104

static uint32_t number_at(const char *data)
{
    const unsigned char *at = (const unsigned char *)data;

    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The length of the first message, 0 if it is not complete. */
static size_t message_length(const char *data, size_t length)
{
    size_t all = length < 5 ? 0 : 1 + (size_t)number_at(data + 1);

    return all <= length ? all : 0;
}

/* All messages up to one of those that `ends` lists; 0 if it has not come. */
static size_t length_up_to(const char *ends, const char *data, size_t length)
{
    size_t at = 0, one;

    while ((one = message_length(data + at, length - at))) {
        at += one;
        if (strchr(ends, data[at - one]))
            return at;
    }
    return 0;
}

static frame request(session *s, const char *data, size_t length)
{
    size_t all;

    if (!s->logged_in) { /* the answers tell when that is over */
        if (length < 8)
            return (frame){.kind = FRAME_NONE};
        s->asked_tls = number_at(data + 4) == SSL_REQUEST || number_at(data + 4) == GSS_REQUEST;
        return (frame){.kind = FRAME_PASS, .length = length};
    }
    if (data[0] == 'X' && (all = message_length(data, length)))
        return (frame){.kind = FRAME_PASS, .length = all};
    all = length_up_to("SQF", data, length);
    return (frame){.kind = all ? FRAME_UNIT : FRAME_NONE, .length = all, .replies = 1};
}

/* A refused request for TLS is followed by logging in without it. */
static frame login(session *s, const char *data, size_t length)
{
    size_t all;

    if (s->asked_tls && data[0] != 'E') {
        s->asked_tls = false;
        return (frame){.kind = data[0] == 'N' ? FRAME_PASS : FRAME_RAW, .length = 1};
    }
    all = message_length(data, length);
    s->logged_in = all && data[0] == 'Z';
    return (frame){.kind = all ? FRAME_PASS : FRAME_NONE, .length = all};
}

static frame reply(session *s, int command, const char *data, size_t length)
{
    size_t all;

    if (!s->logged_in)
        return login(s, data, length);
    if (command < 0 || data[0] == 'A') {
        all = message_length(data, length);
        return (frame){.kind = all ? FRAME_MESSAGE : FRAME_NONE, .length = all};
    }
    all = length_up_to("Z", data, length);
    return (frame){.kind = all ? FRAME_UNIT : FRAME_NONE, .length = all};
}

const protocol fault__postgres = {request, reply};
