/* SPDX-License-Identifier: MIT */
/* Memory for the core and the port. */
#ifndef XP_LINUX_MEMORY_H
#define XP_LINUX_MEMORY_H

#include <stddef.h>

void *xp__memory_alloc(size_t size);
void xp__memory_release(void *memory, size_t size);

#endif
