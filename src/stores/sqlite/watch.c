/*
 * watch.c - noticing that another process committed: inotify on the database's folder.
 *
 * A commit appends to "PATH-wal" (or writes PATH and "PATH-journal"), whoever makes it. The event says that something changed, not
 * which key: all waiting keys are reported as possibly free. It comes before the commit is complete (frames, fsync, then the index
 * by mmap), so a reader could look too early; acquire cannot, since its BEGIN IMMEDIATE waits for the writer to finish.
 *
 * The folder is watched, not the files: the last connection to close deletes the log.
 */
#include "sqlite_store.h"

#ifdef __linux__

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

/* A key that waits; `fresh` until it has been reported as active. */
typedef struct watched_key {
    struct watched_key *next;
    bool fresh;
    size_t len;
    char key[];
} watched_key;

typedef struct sqlite_watch {
    int poll_fd; /* an epoll of the other two: the engine waits for one descriptor */
    int inotify_fd;
    int wake_fd;
    watched_key *keys;
    char name[NAME_MAX + 1]; /* of the database in its folder */
} sqlite_watch;

static verrou_status watch_fail(const sqlite_state *state, const char *what, verrou_error *err)
{
    return state->host->fail(err, VERROU_ESTORAGE, 1, NULL, "database %s: cannot watch for releases: %s: %s",
                             state->path, what, strerror(errno));
}

void verrou__sqlite_watch_close(void *context, void *watch_context)
{
    sqlite_state *state = context;
    sqlite_watch *watch = watch_context;

    while (watch->keys) {
        watched_key *entry = watch->keys;

        watch->keys = entry->next;
        verrou__sqlite_waiters_remove(state, entry->key, entry->len);
        state->host->free(entry);
    }
    if (watch->poll_fd >= 0)
        close(watch->poll_fd);
    if (watch->inotify_fd >= 0)
        close(watch->inotify_fd);
    if (watch->wake_fd >= 0)
        close(watch->wake_fd);
    state->host->free(watch);
}

static bool poll_add(const sqlite_watch *watch, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};

    return epoll_ctl(watch->poll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool watch_start(const sqlite_state *state, sqlite_watch *watch, const char **ret_what)
{
    char path[PATH_MAX];
    char *slash;

    *ret_what = "path";
    if (!verrou__sqlite_real_path(state, path))
        return false;
    slash = strrchr(path, '/');
    if (strlen(slash + 1) > NAME_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    strcpy(watch->name, slash + 1);
    slash[slash == path] = '\0';

    *ret_what = "inotify";
    watch->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch->inotify_fd < 0)
        return false;
    /* Not IN_CLOSE_WRITE: it adds nothing to IN_MODIFY, but would wake everybody for each program that ends. */
    if (inotify_add_watch(watch->inotify_fd, path,
                          IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR) < 0)
        return false;
    *ret_what = "descriptors";
    watch->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    watch->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    return watch->wake_fd >= 0 && watch->poll_fd >= 0 && poll_add(watch, watch->inotify_fd) &&
           poll_add(watch, watch->wake_fd);
}

verrou_status verrou__sqlite_watch_open(void *context, int64_t deadline_ms, void **ret_watch, verrou_error *err)
{
    sqlite_state *state = context;
    sqlite_watch *watch = state->host->malloc(sizeof *watch);
    const char *what;

    (void)deadline_ms;
    if (!watch)
        return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    *watch = (sqlite_watch){.poll_fd = -1, .inotify_fd = -1, .wake_fd = -1};
    if (!watch_start(state, watch, &what)) {
        verrou_status status = watch_fail(state, what, err);

        verrou__sqlite_watch_close(state, watch);
        return status;
    }
    *ret_watch = watch;
    return VERROU_OK;
}

int verrou__sqlite_watch_fd(void *context, void *watch_context)
{
    sqlite_watch *watch = watch_context;

    (void)context;
    return watch->poll_fd;
}

verrou_status verrou__sqlite_watch_add(void *context, void *watch_context, const char *key, size_t key_len,
                                       verrou_error *err)
{
    sqlite_state *state = context;
    sqlite_watch *watch = watch_context;
    watched_key *entry = state->host->malloc(sizeof *entry + key_len);

    if (!entry)
        return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    *entry = (watched_key){.next = watch->keys, .fresh = true, .len = key_len};
    memcpy(entry->key, key, key_len);
    watch->keys = entry;
    /* Visible to releasers before the engine tries once more: who releases later than that try knows of us. */
    verrou__sqlite_waiters_add(state, key, key_len);
    if (eventfd_write(watch->wake_fd, 1) != 0)
        return watch_fail(state, "eventfd", err);
    return VERROU_OK;
}

verrou_status verrou__sqlite_watch_remove(void *context, void *watch_context, const char *key, size_t key_len,
                                          verrou_error *err)
{
    sqlite_state *state = context;
    sqlite_watch *watch = watch_context;

    (void)err;
    for (watched_key **at = &watch->keys; *at; at = &(*at)->next) {
        watched_key *entry = *at;

        if (entry->len == key_len && memcmp(entry->key, key, key_len) == 0) {
            *at = entry->next;
            verrou__sqlite_waiters_remove(state, key, key_len);
            state->host->free(entry);
            break;
        }
    }
    return VERROU_OK;
}

/* Whether a file of the folder is the database or one that a commit writes. The side file of waiters.c is not. */
static bool name_matters(const sqlite_watch *watch, const char *name)
{
    size_t len = strlen(watch->name);

    if (strncmp(name, watch->name, len) != 0)
        return false;
    return !name[len] || strcmp(name + len, "-wal") == 0 || strcmp(name + len, "-journal") == 0;
}

/* Read all events there are. -1: the folder has gone, or reading failed. Else whether one of them matters. */
static int events_read(const sqlite_watch *watch)
{
    _Alignas(struct inotify_event) char buffer[4096];
    int matters = 0;

    for (;;) {
        ssize_t got = read(watch->inotify_fd, buffer, sizeof buffer);
        const char *at = buffer;

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return matters;
        if (got <= 0)
            return -1;
        while (at < buffer + got) {
            const struct inotify_event *event = (const void *)at;

            if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)) {
                errno = ENOENT;
                return -1;
            }
            /* An overflow of the queue: anything may have happened. */
            if ((event->mask & IN_Q_OVERFLOW) || (event->len && name_matters(watch, event->name)))
                matters = 1;
            at += sizeof *event + event->len;
        }
    }
}

verrou_status verrou__sqlite_watch_read(void *context, void *watch_context, verrou_watch_fn report,
                                        void *report_context, verrou_error *err)
{
    sqlite_state *state = context;
    sqlite_watch *watch = watch_context;
    eventfd_t fresh = 0;
    int matters = events_read(watch);

    if (matters < 0)
        return watch_fail(state, "its folder", err);
    if (eventfd_read(watch->wake_fd, &fresh) == 0) {
        for (watched_key *entry = watch->keys; entry; entry = entry->next) {
            if (entry->fresh)
                report(report_context, VERROU_WATCH_ACTIVE, entry->key, entry->len);
            entry->fresh = false;
        }
    }
    if (matters)
        report(report_context, VERROU_WATCH_FREE, NULL, 0);
    return VERROU_OK;
}

#endif
