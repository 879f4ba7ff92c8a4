#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char folder[96];

/* Commands that a failed test leaves running are killed at its end. */
static pid_t running[64];

int64_t wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void running_replace(pid_t old, pid_t new)
{
    for (size_t i = 0; i < sizeof(running) / sizeof(running[0]); ++i) {
        if (running[i] == old) {
            running[i] = new;
            return;
        }
    }
}

/* ---- the folder and the environment ---- */

const char *path_of(const char *name)
{
    static char paths[8][224];
    static int next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

int setup(void **state)
{
    static const char *const cleared[] = {"VERROU_CONFIG",   "LOCK_STORE",      "XDG_STATE_HOME",
                                          "XDG_CONFIG_HOME", "LD_LIBRARY_PATH", "VERROU_KEY",
                                          "VERROU_FENCE",    "VERROU_LOCK",     "VERROU_OWNER"};
    char store[192];

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    snprintf(folder, sizeof(folder), "%s/verrou-cli-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
    if (!mkdtemp(folder))
        return -1;
    for (size_t i = 0; i < sizeof(cleared) / sizeof(cleared[0]); ++i)
        unsetenv(cleared[i]);
    setenv("HOME", folder, 1);
    snprintf(store, sizeof(store), "sqlite:%s/locks.db", folder);
    setenv("VERROU_STORE", store, 1);
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(running) / sizeof(running[0]); ++i) {
        if (running[i]) {
            kill(running[i], SIGKILL);
            waitpid(running[i], NULL, 0);
            running[i] = 0;
        }
    }
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

void read_file(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "r");
    size_t used;

    assert_non_null(file);
    used = fread(out, 1, size - 1, file);
    out[used] = '\0';
    fclose(file);
}

/* ---- starting ---- */

void default_signals(void)
{
    sigset_t none;

    for (int signo = 1; signo < NSIG; ++signo)
        signal(signo, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_main(const redirect *how, const int theirs[3], const char *const *args)
{
    char *argv[64] = {(char *)(uintptr_t)VERROU_COMMAND};
    int count = 1;

    setsid();
    default_signals();
    for (int i = 0; i < 3; ++i) {
        int fd = how && how->file[i] ? open(how->file[i], O_RDWR) : theirs[i];
        dup2(fd, i);
        fcntl(i, F_SETFD, 0);
    }
    for (int i = 3; i < 1024; ++i)
        close(i);
    for (int i = 0; i < 3; ++i)
        if (how && how->closed[i])
            close(i);
    for (; *args && count < 63; ++args)
        argv[count++] = (char *)(uintptr_t)*args;
    if (how && how->before_exec)
        how->before_exec();
    execv(VERROU_COMMAND, argv);
    _exit(99);
}

job *start_list(const redirect *how, const char *const *args)
{
    job *j = calloc(1, sizeof(*j));
    int in[2], out[2], err[2];

    assert_non_null(j);
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC) | pipe2(err, O_CLOEXEC), 0);
    j->pid = fork();
    assert_true(j->pid >= 0);
    running_replace(0, j->pid);
    if (!j->pid)
        child_main(how, (const int[]){in[0], out[1], err[1]}, args);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    j->in = in[1];
    j->out = out[0];
    j->err = err[0];
    return j;
}

static job *start_v(const redirect *how, const char *first, va_list rest)
{
    const char *args[64] = {first};
    int count = 1;

    while (first && count < 63 && (args[count] = va_arg(rest, const char *)))
        ++count;
    return start_list(how, args);
}

job *start_as(const redirect *how, const char *first, ...)
{
    va_list rest;
    job *j;

    va_start(rest, first);
    j = start_v(how, first, rest);
    va_end(rest);
    return j;
}

job *start(const char *first, ...)
{
    va_list rest;
    job *j;

    va_start(rest, first);
    j = start_v(NULL, first, rest);
    va_end(rest);
    return j;
}

/* ---- input and output ---- */

void give(job *j, const char *text)
{
    size_t len = strlen(text);

    while (len) {
        ssize_t written = write(j->in, text, len);
        if (written <= 0)
            return; /* a command that does not read may have ended */
        text += written;
        len -= (size_t)written;
    }
}

void give_end(job *j)
{
    if (j->in >= 0)
        close(j->in);
    j->in = -1;
}

static void fill(int *fd, char *text, size_t *len, size_t size)
{
    ssize_t got = read(*fd, text + *len, size - 1 - *len);

    if (got > 0) {
        *len += (size_t)got;
        text[*len] = '\0';
        return;
    }
    close(*fd);
    *fd = -1;
}

/* Read whatever comes until one of the conditions holds. */
static void pump(job *j, const char *out, const char *err, bool out_end, bool err_end)
{
    int64_t deadline = wall_ms() + DEADLINE_MS;

    for (;;) {
        struct pollfd fds[2] = {{j->out, POLLIN, 0}, {j->err, POLLIN, 0}};
        if (out && strstr(j->out_text, out))
            return;
        if (err && strstr(j->err_text, err))
            return;
        if (out_end && j->out < 0 && (!err_end || j->err < 0))
            return;
        if ((out && j->out < 0) || (err && j->err < 0) || wall_ms() > deadline)
            fail_msg("waiting for \"%s\" in vain; stdout: \"%s\", stderr: \"%s\"",
                     out   ? out
                     : err ? err
                           : "the end",
                     j->out_text, j->err_text);
        if (poll(fds, 2, 1000) <= 0)
            continue;
        if (fds[0].revents)
            fill(&j->out, j->out_text, &j->out_len, sizeof(j->out_text));
        if (fds[1].revents)
            fill(&j->err, j->err_text, &j->err_len, sizeof(j->err_text));
    }
}

void wait_out(job *j, const char *text)
{
    pump(j, text, NULL, false, false);
}

bool wait_out_or_end(job *j, const char *text)
{
    struct pollfd out = {j->out, POLLIN, 0};

    while (!strstr(j->out_text, text) && j->out >= 0) {
        assert_int_equal(poll(&out, 1, DEADLINE_MS), 1);
        fill(&j->out, j->out_text, &j->out_len, sizeof(j->out_text));
    }
    return strstr(j->out_text, text) != NULL;
}

void wait_err(job *j, const char *text)
{
    pump(j, NULL, text, false, false);
}

void wait_out_end(job *j)
{
    pump(j, NULL, NULL, true, false);
}

/* ---- ending ---- */

/* waitpid() with a deadline, woken by SIGCHLD. */
static int wait_change(pid_t pid, int flags)
{
    struct timespec limit = {DEADLINE_MS / 1000, 0};
    sigset_t child, before;
    int status = 0;
    pid_t got;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &before);
    while (!(got = waitpid(pid, &status, flags | WNOHANG)))
        if (sigtimedwait(&child, NULL, &limit) < 0 && errno == EAGAIN)
            fail_msg("process %d does not change its state", (int)pid);
    sigprocmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(got, pid);
    return status;
}

