/*
 * watch.c - being told of releases: a subscription connection, in a cluster one to each node.
 *
 * The channel of a lock has the name of its key. Where the server sends keyspace events, those of the key are subscribed too: they tell of
 * releases by programs that publish nothing. Everything but opening runs on the keeper thread and must not block: what cannot be written
 * at once waits for the descriptor, which is one of epoll(7) or kqueue(2) and so stands for several sockets and for writing too.
 *
 * Which keys this process listens to is kept with the state: whoever releases a lock wants to know how many of the listeners are others.
 */
#include "redis_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#include <sys/timerfd.h>
#else
#include <sys/event.h>
#endif

#define RENEW_AFTER_MS 500 /* a subscription without a node for some slot is opened anew, but not more often */

typedef struct redis_watch {
    redis_state *state;
    redis_connection *nodes[REDIS_MAX_NODES];
    bool writing[REDIS_MAX_NODES]; /* asked to be woken for writing */
    size_t node_count;
    uint8_t *slots;
    int fd;
    int timer_fd;    /* Linux: -1 unless incomplete */
    bool incomplete; /* some key could not be subscribed to */
    int64_t renew_ms;
    bool keyspace;
    unsigned round; /* of reading */
} redis_watch;

typedef struct redis_channel {
    struct table_node node; /* node.key is `key` */
    bool confirmed;
    unsigned told; /* in this round its release was reported, ... */
    verrou_watch_event told_as;
    char key[];
} redis_channel;

/* ---- the channels ---- */

static uint32_t channel_hash(const redis_state *state, const char *key, size_t len)
{
    return table_hash(key, len, state->seed);
}

/* With the mutex held. */
static redis_channel *channel_find(redis_state *state, const char *key, size_t len)
{
    return (redis_channel *)table_find(&state->channels, key, len, channel_hash(state, key, len));
}

static bool channel_add(redis_state *state, const char *key, size_t len)
{
    redis_channel *channel;
    bool added = false;

    pthread_mutex_lock(&state->mutex);
    channel = channel_find(state, key, len);
    if (!channel) {
        channel = state->host->malloc(sizeof *channel + len + 1);
        if (channel) {
            memset(channel, 0, sizeof *channel);
            memcpy(channel->key, key, len);
            channel->key[len] = '\0';
            channel->node.key = channel->key;
            channel->node.key_len = (uint32_t)len;
            channel->node.hash = channel_hash(state, key, len);
            table_add(&state->channels, &channel->node, state->host->malloc, state->host->free);
        }
    }
    added = channel != NULL;
    pthread_mutex_unlock(&state->mutex);
    return added;
}

static void channel_remove(redis_state *state, const char *key, size_t len)
{
    redis_channel *channel;

    pthread_mutex_lock(&state->mutex);
    channel = channel_find(state, key, len);
    if (channel)
        table_remove(&state->channels, &channel->node);
    pthread_mutex_unlock(&state->mutex);
    state->host->free(channel);
}

static void channels_clear(redis_state *state)
{
    pthread_mutex_lock(&state->mutex);
    TABLE_EACH(&state->channels, bucket, node, following)
    {
        table_remove(&state->channels, node);
        state->host->free(node);
    }
    pthread_mutex_unlock(&state->mutex);
}

bool verrou__redis_is_watched(redis_state *state, const char *key, size_t key_len)
{
    const redis_channel *channel;
    bool watched;

    pthread_mutex_lock(&state->mutex);
    channel = channel_find(state, key, key_len);
    watched = channel && channel->confirmed;
    pthread_mutex_unlock(&state->mutex);
    return watched;
}

/* ---- the descriptor ---- */

static int poller_new(void)
{
#ifdef __linux__
    return epoll_create1(EPOLL_CLOEXEC);
#else
    int fd = kqueue();

    if (fd >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
#endif
}

/* Watch a socket for reading, and for writing too if `writing`. */
static bool poller_set(int poller, int fd, bool is_new, bool writing)
{
#ifdef __linux__
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0u)};

    return epoll_ctl(poller, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) == 0;
#else
    struct kevent changes[2];

    (void)is_new;
    EV_SET(&changes[0], fd, EVFILT_READ, EV_ADD, 0, 0, NULL);
    EV_SET(&changes[1], fd, EVFILT_WRITE, EV_ADD | (writing ? EV_ENABLE : EV_DISABLE), 0, 0, NULL);
    return kevent(poller, changes, 2, NULL, 0, NULL) == 0;
#endif
}

/*
 * The node of a key cannot be reached, or the slot has just moved: its waiters ask again and again until the nodes have been looked for
 * anew. The other keys stay subscribed until then, and then is not at once: a node may be away for long.
 */
