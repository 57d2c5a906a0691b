// SPDX-License-Identifier: MIT
/*
 * The handlers of SIGTRAP, SIGILL and, in 32-bit processes, SIGSEGV. The registers decide: si_code is SI_KERNEL for every
 * int3 (see is_int3()) and every general protection fault, and greater than zero for an illegal instruction.
 *
 * I1  Of SIGTRAP: no lock, no allocation, no libc, no lazy binding, no TLS that is not static, on whatever stack the program gave.
 * I2  The handler of SIGTRAP blocks all that may be sent: it may stand on an alternate stack that has room for little more
 *     than its own frame, and the handler of another signal, which asked for no such stack, must not come on top of it. It
 *     does not block SIGTRAP itself (SA_NODEFER): what stays unblocked would be killed at a breakpoint. What is passed on to
 *     gets the interrupted thread's mask. The other two do not block: they may commit, for which others wait.
 * I3  What is not ours goes to the handler that was there before, with its mask, as if we were not there.
 * I4  A program may install its own over ours at any time, and is told that ours was there: it passes on what it does not know.
 *     The next commit with breakpoints takes the place in front again, and then each is the other's next: what comes back to
 *     us goes to the handler below, the one that was there before both.
 *
 * Ordering. (J1) a handler that ours passes on to is written before it counts; (J2) a thread that finds it counted reads it whole. A slot
 * that counts is not written, but for a handler that runs once, and the last of MOST, which a thread may read in halves then.
 */
#include "port/linux/sigtrap.h"

#include "port/linux/diag.h"
#include "port/linux/keys.h"
#include "port/linux/sys.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>

#include <crosspatch/arch.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#define MOST 8u

/* The handlers that ours took the place of, the last at the end. Of SIGTRAP, of SIGILL, of SIGSEGV. */
static struct displaced {
	struct xp__sigaction act[MOST];
	uint32_t nr;
} displaced[3];
/* The frame of our handler that passed a trap on, while the other's handler runs; and whether it stands on the alternate stack. */
static __thread uintptr_t passing_frame __attribute__((tls_model("initial-exec")));
static __thread bool passing_alternate __attribute__((tls_model("initial-exec")));
static __thread bool passing_blocked
	__attribute__((tls_model("initial-exec"))); /* the other's handler runs with SIGTRAP blocked */

/*
 * The same for a fault of either signal, and the context that it passed on. The other's handler may leave by longjmp, as
 * programs do that try whether an instruction is there: what is left behind here means nothing then.
 */
static __thread uintptr_t passed_frame __attribute__((tls_model("initial-exec")));
static __thread void *passed_context __attribute__((tls_model("initial-exec")));
static __thread uint32_t passed_below __attribute__((tls_model("initial-exec"))); /* how many handlers are above its */
#ifdef __i386__
static __thread struct xp_fault_again fault_again __attribute__((tls_model("initial-exec")));
#endif

static bool on_alternate_stack(void)
{
	stack_t stack;

	return XP__SYS2(SYS_sigaltstack, NULL, &stack) == 0 && stack.ss_flags & SS_ONSTACK;
}

/* Whether the stack reaches from @low up to @high: between two stacks there is something that cannot be read. */
static bool one_stack(uintptr_t low, uintptr_t high)
{
	const uintptr_t page = 4096, most = 64 << 20;
	uintptr_t word;

	if (high - low > most)
		return false;
	for (uintptr_t at = high & ~(page - 1); at > low; at -= page)
		if (xp__data_read(&word, (const void *)at))
			return false;
	return true;
}

/*
 * The other's handler may have left by siglongjmp: then we are above our own frame, or on another stack, or SIGTRAP is not
 * blocked any more. Or it has switched to a coroutine, which is no handler, and may come back.
 */
bool xp__in_trap(void)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	uint64_t mask = 0;

	if (passing_frame == 0)
		return false;
	XP__SYS4(SYS_rt_sigprocmask, 0, NULL, &mask, XP__NSIG_SIZE);
	if (on_alternate_stack() != passing_alternate || here >= passing_frame ||
	    (passing_blocked && !(mask & xp__sigbit(SIGTRAP)))) {
		passing_frame = 0;
		return false;
	}
	return one_stack(here, passing_frame);
}

