/* SPDX-License-Identifier: MIT */
/* Serialization of the processor that executes this, and the pause of a waiting loop. */
#ifndef XP_ARCH_X86_SYNC_H
#define XP_ARCH_X86_SYNC_H

#include <stdbool.h>

/*
 * xp__serialize - executes a serializing instruction at user or kernel level.
 *
 * Source: Intel SDM vol. 3A, "Serializing Instructions": CPUID, IRET, SERIALIZE. SERIALIZE where the processor
 * has it; else IRET to the next instruction; CPUID under shadow stacks, which IRET would pop (and which costs an
 * exit under most hypervisors). AMD64 APM vol. 2 §7.6.4 lists IRET and CPUID as well.
 * Context: any; takes no lock, writes only below the red zone of its own stack. Progress: wait-free.
 */
void xp__serialize(void);

/* xp__data_keys - whether the processor has protection keys and the system uses them. Context: any. */
bool xp__data_keys(void);

static inline void xp__cpu_relax(void)
{
	__builtin_ia32_pause();
}

#endif
