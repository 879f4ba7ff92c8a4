/*
 * waiters.c - letting a releaser know that another process waits for its key, so that it steps back for a moment.
 *
 * Each process that waits for a key holds a read lock on one byte of the side file "PATH-waiters": the byte numbered with
 * the key's hash. A releaser asks the kernel whether somebody else's read lock would keep it from write-locking that byte: one
 * system call, nothing is written, and a process that dies takes its locks along.
 *
 * The locks are "open file description" locks, so that threads of one process share them and closing another descriptor does not
 * drop them; all go through one description, which keeps our own waiters from counting. The hash is part of the format. Two keys may
 * share a byte: then a releaser steps back once without need.
 *
 * The file is made by the first waiter, so that a database without waiters has none. A releaser looks for it only after something in
 * the folder changed, which the lane knows anyway. If it cannot be had, the answer is "not known".
 */
#include "sqlite_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool verrou__sqlite_waiters_init(sqlite_waiters *waiters)
{
    *waiters = (sqlite_waiters){.fd = -1};
    return pthread_mutex_init(&waiters->mutex, NULL) == 0;
}

void verrou__sqlite_waiters_done(sqlite_state *state)
{
    if (state->waiters.fd >= 0)
        close(state->waiters.fd);
    state->host->free(state->waiters.waited);
    state->host->free(state->waiters.path);
    pthread_mutex_destroy(&state->waiters.mutex);
}

#ifdef F_OFD_SETLK

/* FNV-1a, folded to 30 bits: a byte position that every filesystem can lock. */
static uint32_t byte_of(const char *key, size_t key_len)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < key_len; i++)
        hash = (hash ^ (unsigned char)key[i]) * UINT64_C(1099511628211);
    return (uint32_t)((hash ^ (hash >> 30)) & ((1u << 30) - 1));
}

static struct flock range(short type, uint32_t byte)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
}

static void byte_lock(const sqlite_waiters *waiters, short type, uint32_t byte)
{
    struct flock lock = range(type, byte);

    /* Readers do not exclude each other, so this does not block; a filesystem without such locks costs fairness only. */
    if (waiters->fd >= 0)
        (void)fcntl(waiters->fd, F_OFD_SETLK, &lock);
}

/* Know the path: links are followed once, since the file lies beside the database itself. */
static bool path_find(sqlite_state *state)
{
    char path[PATH_MAX];
    size_t len;

    if (state->waiters.path)
        return true;
    if (!verrou__sqlite_real_path(state, path))
        return false;
    len = strlen(path);
    state->waiters.path = state->host->malloc(len + sizeof "-waiters");
    if (!state->waiters.path)
        return false;
    memcpy(state->waiters.path, path, len);
    strcpy(state->waiters.path + len, "-waiters");
    return true;
}

/* Have the file open, and make it if `create`. It was removed? Then others use a new one, and so must we. */
static void file_open(sqlite_state *state, bool create)
{
    sqlite_waiters *waiters = &state->waiters;
    struct stat st;

    if (waiters->fd >= 0 && (fstat(waiters->fd, &st) != 0 || st.st_nlink == 0)) {
        close(waiters->fd);
        waiters->fd = -1;
    }
    if (waiters->fd >= 0 || !path_find(state))
        return;

    /* Reading is enough for read locks and for asking: users who may not write the file can take part. */
    waiters->fd = open(waiters->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT : 0), 0666);
    waiters->absent = waiters->fd < 0 && errno == ENOENT;
    /* Whoever may read the database may read this file too, whatever the umask. It works for the file's owner, who made it. */
    if (waiters->fd >= 0 && create && stat(state->path, &st) == 0 && fchmod(waiters->fd, st.st_mode & 0666) != 0)
        errno = 0; /* somebody else's file is as it is */
    for (size_t i = 0; i < waiters->count; i++)
        byte_lock(waiters, F_RDLCK, waiters->waited[i].byte);
}