static bool watch_renew_later(redis_watch *watch, redis_fault *fault)
{
    bool armed;

    if (watch->incomplete)
        return true;
#ifdef __linux__
    struct itimerspec after = {.it_value = {0, RENEW_AFTER_MS * 1000000L}};
    struct epoll_event event = {.events = EPOLLIN};

    watch->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    armed = watch->timer_fd >= 0 && timerfd_settime(watch->timer_fd, 0, &after, NULL) == 0 &&
            epoll_ctl(watch->fd, EPOLL_CTL_ADD, watch->timer_fd, &event) == 0;
#else
    struct kevent change;

    EV_SET(&change, 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, RENEW_AFTER_MS, NULL);
    armed = kevent(watch->fd, &change, 1, NULL, 0, NULL) == 0;
#endif
    watch->incomplete = armed;
    watch->renew_ms = watch->state->host->now_ms() + RENEW_AFTER_MS;
    if (!armed)
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "the subscription cannot be renewed later: %s",
                                strerror(errno));
    return armed;
}

static bool watch_flush(redis_watch *watch, size_t node, redis_fault *fault)
{
    redis_connection *connection = watch->nodes[node];
    bool writing;

    if (!verrou__redis_flush_some(connection, fault))
        return false;
    writing = connection->out_len > 0 && !verrou__redis_stream_wants_read(&connection->stream);
    if (writing == watch->writing[node])
        return true;
    watch->writing[node] = writing;
    if (poller_set(watch->fd, connection->stream.fd, false, writing))
        return true;
    verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "the subscription cannot be waited for: %s",
                            strerror(errno));
    return false;
}

/* ---- opening and closing ---- */

/* May we hear of keys under the prefix? Subscribes to a key that there is not: the counter's own would tell of each acquisition. */
static bool may_hear_events(redis_connection *connection, int64_t deadline_ms)
{
    const redis_state *state = connection->state;
    char channel[VERROU_MAX_KEY + 64];
    redis_fault fault;
    redisReply *reply;
    bool may;

    snprintf(channel, sizeof channel, "__keyspace@%d__:%s.", state->db, state->counter);
    reply = verrou__redis_ask(connection, deadline_ms, &fault, "SUBSCRIBE", channel);
    may = reply != NULL;
    freeReplyObject(reply);
    return may;
}

bool verrou__redis_tells_of_releases(const char *flags)
{
    return strchr(flags, 'K') && (strchr(flags, 'A') || strchr(flags, 'g'));
}

/* Does the server tell of deleted keys? Only an administrator may ask, so that an error means no. */
static bool sends_keyspace_events(redis_connection *connection, int64_t deadline_ms)
{
    redis_fault fault;
    redisReply *reply = verrou__redis_ask(connection, deadline_ms, &fault, "CONFIG", "GET", "notify-keyspace-events");
    bool sends = false;

    if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[1]->type == REDIS_REPLY_STRING)
        sends = verrou__redis_tells_of_releases(reply->element[1]->str);
    freeReplyObject(reply);
    return sends && may_hear_events(connection, deadline_ms);
}

static bool watch_connect(redis_watch *watch, int64_t deadline_ms, redis_fault *fault)
{
    redis_state *state = watch->state;

    if (state->topology == REDIS_CLUSTER) {
        if (!verrou__redis_connect_cluster(state, REDIS_FOR_WATCH, deadline_ms, watch->nodes, &watch->node_count,
                                           watch->slots, fault))
            return false;
    } else {
        watch->nodes[0] = verrou__redis_connect_master(state, REDIS_FOR_WATCH, deadline_ms, fault);
        if (!watch->nodes[0])
            return false;
        watch->node_count = 1;
    }
    watch->keyspace = sends_keyspace_events(watch->nodes[0], deadline_ms);
    for (size_t i = 0; i < watch->node_count; i++) {
        if (watch->nodes[i]->broken || !poller_set(watch->fd, watch->nodes[i]->stream.fd, true, false)) {
            verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "the subscription cannot be waited for");
            return false;
        }
    }
    return true;
}

verrou_status verrou__redis_watch_open(void *context, int64_t deadline_ms, void **ret_watch, verrou_error *err)
{
    redis_state *state = context;
    const verrou_host *host = state->host;
    redis_watch *watch;
    redis_fault fault;
    bool refused;

    pthread_mutex_lock(&state->mutex);
    refused = state->watch_refused;
    pthread_mutex_unlock(&state->mutex);
    if (refused)
        return host->fail(err, VERROU_ENOTSUP, 0, NULL, "redis: no right to subscribe");
    watch = host->malloc(sizeof *watch + REDIS_SLOTS);
    if (!watch)
        return host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    memset(watch, 0, sizeof *watch);
    watch->state = state;
    watch->slots = (uint8_t *)(watch + 1);
    watch->timer_fd = -1;
    watch->fd = poller_new();
    verrou__redis_fault_set(&fault, VERROU_OP_RETRY, true, NULL, "no descriptor for the subscription");
    if (watch->fd < 0 || !watch_connect(watch, deadline_ms, &fault)) {
        verrou__redis_watch_close(state, watch);
        return verrou__redis_fail(state, &fault, err);
    }
    *ret_watch = watch;
    return VERROU_OK;
}

