/* SPDX-License-Identifier: MIT */
/* Protection keys: what threads and handlers may read, and the library's own key. */
#ifndef XP_LINUX_KEYS_H
#define XP_LINUX_KEYS_H

#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

/* xp__handlers_read - whether a signal handler of ours can read the eight bytes in line around @addr; the caller could. */
bool xp__handlers_read(uintptr_t addr);

/* ---- the library's own key, where writer_pkey.c took one ---- */

extern uint32_t xp__key_bits; /* its two bits in PKRU: no access, no writing; 0: there is none. Relaxed atomic */

/*
 * xp__key_take - the key's number; once taken it stays. Of all threads only the caller and those that it makes have the rights
 * then. -errno; -EOPNOTSUPP: the processor or the system has none. xp__key_give - the opposite, of a key that no page has.
 * Context: text lock, or the constructor.
 */
int xp__key_take(void);
void xp__key_give(void);
/* xp__key_frame - the thread that the signal interrupted has the rights when its handler ends. Context: the handler. */
void xp__key_frame(ucontext_t *uc);
/* xp__key_frames_failed - whether that failed since the last question. */
bool xp__key_frames_failed(void);
/* xp__key_has - whether the page of @addr has it, and can be read. Context: text lock. */
bool xp__key_has(uintptr_t addr);

static inline uint32_t xp__pkru(void)
{
	uint32_t rights, zero;

	__asm__ volatile("rdpkru" : "=a"(rights), "=d"(zero) : "c"(0));
	return rights;
}

/* No access moves across it: not by the compiler, and not in the processor (Intel SDM vol. 2, WRPKRU). */
static inline void xp__pkru_set(uint32_t rights)
{
	__asm__ volatile("wrpkru" : : "a"(rights), "c"(0), "d"(0) : "memory");
}

/* xp__key_rights - @rights with those that each thread is to have: to read and not to write. */
static inline uint32_t xp__key_rights(uint32_t rights, uint32_t bits)
{
	return (rights & ~bits) | (bits & 0xaaaaaaaau);
}

/* xp__key_read - the calling thread may read what has the library's key. Context: any. */
static inline void xp__key_read(void)
{
	const uint32_t bits = __atomic_load_n(&xp__key_bits, __ATOMIC_RELAXED);

	if (bits) {
		uint32_t before = xp__pkru(), rights = xp__key_rights(before, bits);

		if (rights != before)
			xp__pkru_set(rights);
	}
}

#endif
