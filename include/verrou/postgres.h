/*
 * postgres.h - the PostgreSQL store, for applications that link libverrou-postgres instead of letting libverrou find it at run time:
 *
 *     verrou_register_driver(verrou_postgres_driver(), NULL);
 *     verrou_store_open("postgres://user:password@host/database", NULL, &store, NULL);
 */
#ifndef VERROU_POSTGRES_H
#define VERROU_POSTGRES_H

#include <verrou/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The driver of the schemes "postgres" and "postgresql". Static; nothing to free. Any thread. */
VERROU_API const verrou_driver *verrou_postgres_driver(void);

#ifdef __cplusplus
}
#endif
#endif
