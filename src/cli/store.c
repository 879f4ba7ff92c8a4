/*
 * store.c - which store the command works on.
 *
 * The order: --store, --config, VERROU_STORE, VERROU_CONFIG, the user's and the system's verrou.conf, and at last an
 * SQLite file of the user's own. Two programs that look at different stores do not exclude each other; so whatever was
 * asked for and cannot be found is an error, never a reason to try the next.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* An environment variable, NULL if it is unset or empty. */
static const char *env(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static char *join(const char *first, const char *second)
{
    size_t size = strlen(first) + strlen(second) + 1;
    char *out = malloc(size);

    if (out)
        snprintf(out, size, "%s%s", first, second);
    return out;
}

static int out_of_memory(void)
{
    return fail(EXIT_INTERNAL, "out of memory");
}

/* ---- the configuration file ---- */

/* A file that is there but cannot be read counts as there: going on without it would be a guess. */
static bool is_there(const char *path)
{
    return !access(path, F_OK) || (errno != ENOENT && errno != ENOTDIR);
}

/* The first configuration file of the usual places into *ret_path, NULL if there is none. An exit code. */
static int usual_config(char **ret_path)
{
    const char *folder = env("XDG_CONFIG_HOME");
    const char *home = env("HOME");
    char *path = NULL;

    if (folder && folder[0] == '/')
        path = join(folder, "/verrou.conf");
    else if (home && home[0] == '/')
        path = join(home, "/.config/verrou.conf");
    if (!path && ((folder && folder[0] == '/') || (home && home[0] == '/')))
        return out_of_memory();
    if (path && !is_there(path)) {
        free(path);
        path = NULL;
    }
    if (!path && is_there("/etc/verrou.conf")) {
        path = strdup("/etc/verrou.conf");
        if (!path)
            return out_of_memory();
    }
    *ret_path = path;
    return EXIT_OK;
}

/* ---- the store of a user who configured nothing ---- */

/* Make the folder and those above it, closed to others. */
static int make_folders(char *path)
{
    for (char *at = path + 1;; ++at) {
        char kept = *at;
        if (kept && kept != '/')
            continue;
        *at = '\0';
        if (mkdir(path, 0700) && errno != EEXIST) {
            int error = errno;
            if (access(path, F_OK))
                return fail(EXIT_UNAVAILABLE, "cannot make the folder \"%s\": %s", path, strerror(error));
        }
        *at = kept;
        if (!kept)
            return EXIT_OK;
    }
}

/* "sqlite:PATH", with the characters that mean something in an address written as %XX. */
static char *sqlite_url(const char *path)
{
    char *url = malloc(strlen(path) * 3 + sizeof("sqlite:"));
    char *to = url;

    if (!url)
        return NULL;
    to += sprintf(to, "sqlite:");
    for (; *path; ++path)
        to += sprintf(to, strchr("%?#", *path) ? "%%%02X" : "%c", (unsigned char)*path);
    return url;
}

static int own_store(char **ret_url)
{
    const char *state = env("XDG_STATE_HOME");
    const char *home = env("HOME");
    char *folder = NULL;
    char *path = NULL;
    int code;

    if (state && state[0] == '/')
        folder = join(state, "/verrou");
    else if (home && home[0] == '/')
        folder = join(home, "/.local/state/verrou");
    else
        return fail(EXIT_CONFIG, "no store is given (--store, VERROU_STORE or a configuration file), "
                                 "and there is no HOME to keep one in");
    if (!folder)
        return out_of_memory();

    code = make_folders(folder);
    if (!code) {
        path = join(folder, "/locks.db");
        *ret_url = path ? sqlite_url(path) : NULL;
        code = *ret_url ? EXIT_OK : out_of_memory();
    }
    free(path);
    free(folder);
    return code;
}

/* ---- choosing ---- */

/* An address has a scheme; a name has no colon. */
static int address_or_name(const char *text, cli_store *s)
{
    if (!strchr(text, ':')) {
        s->name = text;
        return EXIT_OK;
    }
    s->url = strdup(text);
    return s->url ? EXIT_OK : out_of_memory();
}

/* The "store" member of a serialised lock, NULL if it has none or is malformed, which the library will say. Free it. */
static char *named_in(const char *lock_json)
{
    json_t *lock = lock_json ? json_loads(lock_json, 0, NULL) : NULL;
    const char *name = json_string_value(json_object_get(lock, "store"));
    char *copy = name ? strdup(name) : NULL;

    json_decref(lock);
    return copy;
}

/* Fill in url, or config and perhaps name. */
static int choose(const cli_options *given, const char *lock_json, cli_store *s)
{
    const char *asked = given->store ? given->store : given->config ? NULL : env("VERROU_STORE");
    const char *config = given->config ? given->config : env("VERROU_CONFIG");
    char *in_lock = NULL;
    int code = EXIT_OK;

    if (asked)
        code = address_or_name(asked, s);
    if (code || s->url)
        return code;
    if (config) {
        s->config = strdup(config);
        return s->config ? EXIT_OK : out_of_memory();
    }
    code = usual_config(&s->config);
    if (code || s->config)
        return code;
    if (s->name)
        return fail(EXIT_CONFIG, "\"%s\" is not an address, and there is no configuration file that names stores",
                    s->name);
    if (env("LOCK_STORE"))
        return fail(EXIT_CONFIG, "LOCK_STORE is \"%s\", and there is no configuration file that names stores",
                    env("LOCK_STORE"));
    in_lock = named_in(lock_json);
    code = in_lock ? fail(EXIT_CONFIG,
                          "the lock is of the store \"%s\", and there is no configuration file that names stores "
                          "(--config, or --store with its address)",
                          in_lock)
                   : own_store(&s->url);
    free(in_lock);
    return code;
}

/*
 * Events worth a line on stderr: all but the two that the command itself tells as the outcome of its call. What is tried
 * again and fails again in the same way is told once. Hooks of one store are called one at a time, and there is one store.
 */
static void on_event(void *user, const verrou_log_record *record)
{
    static char last[1024];
    char line[sizeof(last)];

    (void)user;
    if (!strcmp(record->event, "call.failed") || !strcmp(record->event, "lease.lost"))
        return;
    snprintf(line, sizeof(line), "warning: %s%s%s%s%s", record->event, record->key ? " " : "",
             record->key ? record->key : "", record->message ? ": " : "", record->message ? record->message : "");
    if (strcmp(line, last))
        say("%s", line);
    strcpy(last, line);
}

static int use_named(const cli_options *given, const char *lock_json, cli_store *s)
{
    verrou_manager_options options = VERROU_MANAGER_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_factory *factory = NULL;
    const char *address;
    char *in_lock = given->store ? NULL : named_in(lock_json);
    verrou_status status;

    options.log = on_event;
    options.log_level = VERROU_WARN;
    status = verrou_manager_load(s->config, &options, &s->manager, &err);
    if (!status)
        status = verrou_manager_use(s->manager, in_lock ? in_lock : s->name, &factory, &err);
    free(in_lock);
    if (status)
        return fail_status(status, &err);

    s->store = verrou_factory_store(factory);
    /* With a password in it the address is not told in full: then the child gets the name, to look up in the file. */
    address = verrou_store_address(s->store);
    s->env_store = strdup(strstr(address, "***") ? verrou_store_name(s->store) : address);
    s->env_config = realpath(s->config, NULL);
    return s->env_store && s->env_config ? EXIT_OK : out_of_memory();
}

static int use_url(cli_store *s)
{
    verrou_store_options options = VERROU_STORE_OPTIONS_INIT;
    verrou_error err = VERROU_ERROR_INIT;
    verrou_status status;

    options.log = on_event;
    options.log_level = VERROU_WARN;
    status = verrou_store_open(s->url, &options, &s->store, &err);
    if (status)
        return fail_status(status, &err);
    s->env_store = strdup(s->url);
    return s->env_store ? EXIT_OK : out_of_memory();
}

int store_open(const cli_options *given, const char *lock_json, cli_store *ret)
{
    int code;

    memset(ret, 0, sizeof(*ret));
    code = choose(given, lock_json, ret);
    if (code)
        return code;
    return ret->url ? use_url(ret) : use_named(given, lock_json, ret);
}

void store_warn(const cli_store *s)
{
    if (!(verrou_store_caps(s->store) & VERROU_CAP_SHARED))
        say("warning: no other process can see the locks of %s", verrou_store_address(s->store));
}

void store_done(cli_store *s)
{
    if (s->manager)
        verrou_manager_free(s->manager);
    else if (s->store)
        verrou_store_close(s->store);
    free(s->url);
    free(s->config);
    free(s->env_store);
    free(s->env_config);
}