int end(job *j)
{
    int status;

    give_end(j);
    pump(j, NULL, NULL, true, true);
    status = wait_change(j->pid, 0);
    running_replace(j->pid, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void wait_stopped(job *j)
{
    int status = wait_change(j->pid, WUNTRACED);

    assert_true(WIFSTOPPED(status));
}

void job_free(job *j)
{
    give_end(j);
    if (j->out >= 0)
        close(j->out);
    if (j->err >= 0)
        close(j->err);
    free(j);
}

job *ran(int expected, const char *input, const char *first, ...)
{
    va_list rest;
    job *j;
    int code;

    va_start(rest, first);
    j = start_v(NULL, first, rest);
    va_end(rest);
    if (input)
        give(j, input);
    code = end(j);
    if (code != expected)
        fail_msg("exit code %d instead of %d; stdout: \"%s\", stderr: \"%s\"", code, expected, j->out_text,
                 j->err_text);
    return j;
}

int code_of(const char *first, ...)
{
    va_list rest;
    job *j;
    int code;

    va_start(rest, first);
    j = start_v(NULL, first, rest);
    va_end(rest);
    code = end(j);
    job_free(j);
    return code;
}

void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, text);
}

void assert_lacks(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("\"%s\" is in \"%s\"", part, text);
}

bool is_free(const char *key)
{
    int code = code_of("status", key, NULL);

    assert_true(code == 0 || code == 1);
    return code == 1;
}

/* The end of a lease is no event for a bystander: asking is all there is. */
void wait_free(const char *key)
{
    int64_t deadline = wall_ms() + DEADLINE_MS;

    while (!is_free(key))
        assert_true(wall_ms() < deadline);
}

/* ---- the store from behind ---- */

struct sqlite3 *block_store(const char *name)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path_of(name), &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    assert_int_equal(sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    return db;
}

int64_t expiration_in(struct sqlite3 *db, const char *key)
{
    sqlite3_stmt *statement = NULL;
    int64_t expiration;

    assert_int_equal(sqlite3_prepare_v2(db, "SELECT expiration FROM verrou WHERE key = ?", -1, &statement, NULL),
                     SQLITE_OK);
    sqlite3_bind_text(statement, 1, key, -1, SQLITE_TRANSIENT);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    expiration = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return expiration;
}

void unblock_store(struct sqlite3 *db)
{
    sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_close(db);
}
