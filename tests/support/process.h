/*
 * process.h - other programs that a test needs: started in a folder of the test's own, stopped by their process id.
 *
 * Everything here makes the running cmocka test fail if it does not succeed, with a message that says what was missing; so nothing
 * returns a status. Whatever was started is stopped, and the folder removed, when the test program exits; where the system can do it
 * (Linux), it also dies with a test program that crashes. There it dies with the thread that started it: start from one that stays.
 */
#ifndef VERROU_TESTS_PROCESS_H
#define VERROU_TESTS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* How long a test waits for something that has to happen. Large: it is only reached when something is broken. */
#define PROCESS_PATIENCE_MS 60000

#define PROCESS_PATH 256

/* A program to run. */
typedef struct process_spec {
    const char *const *argv; /* argv[0] is looked for in PATH; ends with NULL */
    const char *stand_in;    /* NULL, or a program to run under the name argv[0] if that is not in PATH */
    const char *package;     /* the Debian package that a message names when there is neither */
    const char *log;         /* file that gets what the program prints; printed when it fails */
    bool unprivileged;       /* if we are root, run it as another user, to whom its files belong: process_give_away() */
    int end_signal;          /* it gets this when the test program dies; 0: SIGKILL */
} process_spec;

typedef struct process {
    pid_t pid; /* 0: not running */
    char log[PROCESS_PATH];
    pid_t thawer; /* 0: not frozen */
} process;

/* Make the test fail; in another thread than the main one, end the program. */
_Noreturn void process_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A clock that is never set back, and a short pause between two looks at something. */
int64_t process_clock_ms(void);
void process_pause(void);

/* The folder of this test program: made at the first call, under TMPDIR, removed at its exit. */
const char *process_folder(void);
/* A new folder in it, whose name begins with `name`. */
void process_make_folder(const char *name, char ret_path[PROCESS_PATH]);

/* Write a file, readable by its owner only. */
void process_write_file(const char *path, const char *text);

/* A file or folder, without what is in it, is for unprivileged programs from now on. Nothing happens if we are not root. */
void process_give_away(const char *path);

/* Start a program, with no standard input and no descriptors of ours. Its log is appended to. */
void process_start(process *p, const process_spec *spec);
/* True until the program has ended; then it is waited for, and `pid` is 0. */
bool process_running(process *p);
/* Send a signal to a program that runs. */
void process_signal(const process *p, int signo);
/* End a program by a signal and wait for it; by SIGKILL if it takes too long. Nothing happens if it does not run. */
void process_stop(process *p, int signo);
/*
 * Have a program and the programs it started stand still (SIGSTOP), and go on again. Where there is no /proc, only the program itself.
 * They also go on if the test program dies; so freeze from a thread that stays.
 */
void process_freeze(process *p);
void process_thaw(process *p);
/* End a program and the programs it started by SIGKILL; all of them are gone then. Nothing happens if it does not run. */
void process_kill_family(process *p);
/* Print the program's log to standard error. */
void process_print_log(const process *p);

/* Run a program to its end; it has to succeed. */
void process_run(const process_spec *spec);

/*
 * A TCP port of 127.0.0.1 that is ours until process_port_free(): a socket stays bound to it but does not listen, so that no other
 * program is given the port, while a server that sets SO_REUSEADDR, as servers do, can listen on it, also a second time.
 */
typedef struct process_port {
    int number; /* 0: none */
    int reserved_by;
} process_port;

process_port process_port_new(void);
void process_port_free(process_port *port);

#endif
