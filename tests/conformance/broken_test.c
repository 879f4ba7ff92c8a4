/*
 * broken_test.c - the suite must be able to fail. Stores of five calls over a table in memory, right but for one defect
 * each, have to be found out; the same store without a defect has to pass, so that it is the defect which is found.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>
#include <verrou/conformance.h>

enum { ROWS = 512 };

enum defect {
    NONE,
    RELEASE_BY_ANYBODY, /* release does not look at the owner */
    RELEASE_OF_NOTHING, /* release of a free key says that it was released */
    EXTEND_REVIVES,     /* extend does not look at the expiry */
    EXTEND_BY_ANYBODY,  /* extend does not look at the owner */
    GRANTS_TWICE,       /* save does not look at a live lease */
    REENTERS,           /* save grants the same owner again */
    NEVER_EXPIRES,      /* expiry is ignored */
    KEEPS_OWNER,        /* taking over a lease leaves the former owner in place */
    EXPIRES_EARLY,      /* a lease ends before its time */
    FOREVER_ENDS,       /* a lease without end gets one */
    FOLDS_CASE,         /* keys are compared without regard to case */
    CUTS_KEYS,          /* keys are cut to 200 bytes */
    FORCE_DOES_NOTHING,
    LOOKS_LOCKED, /* exists sees leases that have run out */
    RACES,        /* looks and writes without a lock in between */
    DEFECTS,
};

static const char *const defect_names[DEFECTS] = {
    "none",      "release by anybody", "release of nothing", "extend revives", "extend by anybody", "grants twice",
    "reenters",  "never expires",      "keeps owner",        "expires early",  "forever ends",      "folds case",
    "cuts keys", "force does nothing", "looks locked",       "races",
};

struct row {
    bool used;
    char key[VERROU_MAX_KEY + 1];
    char owner[VERROU_MAX_OWNER + 1];
    int64_t end_ms;
};

