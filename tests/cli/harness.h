/*
 * harness.h - running the command from a test: with pipes on its three descriptors, under a deadline, in a session of
 * its own, so that no terminal of the person who runs the tests comes into play.
 *
 * Every test gets an empty folder and a clean environment: setup() sets HOME and VERROU_STORE (an SQLite file in that
 * folder) and removes everything else that the command looks at. Tests change the environment by setenv(3): commands
 * inherit it.
 */
#ifndef VERROU_TESTS_CLI_HARNESS_H
#define VERROU_TESTS_CLI_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>
#include <cmocka.h>

/* How long anything may take before the test fails. */
#define DEADLINE_MS 120000

/* A command that has been started: the test's ends of its pipes, and what was read from them so far. */
typedef struct job {
    pid_t pid;
    int in;
    int out;
    int err;
    size_t out_len;
    size_t err_len;
    char out_text[65536];
    char err_text[65536];
} job;

/* Special files for a descriptor of the command instead of a pipe. */
typedef struct redirect {
    bool closed[3];      /* this descriptor is closed */
    const char *file[3]; /* this descriptor is that file */
    void (*before_exec)(void);
} redirect;

int setup(void **state);
int teardown(void **state);

/* A path in the test's folder; valid until the next but seven. */
const char *path_of(const char *name);
void write_file(const char *path, const char *text);
void read_file(const char *path, char *out, size_t size);

/* In a child: signals as at login. Whoever runs the tests in the background may have them ignored. */
void default_signals(void);

/* Start `verrou` with these arguments (NULL at the end), `start_as` with redirections. */
job *start(const char *first, ...);
job *start_as(const redirect *how, const char *first, ...);
job *start_list(const redirect *how, const char *const *args);

/* Write to its standard input; close it. */
void give(job *j, const char *text);
void give_end(job *j);

/* Wait until its output contains this text. */
void wait_out(job *j, const char *text);
bool wait_out_or_end(job *j, const char *text); /* false if it ended before */
void wait_err(job *j, const char *text);

/* Wait until all writers of its output are gone: the command and all that it started. */
void wait_out_end(job *j);

/* Wait until it has ended, its output read; its exit code, or -N if signal N ended it. Frees nothing: see job_free().
 */
int end(job *j);
void job_free(job *j);

/* Wait until it is stopped. */
void wait_stopped(job *j);

/* start() and end() in one; the job stays readable. `input` may be NULL. */
job *ran(int expected, const char *input, const char *first, ...);

/* The same where only the exit code counts. */
int code_of(const char *first, ...);

void assert_contains(const char *text, const char *part);
void assert_lacks(const char *text, const char *part);

/* Whether the key is free according to `verrou status`; wait for that. */
bool is_free(const char *key);
void wait_free(const char *key);

/* The expiration of a key in epoch milliseconds, and a transaction that keeps everybody else away from the store. */
struct sqlite3;
struct sqlite3 *block_store(const char *name);
int64_t expiration_in(struct sqlite3 *db, const char *key);
void unblock_store(struct sqlite3 *db);

int64_t wall_ms(void);

#endif
