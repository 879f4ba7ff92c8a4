/*
 * conformance.h - the suite that every store has to pass, for store authors (library libverrou-conformance).
 *
 *     static verrou_status open_mine(void *user, verrou_store **ret_store, verrou_error *err)
 *     {
 *         return verrou_store_open("mine:somewhere", NULL, ret_store, err);
 *     }
 *     int main(void)
 *     {
 *         verrou_conformance suite = {sizeof suite, "mine", open_mine, NULL, 0};
 *         return verrou_conformance_run(&suite) == 0 ? 0 : 1;
 *     }
 *
 * What is checked follows the store's capabilities: tokens only where it has VERROU_CAP_FENCE, and so on.
 */
#ifndef VERROU_CONFORMANCE_H
#define VERROU_CONFORMANCE_H

#include <verrou/store.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VERROU_CONFORMANCE_NO_STORE_STATE 0x1u /* a second open() does not see the locks of the first (memory) */
#define VERROU_CONFORMANCE_NO_LOCKS \
    0x2u /* a store that grants everything (a no-op store): only its answers' form is checked */

/*
 * name   Used in the names of the tests.
 * open   Opens the store. Each call must lead to the same locks, unless VERROU_CONFORMANCE_NO_STORE_STATE is set. Keys of the
 *        suite start with "conformance:" and are freed at the end.
 */
typedef struct verrou_conformance {
    size_t size;
    const char *name;
    verrou_status (*open)(void *user, verrou_store **ret_store, verrou_error *err);
    void *user;
    uint32_t flags;
} verrou_conformance;

/* Run all tests, print a line each and a summary as cmocka does, and return how many failed. */
VERROU_API int verrou_conformance_run(const verrou_conformance *suite);

#ifdef __cplusplus
}
#endif
#endif
