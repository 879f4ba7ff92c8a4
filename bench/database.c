/* database.c - the parts of a benchmark of a store over a database server, one after the other: see subject.h. */
#include "subject.h"

#include <signal.h>

static void head(const struct subject *subject, const char *version, const char *part)
{
    char title[96];

    snprintf(title, sizeof(title), "%s%s%.20s: %s", subject->name, *version ? " " : "", version, part);
    bench_head(title);
}

static void pairs(const struct subject *subject, const struct subject_database *aims, int argc, char **argv)
{
    if (subject_wanted(argc, argv, "alone"))
        subject_alone(subject, aims->alone);
    if (subject_wanted(argc, argv, "flights"))
        subject_flights(subject, "", aims->flights);
    if (subject_wanted(argc, argv, "threads"))
        subject_threads(subject, "", aims->threads);
}

static void passing(const struct subject *subject, const struct subject_database *aims, int argc, char **argv)
{
    if (subject_wanted(argc, argv, "handoff"))
        subject_handoff(subject, aims->handoff_name, aims->handoff_reference, subject->server, aims->handoff);
    if (!subject_wanted(argc, argv, "going"))
        return;
    for (int asynchronous = 0; asynchronous < 2; asynchronous++)
        for (int processes = 1; processes <= 4; processes += 3)
            subject_going(subject, &(struct subject_going){.processes = processes,
                                                           .waiters = 128,
                                                           .asynchronous = asynchronous != 0,
                                                           .of_original = aims->going});
}

void subject_database(const struct subject *subject, const char *version, const struct subject_database *aims, int argc,
                      char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    head(subject, version, "time of a pair");
    pairs(subject, aims, argc, argv);
    head(subject, "", "from one to the next");
    passing(subject, aims, argc, argv);
    head(subject, "", "waiting");
    if (subject_wanted(argc, argv, "waiting"))
        subject_waiting(subject, aims->requests);
}