void verrou__redis_watch_close(void *context, void *opened)
{
    redis_state *state = context;
    redis_watch *watch = opened;

    channels_clear(state);
    for (size_t i = 0; i < watch->node_count; i++)
        verrou__redis_disconnect(watch->nodes[i]);
    if (watch->fd >= 0)
        close(watch->fd);
    if (watch->timer_fd >= 0)
        close(watch->timer_fd);
    state->host->free(watch);
}

int verrou__redis_watch_fd(void *context, void *opened)
{
    (void)context;
    return ((const redis_watch *)opened)->fd;
}

/* ---- keys ---- */

static bool append_two(redis_connection *connection, const char *verb, const char *name, size_t name_len)
{
    const char *argv[] = {verb, name};
    const size_t lens[] = {strlen(verb), name_len};

    return verrou__redis_append(connection, 2, argv, lens);
}

static verrou_status watch_say(redis_watch *watch, const char *key, size_t key_len, bool add, verrou_error *err)
{
    char event[VERROU_MAX_KEY + 64];
    size_t node = watch->state->topology == REDIS_CLUSTER ? watch->slots[verrou__redis_slot(key, key_len)] : 0;
    const char *sharded = add ? "SSUBSCRIBE" : "SUNSUBSCRIBE";
    const char *verb = add ? "SUBSCRIBE" : "UNSUBSCRIBE";
    int event_len;
    redis_fault fault;

    if (key_len > VERROU_MAX_KEY) /* the engine watches no such keys */
        return VERROU_OK;
    event_len = snprintf(event, sizeof event, "__keyspace@%d__:%.*s", watch->state->db, (int)key_len, key);
    if (node >= watch->node_count) {
        if (!add || watch_renew_later(watch, &fault))
            return VERROU_OK;
        return verrou__redis_fail(watch->state, &fault, err);
    }
    verrou__redis_fault_set(&fault, VERROU_OP_RETRY, true, NULL, "out of memory");
    if ((watch->keyspace && !append_two(watch->nodes[node], verb, event, (size_t)event_len)) ||
        !append_two(watch->nodes[node], verrou__redis_is_sharded(watch->nodes[node]) ? sharded : verb, key, key_len) ||
        !watch_flush(watch, node, &fault))
        return verrou__redis_fail(watch->state, &fault, err);
    return VERROU_OK;
}

verrou_status verrou__redis_watch_add(void *context, void *opened, const char *key, size_t key_len, verrou_error *err)
{
    redis_state *state = context;

    if (!channel_add(state, key, key_len))
        return state->host->fail(err, VERROU_ENOMEM, 1, NULL, "out of memory");
    return watch_say(opened, key, key_len, true, err);
}

verrou_status verrou__redis_watch_remove(void *context, void *opened, const char *key, size_t key_len,
                                         verrou_error *err)
{
    channel_remove(context, key, key_len);
    return watch_say(opened, key, key_len, false, err);
}

/* ---- messages ---- */

typedef struct listener {
    redis_watch *watch;
    verrou_watch_fn report;
    void *context;
} listener;

/*
 * From now on messages for this key arrive, or no longer. A key that was removed and added again is confirmed twice, and what was sent
 * between the two is missed: each time counts.
 */
static void on_subscribed(const listener *to, const char *key, size_t len, bool subscribed)
{
    redis_state *state = to->watch->state;
    redis_channel *channel;

    pthread_mutex_lock(&state->mutex);
    channel = channel_find(state, key, len);
    if (channel)
        channel->confirmed = subscribed;
    pthread_mutex_unlock(&state->mutex);
    if (channel && subscribed)
        to->report(to->context, VERROU_WATCH_ACTIVE, key, len);
}

/* A release that comes as a message and as an event is reported once, but that it was another's is not kept back. */
static void on_free(const listener *to, verrou_watch_event event, const char *key, size_t len)
{
    redis_state *state = to->watch->state;
    redis_channel *channel;
    bool news;

    pthread_mutex_lock(&state->mutex);
    channel = channel_find(state, key, len);
    news =
        channel && (channel->told != to->watch->round || (event != channel->told_as && event == VERROU_WATCH_RELEASED));
    if (news) {
        channel->told = to->watch->round;
        channel->told_as = event;
    }
    pthread_mutex_unlock(&state->mutex);
    if (news)
        to->report(to->context, event, key, len);
}

