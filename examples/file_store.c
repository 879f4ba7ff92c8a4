/*
 * file_store.c - a store of one's own that really locks: all leases in one plain file, shared by the processes of one
 * machine.
 *
 * Every call is a transaction: it locks `path`.lock, reads `path`, changes the list of leases, and puts a new file in
 * the place of the old one by rename(2), which is all or nothing. The lock file is separate because the other one is
 * replaced, and it is never deleted, because somebody could wait for the deleted one. It is opened anew for each call:
 * a lock of flock(2) belongs to the open file, and a child process would share its parent's.
 *
 * A line is "EXPIRATION KEY OWNER": epoch milliseconds or "never", and two texts in hexadecimal, so that they may hold
 * anything. Leases end by the wall clock of the machine, so the clock must not be set while locks are held.
 */
#include "file_store.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

struct lease {
    int64_t expiration_ms; /* VERROU_FOREVER: never */
    char key[VERROU_MAX_KEY + 1];
    char owner[VERROU_MAX_OWNER + 1];
};

struct file_store {
    char *path;
    char *lock_path;
    char *new_path;
    char *folder;
};

/* One call: the file is locked, and these are the live leases in it. */
struct transaction {
    struct file_store *store;
    int lock_fd;
    int64_t now_ms;
    struct lease *leases;
    size_t count;
};

static int64_t wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Nothing was changed. */
static verrou_status failed(verrou_error *err, const char *what, const char *path)
{
    int code = errno;

    return verrou_error_set(err, VERROU_ESTORAGE, code == EINTR || code == EAGAIN || code == ENFILE || code == EMFILE,
                            NULL, "%s %s: %s", what, path, strerror(code));
}

/* ---- reading ---- */

static int unhex_digit(char digit)
{
    const char *digits = "0123456789abcdef", *at = digit ? strchr(digits, digit) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* Decode up to the next blank or line end, and step past it. 0, or -1 for what we have not written. */
static int unhex(const char **text, char *out, size_t size)
{
    size_t used = 0;

    for (; **text != ' ' && **text != '\n'; *text += 2) {
        int high = unhex_digit((*text)[0]), low = high < 0 ? -1 : unhex_digit((*text)[1]);

        if (low < 0 || used + 1 >= size)
            return -1;
        out[used++] = (char)(high << 4 | low);
    }
    out[used] = 0;
    ++*text;
    return used > 0 ? 0 : -1;
}

static int lease_parse(const char *line, struct lease *lease)
{
    char *rest;

    if (strncmp(line, "never ", 6) == 0) {
        lease->expiration_ms = VERROU_FOREVER;
        line += 6;
    } else {
        lease->expiration_ms = strtoll(line, &rest, 10);
        if (rest == line || *rest != ' ')
            return -1;
        line = rest + 1;
    }
    return unhex(&line, lease->key, sizeof lease->key) == 0 ? unhex(&line, lease->owner, sizeof lease->owner) : -1;
}

/* Add a lease to the list, with 0 for "out of memory". */
static int lease_add(struct transaction *t, const struct lease *lease)
{
    struct lease *grown = realloc(t->leases, (t->count + 1) * sizeof *grown);

    if (!grown)
        return 0;
    t->leases = grown;
    t->leases[t->count++] = *lease;
    return 1;
}

/* Leases that have run out are left out, and so are gone with the next change. */
static verrou_status leases_read(struct transaction *t, verrou_error *err)
{
    const char *path = t->store->path;
    verrou_status status = VERROU_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    char *line = NULL;
    size_t size = 0;

    if (!file) {
        if (fd < 0 && errno == ENOENT)
            return VERROU_OK; /* no lock was ever taken */
        status = failed(err, "open", path);
        if (fd >= 0)
            close(fd);
        return status;
    }
    while (status == VERROU_OK && getline(&line, &size, file) > 0) {
        struct lease lease;

        if (lease_parse(line, &lease) != 0)
            status = verrou_error_set(err, VERROU_ESTORAGE, 0, NULL, "%s: not a file of leases", path);
        else if (lease.expiration_ms > t->now_ms && !lease_add(t, &lease))
            status = verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "%s: out of memory", path);
    }
    if (status == VERROU_OK && ferror(file))
        status = failed(err, "read", path);
    free(line);
    fclose(file);
    return status;
}

/* ---- writing ---- */

static int hex_write(FILE *file, char before, const char *text)
{
    fputc(before, file);
    for (; *text; text++)
        fprintf(file, "%02x", (unsigned)(unsigned char)*text);
    return ferror(file);
}

static int lease_write(FILE *file, const struct lease *lease)
{
    if (lease->expiration_ms == VERROU_FOREVER)
        fputs("never", file);
    else
        fprintf(file, "%lld", (long long)lease->expiration_ms);
    hex_write(file, ' ', lease->key);
    hex_write(file, ' ', lease->owner);
    return fputc('\n', file) == EOF ? -1 : 0;
}

static verrou_status leases_write(struct transaction *t, verrou_error *err)
{
    const char *path = t->store->new_path;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    int bad = 0;

    if (!file) {
        verrou_status status = failed(err, "create", path);

        if (fd >= 0)
            close(fd);
        return status;
    }
    for (size_t at = 0; at < t->count; at++)
        bad |= lease_write(file, &t->leases[at]);
    if (bad || fflush(file) != 0 || fsync(fd) != 0) {
        verrou_status status = failed(err, "write", path);

        fclose(file);
        return status;
    }
    return fclose(file) == 0 ? VERROU_OK : failed(err, "close", path);
}

/*
 * Make the list of leases the content of the store. Up to the rename nothing is changed; from then on it is changed for
 * everybody who looks, but a power failure could still undo it until the folder is written: that is "unknown".
 */