static struct row rows[ROWS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static enum defect defect;

static bool same_key(const char *a, const char *b)
{
    if (defect == FOLDS_CASE)
        return strcasecmp(a, b) == 0;
    if (defect == CUTS_KEYS)
        return strncmp(a, b, 200) == 0;
    return strcmp(a, b) == 0;
}

static struct row *find(const char *key)
{
    for (int at = 0; at < ROWS; at++)
        if (rows[at].used && same_key(rows[at].key, key))
            return &rows[at];
    return NULL;
}

static bool live(const struct row *row)
{
    return row && (defect == NEVER_EXPIRES || row->end_ms > verrou_now_ms());
}

static int64_t end_of(int64_t ttl_ms)
{
    if (ttl_ms == VERROU_FOREVER)
        return defect == FOREVER_ENDS ? verrou_now_ms() + 50 : VERROU_FOREVER;
    /* verrou_now_ms() is the clock of the local view, so nothing has to be rounded. */
    return verrou_now_ms() + (defect == EXPIRES_EARLY ? ttl_ms / 2 : ttl_ms);
}

static verrou_status row_fill(struct row *row, const char *key, const char *owner, int64_t ttl_ms)
{
    bool taken_over = row != NULL;

    for (int at = 0; at < ROWS && !row; at++)
        if (!rows[at].used)
            row = &rows[at];
    if (!row)
        return VERROU_ESTORAGE;
    row->used = true;
    row->end_ms = end_of(ttl_ms);
    snprintf(row->key, sizeof row->key, "%s", key);
    if (defect != KEEPS_OWNER || !taken_over)
        snprintf(row->owner, sizeof row->owner, "%s", owner);
    return VERROU_OK;
}

static verrou_status save(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err)
{
    verrou_status status = VERROU_ENOTACQUIRED;
    struct row *row;
    bool held;

    (void)user, (void)err;
    pthread_mutex_lock(&mutex);
    row = find(key);
    held = live(row) && defect != GRANTS_TWICE && !(defect == REENTERS && strcmp(row->owner, owner) == 0);
    if (defect == RACES) {
        pthread_mutex_unlock(&mutex);
        usleep(300);
        pthread_mutex_lock(&mutex);
    }
    if (!held)
        status = row_fill(row, key, owner, ttl_ms);
    pthread_mutex_unlock(&mutex);
    return status;
}

static verrou_status release(void *user, const char *key, const char *owner, verrou_error *err)
{
    verrou_status status = VERROU_ENOTOWNED;
    struct row *row;

    (void)user, (void)err;
    pthread_mutex_lock(&mutex);
    row = find(key);
    if (live(row) && (defect == RELEASE_BY_ANYBODY || strcmp(row->owner, owner) == 0)) {
        row->used = false;
        status = VERROU_OK;
    }
    if (!row && defect == RELEASE_OF_NOTHING)
        status = VERROU_OK;
    pthread_mutex_unlock(&mutex);
    return status;
}

static verrou_status force(void *user, const char *key, verrou_error *err)
{
    struct row *row;

    (void)user, (void)err;
    pthread_mutex_lock(&mutex);
    row = find(key);
    if (row && defect != FORCE_DOES_NOTHING)
        row->used = false;
    pthread_mutex_unlock(&mutex);
    return VERROU_OK;
}

static verrou_status exists(void *user, const char *key, int *ret_exists, verrou_error *err)
{
    struct row *row;

    (void)user, (void)err;
    pthread_mutex_lock(&mutex);
    row = find(key);
    *ret_exists = defect == LOOKS_LOCKED ? row != NULL : live(row);
    pthread_mutex_unlock(&mutex);
    return VERROU_OK;
}

static verrou_status extend(void *user, const char *key, const char *owner, int64_t ttl_ms, verrou_error *err)
{
    verrou_status status = VERROU_ENOTOWNED;
    struct row *row;

    (void)user, (void)err;
    pthread_mutex_lock(&mutex);
    row = find(key);
    if (row && (live(row) || defect == EXTEND_REVIVES) &&
        (defect == EXTEND_BY_ANYBODY || strcmp(row->owner, owner) == 0)) {
        row->end_ms = end_of(ttl_ms);
        status = VERROU_OK;
    }
    pthread_mutex_unlock(&mutex);
    return status;
}

static const verrou_lock_store five = {
    .version = VERROU_STORE_VERSION,
    .save = save,
    .remove = release,
    .force_remove = force,
    .exists = exists,
    .extend = extend,
};

static verrou_status open_five(void *user, verrou_store **ret_store, verrou_error *err)
{
    (void)user;
    return verrou_store_from_lock_store(&five, NULL, NULL, NULL, ret_store, err);
}

/* Run the suite on a store with this defect. */
static int failures(enum defect which)
{
    verrou_conformance suite = {sizeof suite, defect_names[which], open_five, NULL, 0};

    defect = which;
    return verrou_conformance_run(&suite);
}

/* In a child that says nothing, since its failures are what we want. It is ended if a defect keeps it from ending. */
static pid_t try_defect(enum defect which)
{
    pid_t child;
    int nowhere;

    fflush(NULL);
    child = fork();
    if (child != 0)
        return child;

    nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    alarm(280);
    _exit(failures(which) > 0 ? 42 : 0);
}

static bool found_out(pid_t child)
{
    int status = 0;

    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42;
}

/* All at once: broken stores keep the suite waiting, and waiting costs nothing. With the name of a defect: that one, to look at. */
int main(int argc, char **argv)
{
    pid_t children[DEFECTS];
    int missed = 0;

    for (enum defect which = NONE; which < DEFECTS && argc > 1; which++)
        if (strcmp(argv[1], defect_names[which]) == 0)
            return failures(which) > 0 ? 1 : 0;

    for (enum defect which = NONE + 1; which < DEFECTS; which++)
        children[which] = try_defect(which);
    for (enum defect which = NONE + 1; which < DEFECTS; which++) {
        bool found = found_out(children[which]);

        printf("%s: %s\n", defect_names[which], found ? "found" : "MISSED");
        missed += !found;
    }
    if (failures(NONE) != 0) {
        printf("a store without a defect fails\n");
        missed++;
    }
    return missed == 0 ? 0 : 1;
}
