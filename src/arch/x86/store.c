// SPDX-License-Identifier: MIT
/*
 * The store of an aligned quadword, which methods word and shortjmp stand on.
 *
 * In 64-bit code it is a MOV. In 32-bit code a MOV stores four bytes, and two of them are the torn write that the
 * methods must not make. What stores eight there:
 * - MOVQ and FISTP, of SSE2 and x87: one access if aligned (Intel SDM vol. 3A, "Guaranteed Atomic Operations"), but by
 *   registers that neither a kernel nor a trap handler has at hand.
 * - LOCK CMPXCHG8B: general registers only, and every processor since the Pentium. It writes the quadword in one access
 *   whether it compares equal or not, so that what is fetched is the old or the new; and it finds what another store put
 *   into the quadword since it was read, which the MOV writes over.
 * So it is CMPXCHG8B.
 *
 * I1  Text is read here as data, by any accesses: a thread that stores holds the text lock, and CMPXCHG8B compares.
 */
#include "arch/x86/store.h"

#include "arch/x86/cpuid.h"

uint8_t xp__cmpxchg8b; /* relaxed atomic */

bool xp__can_store_single(void)
{
#ifdef __x86_64__
	return true;
#else
	uint8_t known = __atomic_load_n(&xp__cmpxchg8b, __ATOMIC_RELAXED);

	if (known == XP__FEATURE_UNTRIED) {
		known = xp__cpuid_edx(1) >> 8 & 1 ? XP__FEATURE_PRESENT : XP__FEATURE_ABSENT;
		__atomic_store_n(&xp__cmpxchg8b, known, __ATOMIC_RELAXED);
	}
	return known == XP__FEATURE_PRESENT;
#endif
}

typedef uint64_t quadword_t __attribute__((may_alias, aligned(8)));

#ifdef __x86_64__
static bool replace(quadword_t *quadword, uint64_t *expected, uint64_t desired)
{
	(void)expected;
	/* ordering: (W2) pairs with (S1) */
	__atomic_store_n(quadword, desired, __ATOMIC_RELEASE);
	return true;
}
#else
static bool replace(quadword_t *quadword, uint64_t *expected, uint64_t desired)
{
	bool equal;

	/* ordering: (W2) pairs with (S1) */
	__asm__ volatile("lock cmpxchg8b %[quadword]"
			 : [quadword] "+m"(*quadword), "+A"(*expected), "=@ccz"(equal)
			 : "b"((uint32_t)desired), "c"((uint32_t)(desired >> 32))
			 : "memory");
	return equal;
}
#endif

void xp__store_single(void *addr, const void *bytes, size_t len)
{
	uintptr_t at = (uintptr_t)addr;
	quadword_t *quadword = (quadword_t *)(at & ~(uintptr_t)7);
	uint64_t found = *(volatile quadword_t *)quadword;
	union {
		uint64_t value;
		uint8_t byte[8];
	} desired;

	do {
		desired.value = found;
		for (size_t i = 0; i < len; i++)
			desired.byte[at % 8 + i] = ((const uint8_t *)bytes)[i];
	} while (!replace(quadword, &found, desired.value));
}
