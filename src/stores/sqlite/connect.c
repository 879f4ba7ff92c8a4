/*
 * connect.c - opening the database, waiting for its lock, and saying in plain words what is wrong with it.
 *
 * Two rules. The database file itself is only ever opened by SQLite: closing any other descriptor of it would drop the file
 * locks of this process (POSIX locks belong to process and inode). And a connection is worth something only while the
 * path leads to the file that it has open: behind a deleted or replaced file every lock would look free.
 */
#include "sqlite_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/sysmacros.h>
#endif
#include <time.h>
#include <unistd.h>

/* Upserts came with 3.24, the pragmas that table.c reads with 3.26, functions kept from triggers with 3.30. */
#define OLDEST_SQLITE 3031000
#define OLDEST_SQLITE_TEXT "3.31.0"

/* A folder that changed less than this ago may change again without a new time: filesystems count in steps of up to 2 s. */
#define MARK_AGE_S 3

/* SQLite's unix VFS takes no longer path unless it was compiled otherwise. */
#define SQLITE_PATH_LIMIT 512

/* ---- faults ---- */

static const char *code_name(int code)
{
    static const struct {
        int code;
        const char *name;
    } names[] = {
        {SQLITE_ERROR, "SQLITE_ERROR"},
        {SQLITE_PERM, "SQLITE_PERM"},
        {SQLITE_ABORT, "SQLITE_ABORT"},
        {SQLITE_BUSY, "SQLITE_BUSY"},
        {SQLITE_LOCKED, "SQLITE_LOCKED"},
        {SQLITE_NOMEM, "SQLITE_NOMEM"},
        {SQLITE_READONLY, "SQLITE_READONLY"},
        {SQLITE_READONLY_DBMOVED, "SQLITE_READONLY_DBMOVED"},
        {SQLITE_IOERR, "SQLITE_IOERR"},
        {SQLITE_IOERR_READ, "SQLITE_IOERR_READ"},
        {SQLITE_IOERR_SHORT_READ, "SQLITE_IOERR_SHORT_READ"},
        {SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE"},
        {SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"},
        {SQLITE_IOERR_DIR_FSYNC, "SQLITE_IOERR_DIR_FSYNC"},
        {SQLITE_IOERR_TRUNCATE, "SQLITE_IOERR_TRUNCATE"},
        {SQLITE_IOERR_LOCK, "SQLITE_IOERR_LOCK"},
        {SQLITE_IOERR_SHMOPEN, "SQLITE_IOERR_SHMOPEN"},
        {SQLITE_IOERR_SHMSIZE, "SQLITE_IOERR_SHMSIZE"},
        {SQLITE_IOERR_SHMMAP, "SQLITE_IOERR_SHMMAP"},
        {SQLITE_IOERR_SHMLOCK, "SQLITE_IOERR_SHMLOCK"},
        {SQLITE_IOERR_NOMEM, "SQLITE_IOERR_NOMEM"},
        {SQLITE_CORRUPT, "SQLITE_CORRUPT"},
        {SQLITE_FULL, "SQLITE_FULL"},
        {SQLITE_CANTOPEN, "SQLITE_CANTOPEN"},
        {SQLITE_PROTOCOL, "SQLITE_PROTOCOL"},
        {SQLITE_SCHEMA, "SQLITE_SCHEMA"},
        {SQLITE_TOOBIG, "SQLITE_TOOBIG"},
        {SQLITE_CONSTRAINT, "SQLITE_CONSTRAINT"},
        {SQLITE_CONSTRAINT_CHECK, "SQLITE_CONSTRAINT_CHECK"},
        {SQLITE_CONSTRAINT_NOTNULL, "SQLITE_CONSTRAINT_NOTNULL"},
        {SQLITE_CONSTRAINT_TRIGGER, "SQLITE_CONSTRAINT_TRIGGER"},
        {SQLITE_CONSTRAINT_UNIQUE, "SQLITE_CONSTRAINT_UNIQUE"},
        {SQLITE_MISMATCH, "SQLITE_MISMATCH"},
        {SQLITE_MISUSE, "SQLITE_MISUSE"},
        {SQLITE_AUTH, "SQLITE_AUTH"},
        {SQLITE_NOTADB, "SQLITE_NOTADB"},
    };

    for (int wanted = code;; wanted = code & 0xff) {
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            if (names[i].code == wanted)
                return names[i].name;
        }
        if (wanted == (code & 0xff))
            return "SQLITE_ERROR";
    }
}

void verrou__sqlite_fault_set(sqlite_fault *fault, verrou_op_result result, bool retriable, const char *format, ...)
{
    va_list args;

    *fault = (sqlite_fault){.result = result, .retriable = retriable};
    va_start(args, format);
    vsnprintf(fault->text, sizeof fault->text, format, args);
    va_end(args);
}

void verrou__sqlite_fault_moved(const sqlite_lane *lane, sqlite_fault *fault)
{
    verrou__sqlite_fault_set(fault, VERROU_OP_RETRY, true,
                             "database %s: the file was deleted or replaced while it was in use", lane->state->path);
    fault->broken = true;
}

verrou_status verrou__sqlite_fail(const sqlite_state *state, const sqlite_fault *fault, verrou_error *err)
{
    return state->host->fail(err, VERROU_ESTORAGE, fault->retriable, fault->name, "%s", fault->text);
}

/* The folder part of a path, which is absolute. */
static void folder_of(const char *path, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == path ? 1 : (size_t)(slash - path);

    if (len >= PATH_MAX)
        len = PATH_MAX - 1;
    memcpy(out, path, len);
    out[len] = '\0';
}

/* Why a file cannot be opened or written: SQLite's own "unable to open database file" does not tell. */
static void explain_path(const char *path, int system_errno, char *text, size_t size)
{
    char folder[PATH_MAX];
    struct stat st;

    folder_of(path, folder);
    if (strlen(path) >= SQLITE_PATH_LIMIT) {
        snprintf(text, size, "the path is too long for SQLite (%zu bytes)", strlen(path));
    } else if (stat(folder, &st) != 0) {
        snprintf(text, size, "its folder %s%s",
                 errno == ENOENT ? "does not exist" : "cannot be used: ", errno == ENOENT ? "" : strerror(errno));
    } else if (!S_ISDIR(st.st_mode)) {
        snprintf(text, size, "what should be its folder is a file");
    } else if (stat(path, &st) != 0 && errno == ENOENT) {
        if (access(folder, W_OK | X_OK) != 0)
            snprintf(text, size, "it cannot be created in its folder: %s", strerror(errno));
        else
            snprintf(text, size, "the file does not exist");
    } else if (S_ISDIR(st.st_mode)) {
        snprintf(text, size, "it is a folder, not a file");
    } else if (!S_ISREG(st.st_mode)) {
        snprintf(text, size, "it is not a regular file");
    } else if (access(path, R_OK | W_OK) != 0) {
        snprintf(text, size, "no permission to read and write the file: %s", strerror(errno));
    } else if (access(folder, W_OK | X_OK) != 0) {
        snprintf(text, size, "its folder must be writable, since SQLite keeps files beside the database: %s",
                 strerror(errno));
    } else {
        snprintf(text, size, "it cannot be opened for writing: %s",
                 system_errno ? strerror(system_errno) : "SQLite gives no reason");
    }
}

void verrou__sqlite_explain(const sqlite_lane *lane, sqlite3 *db, int code, sqlite_fault *fault)
{
    const char *path = lane->state->path;
    int system_errno = db ? sqlite3_system_errno(db) : 0;
    char why[230];

    *fault = (sqlite_fault){.code = code, .result = VERROU_OP_FAILED, .name = code_name(code)};
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        fault->result = VERROU_OP_RETRY;
        fault->retriable = true;
        snprintf(why, sizeof why, "another program keeps the database locked");
        break;
    case SQLITE_FULL:
        /* A full disk seldom empties within the seconds that a call waits, but the next call may find room. */
        fault->retriable = true;
        snprintf(why, sizeof why, "the disk is full, or the database has reached its largest size");
        break;
    case SQLITE_IOERR:
        if (code == SQLITE_IOERR_NOMEM) {
            fault->retriable = true;
            snprintf(why, sizeof why, "out of memory");
            break;
        }
        fault->result = VERROU_OP_RETRY;
        fault->retriable = true;
        fault->broken = true;
        snprintf(why, sizeof why, "%s%s%s", sqlite3_errstr(code), system_errno ? ": " : "",
                 system_errno ? strerror(system_errno) : "");
        break;
    case SQLITE_NOMEM:
        fault->retriable = true;
        snprintf(why, sizeof why, "out of memory");
        break;
    case SQLITE_NOTADB:
        fault->broken = true;
        snprintf(why, sizeof why, "the file is not an SQLite database");
        break;
    case SQLITE_CORRUPT:
        fault->broken = true;
        snprintf(why, sizeof why, "the database is damaged");
        break;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
        fault->broken = true;
        if (code == SQLITE_READONLY_DBMOVED) {
            verrou__sqlite_fault_moved(lane, fault);
            fault->code = code;
            fault->name = code_name(code);
            return;
        }
        /* Out of descriptors is the one of these that passes by itself. */
        fault->retriable = system_errno == EMFILE || system_errno == ENFILE;
        if (fault->retriable) {
            fault->result = VERROU_OP_RETRY;
            snprintf(why, sizeof why, "%s", strerror(system_errno));
        } else {
            explain_path(path, system_errno, why, sizeof why);
        }
        break;
    case SQLITE_CONSTRAINT:
        snprintf(why, sizeof why, "a constraint or trigger of table \"%s\" refuses the row: %s",
                 lane->state->settings.table, db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
        break;
    default:
        snprintf(why, sizeof why, "%s", db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
        break;
    }
    snprintf(fault->text, sizeof fault->text, "database %.200s: %s", path, why);
}

/* ---- waiting for the database's lock ---- */

/*
 * Short waits at first, since most transactions are, and since a waiter that is told of a release comes while that is being committed;
 * never longer than 2 ms, never beyond the deadline.
 */
static bool pause_until(sqlite_lane *lane, unsigned tries)
{
    const verrou_host *host = lane->state->host;
    int64_t left_ms = lane->deadline_ms == VERROU_FOREVER ? 1000 : lane->deadline_ms - host->now_ms();
    uint64_t least_us = tries < 60 ? 32u + 16u * tries : 1000u;
    uint64_t us = least_us + host->random() % least_us;
    struct timespec ts;

    if (left_ms <= 0)
        return false;
    if (left_ms < 10 && us > (uint64_t)left_ms * 1000)
        us = (uint64_t)left_ms * 1000;
    ts.tv_sec = 0;
    ts.tv_nsec = (long)us * 1000;
    nanosleep(&ts, NULL); /* cut short by a signal: one try more, that is all */
    return true;
}

static int busy_handler(void *context, int tries)
{
    return pause_until(context, (unsigned)tries);
}

bool verrou__sqlite_pause(sqlite_lane *lane)
{
    return pause_until(lane, lane->busy_tries++);
}

/*
 * Some cases of BUSY do not ask the busy handler: another process that recovers the log, a change of the journal mode. So
 * everything that may be busy is tried again by hand as well. The handler has used up the deadline in the other cases.
 */
static bool busy(int code)
{
    return (code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_PROTOCOL;
}

int verrou__sqlite_run(sqlite_lane *lane, const char *sql)
{
    int rc;

    lane->busy_tries = 0;
    do
        rc = sqlite3_exec(lane->db, sql, NULL, NULL, NULL);
    while (busy(rc) && verrou__sqlite_pause(lane));
    return rc;
}

int verrou__sqlite_step(sqlite_lane *lane, sqlite_statement which)
{
    sqlite3_stmt *stmt = lane->statements[which];
    int rc;

    lane->busy_tries = 0;
    do {
        rc = sqlite3_step(stmt);
        sqlite3_reset(stmt);
    } while (busy(rc) && verrou__sqlite_pause(lane));
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

void verrou__sqlite_rollback(sqlite_lane *lane)
{
    if (lane->db && !sqlite3_get_autocommit(lane->db))
        sqlite3_exec(lane->db, "ROLLBACK", NULL, NULL, NULL);
}

/* ---- which files are open ---- */

/*
 * Not stat() where it can be helped: it asks for the times of the file, and Linux (since 6.13) gives each write that follows such a question
 * a time of its own, which makes the next sync half as long again.
 */
static void file_identify(const char *name, sqlite_file_id *id)
{
#ifdef STATX_INO
    struct statx seen;

    id->known = statx(AT_FDCWD, name, 0, STATX_INO, &seen) == 0;
    if (id->known) {
        id->device = makedev(seen.stx_dev_major, seen.stx_dev_minor);
        id->inode = (ino_t)seen.stx_ino;
    }
#else
    struct stat st;

    id->known = stat(name, &st) == 0;
    if (id->known) {
        id->device = st.st_dev;
        id->inode = st.st_ino;
    }
#endif
}

/*
 * The log and its index count too: two processes with different indexes do not see each other's locks. SQLite keeps
 * both from the first read of a connection until the last connection is closed.
 */
static bool files_moved(const sqlite_lane *lane)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        const sqlite_file_id *opened = &lane->files[i];
        sqlite_file_id now;

        if (!opened->known)
            continue;
        file_identify(lane->names[i], &now);
        if (!now.known || now.inode != opened->inode || now.device != opened->device)
            return true;
    }
    return false;
}

static sqlite_mark mark_of(const struct stat *st)
{
    sqlite_mark mark = {.device = st->st_dev, .inode = st->st_ino};
    struct timespec now;

#ifdef __APPLE__
    mark.changed = st->st_ctimespec;
#else
    mark.changed = st->st_ctim;
#endif
    clock_gettime(CLOCK_REALTIME, &now);
    mark.trusted = now.tv_sec - mark.changed.tv_sec > MARK_AGE_S;
    return mark;
}

/*
 * One stat() a batch as a rule: while the folder's change time stands still, nothing in it was deleted, replaced or made. The
 * folder is looked at before the files, so that what changes in between shows the next time.
 */
bool verrou__sqlite_moved(sqlite_lane *lane)
{
    sqlite_mark mark = {.trusted = false};
    const sqlite_mark *last = &lane->mark;
    struct stat st;

    if (lane->folder && stat(lane->folder, &st) == 0) {
        mark = mark_of(&st);
        if (last->trusted && mark.trusted && mark.changed.tv_nsec == last->changed.tv_nsec &&
            mark.changed.tv_sec == last->changed.tv_sec && mark.inode == last->inode && mark.device == last->device)
            return false;
    }
    lane->state->generation++;
    lane->mark = mark;
    if (!files_moved(lane))
        return false;
    lane->mark.trusted = false;
    return true;
}

static bool files_identify(sqlite_lane *lane)
{
    const verrou_host *host = lane->state->host;
    const char *real = sqlite3_db_filename(lane->db, "main");
    static const char *const suffixes[FILE_COUNT] = {"", "-wal", "-shm"};
    struct stat st;
    int moved = 0;

    for (int i = 0; i < (lane->wal ? FILE_COUNT : 1); i++) {
        const char *base = i == FILE_DATABASE ? lane->state->path : real;
        size_t len = strlen(base);

        lane->names[i] = host->malloc(len + sizeof "-wal");
        if (!lane->names[i])
            return false;
        memcpy(lane->names[i], base, len);
        strcpy(lane->names[i] + len, suffixes[i]);
        file_identify(lane->names[i], &lane->files[i]);
    }
    /* A link to the database in another folder could be turned without a trace in this one. */
    if (lstat(lane->state->path, &st) == 0 && !S_ISLNK(st.st_mode)) {
        lane->folder = host->malloc(PATH_MAX);
        if (!lane->folder)
            return false;
        folder_of(lane->state->path, lane->folder);
    }
    /* Replaced between SQLite's open() and our stat(): no file has this number, so that the first batch notices. */
    if (sqlite3_file_control(lane->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved)
        lane->files[FILE_DATABASE].inode = 0;
    return true;
}

/* ---- connecting ---- */

/* Switch to the write-ahead log, in which a commit is one append and readers disturb nobody. */
static int journal_mode_set(sqlite_lane *lane)
{
    sqlite3_stmt *stmt = NULL;
    char mode[16] = "";
    int rc;

    lane->busy_tries = 0;
    do {
        rc = sqlite3_prepare_v2(lane->db, "PRAGMA main.journal_mode=WAL", -1, &stmt, NULL);
        if (rc == SQLITE_OK)
            rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW) {
            snprintf(mode, sizeof mode, "%s", (const char *)sqlite3_column_text(stmt, 0));
            rc = SQLITE_OK;
        }
        sqlite3_finalize(stmt);
        stmt = NULL;
    } while (busy(rc) && verrou__sqlite_pause(lane));

    /* No shared memory on this filesystem: the mode was written to the file, and has to be taken back. */
    if (rc == SQLITE_IOERR_SHMOPEN || rc == SQLITE_IOERR_SHMMAP || rc == SQLITE_IOERR_SHMSIZE ||
        rc == SQLITE_IOERR_SHMLOCK || (rc & 0xff) == SQLITE_NOLFS) {
        if (sqlite3_exec(lane->db, "PRAGMA main.journal_mode=DELETE", NULL, NULL, NULL) == SQLITE_OK)
            rc = SQLITE_OK;
    }
    if (rc != SQLITE_OK)
        return rc;

    lane->wal = strcasecmp(mode, "wal") == 0;
    if (!lane->wal)
        lane->state->host->log(lane->state->log_context, VERROU_WARN, "store.journal_mode", NULL,
                               "database %s: the write-ahead log cannot be used here (a network filesystem?); "
                               "going on with a rollback journal",
                               lane->state->path);
    return SQLITE_OK;
}

static int connection_prepare(sqlite_lane *lane)
{
    char pragma[64];
    int rc;

    sqlite3_extended_result_codes(lane->db, 1);
    sqlite3_busy_handler(lane->db, busy_handler, lane);
    /* Without the right to write, SQLite quietly opens for reading. */
    if (sqlite3_db_readonly(lane->db, "main") == 1)
        return SQLITE_READONLY;

    rc = journal_mode_set(lane);
    if (rc == SQLITE_OK) {
        snprintf(pragma, sizeof pragma, "PRAGMA main.synchronous=%s", lane->state->synchronous);
        rc = verrou__sqlite_run(lane, pragma);
    }
    /* The first read makes the log and its index, whose identity is taken next. */
    if (rc == SQLITE_OK)
        rc = verrou__sqlite_run(lane, "PRAGMA main.schema_version");
    if (rc == SQLITE_OK && !files_identify(lane))
        rc = SQLITE_NOMEM;
    return rc;
}

static bool library_fits(sqlite_fault *fault)
{
    if (sqlite3_libversion_number() < OLDEST_SQLITE) {
        verrou__sqlite_fault_set(fault, VERROU_OP_FAILED, false,
                                 "SQLite %s is too old for the store, which needs " OLDEST_SQLITE_TEXT " or later",
                                 sqlite3_libversion());
        return false;
    }
    if (!sqlite3_threadsafe()) {
        verrou__sqlite_fault_set(fault, VERROU_OP_FAILED, false,
                                 "this SQLite library was built without support for threads");
        return false;
    }
    return true;
}

bool verrou__sqlite_connect(sqlite_lane *lane, bool create, sqlite_fault *fault)
{
    const char *path = lane->state->path;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    struct stat st;
    int rc;

    if (lane->db)
        return true;
    if (!library_fits(fault))
        return false;
    /* Reading a pipe or a device could block for ever. */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        rc = SQLITE_CANTOPEN;
    else
        rc = sqlite3_open_v2(path, &lane->db, flags | (create ? SQLITE_OPEN_CREATE : 0), NULL);
    if (rc == SQLITE_OK)
        rc = connection_prepare(lane);
    if (rc != SQLITE_OK) {
        verrou__sqlite_explain(lane, lane->db, rc, fault);
        verrou__sqlite_disconnect(lane);
        return false;
    }
    verrou__sqlite_waiters_move(lane->state);
    return true;
}

void verrou__sqlite_disconnect(sqlite_lane *lane)
{
    verrou__sqlite_forget(lane);
    for (int i = 0; i < FILE_COUNT; i++) {
        lane->state->host->free(lane->names[i]);
        lane->names[i] = NULL;
        lane->files[i].known = false;
    }
    lane->state->host->free(lane->folder);
    lane->folder = NULL;
    lane->mark.trusted = false;
    sqlite3_close(lane->db);
    lane->db = NULL;
}

bool verrou__sqlite_real_path(const sqlite_state *state, char out[PATH_MAX])
{
    char folder[PATH_MAX];
    char real[PATH_MAX];
    int len;

    if (realpath(state->path, out))
        return true;
    /* Not there yet: SQLite would create it under this name in the folder, wherever that is. */
    folder_of(state->path, folder);
    if (!realpath(folder, real))
        return false;
    len = snprintf(out, PATH_MAX, "%s%s", strcmp(real, "/") == 0 ? "" : real, strrchr(state->path, '/'));
    return len > 0 && len < PATH_MAX;
}
