/*
 * peer.h - the original as a process of its own (node/peer.mjs), driven from a test by lines of JSON.
 *
 * Calls are named as in peer.mjs. Their arguments are packed by jansson's json_pack(): peer_ask(p, "create", "{s:s,s:s}", "lock", "a",
 * "key", "k"). A peer that says nothing for PROCESS_PATIENCE_MS while the test waits for it makes the test fail.
 */
#ifndef VERROU_TESTS_INTEROP_PEER_H
#define VERROU_TESTS_INTEROP_PEER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct peer peer;

/* Start the original on a store at an address, both as stores.mjs calls them. */
peer *peer_start(const char *store, const char *address);
/* End its input and wait for its end, which must be a clean one. */
void peer_stop(peer *p);
/* For a teardown: end those that a failed test left behind. */
void peer_stop_all(void);
pid_t peer_pid(const peer *p);

/* Send a call and do not wait: its number. `format` and the rest make an object of arguments. */
int peer_send(peer *p, const char *call, const char *format, ...);
/* Wait for the answer to that call: the value, to be freed with json_decref(); an error makes the test fail. */
json_t *peer_answer(peer *p, int id);

/* Send a call and wait for it: its value as it is, as a truth, as a whole number, or as nothing; and its error's code (the process keeps it). */
json_t *peer_ask(peer *p, const char *call, const char *format, ...);
bool peer_true(peer *p, const char *call, const char *lock);
int64_t peer_number(peer *p, const char *call, const char *lock);
char *peer_text(peer *p, const char *call, const char *lock); /* free() it */
void peer_do(peer *p, const char *call, const char *lock);
const char *peer_error(peer *p, const char *call, const char *lock);

/* Whether a call that was sent is answered by now. */
bool peer_answered(peer *p, int id);

/* Wait until one more acquisition was refused to it, whatever the key. Refusals before peer_forget_refusals() do not count. */
void peer_wait_refused(peer *p);
void peer_forget_refusals(peer *p);

#endif
