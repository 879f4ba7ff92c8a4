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

#endif
