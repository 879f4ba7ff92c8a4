/*
 * connection.c - one connection, and statements over it: SQL is completed, parameters are bound as text, and a failure becomes an error.
 *
 * Each statement is a transaction of its own (autocommit), on a connection that nobody else uses. What went wrong is told by SQLSTATE: the
 * question that matters is whether the statement may have been carried out. Drivers and the driver manager quote what they like in their
 * messages, so that passwords are taken out of all of them, here, where messages come in.
 */
#include "odbc_store.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <strings.h>
#include <time.h>

/* Passwords of fewer bytes are only hidden where they are a whole word. */
#define SHORT_SECRET 4

/* ---- messages without passwords ---- */

static bool is_secret_name(const char *name, size_t length)
{
    static const char *const words[] = {"pwd", "passw", "passphrase", "secret", "token", "credential"};
    char text[64];

    snprintf(text, sizeof text, "%.*s", (int)length, name);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasestr(text, words[i]))
            return true;
    return false;
}

static bool is_in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (c & 0x80);
}

/* Put three stars, or fewer, in place of each occurrence. A secret of few bytes is in many words, which are not it: there it must stand alone. */
static void hide(char *text, const char *secret, size_t length)
{
    size_t stars = length < 3 ? length : 3;
    const bool alone = length < SHORT_SECRET;

    if (length == 0)
        return;
    for (char *at = text; *at; at++) {
        if (strncmp(at, secret, length) != 0)
            continue;
        if (alone && ((at > text && is_in_word(at[-1]) && is_in_word(*at)) ||
                      (is_in_word(at[length]) && is_in_word(at[length - 1]))))
            continue;
        memset(at, '*', stars);
        memmove(at + stars, at + length, strlen(at + length) + 1);
        at += stars - 1;
    }
}

/* Copy the value that begins here, "VALUE;" or "{VALUE}" with }} for a brace, and return its length. */
static size_t copy_value(const char *from, char *out, size_t size)
{
    const bool braced = *from == '{';
    size_t length = 0;

    for (from += braced; *from && length + 1 < size; from++) {
        if ((!braced && *from == ';') || (braced && *from == '}' && *++from != '}'))
            break;
        out[length++] = *from;
    }
    out[length] = '\0';
    return length;
}

/* The connection string is "NAME=VALUE;NAME={VALUE};...". */
static void hide_passwords(const char *connection_string, char *text)
{
    char secret[512];

    for (const char *at = strchr(connection_string, '='); at; at = strchr(at + 1, '=')) {
        const char *end = at, *name;

        while (end > connection_string && end[-1] == ' ')
            end--;
        name = end;
        while (name > connection_string && !strchr(";{ ", name[-1]))
            name--;
        if (is_secret_name(name, (size_t)(end - name)))
            hide(text, secret, copy_value(at + 1 + strspn(at + 1, " "), secret, sizeof secret));
    }
}

/* ---- the connection string ---- */

/* Behind a value, "VALUE;" or "{VALUE}"; NULL if its brace is not closed. */
static const char *value_end(const char *from)
{
    if (*from != '{')
        return from + strcspn(from, ";");
    while (*++from)
        if (*from == '}' && *++from != '}')
            return from;
    return NULL;
}

/* Copy the value of a name, and tell whether there is one. */
static bool find_value(const char *connection_string, const char *name, char *out, size_t size)
{
    for (const char *at = connection_string; at && *(at += strspn(at, "; "));) {
        size_t length = strcspn(at, " =;");
        const char *value = at + strcspn(at, "=;");

        value += *value == '=';
        value += strspn(value, " ");
        if (length == strlen(name) && strncasecmp(at, name, length) == 0)
            return copy_value(value, out, size) > 0;
        at = value_end(value);
    }
    return false;
}

bool verrou__odbc_braces_close(const char *connection_string)
{
    const char *at = connection_string;

    while (at && *(at += strspn(at, "; "))) {
        at += strcspn(at, "=;");
        at += *at == '=';
        at = value_end(at + strspn(at, " "));
    }
    return at != NULL;
}

