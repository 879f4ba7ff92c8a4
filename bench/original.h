/*
 * original.h - the original, @verrou/core for Node.js, as a process that measures itself for as long as it is told (original/bench.mjs).
 */
#ifndef VERROU_BENCH_ORIGINAL_H
#define VERROU_BENCH_ORIGINAL_H

#include <stdio.h>

#include "bench.h"

struct original {
    pid_t pid;
    FILE *to, *from;
    long errors; /* that its callers have seen so far */
};

/* Install it, if it is not there yet, and start it with so many tasks. False: it cannot be had, and it was said why. */
bool original_start(struct original *original, const char *store, const char *url, int tasks);
/* Pairs a second, each task with a key of its own ("pairs"), or changes of owner a second, all with one key ("changes"). */
double original_rate(struct original *original, const char *what, int ms);
/* It ends with its input. */
void original_stop(struct original *original);

#endif