static verrou_status commit(struct transaction *t, verrou_error *err)
{
    verrou_status status = leases_write(t, err);
    int folder, bad;

    if (status != VERROU_OK)
        return status;
    if (rename(t->store->new_path, t->store->path) != 0)
        return failed(err, "rename", t->store->new_path);

    folder = open(t->store->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bad = folder < 0 || fsync(folder) != 0;
    if (folder >= 0)
        close(folder);
    if (bad)
        return verrou_error_set(err, VERROU_EUNKNOWN, 1, NULL, "sync %s: %s", t->store->folder, strerror(errno));
    return VERROU_OK;
}

/* ---- transactions ---- */

static verrou_status begin(struct file_store *store, struct transaction *t, verrou_error *err)
{
    verrou_status status;
    int locked;

    memset(t, 0, sizeof *t);
    t->store = store;
    t->lock_fd = open(store->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (t->lock_fd < 0)
        return failed(err, "open", store->lock_path);

    do /* others hold it for a few milliseconds */
        locked = flock(t->lock_fd, LOCK_EX);
    while (locked != 0 && errno == EINTR);
    status = locked == 0 ? VERROU_OK : failed(err, "lock", store->lock_path);

    t->now_ms = wall_ms(); /* after the wait */
    if (status == VERROU_OK)
        status = leases_read(t, err);
    return status;
}

static void end(struct transaction *t)
{
    free(t->leases);
    if (t->lock_fd >= 0)
        close(t->lock_fd); /* which unlocks it */
}

static struct lease *find(struct transaction *t, const char *key, const char *owner)
{
    for (size_t at = 0; at < t->count; at++)
        if (strcmp(t->leases[at].key, key) == 0 && (!owner || strcmp(t->leases[at].owner, owner) == 0))
            return &t->leases[at];
    return NULL;
}

static int64_t expiration(const struct transaction *t, int64_t ttl_ms)
{
    return ttl_ms == VERROU_FOREVER ? VERROU_FOREVER : t->now_ms + ttl_ms;
}

static void forget(struct transaction *t, struct lease *lease)
{
    *lease = t->leases[--t->count];
}

/* ---- the five calls ---- */

static verrou_status file_save(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err)
{
    struct transaction t;
    struct lease lease;
    verrou_status status = begin(user, &t, err);

    if (status != VERROU_OK)
        goto done;
    if (find(&t, key, NULL)) {
        status = VERROU_ENOTACQUIRED;
        goto done;
    }

    snprintf(lease.key, sizeof lease.key, "%s", key);
    snprintf(lease.owner, sizeof lease.owner, "%s", owner);
    lease.expiration_ms = expiration(&t, ttl_ms);
    if (lease_add(&t, &lease))
        status = commit(&t, err);
    else
        status = verrou_error_set(err, VERROU_ESTORAGE, 1, NULL, "out of memory");
done:
    end(&t);
    return status;
}

static verrou_status file_remove(void *user, const char *key, const char *owner, verrou_error *err)
{
    struct transaction t;
    struct lease *lease;
    verrou_status status = begin(user, &t, err);

    if (status == VERROU_OK) {
        lease = find(&t, key, owner);
        if (lease) {
            forget(&t, lease);
            status = commit(&t, err);
        } else {
            status = VERROU_ENOTOWNED;
        }
    }
    end(&t);
    return status;
}

static verrou_status file_force_remove(void *user, const char *key, verrou_error *err)
{
    verrou_status status = file_remove(user, key, NULL, err);

    return status == VERROU_ENOTOWNED ? VERROU_OK : status;
}

static verrou_status file_exists(void *user, const char *key, int *ret_exists, verrou_error *err)
{
    struct transaction t;
    verrou_status status = begin(user, &t, err);

    if (status == VERROU_OK)
        *ret_exists = find(&t, key, NULL) != NULL;
    end(&t);
    return status;
}

static verrou_status file_extend(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err)
{
    struct transaction t;
    struct lease *lease;
    verrou_status status = begin(user, &t, err);

    if (status == VERROU_OK) {
        lease = find(&t, key, owner);
        if (lease) {
            lease->expiration_ms = expiration(&t, ttl_ms);
            status = commit(&t, err);
        } else {
            status = VERROU_ENOTOWNED;
        }
    }
    end(&t);
    return status;
}

static void file_close(void *user)
{
    struct file_store *store = user;

    free(store->path);
    free(store->lock_path);
    free(store->new_path);
    free(store->folder);
    free(store);
}

static const verrou_lock_store file_store = {
    .version = VERROU_STORE_VERSION,
    .save = file_save,
    .remove = file_remove,
    .force_remove = file_force_remove,
    .exists = file_exists,
    .extend = file_extend,
    .close = file_close,
};

static char *join(const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 1;
    char *joined = malloc(size);

    if (joined)
        snprintf(joined, size, "%s%s", path, suffix);
    return joined;
}

/* The folder that the file is in. dirname() may change what it is given. */
static char *folder_of(const char *path)
{
    char *copy = join(path, ""), *folder = copy ? join(dirname(copy), "") : NULL;

    free(copy);
    return folder;
}

verrou_status file_store_open(const char *path, const char *settings, verrou_store **ret_store, verrou_error *err)
{
    struct file_store *store = calloc(1, sizeof *store);
    verrou_status status = VERROU_ENOMEM;

    if (!store)
        return verrou_error_set(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    store->path = join(path, "");
    store->lock_path = join(path, ".lock");
    store->new_path = join(path, ".new");
    store->folder = folder_of(path);
    if (store->path && store->lock_path && store->new_path && store->folder)
        status = verrou_store_from_lock_store(&file_store, store, settings, NULL, ret_store, err);
    else
        verrou_error_set(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    if (status != VERROU_OK)
        file_close(store);
    return status;
}