void verrou__odbc_name_place(odbc_store *store)
{
    static const char *const names[] = {"Server", "Servername", "Host", "DSN", "Database"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (find_value(store->connection_string, names[i], store->place, sizeof store->place))
            break;
    hide_passwords(store->connection_string, store->place);
}

/* ---- failures ---- */

verrou_status verrou__odbc_fail(const odbc_store *store, verrou_error *err, verrou_status status, bool retriable,
                                const char *code, const char *format, ...)
{
    char text[sizeof err->message];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return store->host->fail(err, status, retriable, code, "odbc: %s%s%s", store->place, store->place[0] ? ": " : "",
                             text);
}

/* What the driver says of a failure. */
typedef struct odbc_fault {
    char state[8]; /* SQLSTATE */
    SQLINTEGER number;
    char text[SQL_MAX_MESSAGE_LENGTH * 2];
} odbc_fault;

static void read_fault(const odbc_store *store, SQLSMALLINT kind, SQLHANDLE handle, odbc_fault *fault)
{
    SQLSMALLINT length = 0;

    memset(fault, 0, sizeof *fault);
    if (!SQL_SUCCEEDED(SQLGetDiagRec(kind, handle, 1, (SQLCHAR *)fault->state, &fault->number, (SQLCHAR *)fault->text,
                                     sizeof fault->text, &length)))
        strcpy(fault->state, "HY000");
    if (!fault->text[0])
        strcpy(fault->text, "the driver gives no reason");
    hide_passwords(store->connection_string, fault->text);
    for (char *at = fault->text; *at; at++)
        if ((unsigned char)*at < ' ')
            *at = ' ';
}

static bool in_class(const odbc_fault *fault, const char *class)
{
    return strncmp(fault->state, class, strlen(class)) == 0;
}

/* The driver knows that the connection has broken. */
static bool connection_is_dead(const odbc_store *store)
{
    SQLUINTEGER dead = SQL_CD_FALSE;

    return SQL_SUCCEEDED(SQLGetConnectAttr(store->connection, SQL_ATTR_CONNECTION_DEAD, &dead, 0, NULL)) &&
           dead == SQL_CD_TRUE;
}

/* Sent, and no answer: the connection broke, or it took too long. */
static bool is_lost(const odbc_store *store, const odbc_fault *fault)
{
    return in_class(fault, "08") || in_class(fault, "HYT") || in_class(fault, "40003") || connection_is_dead(store);
}

/* One of the dialect's own numbers. */
static bool is_among(const odbc_fault *fault, const int *numbers)
{
    while (*numbers && *numbers != fault->number)
        numbers++;
    return *numbers != 0;
}

static bool is_read_only(const odbc_store *store, const odbc_fault *fault)
{
    return in_class(fault, "25006") || is_among(fault, store->dialect->read_only);
}

/* Answered with "not now". */
static bool is_passing(const odbc_store *store, const odbc_fault *fault)
{
    static const char *const classes[] = {
        "40",    /* deadlock, serialisation failure */
        "23000", /* a duplicate, perhaps, of a row that has gone since: insert_lock() has looked */
        "23505", /* the same, certainly */
        "53",    /* no resources left */
        "57",    /* the server's operator intervened, or the statement was cancelled */
        "55P03", /* lock not available */
    };

    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (in_class(fault, classes[i]))
            return true;
    return is_read_only(store, fault) || is_among(fault, store->dialect->busy) ||
           is_among(fault, store->dialect->interrupted);
}

static verrou_status statement_failed(odbc_store *store, SQLHSTMT statement, bool changes, verrou_error *err)
{
    odbc_fault fault;
    bool lost, unknown, passing;

    read_fault(store, SQL_HANDLE_STMT, statement, &fault);
    lost = is_lost(store, &fault);
    /* After a failover this server may be the wrong one; another connection finds the right one. */
    store->lost = lost || is_read_only(store, &fault);
    store->shape.known = false; /* the table may have changed */
    passing = lost || is_passing(store, &fault);
    store->key_is_unique = store->key_is_unique && passing;
    store->denied = !passing && (in_class(&fault, "42501") || is_among(&fault, store->dialect->denied));
    unknown = lost || is_among(&fault, store->dialect->interrupted);
    return verrou__odbc_fail(store, err, unknown && changes ? VERROU_EUNKNOWN : VERROU_ESTORAGE, passing, fault.state,
                             "%s", fault.text);
}

/*
 * What does not become right by trying again: a password, a user, a database, a driver, a setting; a server may appear. PostgreSQL's driver has
 * one SQLSTATE for all, so that its words have to do, which are English unless the server's messages are set to another language.
 */
static bool is_final(const odbc_fault *fault)
{
    static const char *const classes[] = {"28", "3D", "42", "IM", "01"};
    static const char *const words[] = {"authentication failed", "does not exist",       "no password supplied",
                                        "connection parameter",  "no pg_hba.conf entry", "permission denied",
                                        "is not permitted to",   "SSL was required"};

    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (in_class(fault, classes[i]))
            return true;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (in_class(fault, "08001") && strstr(fault->text, words[i]))
            return true;
    return false;
}

/* Nothing was sent. */
static verrou_status connecting_failed(odbc_store *store, verrou_error *err)
{
    odbc_fault fault;

    read_fault(store, SQL_HANDLE_DBC, store->connection, &fault);
    verrou__odbc_close(store);
    return verrou__odbc_fail(store, err, VERROU_ESTORAGE, !is_final(&fault), fault.state, "cannot connect: %s",
                             fault.text);
}

static verrou_status fail_nomem(const odbc_store *store, verrou_error *err)
{
    return verrou__odbc_fail(store, err, VERROU_ESTORAGE, true, NULL, "out of memory");
}

/* ---- SQL ---- */

typedef struct writer {
    char *out;
    size_t used;
} writer;

static void put(writer *w, const char *text, size_t length)
{
    if (w->used + length < ODBC_MAX_SQL)
        memcpy(w->out + w->used, text, length);
    w->used += length;
}

static void put_text(writer *w, const char *text)
{
    put(w, text, strlen(text));
}

static void put_name(writer *w, const odbc_store *store, const char *name, size_t length)
{
    put_text(w, store->quote);
    put(w, name, length);
    put_text(w, store->quote);
}

/* What a name in backquotes stands for. */
static void put_meaning(writer *w, const odbc_store *store, const char *name, size_t length)
{
    const odbc_dialect *dialect = store->dialect;
    const lock_table_settings *names = &store->names;
    char seconds[24], table_text[LOCK_TABLE_MAX_NAME + 3], schema_text[LOCK_TABLE_MAX_NAME + 3];
    const struct {
        const char *name;
        const char *meaning;
        const char *otherwise;
    } meanings[] = {
        {"clock", dialect->clock, "0"},
        {"dual", dialect->dual, ""},
        {"if_not_exists", dialect->if_not_exists, ""},
        {"key_type", dialect->key, "varchar(255)"},
        {"owner_type", dialect->owner, "varchar(255)"},
        {"number_type", dialect->number, "bigint"},
        {"limit", dialect->limit, ""},
        {"seconds", seconds, NULL},
        {"table_text", table_text, NULL},
        {"schema_text", names->schema[0] ? schema_text : NULL, "NULL"},
    };

    snprintf(table_text, sizeof table_text, "'%s'", names->table);
    snprintf(schema_text, sizeof schema_text, "'%s'", names->schema);
    snprintf(seconds, sizeof seconds, "%" PRId64, store->limit_s);
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strlen(meanings[i].name) == length && memcmp(meanings[i].name, name, length) == 0) {
            put_text(w, meanings[i].meaning ? meanings[i].meaning : meanings[i].otherwise);
            return;
        }
    if (length != 5 || memcmp(name, "table", 5) != 0) {
        put_name(w, store, name, length);
        return;
    }
    if (names->schema[0]) {
        put_name(w, store, names->schema, strlen(names->schema));
        put_text(w, ".");
    }
    put_name(w, store, names->table, strlen(names->table));
}

