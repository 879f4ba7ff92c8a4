/*
 * odbc_drivers.c - see odbc_drivers.h.
 */
#include "odbc_drivers.h"

#include "process.h"

#include <sql.h>
#include <sqlext.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void odbc_name_driver(const char *name, const char *file)
{
    char folder[PROCESS_PATH], path[PROCESS_PATH + 16], text[1024];

    process_make_folder("odbc", folder);
    snprintf(path, sizeof path, "%s/odbcinst.ini", folder);
    snprintf(text, sizeof text, "[%s]\nDriver=%s\n", name, file);
    process_write_file(path, text);
    setenv("ODBCSYSINI", folder, 1);
}

static void must(SQLRETURN rc, SQLSMALLINT kind, SQLHANDLE handle, const char *what)
{
    char state[6] = "", text[SQL_MAX_MESSAGE_LENGTH] = "";
    SQLINTEGER number = 0;
    SQLSMALLINT length = 0;

    if (SQL_SUCCEEDED(rc) || rc == SQL_NO_DATA)
        return;
    SQLGetDiagRec(kind, handle, 1, (SQLCHAR *)state, &number, (SQLCHAR *)text, sizeof text, &length);
    process_fail("%s: [%s] %s", what, state, text);
}

const char *odbc_text(const char *connection_string, const char *format, ...)
{
    static char answer[1024];
    char sql[2048];
    SQLHENV environment = SQL_NULL_HENV;
    SQLHDBC connection = SQL_NULL_HDBC;
    SQLHSTMT statement = SQL_NULL_HSTMT;
    SQLSMALLINT length = 0, columns = 0;
    SQLLEN size = 0;
    va_list args;

    va_start(args, format);
    vsnprintf(sql, sizeof sql, format, args);
    va_end(args);
    must(SQLAllocHandle(SQL_HANDLE_ENV, SQL_NULL_HANDLE, &environment), SQL_HANDLE_ENV, environment, "ODBC");
    SQLSetEnvAttr(environment, SQL_ATTR_ODBC_VERSION, (SQLPOINTER)SQL_OV_ODBC3, 0);
    must(SQLAllocHandle(SQL_HANDLE_DBC, environment, &connection), SQL_HANDLE_ENV, environment, "ODBC");
    must(SQLDriverConnect(connection, NULL, (SQLCHAR *)connection_string, SQL_NTS, NULL, 0, &length,
                          SQL_DRIVER_NOPROMPT),
         SQL_HANDLE_DBC, connection, connection_string);
    must(SQLAllocHandle(SQL_HANDLE_STMT, connection, &statement), SQL_HANDLE_DBC, connection, sql);
    must(SQLExecDirect(statement, (SQLCHAR *)sql, SQL_NTS), SQL_HANDLE_STMT, statement, sql);
    must(SQLNumResultCols(statement, &columns), SQL_HANDLE_STMT, statement, sql);
    snprintf(answer, sizeof answer, "none");
    if (columns > 0 && SQL_SUCCEEDED(SQLFetch(statement))) {
        must(SQLGetData(statement, 1, SQL_C_CHAR, answer, sizeof answer, &size), SQL_HANDLE_STMT, statement, sql);
        if (size == SQL_NULL_DATA)
            snprintf(answer, sizeof answer, "NULL");
    }
    SQLFreeHandle(SQL_HANDLE_STMT, statement);
    SQLDisconnect(connection);
    SQLFreeHandle(SQL_HANDLE_DBC, connection);
    SQLFreeHandle(SQL_HANDLE_ENV, environment);
    return answer;
}