void verrou__sqlite_waiters_move(sqlite_state *state)
{
    sqlite_waiters *waiters = &state->waiters;

    pthread_mutex_lock(&waiters->mutex);
    if (waiters->fd >= 0)
        close(waiters->fd);
    waiters->fd = -1;
    state->host->free(waiters->path);
    waiters->path = NULL;
    file_open(state, waiters->count > 0);
    pthread_mutex_unlock(&waiters->mutex);
}

/* Where `byte` is in the sorted list, or belongs. */
static size_t position(const sqlite_waiters *waiters, uint32_t byte)
{
    size_t low = 0, high = waiters->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (waiters->waited[middle].byte < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool insert(sqlite_state *state, size_t at, uint32_t byte)
{
    sqlite_waiters *waiters = &state->waiters;

    if (waiters->count == waiters->capacity) {
        size_t capacity = waiters->capacity ? waiters->capacity * 2 : 16;
        void *grown = state->host->realloc(waiters->waited, capacity * sizeof *waiters->waited);

        if (!grown)
            return false;
        waiters->waited = grown;
        waiters->capacity = capacity;
    }
    memmove(waiters->waited + at + 1, waiters->waited + at, (waiters->count - at) * sizeof *waiters->waited);
    waiters->waited[at] = (struct sqlite_waited){byte, 1};
    waiters->count++;
    return true;
}

void verrou__sqlite_waiters_add(sqlite_state *state, const char *key, size_t key_len)
{
    sqlite_waiters *waiters = &state->waiters;
    uint32_t byte = byte_of(key, key_len);
    size_t at;

    pthread_mutex_lock(&waiters->mutex);
    file_open(state, true);
    at = position(waiters, byte);
    if (at < waiters->count && waiters->waited[at].byte == byte)
        waiters->waited[at].count++;
    else if (insert(state, at, byte))
        byte_lock(waiters, F_RDLCK, byte);
    pthread_mutex_unlock(&waiters->mutex);
}

void verrou__sqlite_waiters_remove(sqlite_state *state, const char *key, size_t key_len)
{
    sqlite_waiters *waiters = &state->waiters;
    uint32_t byte = byte_of(key, key_len);
    size_t at;

    pthread_mutex_lock(&waiters->mutex);
    at = position(waiters, byte);
    if (at < waiters->count && waiters->waited[at].byte == byte && --waiters->waited[at].count == 0) {
        waiters->count--;
        memmove(waiters->waited + at, waiters->waited + at + 1, (waiters->count - at) * sizeof *waiters->waited);
        byte_lock(waiters, F_UNLCK, byte);
    }
    pthread_mutex_unlock(&waiters->mutex);
}

int verrou__sqlite_waiters_ask(sqlite_state *state, const char *key, size_t key_len)
{
    sqlite_waiters *waiters = &state->waiters;
    struct flock lock = range(F_WRLCK, byte_of(key, key_len));
    int others = -1;

    pthread_mutex_lock(&waiters->mutex);
    if (waiters->generation != state->generation) {
        waiters->generation = state->generation;
        file_open(state, false);
    }
    if (waiters->fd >= 0 && fcntl(waiters->fd, F_OFD_GETLK, &lock) == 0)
        others = lock.l_type != F_UNLCK;
    else if (waiters->fd < 0 && waiters->absent)
        others = 0; /* nobody has ever waited */
    pthread_mutex_unlock(&waiters->mutex);
    return others;
}

#else /* no such locks on this system */

void verrou__sqlite_waiters_add(sqlite_state *state, const char *key, size_t key_len)
{
    (void)state, (void)key, (void)key_len;
}

void verrou__sqlite_waiters_remove(sqlite_state *state, const char *key, size_t key_len)
{
    (void)state, (void)key, (void)key_len;
}

void verrou__sqlite_waiters_move(sqlite_state *state)
{
    (void)state;
}

int verrou__sqlite_waiters_ask(sqlite_state *state, const char *key, size_t key_len)
{
    (void)state, (void)key, (void)key_len;
    return -1;
}

#endif
