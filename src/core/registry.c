/*
 * registry.c - drivers by scheme: built in, registered by the application, or found as a shared library named after the scheme.
 *
 * A library is looked for beside libverrou first, then along the linker's search path. What was loaded stays loaded: its threads
 * and handlers may outlive a store. Some schemes are other names for what is in the library of the first, see `aliases`.
 */
#include "core/registry.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define MAX_DRIVERS 32

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const verrou_driver *drivers[MAX_DRIVERS];
static size_t driver_count;

/* A child forked while another thread loads a library must find the mutex usable. */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&mutex);
}

static void register_fork_handlers(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

static void registry_lock(void)
{
    pthread_once(&fork_once, register_fork_handlers);
    pthread_mutex_lock(&mutex);
}

static bool serves(const verrou_driver *driver, const char *scheme)
{
    for (const char *const *at = driver->schemes; *at; at++)
        if (strcmp(*at, scheme) == 0)
            return true;
    return false;
}

static const verrou_driver *find_locked(const char *scheme)
{
    if (serves(verrou__memory_driver(), scheme))
        return verrou__memory_driver();
    for (size_t i = 0; i < driver_count; i++)
        if (serves(drivers[i], scheme))
            return drivers[i];
    return NULL;
}

static bool is_scheme(const char *text)
{
    size_t len = 0;

    for (; text[len]; len++) {
        bool first_ok = text[len] >= 'a' && text[len] <= 'z';

        if (!first_ok && (len == 0 || !strchr("0123456789+-", text[len])))
            return false;
    }
    return len > 0 && len <= 32;
}

/* What a driver lacks that answers batches, NULL if nothing. */
static const char *batch_driver_lacks(const verrou_driver *driver)
{
    /* Without lanes, then. */
    bool is_inline = (driver->flags & (VERROU_DRIVER_INLINE | VERROU_DRIVER_LATER)) != 0;

    if (!driver->caps)
        return "caps";
    if (!driver->execute)
        return "execute";
    if (!is_inline && (!driver->open || !driver->close))
        return driver->open ? "close" : "open";
    if (!is_inline && (driver->default_lanes == 0 || driver->max_lanes < driver->default_lanes))
        return "default_lanes";
    if (driver->watch_open &&
        !(driver->watch_close && driver->watch_fd && driver->watch_add && driver->watch_remove && driver->watch_read))
        return "some of watch_";
    return NULL;
}

/* The same of one that has the seven calls. What would never be called is refused, so that nobody relies on it. */
static verrou_status check_database_driver(const verrou_driver *driver, verrou_error *err)
{
    if (!driver->create || !driver->destroy)
        return verrou__fail(err, VERROU_EINVAL, "driver: %s is missing", driver->create ? "destroy" : "create");
    if (driver->open || driver->close || driver->execute || driver->watch_open)
        return verrou__fail(err, VERROU_EINVAL,
                            "driver: beside `database` it may not have open, close, execute, watch_");
    if (driver->flags & ~(VERROU_DRIVER_NETWORK | VERROU_DRIVER_CONNECTS))
        return verrou__fail(err, VERROU_EINVAL, "driver: flags 0x%x do not go with `database`", driver->flags);
    return verrou__database_check(driver->database, err);
}

verrou_status verrou__driver_check(const verrou_driver *driver, verrou_error *err)
{
    const char *missing = NULL;
    verrou_status status = VERROU_OK;

    if (!driver)
        return verrou__fail(err, VERROU_EINVAL, "driver is NULL");
    if (driver->version != VERROU_STORE_VERSION)
        return verrou__fail(err, VERROU_EINVAL, "driver: version %u, and this library needs %u", driver->version,
                            (unsigned)VERROU_STORE_VERSION);
    if (!driver->schemes || !driver->schemes[0])
        missing = "schemes";
    else if (driver->database)
        status = check_database_driver(driver, err);
    else
        missing = batch_driver_lacks(driver);
    if (status != VERROU_OK)
        return status;
    if (missing)
        return verrou__fail(err, VERROU_EINVAL, "driver: %s is missing", missing);
    for (const char *const *at = driver->schemes; *at; at++)
        if (!is_scheme(*at))
            return verrou__fail(err, VERROU_EINVAL, "driver: \"%s\" is no scheme", *at);
    return VERROU_OK;
}

static verrou_status add_locked(const verrou_driver *driver, verrou_error *err)
{
    for (size_t i = 0; i < driver_count; i++)
        if (drivers[i] == driver)
            return VERROU_OK;
    for (const char *const *at = driver->schemes; *at; at++)
        if (find_locked(*at))
            return verrou__fail(err, VERROU_EINVAL, "driver: the scheme \"%s\" is taken", *at);
    if (driver_count == MAX_DRIVERS)
        return verrou__fail(err, VERROU_EINVAL, "driver: there are %d already", MAX_DRIVERS);
    drivers[driver_count++] = driver;
    return VERROU_OK;
}

verrou_status verrou_register_driver(const verrou_driver *driver, verrou_error *err)
{
    verrou_status status = verrou__driver_check(driver, err);

    if (status != VERROU_OK)
        return status;
    registry_lock();
    status = add_locked(driver, err);
    pthread_mutex_unlock(&mutex);
    return status;
}

/*
 * Looked for beside us by hand: the run path does not count where a sanitizer's runtime stands between us and dlopen(). A relative
 * path is left alone, it may no longer lead here.
 */
static void *open_library(const char *file)
{
    Dl_info self;
    const char *slash;
    char *path;
    void *library;

    if (!dladdr((const void *)&mutex, &self) || !self.dli_fname || self.dli_fname[0] != '/')
        return dlopen(file, RTLD_NOW | RTLD_LOCAL);
    slash = strrchr(self.dli_fname, '/');
    path = verrou__format("%.*s%s", (int)(slash + 1 - self.dli_fname), self.dli_fname, file);
    library = dlopen(path && access(path, F_OK) == 0 ? path : file, RTLD_NOW | RTLD_LOCAL);
    verrou__free(path);
    return library;
}

/* Schemes, without '+' and what follows it, that are served by a library named after another one. */
static const struct {
    const char *scheme;
    const char *library;
} aliases[] = {{"rediss", "redis"}, {"postgresql", "postgres"}, {"mariadb", "mysql"}};

/* The name of the library that serves a scheme, and its length: it need not end there. */
static const char *library_name(const char *scheme, int *ret_length)
{
    size_t length = strcspn(scheme, "+");

    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (strlen(aliases[i].scheme) == length && memcmp(aliases[i].scheme, scheme, length) == 0) {
            *ret_length = (int)strlen(aliases[i].library);
            return aliases[i].library;
        }
    *ret_length = (int)length;
    return scheme;
}

static verrou_status load(const char *scheme, const verrou_driver **ret_driver, verrou_error *err)
{
    const verrou_driver *(*driver_fn)(void) = NULL;
    int length = 0;
    const char *name = library_name(scheme, &length);
    char *file = verrou__format("libverrou-%.*s.so.%d", length, name, VERROU_VERSION_MAJOR);
    char *symbol = verrou__format("verrou_%.*s_driver", length, name);
    void *library = NULL;
    void *address = NULL;
    verrou_status status;

    if (!file || !symbol) {
        status = verrou__nomem(err);
        goto done;
    }
    library = open_library(file);
    if (!library) {
        const char *why = dlerror();

        status = verrou__fail(err, VERROU_ECONFIG,
                              "no store for the scheme \"%s\": %s (was it left out of the build, or not installed?)",
                              scheme, why ? why : file);
        goto done;
    }
    address = dlsym(library, symbol);
    if (address)
        memcpy(&driver_fn, &address, sizeof(driver_fn)); /* ISO C has no cast from data to function pointer */
    if (!driver_fn) {
        status = verrou__fail(err, VERROU_ECONFIG, "no store for the scheme \"%s\": %s has no function %s", scheme,
                              file, symbol);
        goto done;
    }
    status = verrou__driver_check(driver_fn(), err);
    if (status != VERROU_OK)
        goto done;
    *ret_driver = driver_fn();
    library = NULL;
done:
    if (library)
        dlclose(library);
    verrou__free(file);
    verrou__free(symbol);
    return status;
}

verrou_status verrou__driver_find(const char *scheme, const verrou_driver **ret_driver, verrou_error *err)
{
    const verrou_driver *driver;
    verrou_status status = VERROU_OK;

    registry_lock();
    driver = find_locked(scheme);
    if (!driver) {
        status = load(scheme, &driver, err);
        if (status == VERROU_OK)
            status = add_locked(driver, err);
        if (status == VERROU_OK && !serves(driver, scheme))
            status = verrou__fail(err, VERROU_ECONFIG, "no store for the scheme \"%s\"", scheme);
    }
    pthread_mutex_unlock(&mutex);
    if (status == VERROU_OK)
        *ret_driver = driver;
    return status;
}
