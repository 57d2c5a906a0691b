// SPDX-License-Identifier: MIT
/*
 * A processor that may hold old instructions, prefetched or decoded, drops them at a serializing instruction. Which
 * one is cheapest depends on the processor and, with shadow stacks, on the thread; this file chooses.
 *
 * Invariants:
 * I1. Every path executes one serializing instruction after all that the caller stored before, and the compiler
 *     moves no access across it ("memory").
 * I2. The only state is one byte that goes from UNTRIED to the same value in whoever writes it: threads and
 *     handlers that meet here agree without ordering.
 * I3. No register but those declared, no flag and no byte of the caller's red zone is changed.
 */
#include "arch/x86/sync.h"

#include <stdbool.h>
#include <stdint.h>

enum means {
	UNTRIED,
	ABSENT,
	PRESENT,
};

static uint8_t serialize_insn; /* enum means; relaxed atomic */

/* Serializing by itself. */
static void cpuid(uint32_t leaf, uint32_t *eax, uint32_t *edx)
{
	uint32_t ebx, ecx = 0;

	*eax = leaf;
	__asm__ volatile("cpuid" : "+a"(*eax), "=b"(ebx), "+c"(ecx), "=d"(*edx) : : "memory");
}

/* Whether CPUID.(EAX=7,ECX=0):EDX[14] announces SERIALIZE (Intel SDM vol. 2, CPUID). */
static bool has_serialize(void)
{
	uint8_t known = __atomic_load_n(&serialize_insn, __ATOMIC_RELAXED);
	uint32_t eax, edx;

	if (known == UNTRIED) {
		known = ABSENT;
		cpuid(0, &eax, &edx);
		if (eax >= 7) {
			cpuid(7, &eax, &edx);
			if (edx >> 14 & 1)
				known = PRESENT;
		}
		__atomic_store_n(&serialize_insn, known, __ATOMIC_RELAXED);
	}
	return known == PRESENT;
}

/*
 * Whether IRET to the next instruction would do no more than that. It pops the shadow stack where there is one:
 * RDSSPQ reads its pointer, never 0, and is a no-op elsewhere. It faults if the nested-task flag is set, which any
 * program may do. The processor asks the flag as it is, not the one to be popped.
 */
static bool iret_is_plain(void)
{
	uint64_t shadow_stack = 0;
	const uint64_t nested_task = 1 << 14;

	/* rdsspq %rax, in bytes for assemblers that are not told of it */
	__asm__ volatile(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" : "+a"(shadow_stack));
	return !shadow_stack && !(__builtin_ia32_readeflags_u64() & nested_task);
}

/*
 * The frame goes below the red zone, and the stack pointer in it is the one from before, so that IRET undoes the
 * move. At CPL 0 an IRET also ends the blocking of NMIs: inside an NMI handler another NMI may then nest.
 */
static void iret_to_next(void)
{
	uint64_t stack, selector;

	__asm__ volatile("movq %%rsp, %[stack]\n\t"
			 "leaq -128(%%rsp), %%rsp\n\t"
			 "movl %%ss, %k[selector]\n\t"
			 "pushq %[selector]\n\t"
			 "pushq %[stack]\n\t"
			 "pushfq\n\t"
			 "movl %%cs, %k[selector]\n\t"
			 "pushq %[selector]\n\t"
			 "leaq 1f(%%rip), %[selector]\n\t"
			 "pushq %[selector]\n\t"
			 "iretq\n"
			 "1:"
			 : [stack] "=&r"(stack), [selector] "=&r"(selector)
			 :
			 : "memory");
}

void xp__serialize(void)
{
	uint32_t eax, edx;

	if (has_serialize())
		__asm__ volatile(".byte 0x0f, 0x01, 0xe8" : : : "memory"); /* serialize */
	else if (iret_is_plain())
		iret_to_next();
	else
		cpuid(0, &eax, &edx);
}
