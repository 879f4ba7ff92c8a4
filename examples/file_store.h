/*
 * file_store.h - locks in one plain file, for the processes of one machine.
 */
#ifndef FILE_STORE_H
#define FILE_STORE_H

#include <verrou/store.h>

/*
 * Open the store that lives in the file `path`, made when the first lock is taken, with `path`.lock beside it.
 * `settings` as for verrou_store_from_lock_store(). Close it with verrou_store_close().
 */
verrou_status file_store_open(const char *path, const char *settings, verrou_store **ret_store, verrou_error *err);

#endif
