/*
 * redis_slots.h - what the driver makes of a key in a cluster: its slot, and the name of its token counter under a prefix.
 */
#ifndef VERROU_TESTS_REDIS_SLOTS_H
#define VERROU_TESTS_REDIS_SLOTS_H

#include <stddef.h>

void slots_begin(const char *prefix);
void slots_end(void);
unsigned slots_slot(const char *key, size_t len);
/* Its length; 0: none. */
size_t slots_counter(const char *key, size_t len, char *name, size_t size);

#endif
