/*
 * exit.h - the exit codes of the command. Scripts depend on them: they never change. The numbers are those of
 * sysexits(3), which not every system has as a header.
 */
#ifndef VERROU_CLI_EXIT_H
#define VERROU_CLI_EXIT_H

enum exit_code {
    EXIT_OK = 0,
    EXIT_FREE = 1,             /* status: nobody holds the lock */
    EXIT_USAGE = 64,           /* the command line or a serialised lock is malformed */
    EXIT_UNAVAILABLE = 69,     /* the store failed, cannot do this, or left the outcome unknown */
    EXIT_INTERNAL = 70,        /* out of memory, or the output cannot be written */
    EXIT_NOT_ACQUIRED = 75,    /* somebody else held the lock until the limit */
    EXIT_LOST = 76,            /* run: the lease ended before the program did */
    EXIT_NOT_OWNED = 77,       /* release, extend: this owner does not hold the lock */
    EXIT_CONFIG = 78,          /* a wrong store address or configuration, or none at all */
    EXIT_NOT_EXECUTABLE = 126, /* run: the program cannot be executed */
    EXIT_NOT_FOUND = 127,      /* run: there is no such program */
    EXIT_SIGNAL = 128,         /* run: plus the number of the signal that ended the program */
};

#endif
