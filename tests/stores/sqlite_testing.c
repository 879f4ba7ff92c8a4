/*
 * sqlite_testing.c - see sqlite_testing.h.
 */
#include "sqlite_testing.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

char test_folder[64];
char test_path[128];

/* ---- folder ---- */

int test_setup(void **unused)
{
    (void)unused;
    strcpy(test_folder, "/tmp/verrou-sqlite-XXXXXX");
    if (!mkdtemp(test_folder) || chmod(test_folder, 0777) != 0)
        return -1;
    snprintf(test_path, sizeof test_path, "%s/locks.db", test_folder);
    return 0;
}

int test_teardown(void **unused)
{
    DIR *dir = opendir(test_folder);
    struct dirent *entry;
    char path[PATH_MAX];

    (void)unused;
    while (dir && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/%s", test_folder, entry->d_name);
        if (entry->d_name[0] != '.' && unlink(path) != 0)
            rmdir(path);
    }
    if (dir)
        closedir(dir);
    return rmdir(test_folder) == 0 || errno == ENOENT ? 0 : -1;
}

const char *test_file(const char *suffix)
{
    static char path[PATH_MAX + 32];

    snprintf(path, sizeof path, "%s%s", test_path, suffix);
    return path;
}

/* ---- stores ---- */

/* A path may hold what has a meaning in an address. */
static void write_path(FILE *out, const char *path)
{
    for (; *path; path++)
        fprintf(out, strchr("%?", *path) ? "%%%02X" : "%c", (unsigned char)*path);
}

verrou_status test_create_file(test_store *store, const char *path, const char *settings, verrou_error *err)
{
    char *address = NULL;
    size_t len;
    FILE *out = open_memstream(&address, &len);
    verrou_status status;

    assert_non_null(out);
    fputs("sqlite:", out);
    write_path(out, path);
    if (settings)
        fprintf(out, "?%s", settings);
    assert_int_equal(fclose(out), 0);
    status = test_create(store, verrou_sqlite_driver(), address, err);
    free(address);
    return status;
}

test_store test_database(const char *settings)
{
    char address[256];

    snprintf(address, sizeof address, "sqlite:%s%s%s", test_path, settings ? "?" : "", settings ? settings : "");
    return test_open(verrou_sqlite_driver(), address);
}

/* ---- SQL as another program ---- */

static sqlite3 *sql_open(void)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(test_path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    return db;
}

void test_sql(const char *format, ...)
{
    sqlite3 *db = sql_open();
    char *message = NULL;
    va_list args;
    char *sql;

    va_start(args, format);
    sql = sqlite3_vmprintf(format, args);
    va_end(args);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    sqlite3_free(sql);
    sqlite3_close(db);
}

const char *test_ask(const char *format, ...)
{
    static char answer[512];
    sqlite3 *db = sql_open();
    sqlite3_stmt *stmt = NULL;
    va_list args;
    char *sql;

    va_start(args, format);
    sql = sqlite3_vmprintf(format, args);
    va_end(args);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    strcpy(answer, "none");
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);

        snprintf(answer, sizeof answer, "%s", text ? text : "NULL");
    }
    sqlite3_finalize(stmt);
    sqlite3_free(sql);
    sqlite3_close(db);
    return answer;
}
