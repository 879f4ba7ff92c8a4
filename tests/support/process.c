/*
 * process.c - see process.h. A table of everything that runs lets the exit handler stop what a failed test has left behind.
 */
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <setjmp.h>
#include <cmocka.h>

#define MAX_RUNNING 256
#define MAX_FAMILY 512

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char folder[PROCESS_PATH / 2];
static pid_t folder_owner; /* a forked child uses its parent's folder and must not remove it */
static pid_t running[MAX_RUNNING];

_Noreturn void process_fail(const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
#ifdef __linux__
    if (syscall(SYS_gettid) != getpid()) { /* cmocka's way out is a longjmp() of the main thread's */
        fprintf(stderr, "%s\n", text);
        abort();
    }
#endif
    fail_msg("%s", text);
    abort(); /* fail_msg() does not return, which it does not tell the compiler */
}

int64_t process_clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void process_pause(void)
{
    nanosleep(&(struct timespec){0, 5000000}, NULL);
}

/* ---- the folder ---- */

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info, (void)type, (void)at;
    return remove(path);
}

/* Forked children leave through exit() as well, but nothing here is theirs. */
static void clean_up(void)
{
    if (getpid() != folder_owner)
        return;
    for (int i = 0; i < MAX_RUNNING; i++) {
        if (running[i] > 0) {
            kill(running[i], SIGKILL);
            waitpid(running[i], NULL, 0);
        }
    }
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *process_folder(void)
{
    const char *where = getenv("TMPDIR");
    bool made = true;

    pthread_mutex_lock(&mutex);
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "%s/verrou-XXXXXX", where && where[0] ? where : "/tmp");
        made = mkdtemp(folder) != NULL;
        folder_owner = getpid();
        if (made)
            atexit(clean_up);
    }
    pthread_mutex_unlock(&mutex);
    if (!made)
        process_fail("cannot make the folder %s: %s", folder, strerror(errno));
    return folder;
}

void process_make_folder(const char *name, char ret_path[PROCESS_PATH])
{
    snprintf(ret_path, PROCESS_PATH, "%s/%s-XXXXXX", process_folder(), name);
    if (!mkdtemp(ret_path))
        process_fail("cannot make the folder %s: %s", ret_path, strerror(errno));
}

void process_write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t length = strlen(text);
    bool written = fd >= 0 && write(fd, text, length) == (ssize_t)length;

    if (fd >= 0)
        close(fd);
    if (!written)
        process_fail("cannot write %s: %s", path, strerror(errno));
}

/* ---- another user than root ---- */

/* Some servers refuse to run as root. "nobody" exists everywhere and owns nothing else. */
static const struct passwd *other_user(void)
{
    const struct passwd *user = getpwnam("nobody");

    if (!user)
        process_fail("the tests run as root and need a user \"nobody\" for servers that must not");
    return user;
}

void process_give_away(const char *path)
{
    const struct passwd *user;

    if (geteuid() != 0)
        return;
    user = other_user();
    if (chmod(process_folder(), 0711) != 0 || lchown(path, user->pw_uid, user->pw_gid) != 0)
        process_fail("cannot give %s to another user: %s", path, strerror(errno));
}

/* ---- starting ---- */

/* Descriptors that a server inherits keep the test's connections open after the test has closed them. */
static void close_from(int first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
#endif
    for (int fd = first; fd < 65536; fd++)
        close(fd);
}

/* In a child: end with the test program. */
static void follow_parent(pid_t parent, int signo)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, signo);
#endif
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
    setpgid(0, 0); /* Control-C is for the test, which then ends us */
    (void)signo;
}

/* In a child. False if it is still root. */
static bool become(const struct passwd *user)
{
    return !user ||
           (setgroups(0, NULL) == 0 && setgid(user->pw_gid) == 0 && setuid(user->pw_uid) == 0 && chdir("/") == 0);
}

/* In the child, where only calls are allowed that are safe in a signal handler. Returns only if there is no such program. */
static void run_in_child(const process_spec *spec, const struct passwd *user, int log, int report, pid_t parent)
{
    char **argv = (char **)(uintptr_t)spec->argv;
    int null = open("/dev/null", O_RDWR);
    sigset_t none;

    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    dup2(report, 3);
    fcntl(3, F_SETFD, FD_CLOEXEC);
    close_from(4);
    if (!become(user))
        return;
    follow_parent(parent, spec->end_signal ? spec->end_signal : SIGKILL); /* not before: setuid() undoes it */
    execvp(argv[0], argv);
    if (errno == ENOENT && spec->stand_in)
        execvp(spec->stand_in, argv);
}

