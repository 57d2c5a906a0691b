/* SPDX-License-Identifier: MIT */
/* Ways into C from the entry of a function and from its return: arguments and results survive them. */
#ifndef XP_ARCH_X86_THUNK_TRACE_H
#define XP_ARCH_X86_THUNK_TRACE_H

#include <stdbool.h>
#include <stdint.h>

/* Functions with this attribute touch neither vector registers nor the x87. */
#define XP__GENERAL_REGS __attribute__((target("general-regs-only")))

/*
 * xp__own_increment - adds one to a counter that this thread alone changes: one instruction, so that its signal handlers may do
 * the same. Ordering: release, as every store here has.
 */
static inline XP__GENERAL_REGS void xp__own_increment(unsigned long *counter)
{
#ifdef __x86_64__
	__asm__ volatile("addq $1, %0" : "+m"(*counter) : : "memory", "cc");
#else
	__asm__ volatile("addl $1, %0" : "+m"(*counter) : : "memory", "cc");
#endif
}

/* xp__own_add - the same with a counter of 32 bits, up or down; without ordering. */
static inline XP__GENERAL_REGS void xp__own_add(uint32_t *counter, int32_t value)
{
	__asm__ volatile("addl %1, %0" : "+m"(*counter) : "ri"(value) : "memory", "cc");
}

/*
 * What the two thunks leave on the stack. `resume` is where they return to: the code behind the entry, or the caller; it
 * may be changed. At the entry of a function the two words behind are its return address and its first argument on the
 * stack.
 */
struct xp__call {
	void *own[4];        /* of the functions below, which get the same structure */
	uint64_t integer[9]; /* rdi rsi rdx rcx r8 r9 rax r10 r11 */
	uint64_t rbp;
	uintptr_t resume;
	uintptr_t caller;
	uint64_t stack[];
};

enum {
	XP__RESULT_2 = 2, /* rdx */
	XP__RESULT = 6,   /* rax */
};

/*
 * xp__function_entered - the thunk behind the stubs: called by a function's entry, with the function's own return address
 * above that of the entry.
 * xp__function_return - XP__NR_FRAMES places to return to, XP__RETURN_SIZE bytes apart: the return address of a call whose
 * return is wanted. An unwinder that comes to number i finds the real return address in xp__function_frames[i].
 *
 * They ask xp__function_enter() or xp__function_leave(), without vector state saved, so both are XP__GENERAL_REGS; and if
 * those say so xp__function_run() or xp__function_run_leave(), with that state saved in @area, xmm0 to xmm7 and st0 and st1
 * where XSAVE has them, and the x87 stack empty. All registers are as before when they go on, but for flags. Context, unwinding: as XP__THUNK.
 * Shadow stacks: xp__function_entered is balanced as long as `resume` stays as it was; the other never is.
 * In 64-bit code only.
 */
void xp__function_entered(void);
extern const uint8_t xp__function_return[] __attribute__((visibility("hidden")));

/* xp__function_personality - what unwinders call for these places: _Unwind_Personality_Fn of the Itanium C++ ABI. */
int xp__function_personality(int version, int actions, uint64_t class, void *exception, void *context)
	__attribute__((visibility("hidden")));

bool xp__function_enter(struct xp__call *call);
void xp__function_run(struct xp__call *call, const void *area);
bool xp__function_leave(struct xp__call *call);
void xp__function_run_leave(struct xp__call *call, const void *area);

/* Where in that area xmm0 and st0 stand. Source: Intel SDM vol. 1, 10.5.1. */
#define XP__AREA_VECTOR 160
#define XP__AREA_X87 32

/* Returns that can be waited for at a time in a process. A kernel may do with fewer. */
#ifndef XP_FUNCTION_FRAMES
#define XP_FUNCTION_FRAMES 8192
#endif
#define XP__NR_FRAMES XP_FUNCTION_FRAMES
#define XP__FRAME_SIZE 80
#define XP__RETURN_SIZE 16
#define XP__RETURN_CALL 5 /* bytes of the call at each */

#endif
