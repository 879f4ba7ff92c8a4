/*
 * core.h - what the files of src/core and src/engine share and nobody else sees: memory, time, randomness, owners, keys,
 * addresses, the serialised form and configuration files. No state but the caches named below; every function is thread-safe.
 */
#ifndef VERROU_CORE_H
#define VERROU_CORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <verrou/store.h>

/* ---- alloc.c: the allocator of verrou_set_allocator(). All return NULL when out of memory. ---- */
void *verrou__malloc(size_t size);
void *verrou__calloc(size_t size); /* zeroed */
void *verrou__realloc(void *block, size_t size);
void verrou__free(void *block);
char *verrou__strdup(const char *text);
char *verrou__format(const char *format, ...) VERROU_PRINTF(1, 2);

/* ---- error.c ---- */
verrou_status verrou__fail(verrou_error *err, verrou_status status, const char *format, ...) VERROU_PRINTF(3, 4);
verrou_status verrou__nomem(verrou_error *err); /* VERROU_ENOMEM with its text */
/* Copy an error into a caller's slot, honouring the size that it was compiled with. Either may be NULL. */
void verrou__error_copy(verrou_error *to, const verrou_error *from);
/* VERROU_ERROR_INIT without filling the whole text with zeros, for where each request would pay for it. */
static inline void verrou__error_clear(verrou_error *err)
{
    err->size = sizeof(*err);
    err->status = VERROU_OK;
    err->retriable = 0;
    err->store_code[0] = err->message[0] = '\0';
}
/* Put "context: " before the message. */
void verrou__error_prefix(verrou_error *err, const char *format, ...) VERROU_PRINTF(2, 3);

/*
 * Read an options struct that may be older (shorter) or newer (longer) than ours: fills `to` (size bytes, already holding our
 * defaults) with what `from` has. `from` NULL leaves the defaults. Its first member must be its size_t size.
 */
void verrou__options_read(void *to, size_t size, const void *from);

/* ---- clock.c ---- */
int64_t verrou__wall_ms(void);                        /* epoch milliseconds by this machine's wall clock */
void verrou__set_test_clock(int64_t (*now_ms)(void)); /* tests only: replaces verrou_now_ms(); NULL puts it back */

/* ---- fork.c: counts the forks that led to this process; handles remember the value they were made under. ---- */
uint32_t verrou__fork_count(void);
/*
 * Once per process run `mend`, which makes anew what must not be used after a fork (mutexes, threads, connections). `owner` is zeroed with
 * verrou__fork_owner() when the object is made. Costs one atomic load when there is nothing to do.
 */
void verrou__fork_owner(_Atomic uint64_t *owner);
void verrou__fork_settle(_Atomic uint64_t *owner, void (*mend)(void *object), void *object);

/* ---- random.c: drawn from the kernel in blocks, never twice the same after fork. ---- */
verrou_status verrou__random_bytes(void *out, size_t size,
                                   verrou_error *err); /* VERROU_ENOMEM if the kernel gives none */
uint64_t verrou__random64(void);                       /* for jitter: falls back to the clock */

/* ---- owner.c: "<32 hex digits>@host:pid[:label]" ---- */
typedef struct verrou__owner_id {
    uint8_t bits[16];
    int32_t pid; /* of the process that drew it */
} verrou__owner_id;
#define VERROU__MAX_LABEL 64
verrou_status verrou__owner_draw(verrou__owner_id *ret_id, verrou_error *err);
/* Write the text of an owner and return its length (at most VERROU_MAX_OWNER). The host name is read once a process and cut to 64 bytes. */
size_t verrou__owner_format(const verrou__owner_id *id, const char *label, char out[VERROU_MAX_OWNER + 1]);
/* What may be shown of an owner, "host:pid[:label]": the random part authorises a release. NULL for owners that are not of ours. */
const char *verrou__owner_public(const char *owner);
bool verrou__owner_is_ours(const char *owner,
                           size_t len); /* has that form: drawn by this library, whose releases publish */

