/* SPDX-License-Identifier: MIT */
/* Protection keys. */
#ifndef XP_LINUX_KEYS_H
#define XP_LINUX_KEYS_H

#include <stdbool.h>
#include <stdint.h>

/* xp__handlers_read - whether a signal handler can read the eight bytes in line around @addr; the caller could. */
bool xp__handlers_read(uintptr_t addr);

#endif
