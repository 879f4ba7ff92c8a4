/*
 * sqlite.h - the SQLite store, for applications that link libverrou-sqlite instead of letting libverrou find it at run time:
 *
 *     verrou_register_driver(verrou_sqlite_driver(), NULL);
 *     verrou_store_open("sqlite:/var/lib/app/locks.db", NULL, &store, NULL);
 *
 * A process must not contain two copies of SQLite that use the same database file: each would drop the other's file locks.
 */
#ifndef VERROU_SQLITE_H
#define VERROU_SQLITE_H

#include <verrou/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The driver of the scheme "sqlite". Static; nothing to free. Any thread. */
VERROU_API const verrou_driver *verrou_sqlite_driver(void);

#ifdef __cplusplus
}
#endif
#endif
