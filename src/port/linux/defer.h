/* SPDX-License-Identifier: MIT */
/* The thread that carries out deferred decrements. */
#ifndef XP_LINUX_DEFER_H
#define XP_LINUX_DEFER_H

#include <stdint.h>

int xp__defer(uint64_t deadline_ms);
int xp__defer_start(void);
void xp__defer_wake(void); /* its thread looks again, and sets its mask */

#endif