/* ---- text.c ---- */
/* Check 1 to max bytes of valid UTF-8 (RFC 3629: no surrogates, no overlong forms); `what` names it in the message. */
verrou_status verrou__check_text(const char *what, const char *text, size_t max, verrou_error *err);

/* ---- url.c ---- */
/*
 * Parse SCHEME:REST[?SETTINGS]. The result is one block; free with verrou__free(). For schemes whose rest is opaque (odbc, postgres) the
 * driver reads url->text itself. VERROU_ECONFIG names what is wrong, never showing a password.
 */
verrou_status verrou__url_parse(const char *text, verrou_url **ret_url, verrou_error *err);
/* The same, and the rest in pieces as well: for drivers with VERROU_DRIVER_NETWORK. */
verrou_status verrou__url_parse_network(const char *text, verrou_url **ret_url, verrou_error *err);
const char *verrou__url_setting(const verrou_url *url, const char *name);
/* Refuse settings that are in none of the two NULL-terminated lists, and settings given twice: VERROU_ECONFIG. */
verrou_status verrou__url_check_settings(const verrou_url *url, const char *const *known, const char *const *also_known,
                                         verrou_error *err);
/* The address with the password (user:password@, password=, pwd=, secret...) replaced by "***". Free with verrou__free(). */
verrou_status verrou__url_redact(const char *text, char **ret_text, verrou_error *err);

/* ---- serial.c: the serialised lock ---- */
typedef struct verrou__serial {
    char *key;
    char *owner;
    char *store;           /* NULL if absent */
    int64_t ttl_ms;        /* VERROU_FOREVER for null */
    int64_t expiration_ms; /* epoch milliseconds; VERROU_FOREVER for null */
    uint64_t fence;        /* 0 if absent */
} verrou__serial;
verrou_status verrou__serial_parse(const char *json, verrou__serial *ret, verrou_error *err);
/* The same for a store that takes keys of up to `max_key` bytes. */
verrou_status verrou__serial_parse_key(const char *json, size_t max_key, verrou__serial *ret, verrou_error *err);
verrou_status verrou__serial_format(const verrou__serial *serial, char **ret_json, verrou_error *err);
void verrou__serial_done(verrou__serial *serial); /* frees its texts */

/* ---- config.c: verrou.conf ---- */
typedef struct verrou__config {
    char *default_store; /* NULL if the file has none */
    size_t count;
    struct {
        char *name;
        char *url;
    } * stores;
} verrou__config;
#define VERROU__MAX_STORE_NAME 64
/* Read the file. VERROU_ECONFIG with path and line for what cannot be read or understood. */
verrou_status verrou__config_load(const char *path, verrou__config *ret, verrou_error *err);
/* Read the text of a file; `path` is for the messages. */
verrou_status verrou__config_parse(const char *path, const char *text, verrou__config *ret, verrou_error *err);
void verrou__config_done(verrou__config *config);

/* ---- factory.c ---- */
/* Read and check the defaults of a factory, `from` NULL for none. The label still belongs to the caller. VERROU_EINVAL. */
verrou_status verrou__factory_options_read(const verrou_factory_options *from, verrou_factory_options *ret,
                                           verrou_error *err);

/* ---- store.c ---- */
/*
 * Open a store over a driver that is in no registry (custom stores): `driver->create` is NULL and `state`, made by the caller, is taken
 * over on success. `url` carries the settings, "custom:?prefix=x".
 */
verrou_status verrou__store_open_driver(const verrou_driver *driver, const char *url,
                                        const verrou_store_options *options, void *state, verrou_store **ret_store,
                                        verrou_error *err);
/* Tests only: stores opened from now on start no threads; verrou__engine_step() does their work. */
void verrou__set_test_manual(bool manual);

/* ---- lock.c: what factories and managers add to public options ---- */
verrou_status verrou__lock_new(verrou_store *store, const char *key, const verrou_lock_options *options,
                               const verrou_factory_options *defaults, verrou_lock **ret_lock, verrou_error *err);
verrou_status verrou__lock_restore(verrou_store *store, const char *json, const verrou_lock_options *options,
                                   const verrou_factory_options *defaults, verrou_lock **ret_lock, verrou_error *err);

#endif
