// SPDX-License-Identifier: MIT
/*
 * The rendezvous: a signal to every other thread, whose handler executes a serializing instruction and, if the round
 * parks, waits there. Fallback for sync_core, and the whole of the quiesce method (quiesce.c).
 *
 * I1  A round ends when every thread that was asked has answered or is gone; so no signal of an earlier round is under
 *     way, and the slots may be moved.
 * I2  Threads that start during the round are found by listing again until nobody is new.
 * I3  The handler blocks every signal that can be blocked: a parked thread runs nothing else.
 *
 *	writer                                 thread
 *	(R1) fill slots, meeting++               (R2) read its slot
 *	signal                                 serialize; note pc and sp
 *	(R4) every slot answered?              (R3) slot.answer = meeting; wake
 *	read pc, store text                    parked: wait for released == meeting
 *	(R5) released = meeting; wake            (R6) serialize, leave
 */
#include "arch/x86/sync.h"
#include "port/linux/port.h"
#include "port/linux/rendezvous.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#define WAIT_NS 2000000u /* then look whether somebody died without answering */

static int number; /* of the signal; 0: none yet */
static struct xp__slot *slots;
static uint32_t nr_slots, room;
static uint32_t meeting, released; /* released == meeting: nobody is to wait */
static uint32_t answers;         /* futex: counts answers */
static bool parking;

/*
 * What the signal carries: the round, and the slot. Of 32 bits the slot takes as many as a process can have threads,
 * each with a page of stack in 4 GiB; the round's lowest tell it from those that failed, whose signals come first.
 */
#define INDEX_BITS (sizeof(void *) == 8 ? 32 : 20)
#define INDEX_MASK (((uintptr_t)1 << INDEX_BITS) - 1)

static uintptr_t invitation(uint32_t round, uint32_t index)
{
	return (uintptr_t)round << INDEX_BITS | index;
}

static void on_rendezvous(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint32_t mine, index;
	struct xp__slot *slot;

	(void)signal;
	if (info->si_code != SI_QUEUE || info->si_pid != (int)XP__SYS1(SYS_getpid, 0))
		return;
	/* ordering: (R2) pairs with (R1) */
	mine = __atomic_load_n(&meeting, __ATOMIC_ACQUIRE);
	index = (uint32_t)((uintptr_t)info->si_value.sival_ptr & INDEX_MASK);
	if ((uintptr_t)info->si_value.sival_ptr != invitation(mine, index) || index >= nr_slots)
		return;
	slot = &slots[index];
	slot->pc = (uintptr_t)uc->uc_mcontext.gregs[XP__REG_IP];
	slot->sp = (uintptr_t)uc->uc_mcontext.gregs[XP__REG_SP];
	xp__serialize();
	/* ordering: (R3) pairs with (R4) */
	__atomic_store_n(&slot->answer, mine, __ATOMIC_RELEASE);
	__atomic_add_fetch(&answers, 1, __ATOMIC_RELEASE);
	xp__futex_wake(&answers, 1);
	if (!parking)
		return;
	for (;;) {
		/* ordering: (R6) pairs with (R5) */
		uint32_t now = __atomic_load_n(&released, __ATOMIC_ACQUIRE);

		if (now == mine)
			break;
		xp__futex_wait(&released, now, 0);
	}
	xp__serialize();
}

int xp__rendezvous_signal(void)
{
	return __atomic_load_n(&number, __ATOMIC_RELAXED);
}

/* A real-time signal that nobody uses, from the top: libc keeps the lowest for itself, programs take the next. */
int xp__rendezvous_start(void)
{
	struct xp__sigaction act = {
		.handler = (uintptr_t)on_rendezvous,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART,
		.mask = ~(xp__sigbit(SIGSEGV) | xp__sigbit(SIGBUS) | xp__sigbit(SIGILL) | xp__sigbit(SIGFPE) |
			  xp__sigbit(SIGTRAP)),
	};
	struct xp__sigaction now;

	if (number && xp__sigaction(number, NULL, &now) == 0 && now.handler == act.handler)
		return 0;
	for (int signal = 63; signal > 40; signal--) {
		if (xp__sigaction(signal, NULL, &now) || now.handler != (uintptr_t)SIG_DFL)
			continue;
		if (xp__sigaction(signal, &act, NULL) == 0) {
			__atomic_store_n(&number, signal, __ATOMIC_RELAXED);
			xp__workers_wake();
			return 0;
		}
	}
	return -XP_E_NO_SYNC;
}

