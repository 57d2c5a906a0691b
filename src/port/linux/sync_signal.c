// SPDX-License-Identifier: MIT
/*
 * The rendezvous: a signal to every other thread, whose handler executes a serializing instruction and, if the round
 * parks, waits there. Fallback for sync_core, and the whole of the quiesce method (quiesce.c).
 *
 * A thread may be unable to come: it blocks the signal, a tracer holds it, the queue of signals is full, or it waits for
 * what a parked thread holds, as a thread that ends waits for a lock of libc's. So each round has a bound. When that is
 * reached the round is given up: every parked thread goes on. After a pause the next round asks all of them again. The
 * rounds together have a bound too (limit_of), and then the thread that did not come is named.
 *
 * I1  Slots are never moved or given back, and one word of a slot tells all: an odd number is the round's question,
 *     which only the thread of that slot answers, by one compare-and-exchange. A handler that comes late finds another
 *     word, serializes and returns: what it knows of a round that was given up changes nothing in the next one.
 * I2  The signal carries the number of a slot, and no round. One that comes late answers the question that it finds there,
 *     if the slot still is this thread's; a second one finds the question answered. So to ask again does no harm. A thread
 *     in which a signal of ours is pending is not sent another one, or the queue would fill up.
 * I3  Threads that start during a round are found by listing again until none is new. A round that parks has found
 *     every thread then, since parked threads make none. A round that does not park ends after LISTINGS of them: a
 *     thread that is made after the stores comes out of a context switch.
 * I4  The handler blocks every signal that can be blocked: a parked thread runs nothing else. Nor does the thread that
 *     parks the others: a handler of the program's could wait for one of them.
 * I5  When xp__rendezvous_meet() returns an error no thread is parked, and none will be.
 *
 *	writer                                 thread
 *	(R1) slot.word = question                (R2) read the word of its slot
 *	signal                                 serialize
 *	(R4) every word answered?              (R3) question -> answer; wake
 *	read pc, store text                    parked: wait until released has reached the round
 *	(R5) released = round; wake              (R6) serialize, leave
 *
 * A round that is given up takes its questions back by an exchange before (R5): the thread's compare-and-exchange came
 * before that, and it is parked until (R5), or it fails.
 */
#include "port/linux/sync_signal.h"

#include "arch/arch.h"
#include "port/linux/control.h"
#include "port/linux/defer.h"
#include "port/linux/diag.h"
#include "port/linux/keys.h"
#include "port/linux/lock_fork.h"
#include "port/linux/memory.h"
#include "port/linux/rendezvous_signal.h"
#include "port/linux/sys.h"
#include "port/linux/threads.h"

#include <crosspatch/error.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#define MS 1000000u
#define WAIT_NS (2 * MS)     /* then look at the thread that is waited for */
#define HOPELESS_NS (4 * MS) /* a parking round holds the others no longer for a thread that looks unable to come */
#define FIRST_NS (20 * MS)   /* patience of the first round: time in which no thread answers; doubled with each */
#define LONGEST_NS (160 * MS)
#define LISTINGS 16

static uint32_t nr_slots;
static uint32_t round_number; /* in steps of 4: the low bits of a question are PARK and 1 */
static uint32_t released;     /* the last round whose threads may go; parked threads wait for it */
static uint32_t answers;      /* futex: counts answers */
static bool holding;          /* a parking round is open, and the caller's signals are blocked */
static uint64_t mask_before;

/* A slot's word: a question; 0: no question; CAME; else, while the thread is parked, where its struct place is. */
#define ASKED 1u
#define PARK 2u
#define CAME 2u

/* On the stack of a parked thread. */
struct place {
	uintptr_t pc, sp;
};

/* ---- slots: chunks, each twice as large as the one before ---- */

#define FIRST_CHUNK 64u
#define NR_CHUNKS 20u

static struct xp__slot *chunks[NR_CHUNKS];

static unsigned chunk_of(uint32_t i, uint32_t *at)
{
	unsigned chunk = 31u - (unsigned)__builtin_clz(i / FIRST_CHUNK + 1);

	*at = i - FIRST_CHUNK * ((1u << chunk) - 1);
	return chunk;
}

