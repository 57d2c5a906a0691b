// SPDX-License-Identifier: MIT
/*
 * Calls no exit() and no "abort()".
 *
 *	publish
 *	store
 */
#include "core/poke.h"

void *memcpy(void *restrict to, const void *restrict from, size_t size);

static int flag;

size_t xp_good(void *to, const void *from)
{
	memcpy(to, from, sizeof("abort() 1000 bytes"));
	/* ordering: (P1) pairs with (T1) */
	__atomic_store_n(&flag, 1, __ATOMIC_RELEASE);

	/* ordering: (P2) pairs with (S1) */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return 0;
}

int xp__poke_seen(void);
int xp__poke_seen(void)
{
	/* ordering: (T1) pairs with (P1) */
	return __atomic_load_n(&flag, __ATOMIC_ACQUIRE);
}
