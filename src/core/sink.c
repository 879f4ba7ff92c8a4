/*
 * sink.c - see sink.h. One growing array of fixed-size records for locks and findings, one growing text for schemas.
 */
#include "core/sink.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct finding {
    verrou_level level;
    char *subject;
    char *text;
};

struct verrou_sink {
    size_t prefix_len;
    verrou_listed *locks;
    size_t lock_count, lock_room;
    struct finding *findings;
    size_t finding_count, finding_room;
    char *text;
    size_t text_len;
};

struct verrou_sink *verrou__sink_new(size_t prefix_len)
{
    struct verrou_sink *sink = verrou__calloc(sizeof(*sink));

    if (sink)
        sink->prefix_len = prefix_len;
    return sink;
}

void verrou__sink_reset(struct verrou_sink *sink)
{
    for (size_t i = 0; i < sink->lock_count; i++)
        verrou__free((char *)sink->locks[i].key);
    for (size_t i = 0; i < sink->finding_count; i++) {
        verrou__free(sink->findings[i].subject);
        verrou__free(sink->findings[i].text);
    }
    verrou__free(sink->text);
    sink->lock_count = sink->finding_count = sink->text_len = 0;
    sink->text = NULL;
}

void verrou__sink_free(struct verrou_sink *sink)
{
    if (!sink)
        return;
    verrou__sink_reset(sink);
    verrou__free(sink->locks);
    verrou__free(sink->findings);
    verrou__free(sink);
}

/* Make room for one more element of `size` bytes. */
static int make_room(void **array, size_t *room, size_t count, size_t size)
{
    size_t wider = *room ? *room * 2 : 16;
    void *grown;

    if (count < *room)
        return 0;
    grown = verrou__realloc(*array, wider * size);
    if (!grown)
        return -1;
    *array = grown;
    *room = wider;
    return 0;
}

int verrou__sink_list_add(struct verrou_sink *sink, const char *key, size_t key_len, const char *owner,
                          size_t owner_len, int64_t remaining_ms, uint64_t fence)
{
    verrou_listed *lock;
    char *copy;

    if (key_len < sink->prefix_len)
        return 0;
    if (make_room((void **)&sink->locks, &sink->lock_room, sink->lock_count, sizeof(*sink->locks)) < 0)
        return -1;
    copy = verrou__malloc(key_len - sink->prefix_len + 1);
    if (!copy)
        return -1;
    memcpy(copy, key + sink->prefix_len, key_len - sink->prefix_len);
    copy[key_len - sink->prefix_len] = '\0';
    if (owner_len > VERROU_MAX_OWNER)
        owner_len = VERROU_MAX_OWNER;
    lock = &sink->locks[sink->lock_count++];
    *lock = (verrou_listed){copy, VERROU_INFO_INIT};
    lock->info.locked = 1;
    lock->info.remaining_ms = remaining_ms;
    lock->info.fence = fence;
    memcpy(lock->info.owner, owner, owner_len);
    return 0;
}

static char *format_text(const char *format, va_list args)
{
    va_list again;
    int length;
    char *text;

    va_copy(again, args);
    length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0)
        return NULL;
    text = verrou__malloc((size_t)length + 1);
    if (text)
        vsnprintf(text, (size_t)length + 1, format, args);
    return text;
}

int verrou__sink_finding(struct verrou_sink *sink, verrou_level level, const char *subject, const char *format, ...)
{
    struct finding finding = {level, NULL, NULL};
    va_list args;

    if (make_room((void **)&sink->findings, &sink->finding_room, sink->finding_count, sizeof(*sink->findings)) < 0)
        return -1;
    va_start(args, format);
    finding.text = format_text(format, args);
    va_end(args);
    finding.subject = verrou__strdup(subject);
    if (!finding.text || !finding.subject) {
        verrou__free(finding.text);
        verrou__free(finding.subject);
        return -1;
    }
    sink->findings[sink->finding_count++] = finding;
    return 0;
}

bool verrou__sink_has_finding(const struct verrou_sink *sink, const char *subject)
{
    for (size_t i = 0; i < sink->finding_count; i++)
        if (strcmp(sink->findings[i].subject, subject) == 0)
            return true;
    return false;
}

int verrou__sink_text_add(struct verrou_sink *sink, const char *format, ...)
{
    va_list args;
    char *more;
    char *grown;
    size_t more_len;

    va_start(args, format);
    more = format_text(format, args);
    va_end(args);
    if (!more)
        return -1;
    more_len = strlen(more);
    grown = verrou__realloc(sink->text, sink->text_len + more_len + 1);
    if (grown) {
        memcpy(grown + sink->text_len, more, more_len + 1);
        sink->text = grown;
        sink->text_len += more_len;
    }
    verrou__free(more);
    return grown ? 0 : -1;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const verrou_listed *)a)->key, ((const verrou_listed *)b)->key);
}

/* Of several with one key the first stays. */
static void drop_repeated(struct verrou_sink *sink)
{
    size_t kept = 0;

    for (size_t i = 0; i < sink->lock_count; i++) {
        if (kept > 0 && by_key(&sink->locks[kept - 1], &sink->locks[i]) == 0)
            verrou__free((char *)sink->locks[i].key);
        else
            sink->locks[kept++] = sink->locks[i];
    }
    sink->lock_count = kept;
}

const verrou_listed *verrou__sink_locks(struct verrou_sink *sink, size_t *ret_count)
{
    if (sink->lock_count > 1)
        qsort(sink->locks, sink->lock_count, sizeof(*sink->locks), by_key);
    drop_repeated(sink);
    *ret_count = sink->lock_count;
    return sink->locks;
}

void verrou__sink_each_finding(struct verrou_sink *sink, verrou_check_fn each, void *user)
{
    for (size_t i = 0; i < sink->finding_count; i++)
        each(user, sink->findings[i].level, sink->findings[i].subject, sink->findings[i].text);
}

char *verrou__sink_take_text(struct verrou_sink *sink)
{
    char *text = sink->text ? sink->text : verrou__strdup("");

    sink->text = NULL;
    sink->text_len = 0;
    return text;
}
