/*
 * list.c - the live locks of a server, or of all nodes of a cluster.
 *
 * SCAN finds the keys, and one pipeline of the inspect script a page tells who holds them and for how long. A Redis is shared with other
 * users, and whoever reads the list may go on to free what is in it. So what counts as a lock:
 *
 *   - a string of 1 to 255 bytes of UTF-8 without control characters, on a key that a lock can have;
 *   - with the setting `prefix`: every such string whose key has the prefix, since they are all ours;
 *   - without it: only a value that is an owner by its looks: "<32 hex digits>@host:pid[:label]" as this library draws them, or, on a key
 *     that expires, what the original draws: 8 to 16 lower-case letters and digits, at least one of them a letter.
 *
 * An owner that was given in code is therefore listed only where there is a prefix.
 */
#include "redis_store.h"

#include <stdio.h>
#include <string.h>

#include "util/utf8.h"

#define PAGE "1000"    /* how many keys SCAN looks at */
#define TYPED_SCAN 600 /* since Redis 6.0 it can leave out other types */
#define ORIGINAL_SHORTEST 8
#define ORIGINAL_LONGEST 16

typedef struct listing {
    redis_state *state;
    redis_lane *lane;
    int64_t deadline_ms;
    verrou_sink *sink;
    verrou_error *err;
    char pattern[2 * VERROU_MAX_KEY + 2];
} listing;

/* ---- what is a lock ---- */

static bool has_controls(const char *text)
{
    for (const char *at = text; *at; at++)
        if (utf8_control((const unsigned char *)at))
            return true;
    return false;
}

static bool is_key(const redisReply *key)
{
    return key->type == REDIS_REPLY_STRING && key->len > 0 && key->len <= VERROU_MAX_KEY &&
           utf8_text(key->str, key->len);
}

static bool is_owner_of_ours(const char *owner)
{
    size_t hex = strspn(owner, "0123456789abcdef");
    const char *host = owner + hex + 1;
    const char *pid;
    size_t digits;

    if (hex != 32 || owner[hex] != '@')
        return false;
    pid = strchr(host, ':');
    if (!pid || pid == host)
        return false;
    digits = strspn(pid + 1, "0123456789");
    return digits > 0 && (pid[1 + digits] == '\0' || pid[1 + digits] == ':');
}

/* Math.random() in base 36, without the "0." (8 to 15 characters, but for 26 of five million draws). */
static bool is_owner_of_the_original(const char *owner)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    static const char drawn[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    size_t len = strlen(owner);

    return len >= ORIGINAL_SHORTEST && len <= ORIGINAL_LONGEST && strspn(owner, drawn) == len &&
           strpbrk(owner, letters);
}

static bool is_lock(const redis_state *state, const verrou_op *op)
{
    const char *owner = op->holder;

    if (!utf8_text(owner, strlen(owner)) || has_controls(owner))
        return false;
    if (state->prefix_len || is_owner_of_ours(owner))
        return true;
    return op->remaining_ms != VERROU_FOREVER && is_owner_of_the_original(owner);
}

/* ---- a page ---- */

static verrou_status fail_nomem(const listing *l)
{
    return l->state->host->fail(l->err, VERROU_ENOMEM, 1, NULL, "out of memory");
}

/* Whether the key is somebody else's: of another type or with a value that is no owner, or out of this user's reach. */
static bool is_foreign(const verrou_op *op)
{
    return op->result == VERROU_OP_FAILED && op->error &&
           (strcmp(op->error->store_code, "WRONGTYPE") == 0 ||
            (strcmp(op->error->store_code, "NOPERM") == 0 && strstr(op->error->message, "permissions to access")));
}

static verrou_status report(const listing *l, const verrou_op *op)
{
    const verrou_host *host = l->state->host;

    if (op->result == VERROU_OP_REFUSED || is_foreign(op))
        return VERROU_OK;
    if (op->result != VERROU_OP_APPLIED && op->error)
        return host->fail(l->err, op->error->status, op->error->retriable, op->error->store_code, "%s",
                          op->error->message);
    if (op->result != VERROU_OP_APPLIED || !op->holder)
        return fail_nomem(l);
    if (!is_lock(l->state, op))
        return VERROU_OK;
    if (host->list_add(l->sink, op->key, op->key_len, op->holder, strlen(op->holder), op->remaining_ms, 0) != 0)
        return fail_nomem(l);
    return VERROU_OK;
}

