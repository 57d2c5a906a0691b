/* SPDX-License-Identifier: MIT */
/* What the processor says of itself. CPUID serializes, and costs an exit under most hypervisors: ask once. */
#ifndef XP_ARCH_X86_CPUID_H
#define XP_ARCH_X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

/* What is known of a feature: one byte that goes from untried to the same value in all that ask, without ordering. */
enum xp__feature {
	XP__FEATURE_UNTRIED,
	XP__FEATURE_ABSENT,
	XP__FEATURE_PRESENT,
};

/* xp__has_cpuid - whether the instruction is there: the ID flag can be changed (Intel SDM vol. 1, 3.4.3.3). */
static inline bool xp__has_cpuid(void)
{
#ifdef __x86_64__
	return true;
#else
	const unsigned id = 1u << 21;
	unsigned before = __builtin_ia32_readeflags_u32(), after;

	__builtin_ia32_writeeflags_u32(before ^ id);
	after = __builtin_ia32_readeflags_u32();
	__builtin_ia32_writeeflags_u32(before);
	return (before ^ after) & id;
#endif
}

/* xp__cpuid - of subleaf 0. */
static inline void xp__cpuid(uint32_t leaf, uint32_t *eax, uint32_t *edx)
{
	uint32_t ebx, ecx = 0;

	*eax = leaf;
	__asm__ volatile("cpuid" : "+a"(*eax), "=b"(ebx), "+c"(ecx), "=d"(*edx) : : "memory");
}

/* xp__cpuid_ecx - ECX of a leaf, subleaf 0; 0 if the processor does not have it. */
static inline uint32_t xp__cpuid_ecx(uint32_t leaf)
{
	uint32_t eax = 0, ebx, ecx = 0, edx;

	if (!xp__has_cpuid())
		return 0;
	xp__cpuid(0, &eax, &edx);
	if (eax < leaf)
		return 0;
	eax = leaf;
	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
	return ecx;
}

/* xp__cpuid_edx - EDX of a leaf, 0 if the processor does not have it. */
static inline uint32_t xp__cpuid_edx(uint32_t leaf)
{
	uint32_t eax = 0, edx = 0;

	if (!xp__has_cpuid())
		return 0;
	xp__cpuid(0, &eax, &edx);
	if (eax < leaf)
		return 0;
	xp__cpuid(leaf, &eax, &edx);
	return edx;
}

#endif
