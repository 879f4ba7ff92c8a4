/*
 * server_use.h - what a server has used so far, by Linux's own account of its processes: processor time, and calls of write() and its
 * like to files, most of which are those of a database's log. Answers to clients are sent, not written.
 */
#ifndef VERROU_BENCH_SERVER_USE_H
#define VERROU_BENCH_SERVER_USE_H

#include <dirent.h>

#include "bench.h"

struct server_use {
    double cpu_us;
    double writes;
};

static inline void server_use_add(pid_t pid, struct server_use *sum)
{
    char path[64], line[128];
    struct timespec used;
    clockid_t clock;
    FILE *io;

    if (clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &used) == 0)
        sum->cpu_us += (double)used.tv_sec * 1e6 + (double)used.tv_nsec / 1e3;
    snprintf(path, sizeof(path), "/proc/%d/io", pid);
    if (!(io = fopen(path, "r")))
        return;
    while (fgets(line, sizeof(line), io))
        if (strncmp(line, "syscw:", 6) == 0)
            sum->writes += strtod(line + 6, NULL);
    fclose(io);
}

static inline pid_t server_use_parent(const char *pid)
{
    char path[64], line[512];
    FILE *stat;
    const char *name_end;
    pid_t parent = 0;

    snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
    if (!(stat = fopen(path, "r")))
        return 0;
    if (fgets(line, sizeof(line), stat) && (name_end = strrchr(line, ')')))
        parent = (pid_t)strtol(name_end + 4, NULL, 10);
    fclose(stat);
    return parent;
}

/* A process and its children. What children that have ended used is not counted: let connections stay open meanwhile. */
static inline struct server_use server_use_now(pid_t server)
{
    struct server_use sum = {0};
    DIR *all = opendir("/proc");
    const struct dirent *entry;

    server_use_add(server, &sum);
    while (all && (entry = readdir(all)))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && server_use_parent(entry->d_name) == server)
            server_use_add((pid_t)strtol(entry->d_name, NULL, 10), &sum);
    if (all)
        closedir(all);
    return sum;
}

#endif
