/* SPDX-License-Identifier: MIT */
/* The instructions that the front ends emit on x86, 64 and 32 bits. */
#ifndef XP_ARCH_X86_H
#define XP_ARCH_X86_H

#ifndef XP_STATIC_KEY_H
#error "do not include <crosspatch/arch/x86.h>; include <crosspatch/static_key.h> or <crosspatch/crosspatch.h>"
#endif

#if !(defined(__x86_64__) && !defined(__ILP32__)) && !defined(__i386__)
#error "crosspatch: this architecture is not supported yet; define XP_NO_PATCHING for plain loads and branches"
#endif

/*
 * How an asm names the address of a key, and prints it bare. In 32-bit position-independent code an address is no
 * constant to the compiler: it wants the register of the global offset table added. A record holds the distance from
 * itself and needs no register, so there the operand is one that GCC does not judge ("X"), printed as it is (%p). That the
 * key is a constant address, which "i" asks, an initialiser then asks. Clang has no such operand.
 */
#if defined(__i386__) && defined(__PIC__)
#define XP__ADDRESS "X"
#define XP__CONSTANT(key) static const struct xp_static_key *const xp__constant __attribute__((unused)) = (key)
#define XP__PRINT_ADDRESS(operand) "%p[" #operand "]"
#else
#define XP__ADDRESS "i"
#define XP__CONSTANT(key) (void)0
#define XP__PRINT_ADDRESS(operand) "%c[" #operand "]"
#endif

/*
 * A branch site is one of the flip pair
 *
 *	A9 disp32	test $disp32, %eax	falls through; "cc" is clobbered
 *	E9 disp32	jmp  target
 *
 * whose displacement is the same: to switch it is to change one byte, which every processor fetches whole, so no
 * alignment is needed.
 * The record stands in the section group of its function ("?", as in C++ templates and inline functions) and is
 * linked to its section ("o"): it goes when the linker discards the function, and neither before nor after.
 * %= makes the label unique in each copy of the asm that the compiler emits.
 */
#define XP__BRANCH_SITE                                                                                                \
	".Lxp_site%=:\n\t"                                                                                             \
	".byte %c[xp__opcode]\n\t"                                                                                     \
	".long %l[xp__jump] - (. + 4)\n\t"                                                                             \
	".pushsection xp_branch_sites,\"ao?\",@progbits,.Lxp_site%=\n\t"                                               \
	".balign 4\n\t"                                                                                                \
	".long .Lxp_site%= - .\n\t"                                                                                    \
	".long %l[xp__jump] - .\n\t"                                                                                   \
	".long " XP__PRINT_ADDRESS(xp__key) " + %c[xp__flags] - .\n\t"                                                 \
	".popsection"

#define XP__BRANCH_ASM(key, opcode, flags)                                                                             \
	__asm__ goto(XP__BRANCH_SITE                                                                                   \
		     :                                                                                                 \
		     : [xp__key] XP__ADDRESS(key), [xp__opcode] "i"(opcode), [xp__flags] "i"(flags)                    \
		     : "cc"                                                                                            \
		     : xp__jump)

#define XP__OPCODE_TEST 0xa9
#define XP__OPCODE_JMP 0xe9

/*
 * XP__BRANCH - a bool that says whether the site jumped. In C a statement expression; in C++ a lambda, because
 * clang holds that any asm goto of a function may jump to any label of its kind, which C++ then forbids.
 */
#if defined(__i386__) && defined(__PIC__) && defined(__clang__)
#define XP__BRANCH(key, opcode, flags)                                                                                 \
	__extension__({                                                                                                \
		XP__ASSERT(0, "crosspatch: clang names no key in 32-bit position-independent code: compile with "      \
				     "-fno-pie or gcc, or define XP_NO_PATCHING");                                     \
		false;                                                                                                 \
	})
#elif defined(__cplusplus)
#define XP__BRANCH(key, opcode, flags)                                                                                 \
	([]() __attribute__((always_inline)) -> bool {                                                                 \
		XP__BRANCH_ASM(key, opcode, flags);                                                                    \
		return false;                                                                                          \
	xp__jump:                                                                                                      \
		return true;                                                                                           \
	}())
#else
#define XP__BRANCH(key, opcode, flags)                                                                                 \
	__extension__({                                                                                                \
		__label__ xp__jump;                                                                                    \
		bool xp__jumped = false;                                                                               \
		XP__CONSTANT(key);                                                                                     \
		XP__BRANCH_ASM(key, opcode, flags);                                                                    \
		if (0) {                                                                                               \
		xp__jump:                                                                                              \
			xp__jumped = true;                                                                             \
		}                                                                                                      \
		xp__jumped;                                                                                            \
	})
#endif

#endif
