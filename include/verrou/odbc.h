/*
 * odbc.h - the ODBC store, for applications that link libverrou-odbc instead of letting libverrou find it at run time:
 *
 *     verrou_register_driver(verrou_odbc_driver(), NULL);
 *     verrou_store_open("odbc:DSN=locks", NULL, &store, NULL);
 */
#ifndef VERROU_ODBC_H
#define VERROU_ODBC_H

#include <verrou/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The driver of the scheme "odbc". Static; nothing to free. Any thread. */
VERROU_API const verrou_driver *verrou_odbc_driver(void);

#ifdef __cplusplus
}
#endif
#endif
