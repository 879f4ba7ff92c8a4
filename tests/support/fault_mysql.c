/*
 * fault_mysql.c - MySQL's and MariaDB's protocol as the proxy needs it. A packet is three bytes of length, a number, and the payload. What
 * an answer consists of depends on the command, and on what client and server have agreed on when logging in.
 */
#include "fault_protocol.h"

#include <string.h>

#define CLIENT_LONG_PASSWORD 1u /* a client of MariaDB leaves this out, and tells more capabilities instead */
#define CLIENT_COMPRESS 32u
#define CLIENT_SSL 2048u
#define CLIENT_DEPRECATE_EOF (1u << 24)
#define MARIADB_CACHE_METADATA (1u << 4)
#define MORE_RESULTS 8u

enum {
    QUIT = 1,
    QUERY = 3,
    PREPARE = 0x16,
    EXECUTE = 0x17,
    SEND_LONG_DATA = 0x18,
    STMT_CLOSE = 0x19,
    BULK_EXECUTE = 0xfa
};

/* A place in what a server has sent. */
typedef struct reader {
    const unsigned char *data;
    size_t length;
    size_t at;
    bool short_of; /* something was missing */
} reader;

/* A packet's payload. */
typedef struct packet {
    const unsigned char *data;
    size_t length;
} packet;

static uint32_t number_at(const unsigned char *at, int bytes)
{
    uint32_t value = 0;

    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

/* What is missing looks like an error packet, since nothing comes after one. */
static packet next_packet(reader *r)
{
    size_t left = r->length - r->at, length = left >= 4 ? number_at(r->data + r->at, 3) : 0;
    packet p = {r->data + r->at + 4, length};

    if (left < 4 || left - 4 < length) {
        r->short_of = true;
        return (packet){(const unsigned char *)"\xff", 1};
    }
    r->at += 4 + length;
    return length ? p : (packet){(const unsigned char *)"", 0};
}

static void skip_packets(reader *r, size_t count)
{
    while (count-- > 0 && !r->short_of)
        next_packet(r);
}

/* The length of a number whose first byte says how long it is. */
static size_t skip_number(const packet *p, size_t at)
{
    unsigned char first = at < p->length ? p->data[at] : 0;

    return at + (first == 0xfc ? 3 : first == 0xfd ? 4 : first == 0xfe ? 9 : 1);
}

/* The status in an OK packet is after two numbers, in an EOF packet it is after the count of warnings. */
static bool more_follow(const session *s, const packet *p)
{
    size_t at = 3;

    if (p->data[0] == 0 || (s->capabilities & CLIENT_DEPRECATE_EOF))
        at = skip_number(p, skip_number(p, 1));
    return at + 2 <= p->length && (number_at(p->data + at, 2) & MORE_RESULTS);
}

/* The end of rows; with CLIENT_DEPRECATE_EOF it is an OK packet under the same number, and may be longer. */
static bool is_end(const session *s, const packet *p)
{
    return p->data[0] == 0xff ||
           (p->data[0] == 0xfe && p->length < (s->capabilities & CLIENT_DEPRECATE_EOF ? 0xffffffu : 9u));
}

static void skip_definitions(const session *s, reader *r, size_t count)
{
    skip_packets(r, count);
    if (count && !(s->capabilities & CLIENT_DEPRECATE_EOF))
        skip_packets(r, 1);
}

/* One result; true if another follows. */
static bool skip_result(const session *s, reader *r)
{
    packet p = next_packet(r);
    bool defined = true;
    size_t columns;

    if (p.data[0] == 0xff)
        return false;
    if (p.data[0] == 0)
        return more_follow(s, &p);
    columns = p.data[0] < 0xfb ? p.data[0] : number_at(p.data + 1, 2);
    if (s->more_capabilities & MARIADB_CACHE_METADATA)
        defined = p.data[p.length - 1] != 0;
    skip_definitions(s, r, defined ? columns : 0);
    if (!defined && !(s->capabilities & CLIENT_DEPRECATE_EOF))
        skip_packets(r, 1);
    do
        p = next_packet(r);
    while (!is_end(s, &p));
    return p.data[0] != 0xff && more_follow(s, &p);
}

static void skip_prepared(const session *s, reader *r)
{
    packet p = next_packet(r);

    if (p.data[0] != 0 || p.length < 9)
        return;
    skip_definitions(s, r, number_at(p.data + 7, 2));
    skip_definitions(s, r, number_at(p.data + 5, 2));
}

/* ---- frames ---- */

static frame end_of(const reader *r, frame_kind kind)
{
    return (frame){.kind = r->short_of ? FRAME_NONE : kind, .length = r->at};
}

/* The first packet of a client says what it can do. One that wants TLS sends no more of it than that. */
static frame client_login(session *s, reader *r)
{
    packet p = next_packet(r);

    if (r->short_of)
        return (frame){.kind = FRAME_NONE};
    if (!s->capabilities && p.length >= 32) {
        s->capabilities = number_at(p.data, 4);
        if (!(s->capabilities & CLIENT_LONG_PASSWORD))
            s->more_capabilities = number_at(p.data + 28, 4);
        if (s->capabilities & (CLIENT_SSL | CLIENT_COMPRESS))
            return (frame){.kind = FRAME_RAW};
    }
    return end_of(r, FRAME_PASS);
}

static frame request(session *s, const char *data, size_t length)
{
    reader r = {.data = (const unsigned char *)data, .length = length};
    packet p;
    frame f;

    if (!s->logged_in)
        return client_login(s, &r);
    p = next_packet(&r);
    f = end_of(&r, FRAME_UNIT);
    f.command = p.data[0];
    f.replies = 1;
    if (f.command == QUIT || f.command == STMT_CLOSE || f.command == SEND_LONG_DATA)
        f.kind = f.kind == FRAME_UNIT ? FRAME_PASS : f.kind;
    return f;
}

static frame reply(session *s, int command, const char *data, size_t length)
{
    reader r = {.data = (const unsigned char *)data, .length = length};
    packet p;

    if (!s->logged_in) {
        p = next_packet(&r);
        s->logged_in = !r.short_of && p.data[0] == 0;
        return end_of(&r, FRAME_PASS);
    }
    if (command == QUERY || command == EXECUTE || command == BULK_EXECUTE) {
        while (skip_result(s, &r))
            continue;
    } else if (command == PREPARE) {
        skip_prepared(s, &r);
    } else {
        skip_packets(&r, 1);
    }
    return end_of(&r, command < 0 ? FRAME_MESSAGE : FRAME_UNIT);
}

const protocol fault__mysql = {request, reply};
