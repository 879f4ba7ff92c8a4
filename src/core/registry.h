/*
 * registry.h - which driver serves a scheme.
 */
#ifndef VERROU_REGISTRY_H
#define VERROU_REGISTRY_H

#include "core/core.h"

/* The driver for a scheme, loading its library if need be. VERROU_ECONFIG if there is none. Drivers are never unloaded. */
verrou_status verrou__driver_find(const char *scheme, const verrou_driver **ret_driver, verrou_error *err);

/* VERROU_EINVAL, naming what is missing in the table. */
verrou_status verrou__driver_check(const verrou_driver *driver, verrou_error *err);

const verrou_driver *verrou__memory_driver(void); /* stores/memory */

/* ---- stores/custom: the adapter around the seven calls of a driver that has them in place of open, close and execute ---- */
verrou_status verrou__database_check(const verrou_database *table, verrou_error *err);
/* The driver that a store sees in place of such a one. It has no create(); that is done by the other. */
void verrou__database_adapt(const verrou_driver *inner, verrou_driver *ret_adapted);
verrou_status verrou__database_create(const verrou_driver *inner, void *log_context, const verrou_url *url,
                                      void **ret_state, verrou_error *err);

#endif
