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

#ifdef __x86_64__
static inline long xp__syscall6(long number, long a, long b, long c, long d, long e, long f)
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

static inline long xp__syscall4(long number, long a, long b, long c, long d)
{
	return xp__syscall6(number, a, b, c, d, 0, 0);
}
#else
static inline long xp__syscall4(long number, long a, long b, long c, long d)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return result;
}

/* The sixth argument goes into the frame pointer, which no asm may have as an operand. */
static inline long xp__syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	long result;

	__asm__ volatile("pushl %[f]\n\t"
			 "pushl %%ebp\n\t"
			 "movl 4(%%esp), %%ebp\n\t"
			 "int $0x80\n\t"
			 "popl %%ebp\n\t"
			 "leal 4(%%esp), %%esp"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [f] "g"(f)
			 : "memory");
	return result;
}
#endif

#define XP__SYS1(number, a) xp__syscall4(number, (long)(a), 0, 0, 0)
#define XP__SYS2(number, a, b) xp__syscall4(number, (long)(a), (long)(b), 0, 0)
#define XP__SYS3(number, a, b, c) xp__syscall4(number, (long)(a), (long)(b), (long)(c), 0)
#define XP__SYS4(number, a, b, c, d) xp__syscall4(number, (long)(a), (long)(b), (long)(c), (long)(d))
#define XP__SYS6(number, a, b, c, d, e, f)                                                                             \
	xp__syscall6(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#ifdef __x86_64__
#define XP__SYS_MMAP SYS_mmap
#define XP__SYS_FSTAT SYS_fstat
#define XP__SYS_FSTATAT SYS_newfstatat
#else
/* Those that take what their namesakes take on x86-64: SYS_mmap takes a pointer, SYS_fstat gives 32-bit numbers. */
#define XP__SYS_MMAP SYS_mmap2
#define XP__SYS_FSTAT SYS_fstat64
#define XP__SYS_FSTATAT SYS_fstatat64
#endif

/* xp__is_error - whether a system call failed. Half of a 32-bit process' addresses are negative numbers. */
static inline bool xp__is_error(long result)
{
	return (unsigned long)result > -4096ul;
}

#define XP__NSIG_SIZE 8 /* bytes of the kernel's signal set */

static inline uint64_t xp__sigbit(int signal)
{
	return 1ull << (signal - 1);
}

/* Registers of an interrupted thread, in uc_mcontext.gregs of <ucontext.h>. */
#ifdef __x86_64__
#define XP__REG_AX REG_RAX
#define XP__REG_SP REG_RSP
#define XP__REG_IP REG_RIP
#else
#define XP__REG_AX REG_EAX
#define XP__REG_SP REG_ESP
#define XP__REG_IP REG_EIP
#endif

/* The kernel's own struct sigaction of rt_sigaction. */
struct xp__sigaction {
	uintptr_t handler; /* SIG_DFL 0, SIG_IGN 1 */
	unsigned long flags;
	uintptr_t restorer;
	uint64_t mask;
};

/* xp__sigaction - rt_sigaction with a restorer of our own; @act or @old may be NULL. */
int xp__sigaction(int signal, const struct xp__sigaction *act, struct xp__sigaction *old);

/*
 * xp__signals_sent - all that a thread or process may send: not those that an instruction or a call of this thread's raises (a
 * debugger's, a probe's, a filter's too), which kill if they are blocked.
 */
uint64_t xp__signals_sent(void);

/* xp__monotonic - the time of CLOCK_MONOTONIC, as the kernel writes it with 64 bits. */
struct xp__time {
	int64_t seconds, nanoseconds;
};
struct xp__time xp__monotonic(void);
uint64_t xp__clock_ms(void); /* in milliseconds */

/*
 * xp__sigsys_catch - a system call that a filter answers with SIGSYS (SECCOMP_RET_TRAP), which kills unless handled,
 * reads as "no such call" from here on. True if the handler was set, which is to be given back by xp__sigaction().
 * Context: while there is one thread, and no other handler can be lost: at start.
 */
bool xp__sigsys_catch(struct xp__sigaction *before);
bool xp__sigsys_caught(void); /* whether one was answered so since the last question */

/*
 * xp__futex_wait - until woken, or @timeout_ns later (0: no timeout), if *@word is still @value. Returns -ETIMEDOUT
 * after the timeout, else anything, also without cause.
 */
long xp__futex_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns);
void xp__futex_wake(uint32_t *word, int nr);

/* xp__pread, xp__pwrite - pread64 and pwrite64, which take a position in two halves in 32-bit processes. */
long xp__pread(int fd, void *bytes, size_t len, uint64_t at);
long xp__pwrite(int fd, const void *bytes, size_t len, uint64_t at);

/*
 * xp__seek - lseek, of 64 bits everywhere: the position, or -errno. Of a negative position, which a memory file may
 * have, 32-bit processes learn the low half only: the other comes out as 0x80000000.
 */
int64_t xp__seek(int fd, int64_t offset, int whence);

/* xp__move_high - @fd under a number that programs do not close and reuse; @fd itself if there is none. */
int xp__move_high(int fd);

/* xp__gettid - the caller's thread id, cached. Context: any. xp__gettid_fork - in the child: it is another one. */
int xp__gettid(void);
void xp__gettid_fork(void);

/*
 * xp__can_read - whether the eight bytes in line around @addr can be read, and so the rest of their page: what lies there may be
 * unmapped, or for execution only. xp__data_read - the port's data_read(). Context: any.
 * xp__data_check - its data_check(), of those four bytes.
 */
bool xp__can_read(const void *addr);
int xp__data_read(uintptr_t *to, const void *addr);
int xp__data_check(const void *addr);

#endif
