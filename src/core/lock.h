/*
 * lock.h - a lock handle, shared by lock.c, acquire.c and release.c (the public calls) and lease.c (what is known of the lease, and keeping it alive).
 *
 * Lock order: the engine's mutex, then the handle's. The handle's guards the lease; what concerns timers and those who wait for a
 * loss (struct keeping) is guarded by the engine's.
 */
#ifndef VERROU_LOCK_H
#define VERROU_LOCK_H

#include <pthread.h>

#include "core/store.h"

enum lease_state {
    LEASE_NONE,      /* never acquired, or released */
    LEASE_HELD,      /* live until expires_ms */
    LEASE_LOST,      /* ran out, or was given to somebody else */
    LEASE_RELEASING, /* a release was sent and not answered */
    LEASE_FOREIGN,   /* taken by the parent process */
};

/* Only of handles that are kept alive or whose loss somebody waits for. */
struct keeping {
    verrou__timer timer;
    verrou_lock *lock;
    verrou__call *waiters; /* linked by wait_next and wait_prev */
    int64_t max_hold_ms;
    int64_t hold_until_ms;
    int64_t retry_at_ms; /* after a failed renewal */
    bool keep_alive;
    bool renewing;
    bool releasing; /* no renewal behind a release */
};

struct verrou_lock {
    atomic_uint refs;
    uint8_t state; /* enum lease_state */
    bool owner_is_fixed;
    atomic_bool next_is_parents; /* next_owner was drawn before a fork: the parent will use it */
    verrou_store *store;
    _Atomic uint64_t process; /* see verrou__fork_settle() */
    pthread_mutex_t mutex;
    _Atomic(struct keeping *) keeping;
    char *text;            /* the fixed owner, or the label, or NULL */
    verrou__series series; /* renewals, extends and releases of the lease */
    verrou__owner_id next_owner;
    verrou__owner_id lease_owner;
    uint32_t lease; /* counts the acquisitions */
    uint64_t fence;
    int64_t expires_ms;
    int64_t ttl_ms;
    int64_t attempts;
    int64_t delay_ms;
    int64_t timeout_ms;
    uint16_t key_len; /* with the prefix */
    uint16_t prefix_len;
    char key[]; /* with the prefix */
};

void verrou__lock_ref(verrou_lock *lock);
void verrou__lock_unref(verrou_lock *lock);

/* The owner as text; returns its length. */
size_t verrou__lock_owner_text(const verrou_lock *lock, const verrou__owner_id *id, char out[VERROU_MAX_OWNER + 1]);

/* The first that is not VERROU_DEFAULT. */
int64_t verrou__lock_choose(int64_t first, int64_t second, int64_t third);
/* VERROU_EINVAL, naming what is out of range. */
verrou_status verrou__lock_check_range(const char *what, int64_t value, int64_t min, bool forever_ok,
                                       verrou_error *err);
verrou_status verrou__lock_check_retry(int64_t attempts, int64_t delay_ms, int64_t timeout_ms, verrou_error *err);
verrou_status verrou__lock_check_async(const verrou_lock *lock, const verrou_queue *queue, verrou_done_fn done,
                                       verrou_error *err);
/* See that the owner drawn ahead is this process's own, and not one that the parent will use. */
verrou_status verrou__lock_own_next_owner(verrou_lock *lock, verrou_error *err);

/* ---- lease.c ---- */

/* After a fork: the lease is the parent's. */
void verrou__lease_mend_after_fork(void *lock);

/* What is known of the lease at one moment. */
struct lease_view {
    enum lease_state noted; /* what the handle was told last */
    enum lease_state state; /* the same, but LEASE_LOST for a held lease whose time is over */
    uint32_t lease;
    uint64_t fence;
    int64_t expires_ms;
    verrou__owner_id owner; /* the lease's; for LEASE_NONE that of the next acquisition */
    bool ever;              /* there has been a lease */
};
void verrou__lease_look(verrou_lock *lock, struct lease_view *ret);
void verrou__lease_look_at(verrou_lock *lock, int64_t now_ms, struct lease_view *ret);

/* Note what happened. With the engine's mutex held, or for handles without `keeping`. */
void verrou__lease_begun(verrou_lock *lock, verrou__engine *engine, const verrou__owner_id *owner, uint64_t fence,
                         int64_t expires_ms);
void verrou__lease_over(verrou_lock *lock, verrou__engine *engine, uint32_t lease, enum lease_state state);

/* The same after an inline call, without the engine's mutex. */
void verrou__lease_begun_inline(verrou_lock *lock, verrou__engine *engine, const verrou__owner_id *owner,
                                uint64_t fence, int64_t expires_ms);
void verrou__lease_over_inline(verrou_lock *lock, verrou__engine *engine, uint32_t lease);

/* Hooks of calls whose subject is a lock. */
void verrou__lease_acquire_hook(verrou__call *call);
void verrou__lease_release_started(verrou__call *call);
void verrou__lease_release_hook(verrou__call *call);
void verrou__lease_extend_started(verrou__call *call);
void verrou__lease_extend_hook(verrou__call *call);
void verrou__lease_inspect_hook(verrou__call *call);
void verrou__lease_wait_started(verrou__call *call);
void verrou__lease_wait_hook(verrou__call *call);

/* Allocate `keeping` if there is none. VERROU_ENOMEM. */
verrou_status verrou__lease_need_keeping(verrou_lock *lock, verrou_error *err);
void verrou__lease_start_keeping(verrou_lock *lock,
                                 verrou__engine *engine); /* without the mutex: restored and kept alive */
void verrou__lease_stop_keeping(verrou_lock *lock);       /* no more renewals: the handle is being freed */
void verrou__lease_free_keeping(verrou_lock *lock);

/* A call on the lease that `view` shows: owner and series filled in, a reference to the lock taken. NULL when out of memory. */
verrou__call *verrou__lease_call(verrou_lock *lock, verrou__engine *engine, verrou__call_kind kind,
                                 const struct lease_view *view);

#endif