/* A descriptor that is at least `least`, so that giving the child its first four cannot overwrite it. */
static int move_up(int fd, int least)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, least);

    close(fd);
    return moved;
}

static void running_replace(pid_t old, pid_t new)
{
    int i = 0;

    pthread_mutex_lock(&mutex);
    while (i < MAX_RUNNING && running[i] != old)
        i++;
    if (i < MAX_RUNNING)
        running[i] = new;
    pthread_mutex_unlock(&mutex);
    if (i == MAX_RUNNING && old == 0) {
        kill(new, SIGKILL);
        waitpid(new, NULL, 0);
        process_fail("a test program starts at most %d programs", MAX_RUNNING);
    }
}

void process_start(process *p, const process_spec *spec)
{
    int report[2], log, error = 0;
    const struct passwd *user = spec->unprivileged && geteuid() == 0 ? other_user() : NULL;
    pid_t parent = getpid();
    ssize_t got;

    process_folder(); /* its exit handler stops the program */
    p->thawer = 0;
    snprintf(p->log, sizeof p->log, "%s", spec->log);
    log = move_up(open(p->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), 10);
    if (log < 0 || pipe(report) != 0)
        process_fail("cannot start %s: %s", spec->argv[0], strerror(errno));
    report[0] = move_up(report[0], 10);
    report[1] = move_up(report[1], 10);
    p->pid = fork();
    if (p->pid == 0) {
        run_in_child(spec, user, log, report[1], parent);
        error = errno;
        got = write(3, &error, sizeof error);
        _exit(got == sizeof error ? 127 : 126);
    }
    close(log);
    close(report[1]);
    do
        got = read(report[0], &error, sizeof error);
    while (got < 0 && errno == EINTR);
    close(report[0]);
    if (p->pid < 0)
        process_fail("cannot start %s: fork failed", spec->argv[0]);
    running_replace(0, p->pid);
    if (got == sizeof error) { /* otherwise the pipe was closed by a successful exec */
        process_stop(p, SIGKILL);
        if (error == ENOENT)
            process_fail("%s is not installed, and these tests need it: apt-get install %s", spec->argv[0],
                         spec->package);
        process_fail("cannot run %s: %s", spec->argv[0], strerror(error));
    }
}

/* ---- stopping ---- */

/* Wait for the end, or only look whether it has come. */
static bool ended(process *p, int options, int *ret_status)
{
    pid_t pid;

    do
        pid = waitpid(p->pid, ret_status, options);
    while (pid < 0 && errno == EINTR);
    if (pid == 0)
        return false;
    running_replace(p->pid, 0);
    p->pid = 0;
    return true;
}

bool process_running(process *p)
{
    int status;

    return p->pid > 0 && !ended(p, WNOHANG, &status);
}

void process_signal(const process *p, int signo)
{
    if (p->pid <= 0 || kill(p->pid, signo) != 0)
        process_fail("cannot send signal %d: the program does not run", signo);
}

void process_stop(process *p, int signo)
{
    int64_t deadline = process_clock_ms() + 20000;

    if (p->pid <= 0)
        return;
    kill(p->pid, signo);
    process_thaw(p);
    kill(p->pid, SIGCONT);
    while (signo != SIGKILL && process_clock_ms() < deadline) {
        if (!process_running(p))
            return;
        process_pause();
    }
    kill(p->pid, SIGKILL);
    ended(p, 0, &(int){0});
}

/* ---- families ---- */

typedef struct family {
    pid_t pids[MAX_FAMILY]; /* the program itself first */
    int count;
} family;

/* A process's state as /proc shows it, and its parent. 0 if there is no such process. */
static char state_of(pid_t pid, pid_t *ret_parent)
{
    char path[64], text[512] = "", state = 0;
    const char *after;
    int parent = 0;
    FILE *stat;

    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    stat = fopen(path, "re");
    if (stat) {
        if (fgets(text, sizeof text, stat) && (after = strrchr(text, ')')) &&
            sscanf(after, ") %c %d", &state, &parent) != 2)
            state = 0;
        fclose(stat);
    }
    *ret_parent = parent;
    return state;
}

