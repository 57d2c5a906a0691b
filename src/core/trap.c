// SPDX-License-Identifier: MIT
/*
 * The trap path: what happens to a bystander that executes our breakpoint.
 *
 * I1  The handler takes no lock, allocates nothing, calls nothing outside core and arch but the port's text_peek(), not
 *     even memcpy, which may be what is being patched, and writes one cache line that is its thread's own (its shard).
 * I2  A trap is ours if the published table has its address. If no table has it and the text there is no breakpoint
 *     any more, the trap is late: executing again is right, whatever stands there now.
 * I3  Foreign is said only after a search and a look at the text between which no table came.
 *
 * Ordering. W is the writer (text lock held), H a handler.
 *
 *	W                                       H
 *	fill table                              (T2) count in: shard->active++    full barrier
 *	(T1) table = commit                          read generation              acquire
 *	(T7) generation++                       (T4) table ->                     acquire
 *	store breakpoints, …, store heads            search; miss: read the text
 *	(T3) table = NULL       full barrier    (T8) read generation again        acquire
 *	(T6) read every shard's active          (T5) count out: shard->active--   release
 *
 * T1/T4: a thread that sees the breakpoint in the text sees the table: the table is stored before it (release, and the
 *     port's sync between), and x86 does not reorder loads. Without T1 a trap of ours is called foreign and kills.
 * T7/T8: a late trap of the commit before may miss, and then read the breakpoint of the next commit at the same site.
 *     The generation was raised before that breakpoint was stored, so H, which read it before its search, sees it
 *     change and searches again. Raised before T1, H could read the raised one and still no table, and call it foreign.
 * T3/T2: either W reads active > 0 at T6, or H counted in after T3 and reads no table, or a later one: a store, then a
 *     load of what the other stored, on both sides, all four sequentially consistent (on x86 the stores are locked, the
 *     loads plain). Otherwise the table is reused under H's eyes.
 * A table that goes raises no generation: when it goes none of its breakpoints stands, so H finds none to call foreign.
 * T5/T6: what H read of the table it read before W finds the shard empty.
 * W needs to find each shard empty once, not all at the same time: a handler that enters later sees no retired table.
 */
#include "core/trap.h"

#include "core/commit.h"
#include "core/counter.h"
#include "core/deps.h"
#include "core/inject.h"
#include "core/kind.h"
#include "core/state.h"

struct shard {
	unsigned long active; /* handlers running now */
	struct xp__counter traps;
	struct xp__counter late;
} __attribute__((aligned(64)));

static struct shard shards[XP__SHARDS];
static unsigned long used[XP__SHARD_WORDS]; /* shards that ever counted: the others need no look */
static const struct xp__commit *table;
/* Of the table; 0: there never was one. One per commit: no handler rests so long that 32 bits come round to the same. */
static unsigned long generation;

#ifdef XP_INJECT
void (*xp__inject)(enum xp__point point);
#endif

void xp__trap_publish(const struct xp__commit *commit)
{
	/* ordering: (T1) pairs with (T4) */
	__atomic_store_n(&table, commit, __ATOMIC_SEQ_CST);
	/* After the table, before the first breakpoint: see T7 above. ordering: (T7) pairs with (T8) */
	__atomic_add_fetch(&generation, 1, __ATOMIC_SEQ_CST);
}

void xp__trap_retire(void)
{
	/* ordering: (T3) pairs with (T2) */
	__atomic_store_n(&table, NULL, __ATOMIC_SEQ_CST);
}

static bool trap_quiescent(unsigned long waiting[XP__SHARD_WORDS])
{
	bool quiescent = true;

	for (unsigned w = 0; w < XP__SHARD_WORDS; w++) {
		/* ordering: (T6) pairs with (T5) */
		waiting[w] &= __atomic_load_n(&used[w], __ATOMIC_SEQ_CST);
		for (unsigned long left = waiting[w]; left; left &= left - 1) {
			unsigned bit = (unsigned)__builtin_ctzl(left);

			/* ordering: (T6) pairs with (T5) */
			if (__atomic_load_n(&shards[w * XP__SHARD_BITS + bit].active, __ATOMIC_SEQ_CST) == 0)
				waiting[w] &= ~(1ul << bit);
		}
		quiescent = quiescent && waiting[w] == 0;
	}
	return quiescent;
}

struct xp__domain xp__trap_domain = {.quiescent = trap_quiescent, .brief = true};

void xp__trap_count(struct xp_stats *stats)
{
	for (unsigned i = 0; i < XP__SHARDS; i++) {
		stats->traps += xp__counted(&shards[i].traps);
		stats->late_traps += xp__counted(&shards[i].late);
	}
}

static const struct xp__plan *search(const struct xp__commit *commit, uintptr_t addr)
{
	size_t low = 0, high = commit->nr;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (commit->addr[middle] < addr)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == commit->nr || commit->addr[low] != addr)
		return NULL;
	const struct xp__plan *plan = xp__commit_plan(commit, low);
	return plan->traps ? plan : NULL;
}