/*
 * Whether it will never answer: it is gone, or executes no code of ours. Asked when somebody has not come in time: a
 * round with threads of the kernel's takes that time. If it cannot be told, it is waited for.
 */
static bool stays_away(int tid)
{
	uint64_t blocked, ignored;

	return xp__thread_masks(tid, &blocked, &ignored) == -ESRCH || xp__thread_is_kernels(tid);
}

static int add_slot(int tid)
{
	if (nr_slots == room) {
		uint32_t more = room ? room * 2 : 64;
		struct xp__slot *larger = xp__alloc(more * sizeof(*slots));

		if (larger == NULL)
			return -ENOMEM;
		if (slots) {
			memcpy(larger, slots, nr_slots * sizeof(*slots));
			xp__release(slots, room * sizeof(*slots));
		}
		slots = larger;
		room = more;
	}
	memset(&slots[nr_slots], 0, sizeof(*slots));
	slots[nr_slots++].tid = tid;
	return 0;
}

static bool known(int tid)
{
	for (uint32_t i = 0; i < nr_slots; i++)
		if (slots[i].tid == tid)
			return true;
	return false;
}

/* Adds the threads that have no slot yet, but the caller. Number of new ones, or -errno. */
static int list_new(void)
{
	struct xp__threads threads = {.open = false};
	int self = xp__gettid(), tid, nr = 0;

	while ((tid = xp__threads_next(&threads)) > 0) {
		if (tid == self || known(tid))
			continue;
		if (add_slot(tid)) {
			tid = -ENOMEM;
			break;
		}
		nr++;
	}
	xp__threads_end(&threads);
	return tid < 0 ? tid : nr;
}

static int ask(uint32_t i)
{
	siginfo_t info;
	int error;

	memset(&info, 0, sizeof(info));
	info.si_code = SI_QUEUE;
	info.si_pid = (int)XP__SYS1(SYS_getpid, 0);
	info.si_value.sival_ptr = (void *)invitation(meeting, i); /* NOLINT: a number */
	/* EAGAIN: the queue of signals is full, and empties as they are handled. */
	do {
		error = (int)XP__SYS4(SYS_rt_tgsigqueueinfo, info.si_pid, slots[i].tid, number, &info);
		if (error == -EAGAIN)
			XP__SYS1(SYS_sched_yield, 0);
	} while (error == -EAGAIN);
	if (error == -ESRCH)
		slots[i].answer = meeting;
	return error == -ESRCH ? 0 : error;
}

/* @late: somebody did not come in time this round. From then on whoever is not there is looked at before the wait. */
static void wait_for(uint32_t i, bool *late)
{
	for (;;) {
		/* ordering: (R4) pairs with (R3) */
		uint32_t seen = __atomic_load_n(&answers, __ATOMIC_ACQUIRE);

		/* ordering: (R4) pairs with (R3) */
		if (__atomic_load_n(&slots[i].answer, __ATOMIC_ACQUIRE) == meeting)
			return;
		if (*late && stays_away(slots[i].tid)) {
			slots[i].answer = meeting;
			return;
		}
		if (xp__futex_wait(&answers, seen, WAIT_NS) == -ETIMEDOUT)
			*late = true;
	}
}

int xp__rendezvous_meet(bool park)
{
	uint32_t asked = 0;
	bool late = false;
	int nr, error = 0;

	parking = park;
	nr_slots = 0;
	/* ordering: (R1) pairs with (R2); the signal itself orders it too */
	__atomic_add_fetch(&meeting, 1, __ATOMIC_SEQ_CST);
	/*
	 * Slots may move while nobody who was asked is still to answer, and a parked thread does not look at them any
	 * more: so ask and wait in turns, until a listing brings nobody new.
	 */
	while (!error && (nr = list_new()) != 0) {
		error = nr < 0 ? nr : 0;
		for (uint32_t i = asked; i < nr_slots && !error; i++)
			error = ask(i);
		for (uint32_t i = asked; i < nr_slots && !error; i++)
			wait_for(i, &late);
		asked = nr_slots;
	}
	xp__serialize();
	if (error || !park)
		xp__rendezvous_release();
	return error;
}

void xp__rendezvous_release(void)
{
	/* ordering: (R5) pairs with (R6) */
	__atomic_store_n(&released, meeting, __ATOMIC_SEQ_CST);
	xp__futex_wake(&released, 0x7fffffff);
}

const struct xp__slot *xp__rendezvous_slots(uint32_t *nr)
{
	*nr = nr_slots;
	return slots;
}

int xp__rendezvous_sync(void)
{
	/* ordering: (S2) pairs with (P6) */
	return xp__rendezvous_meet(false);
}