static void add_children(family *f)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    pid_t parent;

    while (proc && (entry = readdir(proc))) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (pid > 0 && state_of(pid, &parent) && parent == f->pids[0] && f->count < MAX_FAMILY)
            f->pids[f->count++] = pid;
    }
    if (proc)
        closedir(proc);
}

static void stop_one(pid_t pid)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    pid_t parent;
    char state;

    kill(pid, SIGSTOP);
    while ((state = state_of(pid, &parent)) && !strchr("TZX", state)) {
        if (process_clock_ms() > deadline)
            process_fail("process %ld does not stand still", (long)pid);
        process_pause();
    }
}

/* One that stands still starts no more programs: so the program first. */
static void stop_family(pid_t pid, family *f)
{
    f->pids[0] = pid;
    f->count = 1;
    stop_one(pid);
    add_children(f);
    for (int i = 1; i < f->count; i++)
        stop_one(f->pids[i]);
}

/* A child of the test program that waits for its end, or for process_thaw(), and has the family go on. */
static pid_t start_thawer(const family *f)
{
    pid_t parent = getpid(), pid;
    sigset_t end, before;
    int signo;

    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &end, &before); /* before fork(), or a quick thaw would end it instead of waking it */
    pid = fork();
    if (pid == 0) {
        follow_parent(parent, SIGTERM);
        close_from(3);
        sigwait(&end, &signo);
        for (int i = 0; i < f->count; i++)
            kill(f->pids[i], SIGCONT);
        _exit(0);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        process_fail("cannot start what thaws a frozen server: %s", strerror(errno));
    return pid;
}

void process_freeze(process *p)
{
    family f;

    if (!process_running(p))
        process_fail("cannot freeze: the program does not run");
    if (p->thawer)
        return;
    stop_family(p->pid, &f);
    p->thawer = start_thawer(&f);
    running_replace(0, p->thawer);
}

void process_thaw(process *p)
{
    process thawer = {.pid = p->thawer};

    if (!p->thawer)
        return;
    p->thawer = 0;
    process_stop(&thawer, SIGTERM);
}

/* The parent, which stands still, does not wait for its children: so until it is gone, their numbers are not used again. */
void process_kill_family(process *p)
{
    int64_t deadline = process_clock_ms() + PROCESS_PATIENCE_MS;
    family f;
    pid_t parent;
    char state;

    if (!process_running(p))
        return;
    stop_family(p->pid, &f);
    for (int i = 1; i < f.count; i++) {
        kill(f.pids[i], SIGKILL);
        while ((state = state_of(f.pids[i], &parent)) && state != 'Z' && parent == p->pid) {
            if (process_clock_ms() > deadline)
                process_fail("process %ld does not end", (long)f.pids[i]);
            process_pause();
        }
    }
    process_stop(p, SIGKILL);
}

void process_print_log(const process *p)
{
    FILE *log = fopen(p->log, "r");
    char line[512];

    fprintf(stderr, "---- %s\n", p->log);
    while (log && fgets(line, sizeof line, log))
        fputs(line, stderr);
    fprintf(stderr, "----\n");
    if (log)
        fclose(log);
}

void process_run(const process_spec *spec)
{
    process p;
    int status = -1;

    process_start(&p, spec);
    ended(&p, 0, &status);
    if (status != 0) {
        process_print_log(&p);
        process_fail("%s failed with wait status %d", spec->argv[0], status);
    }
}

/* ---- ports ---- */

process_port process_port_new(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    process_port port = {0, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};

    if (port.reserved_by < 0 || setsockopt(port.reserved_by, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) != 0 ||
        bind(port.reserved_by, (struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(port.reserved_by, (struct sockaddr *)&address, &length) != 0)
        process_fail("no free TCP port: %s", strerror(errno));
    port.number = ntohs(address.sin_port);
#ifndef __linux__ /* elsewhere nobody can listen there as long as the address is bound */
    close(port.reserved_by);
    port.reserved_by = -1;
#endif
    return port;
}

void process_port_free(process_port *port)
{
    if (port->number && port->reserved_by >= 0)
        close(port->reserved_by);
    port->number = 0;
}
