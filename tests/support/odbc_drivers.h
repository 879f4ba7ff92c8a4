/*
 * odbc_drivers.h - the ODBC drivers that the tests go through, and SQL as another program would send it.
 *
 * Drivers are named by their files (the macros ODBC_SQLITE_DRIVER, ODBC_POSTGRES_DRIVER and ODBC_MARIADB_DRIVER come from CMake), or by a name
 * of this test program's own: what is in the system's list of drivers does not matter.
 */
#ifndef VERROU_TESTS_ODBC_DRIVERS_H
#define VERROU_TESTS_ODBC_DRIVERS_H

/* Let connection strings say Driver={NAME} in this program. Before the first connection; one name. */
void odbc_name_driver(const char *name, const char *file);

/*
 * Send SQL, made as printf() does, over a connection of its own. Anything but success makes the test fail. The answer is the first value of
 * the first row as text, "NULL" for NULL, "none" without rows; valid until the next call. One thread.
 */
const char *odbc_text(const char *connection_string, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