verrou_status verrou__odbc_write(const odbc_store *store, const char *sql, char out[ODBC_MAX_SQL], verrou_error *err)
{
    writer w = {out, 0};

    while (*sql) {
        size_t length = strcspn(sql, "`");

        put(&w, sql, length);
        sql += length;
        if (*sql == '`') {
            length = strcspn(++sql, "`");
            put_meaning(&w, store, sql, length);
            sql += length + 1;
        }
    }
    put(&w, "", 1);
    if (w.used > ODBC_MAX_SQL)
        return verrou__odbc_fail(store, err, VERROU_ESTORAGE, false, NULL, "a statement is too long");
    return VERROU_OK;
}

/* ---- statements ---- */

/* Numbers go as text: not every driver knows integers of 64 bits. `texts` and `lengths` live as long as the statement. */
static SQLRETURN bind(SQLHSTMT statement, const odbc_param *params, size_t count, char texts[][24], SQLLEN *lengths)
{
    SQLRETURN rc = SQL_SUCCESS;

    for (size_t i = 0; i < count && SQL_SUCCEEDED(rc); i++) {
        const char *text = params[i].text ? params[i].text : texts[i];
        bool is_number = !params[i].text;

        if (is_number)
            snprintf(texts[i], sizeof texts[i], "%" PRId64, params[i].number);
        lengths[i] = is_number && params[i].number == VERROU_FOREVER ? SQL_NULL_DATA : (SQLLEN)strlen(text);
        rc = SQLBindParameter(statement, (SQLUSMALLINT)(i + 1), SQL_PARAM_INPUT, SQL_C_CHAR,
                              is_number ? SQL_BIGINT : SQL_VARCHAR, is_number ? 19 : 255, 0, (SQLPOINTER)text, 0,
                              &lengths[i]);
    }
    return rc;
}

