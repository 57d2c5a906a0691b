// SPDX-License-Identifier: MIT
/*
 * A processor that may hold old instructions, prefetched or decoded, drops them at a serializing instruction. Which
 * one is cheapest depends on the processor and, with shadow stacks, on the thread; this file chooses.
 *
 * Invariants:
 * I1. Every path executes one serializing instruction after all that the caller stored before, and the compiler
 *     moves no access across it ("memory").
 * I2. The only state is one byte that goes from UNTRIED to the same value, whichever writes it: threads and
 *     handlers that meet here agree without ordering.
 * I3. No register but those declared, no flag and no byte of the caller's red zone is changed.
 */
#include "arch/x86/sync.h"

#include "arch/x86/cpuid.h"

static uint8_t serialize_insn; /* enum xp__feature; relaxed atomic */

/* Whether CPUID.(EAX=7,ECX=0):EDX[14] announces SERIALIZE (Intel SDM vol. 2, CPUID). */
static bool has_serialize(void)
{
	uint8_t known = __atomic_load_n(&serialize_insn, __ATOMIC_RELAXED);

	if (known == XP__FEATURE_UNTRIED) {
		known = xp__cpuid_edx(7) >> 14 & 1 ? XP__FEATURE_PRESENT : XP__FEATURE_ABSENT;
		__atomic_store_n(&serialize_insn, known, __ATOMIC_RELAXED);
	}
	return known == XP__FEATURE_PRESENT;
}

/*
 * Whether IRET to the next instruction would do no more than that. It pops the shadow stack where there is one:
 * RDSSP reads its pointer, never 0, and is a no-op elsewhere. It faults if the nested-task flag is set, which any
 * program may do. The processor asks the flag as it is, not the one to be popped.
 */
static bool iret_is_plain(void)
{
	uintptr_t shadow_stack = 0;
	const uintptr_t nested_task = 1 << 14;

	/* rdsspq %rax, rdsspd %eax, in bytes for assemblers that are not told of it */
#ifdef __x86_64__
	__asm__ volatile(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" : "+a"(shadow_stack));
	return !shadow_stack && !(__builtin_ia32_readeflags_u64() & nested_task);
#else
	__asm__ volatile(".byte 0xf3, 0x0f, 0x1e, 0xc8" : "+a"(shadow_stack));
	return !shadow_stack && !(__builtin_ia32_readeflags_u32() & nested_task);
#endif
}

/*
 * The frame goes below the red zone, and the stack pointer in it is the one from before, so that IRET undoes the
 * move. In 32-bit code there is neither red zone nor, without a change of privilege, a stack pointer in the frame; the
 * CALL pushes the address. At CPL 0 an IRET also ends the blocking of NMIs: inside an NMI handler another may then nest.
 */
static void iret_to_next(void)
{
#ifdef __x86_64__
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
#else
	__asm__ volatile("pushfl\n\t"
			 "pushl %%cs\n\t"
			 "call 1f\n\t"
			 "jmp 2f\n"
			 "1:\n\t"
			 "iretl\n"
			 "2:"
			 :
			 :
			 : "memory");
#endif
}

void xp__serialize(void)
{
	uint32_t eax, edx;

	if (has_serialize())
		__asm__ volatile(".byte 0x0f, 0x01, 0xe8" : : : "memory"); /* serialize */
	else if (iret_is_plain() || !xp__has_cpuid())
		iret_to_next();
	else
		xp__cpuid(0, &eax, &edx);
}

bool xp__data_keys(void)
{
	static uint8_t known = XP__FEATURE_UNTRIED;
	uint8_t is = __atomic_load_n(&known, __ATOMIC_RELAXED);

	if (is == XP__FEATURE_UNTRIED) {
		const uint32_t ospke = 1u << 4; /* Intel SDM vol. 2, CPUID, leaf 7, ECX */

		is = xp__cpuid_ecx(7) & ospke ? XP__FEATURE_PRESENT : XP__FEATURE_ABSENT;
		__atomic_store_n(&known, is, __ATOMIC_RELAXED);
	}
	return is == XP__FEATURE_PRESENT;
}