static void on_event(const listener *to, const redisReply *channel, const redisReply *event)
{
    static const char *const freeing[] = {"del", "expired", "evicted", "rename_from", "move_from"};
    const char *key = strstr(channel->str, "__:");

    if (!key)
        return;
    key += 3;
    for (size_t i = 0; i < sizeof freeing / sizeof freeing[0]; i++)
        if (strcmp(event->str, freeing[i]) == 0)
            on_free(to, VERROU_WATCH_FREE, key, (size_t)(channel->str + channel->len - key));
}

/* The server ends a sharded subscription when the slot leaves it. (Before it is confirmed, this is the answer to an earlier wish of ours.) */
static bool still_wanted(redis_state *state, const redisReply *channel)
{
    const redis_channel *found;
    bool wanted;

    pthread_mutex_lock(&state->mutex);
    found = channel_find(state, channel->str, (size_t)channel->len);
    wanted = found && found->confirmed;
    pthread_mutex_unlock(&state->mutex);
    return wanted;
}

static void on_refused(redis_state *state)
{
    pthread_mutex_lock(&state->mutex);
    state->watch_refused = true;
    pthread_mutex_unlock(&state->mutex);
    atomic_fetch_and(&state->caps, ~VERROU_CAP_PUSH);
    state->host->log(state->log_context, VERROU_WARN, "store.subscribe_refused", NULL,
                     "no right to subscribe to the channels of the locks: waiters ask again and again");
}

static bool on_message(const listener *to, const redisReply *reply, const redis_connection *from, redis_fault *fault)
{
    static const char keyspace[] = "__keyspace@";
    const redisReply *kind, *channel, *payload;

    if (reply->type == REDIS_REPLY_ERROR) {
        if (verrou__redis_is_error(reply, "MOVED") || verrou__redis_is_error(reply, "CLUSTERDOWN"))
            return watch_renew_later(to->watch, fault);
        if (verrou__redis_is_error(reply, "NOPERM"))
            on_refused(to->watch->state);
        verrou__redis_explain(from, reply, fault);
        return false;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 3)
        return true;
    kind = reply->element[0];
    channel = reply->element[1];
    payload = reply->element[2];
    if (kind->type != REDIS_REPLY_STRING || channel->type != REDIS_REPLY_STRING)
        return true;
    if (strcmp(kind->str, "subscribe") == 0 || strcmp(kind->str, "ssubscribe") == 0) {
        on_subscribed(to, channel->str, (size_t)channel->len, true);
    } else if (strcmp(kind->str, "unsubscribe") == 0) {
        on_subscribed(to, channel->str, (size_t)channel->len, false);
    } else if (strcmp(kind->str, "message") == 0 || strcmp(kind->str, "smessage") == 0) {
        if (to->watch->keyspace && strncmp(channel->str, keyspace, sizeof keyspace - 1) == 0 &&
            payload->type == REDIS_REPLY_STRING)
            on_event(to, channel, payload);
        else if (payload->type != REDIS_REPLY_STRING || strcmp(payload->str, to->watch->state->id) != 0)
            on_free(to, VERROU_WATCH_RELEASED, channel->str, (size_t)channel->len);
    } else if (strcmp(kind->str, "sunsubscribe") == 0 && still_wanted(to->watch->state, channel)) {
        verrou__redis_fault_set(fault, VERROU_OP_RETRY, true, NULL, "a slot has moved to another node");
        return false;
    }
    return true;
}

static bool read_node(const listener *to, size_t node, redis_fault *fault)
{
    redis_connection *connection = to->watch->nodes[node];
    unsigned reads = connection->reads;
    redisReply *reply = NULL;

    while (verrou__redis_reply_now(connection, 0, &reply, fault)) {
        bool understood;

        if (!reply)
            return watch_flush(to->watch, node, fault);
        /* What came after a report may tell of a release after what the report led to. */
        if (connection->reads != reads)
            to->watch->round++;
        reads = connection->reads;
        understood = on_message(to, reply, connection, fault);
        freeReplyObject(reply);
        if (!understood)
            return false;
    }
    return false;
}

verrou_status verrou__redis_watch_read(void *store, void *opened, verrou_watch_fn report, void *report_context,
                                       verrou_error *err)
{
    const redis_state *state = store;
    redis_watch *watch = opened;
    listener to = {watch, report, report_context};
    redis_fault fault;

    if (watch->incomplete && state->host->now_ms() >= watch->renew_ms) {
        verrou__redis_fault_set(&fault, VERROU_OP_RETRY, true, NULL, "not all nodes were known or could be reached");
        return verrou__redis_fail(state, &fault, err);
    }
    watch->round++;
    for (size_t i = 0; i < watch->node_count; i++)
        if (!read_node(&to, i, &fault))
            return verrou__redis_fail(state, &fault, err);
    return VERROU_OK;
}