#ifdef __x86_64__
static const uint8_t gregs[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
#else
static const uint8_t gregs[] = {REG_EAX, REG_ECX, REG_EDX, REG_EBX, REG_ESP, REG_EBP, REG_ESI, REG_EDI};
#endif
#define NR_GREGS (sizeof(gregs) / sizeof(gregs[0]))

static struct displaced *displaced_by(int signal)
{
	return &displaced[signal == SIGILL ? 1 : signal == SIGSEGV ? 2 : 0];
}

/* The one that has @below others above itself; NULL: there is none. */
static struct xp__sigaction *handler_below(int signal, uint32_t below)
{
	struct displaced *all = displaced_by(signal);
	/* ordering: (J2) pairs with (J1): a handler that counts is read as it was written */
	uint32_t nr = __atomic_load_n(&all->nr, __ATOMIC_ACQUIRE);

	return below < nr ? &all->act[nr - 1 - below] : NULL;
}

static bool sigtrap_is_same(const struct xp__sigaction *a, const struct xp__sigaction *b)
{
	return a->handler == b->handler && a->flags == b->flags && a->mask == b->mask;
}

/* Ours comes in front of @act. Of more than MOST the lowest ones stay. One that is there again: what was above it is gone. */
static void displace(int signal, const struct xp__sigaction *act)
{
	struct displaced *all = displaced_by(signal);
	uint32_t nr = 0;

	while (nr < all->nr && nr < MOST - 1 && !sigtrap_is_same(&all->act[nr], act))
		nr++;
	if (nr == all->nr || !sigtrap_is_same(&all->act[nr], act))
		all->act[nr] = *act;
	/* ordering: (J1) pairs with (J2): the handler is written before it counts */
	__atomic_store_n(&all->nr, nr + 1, __ATOMIC_RELEASE);
}

static void die(int signal, bool restart, ucontext_t *uc)
{
	struct xp__sigaction dfl = {.handler = (uintptr_t)SIG_DFL};

	/* The default action, where the trap happened: executes the instruction again, or takes the signal again. */
	xp__sigaction(signal, &dfl, NULL);
	if (restart)
		uc->uc_mcontext.gregs[XP__REG_IP] -= signal == SIGTRAP;
	else
		XP__SYS3(SYS_tgkill, XP__SYS1(SYS_getpid, 0), XP__SYS1(SYS_gettid, 0), signal);
}

/* I2. The mask that the thread would have if our handler blocked nothing. Another's that calls ours has a mask of its own. */
static uint64_t outer_mask(const ucontext_t *uc)
{
	const uint64_t ours = xp__signals_sent() & ~(xp__sigbit(SIGKILL) | xp__sigbit(SIGSTOP));
	uint64_t mask = 0;

	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, XP__NSIG_SIZE);
	if ((mask & (ours | xp__sigbit(SIGTRAP))) == ours)
		memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	return mask;
}

static void pass_on(int signal, siginfo_t *info, void *context, bool fault)
{
	uintptr_t outer = passing_frame, outer_passed = passed_frame, frame = (uintptr_t)__builtin_frame_address(0);
	void *outer_context = passed_context;
	uint32_t outer_below = passed_below;
	bool passed_back = context == passed_context && frame < passed_frame;
	uint32_t below = passed_back ? passed_below + 1 : 0;
	struct xp__sigaction *next = handler_below(signal, below), act = {.handler = (uintptr_t)SIG_DFL};
	uint64_t mask, before;

	if (next)
		act = *next;
	mask = outer_mask(context) | act.mask;
	/* Ignoring does not help against a forced signal. What was sent and came back has had a handler. */
	if (act.handler <= (uintptr_t)SIG_IGN) {
		if (fault || (act.handler == (uintptr_t)SIG_DFL && !passed_back))
			die(signal, fault, context);
		return;
	}
	if (!(act.flags & SA_NODEFER))
		mask |= xp__sigbit(signal);
	if (act.flags & SA_RESETHAND)
		next->handler = (uintptr_t)SIG_DFL;
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, XP__NSIG_SIZE);
	if (signal == SIGTRAP) {
		passing_alternate = on_alternate_stack();
		passing_blocked = mask & xp__sigbit(SIGTRAP);
		passing_frame = frame;
	}
	passed_context = context;
	passed_frame = frame;
	passed_below = below;
	if (act.flags & SA_SIGINFO)
		((void (*)(int, siginfo_t *, void *))act.handler)(signal, info, context);
	else
		((void (*)(int))act.handler)(signal);
	passing_frame = outer;
	passed_frame = outer_passed;
	passed_context = outer_context;
	passed_below = outer_below;
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, XP__NSIG_SIZE);
}