/* Send a statement: VERROU_OK, and the handle, to be freed by the caller in any case. */
static verrou_status execute(odbc_store *store, const char *sql, const odbc_param *params, size_t count, bool changes,
                             SQLHSTMT *ret_statement, SQLRETURN *ret_code, verrou_error *err)
{
    char text[ODBC_MAX_SQL];
    char numbers[8][24];
    SQLLEN lengths[8];
    SQLRETURN rc;
    verrou_status status = verrou__odbc_write(store, sql, text, err);

    if (status != VERROU_OK)
        return status;
    if (!SQL_SUCCEEDED(SQLAllocHandle(SQL_HANDLE_STMT, store->connection, ret_statement)))
        return connecting_failed(store, err);

    rc = SQLSetStmtAttr(*ret_statement, SQL_ATTR_QUERY_TIMEOUT, (SQLPOINTER)(uintptr_t)store->limit_s, 0);
    store->untimed = rc != SQL_SUCCESS;
    rc = bind(*ret_statement, params, count, numbers, lengths);
    if (SQL_SUCCEEDED(rc))
        rc = SQLExecDirect(*ret_statement, (SQLCHAR *)text, SQL_NTS);
    /* SQL_NO_DATA: an update of no row. */
    if (!SQL_SUCCEEDED(rc) && rc != SQL_NO_DATA)
        return statement_failed(store, *ret_statement, changes, err);
    *ret_code = rc;
    return VERROU_OK;
}

verrou_status verrou__odbc_run(odbc_store *store, const char *sql, const odbc_param *params, size_t count,
                               int64_t *ret_rows, verrou_error *err)
{
    SQLHSTMT statement = SQL_NULL_HSTMT;
    SQLRETURN rc = SQL_SUCCESS;
    SQLLEN rows = 0;
    verrou_status status = verrou__odbc_connect(store, err);

    if (status != VERROU_OK)
        return status;
    status = execute(store, sql, params, count, true, &statement, &rc, err);
    if (status == VERROU_OK && rc != SQL_NO_DATA && !SQL_SUCCEEDED(SQLRowCount(statement, &rows)))
        status = statement_failed(store, statement, true, err);
    if (status == VERROU_OK)
        *ret_rows = rows;
    if (statement != SQL_NULL_HSTMT)
        SQLFreeHandle(SQL_HANDLE_STMT, statement);
    return status;
}