static struct xp__slot *slot_at(uint32_t i)
{
	uint32_t at;

	return &chunks[chunk_of(i, &at)][at];
}

const struct xp__slot *xp__rendezvous_slot(uint32_t i)
{
	return i < nr_slots ? slot_at(i) : NULL;
}

/* ---- the handler ---- */

/* The slot that the signal names; NULL: it is another thread's by now. */
static struct xp__slot *my_slot(uint32_t i)
{
	/* ordering: (R2) pairs with (R1): the chunk of a slot that counts is seen */
	if (i >= __atomic_load_n(&nr_slots, __ATOMIC_ACQUIRE))
		return NULL;
	return __atomic_load_n(&slot_at(i)->tid, __ATOMIC_RELAXED) == (int)XP__SYS1(SYS_gettid, 0) ? slot_at(i) : NULL;
}

static void on_rendezvous(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	struct place here = {(uintptr_t)uc->uc_mcontext.gregs[XP__REG_IP],
			     (uintptr_t)uc->uc_mcontext.gregs[XP__REG_SP]};
	uintptr_t question = 0, answer;
	struct xp__slot *slot;
	uint32_t mine;

	if (info->si_code != SI_QUEUE || info->si_pid != (int)XP__SYS1(SYS_getpid, 0))
		return;
	if ((uintptr_t)info->si_value.sival_ptr == XP__ASKS_FORKING) {
		xp__lock_fork_asked(signal);
		return;
	}
	slot = my_slot((uint32_t)(uintptr_t)info->si_value.sival_ptr);
	if (slot)
		/* ordering: (R2) pairs with (R1): the stores before the question are seen when this thread serializes */
		question = __atomic_load_n(&slot->word, __ATOMIC_ACQUIRE);
	/* Behind (R2): of a question that is seen, the stores are visible before this. */
	xp__serialize();
	if (!(question & ASKED))
		return;
	/* The slot may have become another thread's since: then the question is another one too. */
	if (__atomic_load_n(&slot->tid, __ATOMIC_RELAXED) != (int)XP__SYS1(SYS_gettid, 0))
		return;
	xp__key_frame(uc);
	mine = (uint32_t)question & ~3u;
	answer = question & PARK ? (uintptr_t)&here : CAME;
	/* ordering: (R3) pairs with (R4): the answer comes after the registers were noted and the thread has serialized */
	if (!__atomic_compare_exchange_n(&slot->word, &question, answer, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		return;
	__atomic_add_fetch(&answers, 1, __ATOMIC_RELEASE);
	xp__futex_wake(&answers, 1);
	if (answer == CAME)
		return;
	for (;;) {
		/* ordering: (R6) pairs with (R5): a thread that sees the release sees all stores of text */
		uint32_t now = __atomic_load_n(&released, __ATOMIC_ACQUIRE);

		if ((int32_t)(now - mine) >= 0)
			break;
		xp__futex_wait(&released, now, 0);
	}
	xp__serialize();
}

int xp__rendezvous_start(void)
{
	int chosen = xp__rendezvous_choose((uintptr_t)on_rendezvous);

	/* The library's own threads set their masks again before they wait (D1). */
	if (chosen > 0) {
		xp__defer_wake();
		xp__control_wake();
	}
	return chosen < 0 ? chosen : 0;
}

/* ---- threads that do not come ---- */

enum lateness {
	GONE,    /* or a thread of the kernel's, which executes no code of ours: there is nothing to wait for */
	SLOW,    /* nothing tells why */
	BLOCKS,  /* the signal: for good, or while libc makes or ends it, which may wait for a parked thread */
	STOPPED, /* a tracer holds it */
	NO_ROOM, /* for the signal, in the queue */
};

struct late {
	int tid;
	enum lateness why;
	unsigned patience_ms; /* of the mask of one that blocks */
};

static enum lateness sync_look(int tid, struct late *late)
{
	struct xp__thread thread;
	int error = xp__thread_look(tid, &thread);

	*late = (struct late){tid, SLOW, 0};
	if (error == -ESRCH || xp__thread_is_kernels(tid))
		late->why = GONE;
	else if (error == 0 && xp__thread_stopped(&thread))
		late->why = STOPPED;
	else if (error == 0 && thread.blocked & xp__sigbit(xp__rendezvous_signal()))
		*late = (struct late){tid, BLOCKS, xp__thread_patience_ms(&thread)};
	return late->why;
}

/*
 * How long the rounds of one meeting may be late for the same reason. In the middle of a commit longer: it would have to be
 * undone, which takes a round too. To undo it as long as can be: what is left then is a wedged engine.
 */
static uint64_t limit_of(const struct late *late, enum xp__hurry hurry)
{
	const uint64_t patience = (uint64_t)XP__PATIENCE_MS * MS;
	uint64_t limit = 1000 * (uint64_t)MS;

	if (late->why == SLOW || hurry == XP__UNDOING)
		return patience;
	if (late->why == BLOCKS && (hurry == XP__BEFORE || late->patience_ms > 1000))
		limit = (uint64_t)late->patience_ms * MS;
	return limit < patience ? limit : patience;
}

/* The same, if the system refuses to list them or to send: it may be short of descriptors for a moment. */
static uint64_t retry_limit(enum xp__hurry hurry)
{
	static const uint8_t ms[] = {[XP__BEFORE] = 0, [XP__MIDWAY] = 20};

	return (uint64_t)(hurry == XP__UNDOING ? XP__PATIENCE_MS : ms[hurry]) * MS;
}

static int refuse_late(const struct late *late, struct xp_diag *diag)
{
	static const char *const why[] = {
		[SLOW] = "the thread does not answer the signal of the rendezvous",
		[BLOCKS] = "the thread blocks the rendezvous signal",
		[STOPPED] = "the thread is held by a debugger or tracer",
		[NO_ROOM] = "the user's queue of signals is full (ulimit -i), so that the thread cannot be asked",
	};

	if (diag)
		diag->tid = late->tid;
	return xp__refuse(diag, -EBUSY, 0, why[late->why]);
}

/*
 * The threads that did not answer the last round although it was asked for: our signal may be pending there. More than
 * there is room for: every thread may be one.
 */
static struct {
	int tid[64];
	uint32_t nr;
} suspects;

static bool is_suspect(int tid)
{
	const uint32_t room = sizeof(suspects.tid) / sizeof(suspects.tid[0]);

	for (uint32_t i = 0; i < suspects.nr && i < room; i++)
		if (suspects.tid[i] == tid)
			return true;
	return suspects.nr > room;
}

static void suspect(int tid)
{
	if (suspects.nr < sizeof(suspects.tid) / sizeof(suspects.tid[0]))
		suspects.tid[suspects.nr] = tid;
	suspects.nr++;
}

/* ---- a round ---- */

static int add_slot(int tid)
{
	uint32_t at;
	unsigned chunk = chunk_of(nr_slots, &at);
	struct xp__slot *slot;

	if (chunk >= NR_CHUNKS)
		return -ENOMEM;
	if (chunks[chunk] == NULL)
		chunks[chunk] = xp__memory_alloc((FIRST_CHUNK << chunk) * sizeof(*slot));
	if (chunks[chunk] == NULL)
		return -ENOMEM;
	slot = slot_at(nr_slots);
	__atomic_store_n(&slot->tid, tid, __ATOMIC_RELAXED); /* its word is 0 */
	slot->suspect = is_suspect(tid);
	slot->pc = slot->sp = 0;
	/* ordering: (R1) pairs with (R2): the chunk is there before the slot counts */
	__atomic_store_n(&nr_slots, nr_slots + 1, __ATOMIC_RELEASE);
	return 0;
}

static bool known(int tid)
{
	for (uint32_t i = 0; i < nr_slots; i++)
		if (slot_at(i)->tid == tid)
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

static bool is_pending(int tid)
{
	struct xp__thread thread;

	return xp__thread_look(tid, &thread) == 0 && thread.pending & xp__sigbit(xp__rendezvous_signal());
}

/* 0, -EAGAIN if the queue is full, -errno. */
static int sync_ask(uint32_t i, bool park)
{
	struct xp__slot *slot = slot_at(i);
	int error = 0;

	/* ordering: (R1) pairs with (R2): the question comes after the stores of text; the signal orders it too */
	__atomic_store_n(&slot->word, round_number | (park ? PARK : 0) | ASKED, __ATOMIC_SEQ_CST);
	if (slot->suspect && is_pending(slot->tid))
		return 0;
	/* The queue empties as signals are handled. */
	for (int tries = 0; tries < 4; tries++) {
		error = xp__rendezvous_send(slot->tid, i);
		if (error != -EAGAIN)
			break;
		XP__SYS1(SYS_sched_yield, 0);
	}
	if (error == -ESRCH)
		__atomic_store_n(&slot->word, 0, __ATOMIC_RELAXED);
	return error == -ESRCH ? 0 : error;
}

static bool is_open(const struct xp__slot *slot)
{
	/* ordering: (R4) pairs with (R3): what the thread noted before its answer is read after it */
	return __atomic_load_n(&slot->word, __ATOMIC_ACQUIRE) & ASKED;
}

/* Takes the question back. False: it was answered before. */
static bool withdraw(struct xp__slot *slot)
{
	uintptr_t word = __atomic_load_n(&slot->word, __ATOMIC_RELAXED);

	/* ordering: (R4) pairs with (R3): if this fails, it is for an answer, which is read like any other */
	return word & ASKED &&
	       __atomic_compare_exchange_n(&slot->word, &word, 0, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE);
}

/*
 * The time since @start, at most twice the @wait that was meant: a process that was stopped meanwhile, or a machine that
 * slept, kept the threads from coming too.
 */
static uint64_t since(struct xp__time start, uint64_t wait)
{
	struct xp__time now = xp__monotonic();
	uint64_t ns =
		(uint64_t)(now.seconds - start.seconds) * 1000 * MS + (uint64_t)(now.nanoseconds - start.nanoseconds);

	return ns < 2 * wait ? ns : 2 * wait;
}

void xp__rendezvous_pause(uint64_t ns, uint64_t *spent)
{
	static uint32_t never;
	struct xp__time start = xp__monotonic();

	xp__futex_wait(&never, 0, ns);
	*spent += since(start, ns);
}

/* Returns when the thread has answered or is gone: 0. -EBUSY: @patience is over, in which no thread answered. */
static int wait_for(uint32_t i, bool park, uint64_t patience, uint64_t *spent, struct late *late)
{
	struct xp__slot *slot = slot_at(i);
	bool looked = slot->suspect;
	uint64_t idle = 0;

	for (;;) {
		/* ordering: (R4) pairs with (R3): the count before the word, or an answer in between would wake nothing */
		uint32_t seen = __atomic_load_n(&answers, __ATOMIC_ACQUIRE);
		struct xp__time start;
		uint64_t waited;

		if (!is_open(slot))
			return 0;
		if (looked) {
			enum lateness why = sync_look(slot->tid, late);

			if (why == GONE) {
				slot->suspect = withdraw(slot);
				return 0;
			}
			if (idle >= (why == SLOW || !park || patience < HOPELESS_NS ? patience : HOPELESS_NS))
				return -EBUSY;
		}
		start = xp__monotonic();
		xp__futex_wait(&answers, seen, WAIT_NS);
		waited = since(start, WAIT_NS);
		*spent += waited;
		idle = __atomic_load_n(&answers, __ATOMIC_RELAXED) == seen ? idle + waited : 0;
		looked = looked || idle >= WAIT_NS;
	}
}

/* The end of a round that succeeded: where the threads are parked. */
static void take_places(void)
{
	for (uint32_t i = 0; i < nr_slots; i++) {
		struct xp__slot *slot = slot_at(i);
		const struct place *place = (const struct place *)slot->word; /* NOLINT: an address, or 0 */

		if (place) {
			slot->pc = place->pc;
			slot->sp = place->sp;
		}
	}
}

/* The words are 0 again, and the threads in which a signal may still be pending are remembered. */
static void close_round(void)
{
	suspects.nr = 0;
	for (uint32_t i = 0; i < nr_slots; i++) {
		struct xp__slot *slot = slot_at(i);

		if (withdraw(slot) || (slot->suspect && slot->word == 0))
			suspect(slot->tid);
		__atomic_store_n(&slot->word, 0, __ATOMIC_RELAXED);
	}
}

static void sync_block_signals(void)
{
	uint64_t mask = xp__signals_sent();

	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, &mask_before, XP__NSIG_SIZE);
	holding = true;
}

void xp__rendezvous_release(void)
{
	/* ordering: (R5) pairs with (R6): all stores of text come before any thread leaves */
	__atomic_store_n(&released, round_number, __ATOMIC_SEQ_CST);
	xp__futex_wake(&released, 0x7fffffff);
	if (holding)
		XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &mask_before, NULL, XP__NSIG_SIZE);
	holding = false;
}

/* One round. -EBUSY: given up for @late. */
static int run_round(bool park, uint64_t patience, uint64_t *spent, struct late *late)
{
	uint32_t asked = 0;
	int nr = 0, error = 0;

	__atomic_store_n(&nr_slots, 0, __ATOMIC_RELAXED);
	round_number += 4;
	if (park)
		sync_block_signals();
	for (int listing = 0; !error; listing++) {
		nr = list_new();
		if (nr <= 0 || (listing == LISTINGS && !park))
			break;
		for (uint32_t i = asked; i < nr_slots && !error; i++) {
			error = sync_ask(i, park);
			*late = (struct late){slot_at(i)->tid, error == -EAGAIN ? NO_ROOM : SLOW, 0};
		}
		for (uint32_t i = asked; i < nr_slots && !error; i++)
			error = wait_for(i, park, patience, spent, late);
		asked = nr_slots;
		if (!error && listing == 4 * LISTINGS)
			error = -EBUSY; /* threads come faster than they are parked */
	}
	error = nr < 0 ? nr : error;
	if (!error && park)
		take_places();
	close_round();
	if (error || !park)
		xp__rendezvous_release();
	return error == -EAGAIN ? -EBUSY : error;
}

int xp__rendezvous_meet(bool park, enum xp__hurry hurry, uint64_t *spent, struct xp_diag *diag)
{
	uint64_t patience = FIRST_NS, pause = MS, before = *spent, since = *spent;
	struct late late = {0, SLOW, 0}, last = late;
	int error;

	/* A commit that is midway began where they were. */
	if (hurry == XP__BEFORE && !xp__threads_alone() && xp__threads_ours() == -EXDEV)
		return xp__refuse(diag, -EXDEV, 0,
				  "/proc is of another namespace of processes: it has other numbers of threads");
	for (;;) {
		error = run_round(park, patience, spent, &late);
		if (error == 0)
			break;
		if (late.tid != last.tid || late.why != last.why)
			since = before;
		if (*spent - since >= (error == -EBUSY ? limit_of(&late, hurry) : retry_limit(hurry)) ||
		    *spent >= (uint64_t)XP__PATIENCE_MS * MS)
			break;
		last = late;
		before = *spent;
		xp__rendezvous_pause(pause, spent);
		pause = pause < 16 * MS ? pause * 2 : pause;
		patience = patience < LONGEST_NS ? patience * 2 : patience;
	}
	xp__serialize();
	if (error == -EBUSY)
		return refuse_late(&late, diag);
	return error ? xp__refuse(diag, error, -error, "the other threads cannot be asked to come") : 0;
}

int xp__rendezvous_sync(enum xp__hurry hurry, struct xp_diag *diag)
{
	uint64_t spent = 0;

	/* ordering: (S2) pairs with (P6) */
	return xp__rendezvous_meet(false, hurry, &spent, diag);
}
