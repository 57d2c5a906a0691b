/* SPDX-License-Identifier: MIT */
/* Eight bytes of text in one store. */
#ifndef XP_ARCH_X86_STORE_H
#define XP_ARCH_X86_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * xp__can_store_single - whether this processor has such a store. Every 64-bit one has; a 32-bit one needs CMPXCHG8B
 * (CPUID.1:EDX[8], Intel SDM vol. 2).
 * Context: any. Ordering: none. Progress: wait-free.
 */
bool xp__can_store_single(void);

/*
 * xp__store_single - @len bytes to @addr, all inside one aligned quadword of writable memory, by one store of that
 * quadword. The bytes around are written back as they were found.
 * Context: under the text lock, where xp__can_store_single(). Ordering: release (W2). Progress: wait-free on 64-bit
 * processors, lock-free on others: starts over only if another store changed the same quadword meanwhile.
 */
void xp__store_single(void *addr, const void *bytes, size_t len);

/* What xp__can_store_single() found, for tests to pretend. */
extern uint8_t xp__cmpxchg8b; /* enum xp__feature */

#endif