/* A binary column would come as hexadecimal digits from a driver that converts it to text. */
static SQLSMALLINT type_to_read(SQLHSTMT statement, SQLUSMALLINT column)
{
    SQLSMALLINT type = SQL_VARCHAR, digits, nullable, name_length;
    SQLCHAR name[8];
    SQLULEN size;

    SQLDescribeCol(statement, column, name, sizeof name, &name_length, &type, &size, &digits, &nullable);
    return type == SQL_BINARY || type == SQL_VARBINARY || type == SQL_LONGVARBINARY ? SQL_C_BINARY : SQL_C_CHAR;
}

static SQLRETURN read_value(SQLHSTMT statement, SQLUSMALLINT column, odbc_value *value)
{
    SQLLEN length = 0;
    SQLRETURN rc =
        SQLGetData(statement, column, type_to_read(statement, column), value->text, sizeof value->text - 1, &length);

    value->null = length == SQL_NULL_DATA;
    value->length = 0;
    if (!value->null && SQL_SUCCEEDED(rc))
        value->length =
            length >= 0 && (size_t)length < sizeof value->text - 1 ? (size_t)length : sizeof value->text - 2;
    value->text[value->length] = '\0';
    return rc;
}

static SQLRETURN read_rows(SQLHSTMT statement, odbc_row_fn each, void *context)
{
    odbc_value values[ODBC_MAX_VALUES];
    SQLSMALLINT columns = 0;
    SQLRETURN rc = SQLNumResultCols(statement, &columns);

    if (columns > ODBC_MAX_VALUES)
        columns = ODBC_MAX_VALUES;
    while (SQL_SUCCEEDED(rc) && columns > 0) {
        rc = SQLFetch(statement);
        for (SQLSMALLINT i = 0; i < columns && SQL_SUCCEEDED(rc); i++)
            rc = read_value(statement, (SQLUSMALLINT)(i + 1), &values[i]);
        if (SQL_SUCCEEDED(rc) && !each(context, values))
            return SQL_SUCCESS;
    }
    return rc;
}

verrou_status verrou__odbc_query(odbc_store *store, const char *sql, const odbc_param *params, size_t count,
                                 odbc_row_fn each, void *context, verrou_error *err)
{
    SQLHSTMT statement = SQL_NULL_HSTMT;
    SQLRETURN rc = SQL_SUCCESS;
    verrou_status status = verrou__odbc_connect(store, err);

    if (status != VERROU_OK)
        return status;
    status = execute(store, sql, params, count, false, &statement, &rc, err);
    if (status == VERROU_OK && rc != SQL_NO_DATA) {
        rc = read_rows(statement, each, context);
        if (!SQL_SUCCEEDED(rc) && rc != SQL_NO_DATA)
            status = statement_failed(store, statement, false, err);
    }
    if (statement != SQL_NULL_HSTMT)
        SQLFreeHandle(SQL_HANDLE_STMT, statement);
    return status;
}

verrou_status verrou__odbc_columns(odbc_store *store, const char *sql, odbc_column_fn each, void *context,
                                   verrou_error *err)
{
    SQLHSTMT statement = SQL_NULL_HSTMT;
    SQLRETURN rc = SQL_SUCCESS;
    SQLSMALLINT columns = 0, type, digits, nullable, length;
    SQLULEN size;
    verrou_status status = verrou__odbc_connect(store, err);

    if (status != VERROU_OK)
        return status;
    status = execute(store, sql, NULL, 0, false, &statement, &rc, err);
    if (status == VERROU_OK)
        SQLNumResultCols(statement, &columns);
    for (SQLSMALLINT i = 1; i <= columns; i++) {
        char name[64] = "";

        SQLDescribeCol(statement, (SQLUSMALLINT)i, (SQLCHAR *)name, sizeof name, &length, &type, &size, &digits,
                       &nullable);
        each(context, name);
    }
    if (statement != SQL_NULL_HSTMT)
        SQLFreeHandle(SQL_HANDLE_STMT, statement);
    return status;
}

/* ---- this machine's clock ---- */

int64_t verrou__odbc_wall_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- connecting ---- */

void verrou__odbc_close(odbc_store *store)
{
    if (store->connection != SQL_NULL_HDBC) {
        SQLDisconnect(store->connection);
        SQLFreeHandle(SQL_HANDLE_DBC, store->connection);
    }
    if (store->environment != SQL_NULL_HENV)
        SQLFreeHandle(SQL_HANDLE_ENV, store->environment);
    store->connection = SQL_NULL_HDBC;
    store->environment = SQL_NULL_HENV;
}