/* Finishes the new instruction. Old and new are both right while the commit runs; new needs no copy of the old. */
static void resume(const struct xp__plan *plan, const struct xp__trapped *at, struct xp_regs *regs)
{
	struct xp__insn insn = plan->insn;

	if (plan->resume != 0) {
		xp__trap_goto(regs, plan->resume);
		return;
	}
	/* The bytes that the plan does not give stay as they are in the text: a branch site's displacement. */
	if (plan->known < plan->len) {
		const volatile uint8_t *text = (const volatile uint8_t *)at->addr;
		uint8_t bytes[XP_MAX_LEN];

		/* volatile: the loop would become memcpy (I1) */
		for (unsigned i = 0; i < plan->len; i++)
			bytes[i] = i < plan->known ? plan->new[i] : text[i];
		xp__insn_decode(bytes, plan->len, &insn);
	}
	xp__trap_finish(&insn, at, plan->len, regs);
}

/* The byte of text at @addr, -1 if it cannot be read. */
static int peek(uintptr_t addr)
{
	return xp__port->text_peek ? xp__port->text_peek((const void *)addr) : *(const volatile uint8_t *)addr;
}

static enum xp_trap_verdict decide(struct xp_regs *regs, struct shard *shard)
{
	struct xp__trapped at;

	if (!xp__trap_taken(regs, &at))
		return XP_TRAP_FOREIGN;
	for (;;) {
		/* ordering: (T8) pairs with (T7) */
		unsigned long before = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
		/* ordering: (T4) pairs with (T1), (P1), (P5) */
		const struct xp__commit *commit = __atomic_load_n(&table, __ATOMIC_SEQ_CST);
		const struct xp__plan *plan = commit ? search(commit, at.addr) : NULL;

		if (plan) {
			XP__INJECT(XP__POINT_TRAP_FOUND);
			resume(plan, &at, regs);
			xp__count(&shard->traps, 1);
			return XP_TRAP_DONE;
		}
		XP__INJECT(XP__POINT_TRAP_MISSED);
		if (before == 0)
			return XP_TRAP_FOREIGN;
		if (xp__trap_is_late(at.addr, peek)) {
			xp__trap_again(regs, &at);
			xp__count(&shard->late, 1);
			return XP_TRAP_RETRY;
		}
		/* ordering: (T8) pairs with (T7) */
		if (__atomic_load_n(&generation, __ATOMIC_ACQUIRE) == before)
			return XP_TRAP_FOREIGN;
	}
}

void xp_trap_fork_child(unsigned number)
{
	/* A thread that shares the caller's shard stays counted in: memory is kept, never reused too early. */
	for (unsigned i = 0; i < XP__SHARDS; i++)
		if (i != number % XP__SHARDS)
			__atomic_store_n(&shards[i].active, 0, __ATOMIC_RELAXED);
}

void xp__trap_enter(unsigned number)
{
	unsigned long *word = &used[number % XP__SHARDS / XP__SHARD_BITS];
	unsigned long bit = 1ul << (number % XP__SHARD_BITS);

	/* ordering: (T2) pairs with (T3) */
	if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
		__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
	/* ordering: (T2) pairs with (T3) */
	__atomic_fetch_add(&shards[number % XP__SHARDS].active, 1, __ATOMIC_SEQ_CST);
}

void xp__trap_leave(unsigned number)
{
	/* ordering: (T5) pairs with (T6) */
	__atomic_fetch_sub(&shards[number % XP__SHARDS].active, 1, __ATOMIC_RELEASE);
}

enum xp_trap_verdict xp_trap(struct xp_regs *regs, unsigned number)
{
	enum xp_trap_verdict verdict;

	xp__trap_enter(number);
	XP__INJECT(XP__POINT_TRAP_ENTERED);
	verdict = decide(regs, &shards[number % XP__SHARDS]);
	xp__trap_leave(number);
	return verdict;
}

/* A fault of a site that is unbound: the kind says which faults its sites have. */
static enum xp_trap_verdict trap_decide_fault(enum xp_need need, struct xp_regs *regs, unsigned number,
					 struct xp_fault_again *memory)
{
	for (unsigned kind = 0; kind < XP_NR_SITE_KINDS; kind++)
		if (xp__kind_of(kind)->faults == need)
			return xp__kind_of(kind)->fault(regs, number, memory);
	return XP_TRAP_FOREIGN;
}

enum xp_trap_verdict xp_trap_illegal(struct xp_regs *regs, unsigned number)
{
	return trap_decide_fault(XP_NEED_ILLEGAL, regs, number, NULL);
}

enum xp_trap_verdict xp_trap_fault(struct xp_regs *regs, unsigned number, struct xp_fault_again *memory)
{
	return trap_decide_fault(XP_NEED_FAULT, regs, number, memory);
}
