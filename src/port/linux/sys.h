/* SPDX-License-Identifier: MIT */
/*
 * System calls without libc's wrappers: these return -errno and leave errno alone, are no cancellation points, are not
 * intercepted by sanitizers, and may be made in any signal handler.
 */
#ifndef XP_LINUX_SYS_H
#define XP_LINUX_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

static inline long xp__syscall(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define XP__SYS1(number, a) xp__syscall(number, (long)(a), 0, 0, 0, 0, 0)
#define XP__SYS2(number, a, b) xp__syscall(number, (long)(a), (long)(b), 0, 0, 0, 0)
#define XP__SYS3(number, a, b, c) xp__syscall(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define XP__SYS4(number, a, b, c, d) xp__syscall(number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define XP__SYS6(number, a, b, c, d, e, f)                                                                             \
	xp__syscall(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#define XP__NSIG_SIZE 8 /* bytes of the kernel's signal set */

static inline uint64_t xp__sigbit(int signal)
{
	return 1ull << (signal - 1);
}

/* The kernel's own struct sigaction on x86-64. */
struct xp__sigaction {
	uintptr_t handler; /* SIG_DFL 0, SIG_IGN 1 */
	unsigned long flags;
	uintptr_t restorer;
	uint64_t mask;
};

/* xp__sigaction - rt_sigaction with a restorer of our own; @act or @old may be NULL. */
int xp__sigaction(int signal, const struct xp__sigaction *act, struct xp__sigaction *old);

/*
 * xp__sigsys_catch - a system call that a filter answers with SIGSYS (SECCOMP_RET_TRAP), which kills unless handled,
 * reads as "no such call" from here on. True if the handler was set, which is to be given back by xp__sigaction().
 * Context: while there is one thread, and nobody else has a handler for it to lose: at start.
 */
bool xp__sigsys_catch(struct xp__sigaction *before);
bool xp__sigsys_caught(void); /* whether one was answered so since the last question */

/*
 * xp__futex_wait - until woken, or @timeout_ns later (0: no timeout), if *@word is still @value. Returns -ETIMEDOUT
 * after the timeout, else anything, also without cause.
 */
long xp__futex_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns);
void xp__futex_wake(uint32_t *word, int nr);

/* xp__move_high - @fd under a number that programs do not close and reuse; @fd itself if there is none. */
int xp__move_high(int fd);

/* xp__gettid - the caller's thread id, cached. Context: any. */
int xp__gettid(void);

#endif
