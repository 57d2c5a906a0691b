// SPDX-License-Identifier: MIT
/* The few system calls that need more than a line. */
#include "port/linux/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <ucontext.h>

#define SA_RESTORER_FLAG 0x04000000ul

/*
 * The bytes are those of libc's own, by which unwinders and debuggers recognise a signal frame.
 * Not reached by a call: the kernel's signal frame has it as its return address.
 */
void xp__sigreturn(void);
__asm__(".pushsection .text\n"
	".balign 16\n"
	"nop\n" /* unwinders look at the byte before a return address */
	".hidden xp__sigreturn\n"
	".globl xp__sigreturn\n"
	".type xp__sigreturn, @function\n"
	"xp__sigreturn:\n\t"
#ifdef __x86_64__
	"movq $15, %rax\n\t" /* rt_sigreturn */
	"syscall\n"
#else
	"movl $173, %eax\n\t"
	"int $0x80\n"
#endif
	".size xp__sigreturn, . - xp__sigreturn\n"
	".popsection");

int xp__sigaction(int signal, const struct xp__sigaction *act, struct xp__sigaction *old)
{
	struct xp__sigaction with;

	if (act) {
		with = *act;
		/* In 32-bit processes the frame of a handler without SA_SIGINFO is another; the kernel's vDSO ends it. */
		if (with.restorer == 0 && (sizeof(long) == 8 || with.flags & SA_SIGINFO)) {
			with.flags |= SA_RESTORER_FLAG;
			with.restorer = (uintptr_t)xp__sigreturn;
		}
		act = &with;
	}
	return (int)XP__SYS4(SYS_rt_sigaction, signal, act, old, XP__NSIG_SIZE);
}

uint64_t xp__signals_sent(void)
{
	return ~(xp__sigbit(SIGSEGV) | xp__sigbit(SIGBUS) | xp__sigbit(SIGILL) | xp__sigbit(SIGFPE) |
		 xp__sigbit(SIGTRAP) | xp__sigbit(SIGSYS));
}

static bool sigsys_caught;

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signal;
	(void)info;
	uc->uc_mcontext.gregs[XP__REG_AX] = -ENOSYS;
	sigsys_caught = true;
}

bool xp__sigsys_caught(void)
{
	bool caught = sigsys_caught;

	sigsys_caught = false;
	return caught;
}

bool xp__sigsys_catch(struct xp__sigaction *before)
{
	struct xp__sigaction act = {.handler = (uintptr_t)on_sigsys, .flags = SA_SIGINFO};

	return XP__SYS1(SYS_prctl, PR_GET_SECCOMP) == SECCOMP_MODE_FILTER && xp__sigaction(SIGSYS, &act, before) == 0;
}

#ifdef __x86_64__
static long futex(uint32_t *word, int operation, uint32_t value, const struct xp__time *timeout)
{
	return XP__SYS4(SYS_futex, word, operation, value, timeout);
}

struct xp__time xp__monotonic(void)
{
	struct xp__time now = {0, 0};

	XP__SYS2(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
	return now;
}
#else
/*
 * 32-bit processes have each call twice: with times of 64 bits since Linux 5.1, with times of 32 bits unless the kernel
 * was built without. The times meant here fit into both: since the start of the system, and from now.
 */
struct time32 {
	int32_t seconds, nanoseconds;
};

static bool is_missing(long error)
{
	return error == -ENOSYS || error == -EPERM; /* what filters answer that do not know a call */
}

static long futex(uint32_t *word, int operation, uint32_t value, const struct xp__time *timeout)
{
	long error = XP__SYS4(SYS_futex_time64, word, operation, value, timeout);
	struct time32 short_timeout;

	if (!is_missing(error))
		return error;
	if (timeout) {
		short_timeout.seconds = timeout->seconds > INT32_MAX ? INT32_MAX : (int32_t)timeout->seconds;
		short_timeout.nanoseconds = (int32_t)timeout->nanoseconds;
	}
	return XP__SYS4(SYS_futex, word, operation, value, timeout ? &short_timeout : NULL);
}

struct xp__time xp__monotonic(void)
{
	struct xp__time now = {0, 0};
	struct time32 short_now = {0, 0};

	if (XP__SYS2(SYS_clock_gettime64, CLOCK_MONOTONIC, &now) == 0)
		return now;
	XP__SYS2(SYS_clock_gettime, CLOCK_MONOTONIC, &short_now);
	now.seconds = short_now.seconds;
	now.nanoseconds = short_now.nanoseconds;
	return now;
}
#endif

long xp__futex_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
	const struct xp__time timeout = {(int64_t)(timeout_ns / 1000000000u), (int64_t)(timeout_ns % 1000000000u)};

