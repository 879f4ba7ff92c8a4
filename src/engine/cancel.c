/*
 * cancel.c - cancel tokens: a flag, and the list of calls to complete when it is raised.
 *
 * A call is on the list from the moment it is given away until it is answered, so the list holds no reference. The token is
 * locked after the engine; firing therefore lets go of the token before it enters the engine of a call.
 */
#include "engine/internal.h"

struct verrou_cancel {
    pthread_mutex_t mutex;
    verrou__call *calls;
    uint32_t refs; /* the owner's, and one of each call on the list */
    bool fired;
    _Atomic uint64_t process; /* see verrou__fork_settle() */
};

/* In a child: the calls are the parent's, and so are their references. */
static void cancel_mend_after_fork(void *object)
{
    verrou_cancel *cancel = object;

    pthread_mutex_init(&cancel->mutex, NULL);
    cancel->calls = NULL;
}

static void cancel_lock(verrou_cancel *cancel)
{
    verrou__fork_settle(&cancel->process, cancel_mend_after_fork, cancel);
    pthread_mutex_lock(&cancel->mutex);
}

verrou_status verrou_cancel_new(verrou_cancel **ret_cancel, verrou_error *err)
{
    verrou_cancel *cancel;

    if (!ret_cancel)
        return verrou__fail(err, VERROU_EINVAL, "ret_cancel is NULL");
    cancel = verrou__calloc(sizeof(*cancel));
    if (!cancel)
        return verrou__nomem(err);
    verrou__fork_owner(&cancel->process);
    pthread_mutex_init(&cancel->mutex, NULL);
    cancel->refs = 1;
    *ret_cancel = cancel;
    return VERROU_OK;
}

/* Drops a reference and the mutex. */
static void cancel_unref_locked(verrou_cancel *cancel)
{
    bool last = --cancel->refs == 0;

    pthread_mutex_unlock(&cancel->mutex);
    if (last) {
        pthread_mutex_destroy(&cancel->mutex);
        verrou__free(cancel);
    }
}

void verrou_cancel_free(verrou_cancel *cancel)
{
    if (!cancel)
        return;
    cancel_lock(cancel);
    cancel_unref_locked(cancel);
}

void verrou_cancel_fire(verrou_cancel *cancel)
{
    if (!cancel)
        return;
    cancel_lock(cancel);
    cancel->fired = true;
    cancel->refs++;
    while (cancel->calls) {
        verrou__call *call = cancel->calls;

        call->refs++; /* it cannot go away before it has left the list */
        pthread_mutex_unlock(&cancel->mutex);
        verrou__call_cancel(call);
        cancel_lock(cancel);
    }
    cancel_unref_locked(cancel);
}

bool verrou__cancel_attach(verrou_cancel *cancel, verrou__call *call)
{
    bool fired;

    cancel_lock(cancel);
    fired = cancel->fired;
    if (!fired) {
        call->cancel = cancel;
        call->cancel_prev = NULL;
        call->cancel_next = cancel->calls;
        if (cancel->calls)
            cancel->calls->cancel_prev = call;
        cancel->calls = call;
        cancel->refs++;
    }
    pthread_mutex_unlock(&cancel->mutex);
    return !fired;
}

void verrou__cancel_detach(verrou__call *call)
{
    verrou_cancel *cancel = call->cancel;

    if (!cancel)
        return;
    call->cancel = NULL;
    cancel_lock(cancel);
    if (call->cancel_prev)
        call->cancel_prev->cancel_next = call->cancel_next;
    else
        cancel->calls = call->cancel_next;
    if (call->cancel_next)
        call->cancel_next->cancel_prev = call->cancel_prev;
    cancel_unref_locked(cancel);
}
