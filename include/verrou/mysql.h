/*
 * mysql.h - the MySQL and MariaDB store, for applications that link libverrou-mysql instead of letting libverrou find it at run time:
 *
 *     verrou_register_driver(verrou_mysql_driver(), NULL);
 *     verrou_store_open("mysql://user:password@host/database", NULL, &store, NULL);
 */
#ifndef VERROU_MYSQL_H
#define VERROU_MYSQL_H

#include <verrou/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The driver of the schemes "mysql" and "mariadb". Static; nothing to free. Any thread. */
VERROU_API const verrou_driver *verrou_mysql_driver(void);

#ifdef __cplusplus
}
#endif
#endif
