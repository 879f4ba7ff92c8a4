/*
 * scripts.c - what is carried out on the server, and what it means when it refuses.
 *
 * Every key is declared. SET comes first in `acquire`: whatever fails before it has changed nothing, and what comes after it must not fail,
 * hence pcall for the counter. Numbers reach redis.call() with 17 digits, so a token, below 2^53, needs no formatting; `..` would lose
 * digits. A missing value is false in Lua, not nil.
 *
 * A request may be given a number, which its answer then repeats as the last element of an array (execute.c says what for). The answer to a
 * request without one is an integer where nothing else is to be told: that is cheaper on both sides.
 */
#include "redis_store.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/*
 * KEYS: lock, counter (may be missing). ARGV: owner, milliseconds (0: never expires), number. A negative token came from the clock alone:
 * the counter cannot be used.
 */
#define TEXT_ACQUIRE                                                     \
    "local k,o,q,s=KEYS[1],ARGV[1],ARGV[3]\n"                            \
    "if ARGV[2]=='0' then s=redis.call('SET',k,o,'NX')\n"                \
    "else s=redis.call('SET',k,o,'NX','PX',ARGV[2]) end\n"               \
    "if not s then\n"                                                    \
    " local h=redis.call('GET',k)\n"                                     \
    " if h~=o then return {h,redis.call('PTTL',k),q} end\n"              \
    "end\n"                                                              \
    "local t=redis.call('TIME')\n"                                       \
    "local n=t[1]*1000000+t[2]\n"                                        \
    "if KEYS[2] then\n"                                                  \
    " local h=redis.pcall('HGET',KEYS[2],'f')\n"                         \
    " local f=tonumber(h)\n"                                             \
    " local x=f and f>=9007199254740991\n"                               \
    " if f and f>=n and not x then n=f+1 end\n"                          \
    " if x or type(h)=='table' or\n"                                     \
    "  type(redis.pcall('HSET',KEYS[2],'f',n))=='table' then n=-n end\n" \
    "end\n"                                                              \
    "if not s then return {o,redis.call('PTTL',k),n,q} end\n"            \
    "return q and {n,q} or n"

/* KEYS: lock. ARGV: owner, PUBLISH or SPUBLISH, who we are, number. */
#define TEXT_RELEASE                               \
    "local n,q=-1,ARGV[4]\n"                       \
    "if redis.call('GET',KEYS[1])==ARGV[1] then\n" \
    " redis.call('DEL',KEYS[1])\n"                 \
    " n=redis.pcall(ARGV[2],KEYS[1],ARGV[3])\n"    \
    " if type(n)=='table' then n=-2 end\n"         \
    "end\n"                                        \
    "return q and {n,q} or n"

/* KEYS: lock. ARGV: owner, milliseconds (0: never expires), number. */
#define TEXT_EXTEND                                         \
    "local n,q=0,ARGV[3]\n"                                 \
    "if redis.call('GET',KEYS[1])==ARGV[1] then\n"          \
    " n=1\n"                                                \
    " if ARGV[2]=='0' then redis.call('PERSIST',KEYS[1])\n" \
    " else redis.call('PEXPIRE',KEYS[1],ARGV[2]) end\n"     \
    "end\n"                                                 \
    "return q and {n,q} or n"

/* KEYS: lock. ARGV: PUBLISH or SPUBLISH, who we are, number. What cannot be a lock is left alone: GET fails on what is no string, and this on
 * what is no owner (bytes that no UTF-8 has). */
#define TEXT_FORCE                                                             \
    "local h,n,q=redis.call('GET',KEYS[1]),-1,ARGV[3]\n"                       \
    "if h then\n"                                                              \
    " if #h==0 or #h>255 or string.find(h,'[%z\\192\\193\\245-\\255]') then\n" \
    "  return redis.error_reply('WRONGTYPE no owner')\n"                       \
    " end\n"                                                                   \
    " redis.call('DEL',KEYS[1])\n"                                             \
    " n=redis.pcall(ARGV[1],KEYS[1],ARGV[2])\n"                                \
    " if type(n)=='table' then n=-2 end\n"                                     \
    "end\n"                                                                    \
    "return q and {n,q} or n"