static bool set_attribute(const odbc_store *store, SQLINTEGER attribute, int64_t value)
{
    return SQL_SUCCEEDED(SQLSetConnectAttr(store->connection, attribute, (SQLPOINTER)(intptr_t)value, 0));
}

static void get_info(const odbc_store *store, SQLUSMALLINT what, char *out, size_t size)
{
    SQLSMALLINT length = 0;

    *out = '\0';
    SQLGetInfo(store->connection, what, out, (SQLSMALLINT)size, &length);
}

bool verrou__odbc_begin(odbc_store *store)
{
    return set_attribute(store, SQL_ATTR_AUTOCOMMIT, SQL_AUTOCOMMIT_OFF);
}

void verrou__odbc_undo(odbc_store *store)
{
    bool undone = SQL_SUCCEEDED(SQLEndTran(SQL_HANDLE_DBC, store->connection, SQL_ROLLBACK));

    /* If not, it ends with the connection. */
    store->lost |= !set_attribute(store, SQL_ATTR_AUTOCOMMIT, SQL_AUTOCOMMIT_ON) || !undone;
}

static bool ignore_row(void *context, const odbc_value *values)
{
    (void)context, (void)values;
    return true;
}

/* What the connection has to be told, and what there is to know about it. */
static verrou_status begin_session(odbc_store *store, verrou_error *err)
{
    get_info(store, SQL_DBMS_NAME, store->product, sizeof store->product);
    get_info(store, SQL_DBMS_VER, store->version, sizeof store->version);
    get_info(store, SQL_IDENTIFIER_QUOTE_CHAR, store->quote, sizeof store->quote);
    if (strcmp(store->quote, " ") == 0)
        store->quote[0] = '\0'; /* how ODBC says that names are not quoted */
    store->dialect = verrou__odbc_dialect(store->product);
    store->shape.known = false;
    store->key_is_unique = false;
    /* It is the rule; but without it nobody else would see our locks. */
    if (!set_attribute(store, SQL_ATTR_AUTOCOMMIT, SQL_AUTOCOMMIT_ON))
        return connecting_failed(store, err);
    /* Enough for statements that stand alone; stricter levels only add failures. */
    set_attribute(store, SQL_ATTR_TXN_ISOLATION, SQL_TXN_READ_COMMITTED);
    if (!store->dialect->session)
        return VERROU_OK;
    return verrou__odbc_query(store, store->dialect->session, NULL, 0, ignore_row, NULL, err);
}

verrou_status verrou__odbc_connect(odbc_store *store, verrou_error *err)
{
    SQLSMALLINT length = 0;
    SQLRETURN rc;
    verrou_status status;

    if (store->connection != SQL_NULL_HDBC && !store->lost)
        return VERROU_OK;
    verrou__odbc_close(store);
    store->lost = false;

    if (!SQL_SUCCEEDED(SQLAllocHandle(SQL_HANDLE_ENV, SQL_NULL_HANDLE, &store->environment)))
        return fail_nomem(store, err);
    SQLSetEnvAttr(store->environment, SQL_ATTR_ODBC_VERSION, (SQLPOINTER)SQL_OV_ODBC3, 0);
    if (!SQL_SUCCEEDED(SQLAllocHandle(SQL_HANDLE_DBC, store->environment, &store->connection)))
        return fail_nomem(store, err);

    /* A driver that knows no time limits says so, and connects without. */
    set_attribute(store, SQL_ATTR_LOGIN_TIMEOUT, store->limit_s);
    set_attribute(store, SQL_ATTR_CONNECTION_TIMEOUT, store->limit_s);
    rc = SQLDriverConnect(store->connection, NULL, (SQLCHAR *)store->connection_string, SQL_NTS, NULL, 0, &length,
                          SQL_DRIVER_NOPROMPT);
    if (!SQL_SUCCEEDED(rc))
        return connecting_failed(store, err);
    status = begin_session(store, err);
    if (status != VERROU_OK)
        verrou__odbc_close(store);
    return status;
}
