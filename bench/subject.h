/*
 * subject.h - what the benchmarks of stores with a server of their own share: the same rows for each, beside the server's bare client and
 * beside the original.
 *
 * A benchmark describes its store, its server and its reference in a struct subject, and calls the parts, which print their rows.
 * "Pair" is an acquire and a release. An aim of 0 is none: the figure is printed alone.
 */
#ifndef VERROU_BENCH_SUBJECT_H
#define VERROU_BENCH_SUBJECT_H

#include "bench.h"

#define SUBJECT_CALLERS 64 /* calls in flight, threads, tasks of the original */
#define SUBJECT_KEY 32     /* bytes of a key's name */

struct subject {
    const char *name;     /* in titles: "Redis" */
    const char *url;      /* of the store, without settings */
    const char *bare;     /* what the reference is called: "hiredis" */
    const char *requests; /* what is counted of what clients send: "commands" */
    const char *work;     /* what the server does for a pair, besides computing: "reads by the server" */
    const char *original; /* what bench.mjs calls the store */
    const char *original_url;
    void *server;

    /* The reference: a connection, used by one thread at a time. `pipeline` acquires the keys, and then releases them, at once each. */
    void *(*bare_open)(void *server);
    void (*bare_close)(void *bare);
    void (*bare_pair)(void *bare, const char *key);
    void (*bare_pipeline)(void *bare, char keys[][SUBJECT_KEY], int n);

    /* Processor time that the server has used, in microseconds, and how much work it has done. */
    double (*server_us)(void *server);
    double (*server_work)(void *server); /* optional */

    /* What clients send between the two calls. It may slow down the server. */
    void (*count_begin)(void *server);
    long long (*count_end)(void *server);
};

/* The address with settings: "?lanes=1", or "". */
#define SUBJECT_URL 512
const char *subject_url(const struct subject *subject, const char *settings, char url[SUBJECT_URL]);

/* Have the store make its table, which the bare client needs as well. */
void subject_make_table(const struct subject *subject);

/* The least ratio to each reference. Less than 0: not beside this one. */
struct subject_aims {
    double pipeline, original, connections;
};

/* One caller, one pair after the other, beside the same with the bare client. */
void subject_alone(const struct subject *subject, double aim);
/* Asynchronous calls in flight from one thread, and threads with a key each. */
void subject_flights(const struct subject *subject, const char *settings, struct subject_aims aims);
void subject_threads(const struct subject *subject, const char *settings, struct subject_aims aims);

/* From a release in one process to the acquisition in another, beside a reference in microseconds; `aim` is the largest ratio. */
void subject_handoff(const struct subject *subject, const char *name, double (*reference)(void *), void *arg,
                     double aim);

/* Many waiters for one key that is held for no time: threads, or asynchronous calls, which have to be served in their order. */
struct subject_going {
    int processes, waiters;
    bool asynchronous;
    double least_rate; /* changes of owner a second */
    double
        of_original; /* how many times the original's, whose tasks are as many in one process; 0: beside pairs of the bare client */
    int requests; /* at most so many for a change, and one for each other process */
};
void subject_going(const struct subject *subject, const struct subject_going *aim);

/* 1,000 waiters of one held key for 10 s: at most so many requests, and bytes a waiter. */
void subject_waiting(const struct subject *subject, int requests);

/* All of these, with one set of rows for all databases; `version` is the server's. What is not aimed at is 0. */
struct subject_database {
    double alone;
    struct subject_aims flights, threads;
    const char *handoff_name; /* the reference, which gets subject->server */
    double (*handoff_reference)(void *server);
    double handoff;
    double going; /* how many times the original's changes of owner */
    int requests; /* of 1,000 waiters */
};
void subject_database(const struct subject *subject, const char *version, const struct subject_database *aims, int argc,
                      char **argv);

/* One part alone, for profiling: its name is the program's argument. */
static inline bool subject_wanted(int argc, char **argv, const char *part)
{
    return argc < 2 || strcmp(argv[1], part) == 0;
}

#endif
