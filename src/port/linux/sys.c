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
	"movq $15, %rax\n\t" /* rt_sigreturn */
	"syscall\n"
	".size xp__sigreturn, . - xp__sigreturn\n"
	".popsection");

int xp__sigaction(int signal, const struct xp__sigaction *act, struct xp__sigaction *old)
{
	struct xp__sigaction with;

	if (act) {
		with = *act;
		if (with.restorer == 0) {
			with.flags |= SA_RESTORER_FLAG;
			with.restorer = (uintptr_t)xp__sigreturn;
		}
		act = &with;
	}
	return (int)XP__SYS4(SYS_rt_sigaction, signal, act, old, XP__NSIG_SIZE);
}

static bool sigsys_caught;

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signal;
	(void)info;
	uc->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
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

long xp__futex_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
	struct timespec timeout = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};

	return XP__SYS4(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ns ? &timeout : NULL);
}

void xp__futex_wake(uint32_t *word, int nr)
{
	XP__SYS3(SYS_futex, word, FUTEX_WAKE_PRIVATE, nr);
}

int xp__move_high(int low)
{
	struct rlimit limit = {0, 0};
	int from = 0, high;

	if (XP__SYS2(SYS_getrlimit, RLIMIT_NOFILE, &limit) == 0)
		from = limit.rlim_cur > 4096 ? 4000 : (int)limit.rlim_cur - 32;
	high = (int)XP__SYS3(SYS_fcntl, low, F_DUPFD_CLOEXEC, from > 0 ? from : 0);
	if (high < 0)
		return low;
	XP__SYS1(SYS_close, low);
	return high;
}