static verrou_status inspect_page(const listing *l, const redisReply *keys)
{
    const verrou_host *host = l->state->host;
    verrou_op *ops = host->malloc(keys->elements * sizeof *ops + 1);
    verrou_op **batch = host->malloc(keys->elements * sizeof *batch + 1);
    verrou_status status = VERROU_OK;
    size_t n = 0;

    if (!ops || !batch) {
        status = fail_nomem(l);
        goto done;
    }
    for (size_t i = 0; i < keys->elements; i++) {
        const redisReply *key = keys->element[i];

        if (!is_key(key))
            continue;
        ops[n] = (verrou_op){.kind = VERROU_OP_INSPECT,
                             .key = key->str,
                             .key_len = (uint16_t)key->len,
                             .others = -1,
                             .remaining_ms = -1,
                             .sent_ms = host->now_ms()};
        batch[n] = &ops[n];
        n++;
    }
    if (n > 0)
        status = verrou__redis_execute(l->state, l->lane, batch, n, l->deadline_ms, l->err);
    for (size_t i = 0; i < n; i++) {
        if (status == VERROU_OK)
            status = report(l, &ops[i]);
        host->free(ops[i].holder);
        host->free(ops[i].error);
    }
done:
    host->free(batch);
    host->free(ops);
    return status;
}

static bool is_page(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[0]->type == REDIS_REPLY_STRING &&
           reply->element[1]->type == REDIS_REPLY_ARRAY;
}

/* ---- all pages ---- */

static verrou_status list_node(const listing *l, redis_connection *node)
{
    const verrou_host *host = l->state->host;
    const char *type = node->version >= TYPED_SCAN ? "TYPE" : NULL;
    char cursor[32] = "0";
    verrou_status status;

    do {
        redis_fault fault;
        redisReply *page;

        if (host->now_ms() >= l->deadline_ms)
            return host->fail(l->err, VERROU_ESTORAGE, 1, "TIMEOUT",
                              "redis: %s: the keys could not be listed within the time limit", node->address.name);
        page = verrou__redis_ask(node, l->deadline_ms, &fault, "SCAN", cursor, "MATCH", l->pattern, "COUNT", PAGE, type,
                                 "string");
        if (!page)
            return verrou__redis_fail(l->state, &fault, l->err);
        if (is_page(page)) {
            snprintf(cursor, sizeof cursor, "%s", page->element[0]->str);
            status = inspect_page(l, page->element[1]);
        } else {
            status = host->fail(l->err, VERROU_ESTORAGE, 0, "PROTOCOL", "redis: an answer that SCAN does not give");
        }
        freeReplyObject(page);
    } while (status == VERROU_OK && strcmp(cursor, "0") != 0);
    return status;
}

/* A prefix is a text: what is special in a pattern of Redis is not in it. */
static void make_pattern(const char *prefix, size_t prefix_len, char *pattern)
{
    for (size_t i = 0; i < prefix_len; i++) {
        if (strchr("*?[]^-\\", prefix[i]))
            *pattern++ = '\\';
        *pattern++ = prefix[i];
    }
    strcpy(pattern, "*");
}

verrou_status verrou__redis_list(void *context, void *opened, const char *prefix, size_t prefix_len,
                                 int64_t deadline_ms, verrou_sink *sink, verrou_error *err)
{
    redis_lane *lane = opened;
    listing l = {context, lane, deadline_ms, sink, err, ""};
    verrou_status status = VERROU_OK;
    redis_fault fault;

    if (prefix_len > VERROU_MAX_KEY)
        return VERROU_OK;
    if (lane->slots && !verrou__redis_lane_is_whole(lane, deadline_ms, &fault))
        return verrou__redis_fail(l.state, &fault, err);
    make_pattern(prefix ? prefix : "", prefix_len, l.pattern);
    for (size_t i = 0; i < lane->node_count && status == VERROU_OK; i++)
        status = list_node(&l, lane->nodes[i]);
    return status;
}