/* KEYS: lock. ARGV: number. -1: free. */
#define TEXT_INSPECT                                          \
    "local h,q=redis.call('GET',KEYS[1]),ARGV[1]\n"           \
    "if h then return {h,redis.call('PTTL',KEYS[1]),q} end\n" \
    "return q and {-1,q} or -1"

static const char *const texts[SCRIPT_COUNT] = {
    [SCRIPT_ACQUIRE] = TEXT_ACQUIRE, [SCRIPT_RELEASE] = TEXT_RELEASE, [SCRIPT_EXTEND] = TEXT_EXTEND,
    [SCRIPT_FORCE] = TEXT_FORCE,     [SCRIPT_INSPECT] = TEXT_INSPECT,
};

static char shas[SCRIPT_COUNT][41];
static pthread_once_t shas_once = PTHREAD_ONCE_INIT;

/* Without a digest the name is one that no script has, so that the whole text is sent. */
static void shas_make(void)
{
    for (int i = 0; i < SCRIPT_COUNT; i++) {
        unsigned char digest[EVP_MAX_MD_SIZE] = {0};
        unsigned len = 0;

        EVP_Digest(texts[i], strlen(texts[i]), digest, &len, EVP_sha1(), NULL);
        for (int at = 0; at < 20; at++)
            snprintf(shas[i] + 2 * at, 3, "%02x", digest[at]);
    }
}

const char *verrou__redis_script_text(redis_script script)
{
    return texts[script];
}

const char *verrou__redis_script_sha(redis_script script)
{
    pthread_once(&shas_once, shas_make);
    return shas[script];
}

/* ---- errors ---- */

static size_t code_len(const char *text)
{
    size_t len = 0;

    while (isupper((unsigned char)text[len]) || isdigit((unsigned char)text[len]))
        len++;
    return len;
}

/*
 * The words of the error that counts. Redis before 7 says "ERR Error running script (call to f_...): @user_script:1: ... -OOM command not
 * allowed ...", or with the error's code without the '-'.
 */
static const char *inner_error(const char *text)
{
    const char *at;

    if (strncmp(text, "ERR Error ", 10) != 0)
        return text;
    for (at = strstr(text, ": "); at; at = strstr(at, ": ")) {
        at += 2;
        if (*at == '-')
            at++;
        if (code_len(at) >= 2 && at[code_len(at)] == ' ')
            return at;
    }
    return text;
}

bool verrou__redis_is_error(const redisReply *reply, const char *code)
{
    const char *text;
    size_t len = strlen(code);

    if (reply->type != REDIS_REPLY_ERROR)
        return false;
    text = inner_error(reply->str);
    return strncmp(text, code, len) == 0 && (text[len] == ' ' || text[len] == '\0');
}

void verrou__redis_explain(const redis_connection *connection, const redisReply *reply, redis_fault *fault)
{
    static const struct {
        const char *code;
        bool broken; /* another connection may do better */
    } passing[] = {
        {"LOADING", true},   {"READONLY", true}, {"MASTERDOWN", true},  {"BUSY", false},
        {"OOM", false},      {"MISCONF", false}, {"NOREPLICAS", false}, {"CLUSTERDOWN", true},
        {"TRYAGAIN", false}, {"MOVED", true},    {"ASK", true},         {"UNKILLABLE", false},
    };
    const char *text = inner_error(reply->str);
    char code[32];
    size_t len = code_len(text);

    snprintf(code, sizeof code, "%.*s", (int)len, text);
    verrou__redis_fault_set(fault, VERROU_OP_FAILED, false, code, "%s: %s", connection->address.name, text);
    if (strstr(fault->text, ", with args")) /* an unknown command is quoted as a whole: owners are nobody's business */
        *strstr(fault->text, ", with args") = '\0';
    if (verrou__redis_is_error(reply, "WRONGTYPE"))
        snprintf(fault->text, sizeof fault->text, "the key is used by something else: its value is not a lock's");
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        if (!verrou__redis_is_error(reply, passing[i].code))
            continue;
        fault->result = VERROU_OP_RETRY;
        fault->retriable = true;
        fault->broken = passing[i].broken;
    }
}
