/* SPDX-License-Identifier: MIT */
/* Memory for the core and the port. */
#ifndef XP_LINUX_MEMORY_H
#define XP_LINUX_MEMORY_H

#include <stddef.h>

void *xp__alloc(size_t size);
void xp__release(void *memory, size_t size);

#endif
