/*
 * original.c - see original.h. The process is asked through its standard input and answers through its standard output, a line each.
 */
#include "original.h"

#include <fcntl.h>

/* What to call for it: the packages are installed where the tests install them. */
static void write_command(char *command, size_t size, const char *store, const char *url, int tasks)
{
    snprintf(command, size,
             "cp " BENCH_ORIGINAL_PROGRAM " " BENCH_ORIGINAL_FOLDER "/bench.mjs && "
             "exec \"$(sh " BENCH_NODE_FINDER " " BENCH_NODE_FOLDER ")\" " BENCH_ORIGINAL_FOLDER
             "/bench.mjs %s '%s' %d",
             store, url, tasks);
}

bool original_start(struct original *original, const char *store, const char *url, int tasks)
{
    char command[1536];
    int to[2], from[2];

    fflush(stdout);
    if (system("sh " BENCH_ORIGINAL_INSTALL " " BENCH_ORIGINAL_FOLDER " " BENCH_NODE_FOLDER " >&2") != 0)
        return false;
    write_command(command, sizeof(command), store, url, tasks);
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        bench_die("pipe", "no descriptor");
    *original = (struct original){.pid = fork()};
    if (original->pid < 0)
        bench_die("fork", "no process");
    if (original->pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    original->to = fdopen(to[1], "w");
    original->from = fdopen(from[0], "r");
    return true;
}

double original_rate(struct original *original, const char *what, int ms)
{
    char line[128] = "";
    char *end;
    double rate;

    fprintf(original->to, "%s %d\n", what, ms);
    fflush(original->to);
    if (!fgets(line, sizeof(line), original->from))
        bench_die("the original", "does not answer");
    rate = strtod(line, &end);
    original->errors += strtol(end, NULL, 10);
    return rate;
}

void original_stop(struct original *original)
{
    fclose(original->to);
    fclose(original->from);
    bench_join(original->pid);
}