int xp__text_peek(const void *addr)
{
	return xp__can_read(addr) ? *(const volatile uint8_t *)addr : -1;
}

/* Whether the bytes before @ip are these. The page before may not be there. */
static bool ends_with(uintptr_t ip, const uint8_t *bytes, size_t len)
{
	for (size_t i = 1; i <= len; i++)
		if (xp__text_peek((const void *)(ip - i)) != bytes[len - i])
			return false;
	return true;
}

/*
 * The kernel moves a thread that a signal interrupts inside a restartable sequence to its abort address, which follows a
 * signature; the sequence, breakpoint and all, starts over. By that address a trap looks late, and is not: nothing is
 * to be executed again there.
 */
static bool at_rseq_abort(uintptr_t ip)
{
	static const uint8_t signature[4] = {0x53, 0x30, 0x05, 0x53};

	return ends_with(ip, signature, sizeof(signature));
}

/* int $3 in two bytes, in two pages: the core does not look into the page before, and takes it for a late trap. */
static bool behind_split_int3(uintptr_t ip)
{
	static const uint8_t int3[2] = {0xcd, 0x03};

	return (ip - 1) % 4096 == 0 && ends_with(ip, int3, sizeof(int3));
}

unsigned xp__trap_shard(void)
{
	uintptr_t thread = (uintptr_t)__builtin_thread_pointer();

	/* Thread blocks are pages apart, at the top of their stacks. */
	return (unsigned)((thread >> 12) ^ (thread >> 20) ^ (thread >> 6));
}

#ifdef __x86_64__
static void take_segments(struct xp_regs *regs, const greg_t *saved)
{
	(void)saved;
	regs->cs = 0;
	regs->error = 0;
}

static void put_segments(greg_t *saved, const struct xp_regs *regs)
{
	(void)saved;
	(void)regs;
}
#else
static void take_segments(struct xp_regs *regs, const greg_t *saved)
{
	regs->cs = (uint16_t)saved[REG_CS];
	regs->error = (uint32_t)saved[REG_ERR];
}

static void put_segments(greg_t *saved, const struct xp_regs *regs)
{
	saved[REG_CS] = (greg_t)regs->cs;
}
#endif

/* Whether the program counter is an address; bit 2 of a selector says that it is of the LDT. */
static bool is_flat(const struct xp_regs *regs)
{
	return !(regs->cs & 4);
}

static enum xp_trap_verdict take(ucontext_t *uc, enum xp_trap_verdict (*decide)(struct xp_regs *, unsigned))
{
	greg_t *saved = uc->uc_mcontext.gregs;
	enum xp_trap_verdict verdict;
	struct xp_regs regs;

