/*
 * host.h - the function table that drivers are handed.
 */
#ifndef VERROU_HOST_H
#define VERROU_HOST_H

#include "core/core.h"

extern const verrou_host verrou__host;

#endif