	return futex(word, FUTEX_WAIT_PRIVATE, value, timeout_ns ? &timeout : NULL);
}

void xp__futex_wake(uint32_t *word, int nr)
{
	futex(word, FUTEX_WAKE_PRIVATE, (uint32_t)nr, NULL);
}

/*
 * _llseek gives a position through a pointer, but a negative one only as the low half of it, in place of an error. All
 * that is known of it then is that, and its sign.
 */
int64_t xp__seek(int fd, int64_t offset, int whence)
{
#ifdef __x86_64__
	return XP__SYS3(SYS_lseek, fd, offset, whence);
#else
	int64_t position = 0;
	long low = XP__SYS6(SYS__llseek, fd, offset >> 32, offset, &position, whence, 0);

	if (low == 0 || xp__is_error(low))
		return low ? low : position;
	return INT64_MIN | (uint32_t)low;
#endif
}

long xp__pread(int fd, void *bytes, size_t len, uint64_t at)
{
#ifdef __x86_64__
	return XP__SYS4(SYS_pread64, fd, bytes, len, at);
#else
	return XP__SYS6(SYS_pread64, fd, bytes, len, at, at >> 32, 0);
#endif
}

long xp__pwrite(int fd, const void *bytes, size_t len, uint64_t at)
{
#ifdef __x86_64__
	return XP__SYS4(SYS_pwrite64, fd, bytes, len, at);
#else
	return XP__SYS6(SYS_pwrite64, fd, bytes, len, at, at >> 32, 0);
#endif
}

int xp__move_high(int low)
{
	static int from; /* where it found room last; 0: it never looked */
	struct {
		uint64_t now, most;
	} limit = {0, 0};
	int at = __atomic_load_n(&from, __ATOMIC_RELAXED), high = -EINVAL;

	if (at)
		high = (int)XP__SYS3(SYS_fcntl, low, F_DUPFD_CLOEXEC, at);
	/* The limit is another one now, or it never was asked for. */
	if (high < 0) {
		at = 0;
		if (XP__SYS4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) == 0)
			at = limit.now > 4096 ? 4000 : (int)limit.now - 32;
		at = at > 0 ? at : 0;
		high = (int)XP__SYS3(SYS_fcntl, low, F_DUPFD_CLOEXEC, at);
		__atomic_store_n(&from, at, __ATOMIC_RELAXED);
	}
	if (high < 0)
		return low;
	XP__SYS1(SYS_close, low);
	return high;
}

uint64_t xp__clock_ms(void)
{
	struct xp__time now = xp__monotonic();

	return (uint64_t)now.seconds * 1000 + (uint64_t)now.nanoseconds / 1000000;
}

static __thread int cached_tid __attribute__((tls_model("initial-exec")));

int xp__gettid(void)
{
	if (cached_tid == 0)
		cached_tid = (int)XP__SYS1(SYS_gettid, 0);
	return cached_tid;
}

void xp__gettid_fork(void)
{
	cached_tid = 0;
}

/*
 * The kernel is asked: it reads the set of signals before it finds that there is no such way to change one. A filter that lets
 * a program have signal handlers at all permits that call. It takes half of what others take (futex, 0.4 us), and each commit
 * asks; but valgrind prints that it does not know the way. A null pointer would be no set, and is not asked about.
 */
__attribute__((target("general-regs-only"))) bool xp__can_read(const void *addr)
{
	uintptr_t set = (uintptr_t)addr & ~(uintptr_t)7;

	return set && XP__SYS4(SYS_rt_sigprocmask, -1, set, 0, XP__NSIG_SIZE) != -EFAULT;
}

__attribute__((target("general-regs-only"))) int xp__data_read(uintptr_t *to, const void *addr)
{
	if (!xp__can_read(addr))
		return -EFAULT;
	*to = *(const volatile uintptr_t *)addr;
	return 0;
}

/*
 * FUTEX_WAKE_OP changes a word as one locked instruction does, here by no bit, and says -EFAULT where the caller cannot
 * write; it wakes no thread, since none waits there. Where a filter refuses that call nothing is known, and the fault may come.
 */
int xp__data_check(const void *addr)
{
	static uint32_t never;
	const uint32_t or_nothing = 2u << 28;
	uintptr_t word = (uintptr_t)addr & ~(uintptr_t)3;

	return XP__SYS6(SYS_futex, &never, FUTEX_WAKE_OP_PRIVATE, 0, 0, word, or_nothing) == -EFAULT ? -EFAULT : 0;
}
