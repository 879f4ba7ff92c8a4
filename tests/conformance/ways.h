/*
 * ways.h - the conformance suite on a store with a server, once for each way to reach it. The way is the program's argument, so that ctest
 * runs them side by side: a run is mostly waiting.
 */
#ifndef VERROU_TESTS_CONFORMANCE_WAYS_H
#define VERROU_TESTS_CONFORMANCE_WAYS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <verrou/conformance.h>

#include <cmocka.h>

/* A way starts private servers and says in `url` where the store is. */
typedef struct way {
    const char *name;
    void (*start)(void);
} way;

static char url[2048];
static const way *chosen_way;

static verrou_status ways_open(void *user, verrou_store **ret_store, verrou_error *err)
{
    (void)user;
    return verrou_store_open(url, NULL, ret_store, err);
}

/* As a test, because the support library makes a test fail if a server does not start. */
static void ways_start(void **state)
{
    (void)state;
    chosen_way->start();
}

/* What main() returns. */
static inline int ways_main(const char *store, const way *ways, size_t count, int argc, char **argv)
{
    const struct CMUnitTest start[] = {cmocka_unit_test(ways_start)};
    char name[64];
    verrou_conformance suite = {sizeof suite, name, ways_open, NULL, 0};

    for (size_t i = 0; argc == 2 && i < count; i++)
        if (strcmp(argv[1], ways[i].name) == 0)
            chosen_way = &ways[i];
    if (!chosen_way) {
        fprintf(stderr, "usage: conformance_%s WAY\n", store);
        return 2;
    }
    snprintf(name, sizeof name, "%s %s", store, chosen_way->name);
    if (cmocka_run_group_tests_name("servers", start, NULL, NULL) != 0)
        return 1;
    return verrou_conformance_run(&suite) == 0 ? 0 : 1;
}

#endif
