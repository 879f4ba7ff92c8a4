/*
 * noop_store.h - a store that grants everything: for development, and to switch locking off in a test.
 */
#ifndef NOOP_STORE_H
#define NOOP_STORE_H

#include <verrou/store.h>

/* Open it. Close it with verrou_store_close(). */
verrou_status noop_store_open(verrou_store **ret_store, verrou_error *err);

#endif
