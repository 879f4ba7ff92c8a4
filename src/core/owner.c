/*
 * owner.c - the owners that the library draws: "<32 hex digits>@host:pid[:label]". The digits make it unique and hard
 * to guess; the rest is for people who ask who holds a lock, and for waiters: an owner of this form belongs to a
 * process whose releases are published.
 */
#include "core/core.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define HEX_LEN 32
#define MAX_HOST 64
#define MAX_PID_DIGITS 10

static pthread_once_t texts_once = PTHREAD_ONCE_INIT;
static char hex_pairs[256][2]; /* an owner is written with every acquisition: a byte at a time, not a nibble */
static char host[MAX_HOST + 1];
static size_t host_len;
static char tail[1 + MAX_HOST + 1 + MAX_PID_DIGITS]; /* "@host:pid" of the process that drew the first owner */
static size_t tail_len;
static int32_t tail_pid;

/* A host name is arbitrary bytes as far as the kernel is concerned; ':' would end it early for whoever reads the owner.
 */
static void read_host(void)
{
    char name[256] = "";

    if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0')
        memcpy(name, "localhost", sizeof("localhost"));
    while (host_len < MAX_HOST && name[host_len] != '\0') {
        char c = name[host_len];

        host[host_len++] = c > ' ' && c <= '~' && c != ':' ? c : '-';
    }
}

/* getpid() is a system call. The upper half holds the fork count that the lower half, the process id, was read under.
 */
static int32_t cached_pid(void)
{
    static _Atomic uint64_t cache;
    uint64_t forks = verrou__fork_count();
    uint64_t seen = atomic_load_explicit(&cache, memory_order_relaxed);

    if (seen >> 32 != forks) {
        seen = forks << 32 | (uint32_t)getpid();
        atomic_store_explicit(&cache, seen, memory_order_relaxed);
    }
    return (int32_t)(uint32_t)seen;
}

verrou_status verrou__owner_draw(verrou__owner_id *ret_id, verrou_error *err)
{
    verrou__owner_id id;
    verrou_status status = verrou__random_bytes(id.bits, sizeof(id.bits), err);

    if (status != VERROU_OK)
        return status;
    id.pid = cached_pid();
    *ret_id = id;
    return VERROU_OK;
}

static char *put_decimal(char *out, uint32_t value)
{
    char digits[MAX_PID_DIGITS];
    size_t n = 0;

    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    while (n > 0)
        *out++ = digits[--n];
    return out;
}

static char *put_tail(char *out, int32_t pid)
{
    *out++ = '@';
    memcpy(out, host, host_len);
    out += host_len;
    *out++ = ':';
    return put_decimal(out, (uint32_t)pid);
}

static void make_texts(void)
{
    for (int i = 0; i < 256; i++) {
        hex_pairs[i][0] = "0123456789abcdef"[i >> 4];
        hex_pairs[i][1] = "0123456789abcdef"[i & 15];
    }
    read_host();
    tail_pid = cached_pid();
    tail_len = (size_t)(put_tail(tail, tail_pid) - tail);
}

size_t verrou__owner_format(const verrou__owner_id *id, const char *label, char out[VERROU_MAX_OWNER + 1])
{
    char *at = out;

    pthread_once(&texts_once, make_texts);
    for (size_t i = 0; i < sizeof(id->bits); i++, at += 2)
        memcpy(at, hex_pairs[id->bits[i]], 2);
    if (id->pid == tail_pid) {
        memcpy(at, tail, tail_len);
        at += tail_len;
    } else { /* drawn in a child of the process whose tail is kept */
        at = put_tail(at, id->pid);
    }
    if (label != NULL && label[0] != '\0') {
        size_t len = strnlen(label, VERROU__MAX_LABEL);

        *at++ = ':';
        memcpy(at, label, len);
        at += len;
    }
    *at = '\0';
    return (size_t)(at - out);
}

bool verrou__owner_is_ours(const char *owner, size_t len)
{
    size_t at = 0;
    size_t start;

    if (len > VERROU_MAX_OWNER || len < HEX_LEN + 4 || owner[HEX_LEN] != '@')
        return false;
    for (; at < HEX_LEN; at++)
        if (!((owner[at] >= '0' && owner[at] <= '9') || (owner[at] >= 'a' && owner[at] <= 'f')))
            return false;

    start = ++at;
    while (at < len && owner[at] > ' ' && owner[at] <= '~' && owner[at] != ':')
        at++;
    if (at == start || at - start > MAX_HOST || at == len || owner[at] != ':')
        return false;

    start = ++at;
    while (at < len && owner[at] >= '0' && owner[at] <= '9')
        at++;
    if (at == start || at - start > MAX_PID_DIGITS)
        return false;
    return at == len || (owner[at] == ':' && len - at - 1 >= 1 && len - at - 1 <= VERROU__MAX_LABEL);
}

const char *verrou__owner_public(const char *owner)
{
    return verrou__owner_is_ours(owner, strlen(owner)) ? owner + HEX_LEN + 1 : NULL;
}
