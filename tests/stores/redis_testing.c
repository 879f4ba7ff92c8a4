/*
 * redis_testing.c - see redis_testing.h.
 */
#include "redis_testing.h"

const char *test_address(int port, const char *rest)
{
    static _Thread_local char texts[4][512];
    static _Thread_local unsigned next;
    char *text = texts[next++ % 4];

    snprintf(text, sizeof texts[0], "redis://127.0.0.1:%d%s", port, rest ? rest : "");
    return text;
}