	/* Zero-extended: a greg_t is signed. */
	for (unsigned i = 0; i < 16; i++)
		regs.gpr[i] = i < NR_GREGS ? (uintptr_t)saved[gregs[i]] : 0;
	regs.ip = (uintptr_t)saved[XP__REG_IP];
	regs.flags = (uintptr_t)saved[REG_EFL];
	take_segments(&regs, saved);
	verdict = decide(&regs, xp__trap_shard());
	if (verdict == XP_TRAP_FOREIGN)
		return verdict;
	if (decide == xp_trap && verdict == XP_TRAP_RETRY && is_flat(&regs)) {
		if (at_rseq_abort((uintptr_t)saved[XP__REG_IP]))
			return XP_TRAP_DONE;
		if (behind_split_int3((uintptr_t)saved[XP__REG_IP]))
			return XP_TRAP_FOREIGN;
	}
	put_segments(saved, &regs);
	for (unsigned i = 0; i < NR_GREGS; i++)
		saved[gregs[i]] = (greg_t)regs.gpr[i];
	saved[XP__REG_IP] = (greg_t)regs.ip;
	saved[REG_EFL] = (greg_t)regs.flags;
	return verdict;
}

/*
 * Linux says SI_KERNEL. valgrind says TRAP_BRKPT, which Linux says of an int1, a debugger's instruction that is not of ours;
 * it would look like a late trap.
 */
static bool is_int3(const siginfo_t *info, const ucontext_t *uc)
{
	const uint8_t *behind = (const uint8_t *)(uintptr_t)uc->uc_mcontext.gregs[XP__REG_IP];
	int byte;

	if (info->si_code != TRAP_BRKPT)
		return info->si_code == SI_KERNEL;
	byte = xp__text_peek(behind - 1);
	return byte >= 0 && byte != 0xf1;
}

static void on_sigtrap(int signal, siginfo_t *info, void *context)
{
	bool int3;

	xp__key_read();
	int3 = is_int3(info, context);
	if (!int3 || take(context, xp_trap) == XP_TRAP_FOREIGN)
		pass_on(signal, info, context, int3);
}

static void on_sigill(int signal, siginfo_t *info, void *context)
{
	bool fault = info->si_code > 0;

	xp__key_read();
	if (!fault || take(context, xp_trap_illegal) == XP_TRAP_FOREIGN)
		pass_on(signal, info, context, fault);
}

#ifdef __i386__
static enum xp_trap_verdict decide_fault(struct xp_regs *regs, unsigned shard)
{
	return xp_trap_fault(regs, shard, &fault_again);
}

/* A general protection fault has no address: si_code tells it from a page fault. */
static void on_sigsegv(int signal, siginfo_t *info, void *context)
{
	xp__key_read();
	if (info->si_code != SI_KERNEL || take(context, decide_fault) == XP_TRAP_FOREIGN)
		pass_on(signal, info, context, info->si_code > 0);
}
#endif

static int start(int signal, void (*handler)(int, siginfo_t *, void *), struct xp_diag *diag)
{
	struct xp__sigaction act = {
		.handler = (uintptr_t)handler,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART,
		.mask = signal == SIGTRAP ? xp__signals_sent() : 0,
	};
	struct xp__sigaction now;
	int error = xp__sigaction(signal, NULL, &now);

	if (error)
		return xp__refuse(diag, error, -error, "cannot read the handler of the signal");
	if (now.handler == (uintptr_t)handler)
		return 0;
	if (now.handler == (uintptr_t)SIG_IGN && signal == SIGTRAP) {
		if (diag)
			diag->tid = xp__gettid();
		return xp__refuse(diag, -EBUSY, 0, "the process ignores SIGTRAP, which says that it wants no traps");
	}
	/* First what to pass on to, then the handler that does. */
	displace(signal, &now);
	error = xp__sigaction(signal, &act, NULL);
	if (error)
		return xp__refuse(diag, error, -error, "cannot install the handler of the signal");
	return 0;
}

int xp__sigtrap_start(struct xp_diag *diag)
{
	return start(SIGTRAP, on_sigtrap, diag);
}

int xp__sigill_start(struct xp_diag *diag)
{
	return start(SIGILL, on_sigill, diag);
}

int xp__sigsegv_start(struct xp_diag *diag)
{
#ifdef __i386__
	return start(SIGSEGV, on_sigsegv, diag);
#else
	return xp__refuse(diag, -XP_E_NO_METHOD, 0, "far gates are of 32-bit processes");
#endif
}
