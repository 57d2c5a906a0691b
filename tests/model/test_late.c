// SPDX-License-Identifier: MIT
/*
 * Traps that arrive when they should not: late, early, nested, or not ours. Two threads, a writer W that commits and a
 * handler H that was trapped; each waits at the points of inject.h until the other has got where the case wants it.
 */
#include "core/reclaim.h"
#include "recorder.h"
#include "xp_test.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#define SITE 0x45u
#define ELSEWHERE 0x1045u
#define PATIENCE 10 /* seconds */

static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static const uint8_t jmp[5] = {0xe9, 0x11, 0x22, 0x33, 0x04};
static const uint8_t other_jmp[5] = {0xe9, 0x71, 0x62, 0x53, 0x08};

/* ---- the commits ---- */

static void start(void)
{
	rec_start();
	rec.can = ~(unsigned)XP_NEED_SINGLE;
	rec_put(SITE, nop5, 5);
	rec_put(ELSEWHERE, nop5, 5);
}

/* Whatever stands at @offset becomes @new, by way of a breakpoint. */
static int commit(size_t offset, const uint8_t *new)
{
	struct xp_poke poke = {.addr = rec_text + offset, .expect = rec_text + offset, .replace = new, .len = 5};

	return xp_text_poke(&poke, NULL);
}

/* ---- the handler ---- */

struct trap {
	struct xp_regs regs;
	enum xp_trap_verdict verdict;
};

static struct trap trap_at(size_t offset, unsigned shard)
{
	struct trap trap = {.regs = {.ip = (uintptr_t)rec_text + offset + 1, .flags = 0x246}};

	for (int i = 0; i < 16; i++)
		trap.regs.gpr[i] = 0x1111111111111111ull * (unsigned)i;
	trap.verdict = xp_trap(&trap.regs, shard);
	return trap;
}

/* How the registers look at @offset, nothing else changed. */
static bool is_at(const struct trap *trap, size_t offset)
{
	struct xp_regs want = {.ip = (uintptr_t)rec_text + offset, .flags = 0x246};

	for (int i = 0; i < 16; i++)
		want.gpr[i] = 0x1111111111111111ull * (unsigned)i;
	return memcmp(&want, &trap->regs, sizeof(want)) == 0;
}

static void check_restarted(struct trap trap, size_t offset)
{
	CHECK_EQ(trap.verdict, XP_TRAP_RETRY);
	CHECK(is_at(&trap, offset));
}

static void check_foreign(struct trap trap, size_t offset)
{
	CHECK_EQ(trap.verdict, XP_TRAP_FOREIGN);
	CHECK(is_at(&trap, offset + 1));
}

/* Where @insn, a jmp at @offset, goes. */
static size_t target(size_t offset, const uint8_t *insn)
{
	int32_t displacement;

	memcpy(&displacement, insn + 1, sizeof(displacement));
	return offset + 5 + (size_t)displacement;
}

static void check_done(struct trap trap, size_t offset, const uint8_t *insn)
{
	CHECK_EQ(trap.verdict, XP_TRAP_DONE);
	CHECK(is_at(&trap, target(offset, insn)));
}

/* ---- H in a thread of its own, held at a point ---- */

static struct {
	pthread_t thread;
	struct trap trap;
	size_t offset;
	unsigned shard;
	enum xp__point hold; /* where it waits, the first time it comes there */
	bool started, held;
	bool nest;      /* a trap at the same site interrupts it there, and ends */
	sem_t came, go; /* came: to the point, or to the end */
} handler;

static _Thread_local bool in_handler;
static void (*at_point)(enum xp__point point); /* of W */

static void await(sem_t *sem)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE;
	while (sem_timedwait(sem, &until) != 0)
		if (errno == ETIMEDOUT) {
			CHECK(!"the other thread did not come");
			return;
		}
}

static void pass(enum xp__point point)
{
	if (!in_handler) {
		if (at_point)
			at_point(point);
	} else if (point == handler.hold && !handler.held) {
		handler.held = true;
		if (handler.nest)
			check_done(trap_at(handler.offset, handler.shard), handler.offset, jmp);
		sem_post(&handler.came);
		await(&handler.go);
	}
}

static void *run_handler(void *nothing)
{
	in_handler = true;
	handler.trap = trap_at(handler.offset, handler.shard);
	sem_post(&handler.came);
	return nothing;
}

/* Returns when H has come to @hold, or to its end. */
static void handler_start(size_t offset, unsigned shard, enum xp__point hold)
{
	handler.offset = offset;
	handler.shard = shard;
	handler.hold = hold;
	handler.held = false;
	handler.started = true;
	sem_init(&handler.came, 0, 0);
	sem_init(&handler.go, 0, 0);
	xp__inject = pass;
	CHECK_EQ(pthread_create(&handler.thread, NULL, run_handler, NULL), 0);
	await(&handler.came);
}

static void handler_finish(void)
{
	if (!handler.started)
		return;
	sem_post(&handler.go);
	pthread_join(handler.thread, NULL);
	handler.started = false;
}

/* ---- cases ---- */

static void before_any_commit(const void *nothing)
{
	(void)nothing;
	start();
	rec_text[SITE] = 0xcc;
	check_foreign(trap_at(SITE, 0), SITE);
	/* There never was a breakpoint of ours: not even one that is gone is ours. */
	check_foreign(trap_at(ELSEWHERE, 0), ELSEWHERE);
}

XP_TEST(without_a_commit_nothing_is_ours)
{
	rec_isolated(before_any_commit, NULL);
}

XP_TEST(late_traps_restart)
{
	struct xp_stats before, after;

	start();
	xp_stats_read(&before);
	CHECK_EQ(commit(SITE, jmp), 0);
	check_restarted(trap_at(SITE, 0), SITE);
	check_restarted(trap_at(SITE, 1000), SITE);
	/* Whatever stands there now, but for a breakpoint. */
	rec_text[SITE] = 0x03;
	check_restarted(trap_at(SITE, 0), SITE);
	xp_stats_read(&after);
	CHECK_EQ(after.late_traps - before.late_traps, 3);
	CHECK_EQ(after.traps, before.traps);
}

XP_TEST(foreign_traps)
{
	struct xp_stats before, after;

	start();
	CHECK_EQ(commit(SITE, jmp), 0);
	xp_stats_read(&before);
	rec_text[ELSEWHERE] = 0xcc;
	check_foreign(trap_at(ELSEWHERE, 0), ELSEWHERE);
	rec_text[SITE] = 0xcc; /* where one of ours was */
	check_foreign(trap_at(SITE, 0), SITE);
	/* int $3 in two bytes: the same registers, the byte before them is 03. */
	rec_text[ELSEWHERE - 1] = 0xcd;
	rec_text[ELSEWHERE] = 0x03;
	check_foreign(trap_at(ELSEWHERE, 0), ELSEWHERE);
	xp_stats_read(&after);
	CHECK_EQ(after.late_traps, before.late_traps);
	CHECK_EQ(after.traps, before.traps);
}

/* Nothing can be read there: it was never ours, and is not looked at. */
static int unreadable(const void *addr)
{
	return addr == rec_text + ELSEWHERE ? -1 : *(const uint8_t *)addr;
}

XP_TEST(a_foreign_trap_in_unreadable_text)
{
	start();
	rec_port.text_peek = unreadable;
	CHECK_EQ(commit(SITE, jmp), 0);
	rec_text[ELSEWHERE] = 0x90;
	check_foreign(trap_at(ELSEWHERE, 0), ELSEWHERE);
	check_restarted(trap_at(SITE, 0), SITE);
	rec_port.text_peek = NULL;
}

/* While a commit runs: the sites of others are not ours, and ours only by their first byte. */
static void probe_neighbours(enum xp__point point)
{
	if (point != XP__POINT_STORED && point != XP__POINT_SYNCED)
		return;
	rec_text[ELSEWHERE] = 0xcc;
	check_foreign(trap_at(ELSEWHERE, 0), ELSEWHERE);
	rec_text[ELSEWHERE] = nop5[0];
	rec_text[SITE - 1] = 0xcc;
	check_foreign(trap_at(SITE - 1, 0), SITE - 1);
	rec_text[SITE - 1] = 0xf4;
	check_done(trap_at(SITE, 0), SITE, jmp);
}

XP_TEST(foreign_traps_during_a_commit)
{
	start();
	at_point = probe_neighbours;
	xp__inject = pass;
	CHECK_EQ(commit(SITE, jmp), 0);
	at_point = NULL;
}

/* The table also has the sites that change without a trap; a breakpoint there is foreign. */
static void probe_flip(enum xp__point point)
{
	uint8_t saved = rec_text[ELSEWHERE];

	if (point != XP__POINT_STORED && point != XP__POINT_SYNCED)
		return;
	rec_text[ELSEWHERE] = 0xcc;
	check_foreign(trap_at(ELSEWHERE, 0), ELSEWHERE);
	rec_text[ELSEWHERE] = saved;
}

XP_TEST(foreign_traps_at_a_site_without_one)
{
	static const uint8_t test[5] = {0xa9, 0x11, 0x22, 0x33, 0x04};
	struct xp_poke flip = {.addr = rec_text + ELSEWHERE, .expect = test, .replace = jmp, .len = 5};
	struct xp_poke poke = {.addr = rec_text + SITE, .expect = nop5, .replace = jmp, .len = 5};
	struct xp_batch *batch;

	start();
	rec_put(ELSEWHERE, test, 5);
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_poke(batch, &flip), 0);
	CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	at_point = probe_flip;
	xp__inject = pass;
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	at_point = NULL;
	xp_batch_free(batch);
}

/*
 * T7/T8. H, late from one commit, finds no table; before it looks at the text the next commit has put its breakpoint
 * there. It must search again, not call that one foreign.
 */
static void let_go_when_stored(enum xp__point point)
{
	if (point == XP__POINT_STORED)
		handler_finish();
}

XP_TEST(missed_while_the_next_commit_begins)
{
	start();
	CHECK_EQ(commit(SITE, jmp), 0);
	handler_start(SITE, 3, XP__POINT_TRAP_MISSED);
	CHECK(handler.held);
	at_point = let_go_when_stored;
	CHECK_EQ(commit(SITE, other_jmp), 0);
	at_point = NULL;
	handler_finish();
	check_done(handler.trap, SITE, other_jmp);
}

/* The same, but the table that it looked at was that of a commit elsewhere, which the new one replaced. */
static void start_when_stored(enum xp__point point)
{
	if (point == XP__POINT_STORED && !handler.started)
		handler_start(SITE, 3, XP__POINT_TRAP_MISSED);
}

XP_TEST(missed_in_the_table_before)
{
	start();
	CHECK_EQ(commit(SITE, jmp), 0);
	at_point = start_when_stored;
	xp__inject = pass;
	CHECK_EQ(commit(ELSEWHERE, jmp), 0);
	CHECK(handler.held);
	at_point = let_go_when_stored;
	CHECK_EQ(commit(SITE, other_jmp), 0);
	at_point = NULL;
	handler_finish();
	check_done(handler.trap, SITE, other_jmp);
}

/*
 * T1 before T7: H comes in while the table is published. If it can have seen the generation raised, it can have seen
 * the table too; a handler that misses now must not call the breakpoint foreign when it stands.
 */
static void start_when_published(enum xp__point point)
{
	if (point == XP__POINT_PUBLISHED && !handler.started)
		handler_start(SITE, 3, XP__POINT_TRAP_MISSED);
	if (point == XP__POINT_STORED)
		handler_finish();
}

XP_TEST(trapped_while_the_table_is_published)
{
	start();
	CHECK_EQ(commit(SITE, jmp), 0);
	at_point = start_when_published;
	xp__inject = pass;
	CHECK_EQ(commit(SITE, other_jmp), 0);
	at_point = NULL;
	handler_finish();
	check_done(handler.trap, SITE, other_jmp);
}

/* A handler that misses and finds no breakpoint any more: the commit ended meanwhile. */
XP_TEST(missed_and_gone)
{
	start();
	CHECK_EQ(commit(SITE, jmp), 0);
	handler_start(SITE, 3, XP__POINT_TRAP_MISSED);
	CHECK(handler.held);
	CHECK_EQ(commit(SITE, other_jmp), 0);
	handler_finish();
	check_restarted(handler.trap, SITE);
}

/*
 * T3/T2, T5/T6. H has found its site and sleeps; W finishes the commit, makes others of the same size, which would take
 * the memory over, and H wakes up.
 */
static void start_and_hold(enum xp__point point)
{
	if (point == XP__POINT_SYNCED && !handler.started)
		handler_start(SITE, 3, XP__POINT_TRAP_FOUND);
}

static void hold_in_table(void)
{
	start();
	at_point = start_and_hold;
	xp__inject = pass;
	CHECK_EQ(commit(SITE, jmp), 0);
	CHECK(handler.held);
	at_point = NULL;
}

XP_TEST(table_memory_is_kept_for_a_handler)
{
	hold_in_table();
	CHECK_EQ(commit(SITE, other_jmp), 0);
	CHECK_EQ(commit(ELSEWHERE, other_jmp), 0);
	handler_finish();
	check_done(handler.trap, SITE, jmp);
}

/* T3 before T6: a handler that comes in when the memory is about to be given back finds the table gone. */
static void trap_when_retired(enum xp__point point)
{
	if (point == XP__POINT_RETIRED)
		check_restarted(trap_at(SITE, 5), SITE);
}

XP_TEST(retired_before_its_memory_is_given_back)
{
	start();
	at_point = trap_when_retired;
	xp__inject = pass;
	CHECK_EQ(commit(SITE, jmp), 0);
	at_point = NULL;
}

XP_TEST(a_nested_trap_does_not_release_the_table)
{
	handler.nest = true;
	hold_in_table();
	handler.nest = false;
	CHECK_EQ(commit(SITE, other_jmp), 0);
	CHECK_EQ(commit(ELSEWHERE, other_jmp), 0);
	handler_finish();
	check_done(handler.trap, SITE, jmp);
}

/* And not for longer: when the handler is gone the memory is used again. */
XP_TEST(table_memory_is_given_back)
{
	size_t live;

	start();
	for (int i = 0; i < 3; i++)
		CHECK_EQ(commit(ELSEWHERE, i % 2 ? jmp : other_jmp), 0);
	live = rec.live;
	hold_in_table();
	for (int i = 0; i < 10; i++)
		CHECK_EQ(commit(ELSEWHERE, i % 2 ? jmp : other_jmp), 0);
	CHECK(rec.live > live);
	handler_finish();
	for (int i = 0; i < 2; i++)
		CHECK_EQ(commit(ELSEWHERE, i % 2 ? jmp : other_jmp), 0);
	CHECK_EQ(rec.live, live);
}

/* Where memory is little, a commit waits until the handler is gone, and has that memory given back, before it is refused. */
static size_t live_while_held;

static void end_handler(const struct rec_step *step)
{
	if (step->op == REC_ALLOC && step->result)
		handler_finish();
	else if (step->op == REC_ALLOC)
		CHECK_EQ(rec.live, live_while_held); /* one less, and one more */
}

XP_TEST(table_memory_is_awaited_where_there_is_little)
{
	hold_in_table();
	CHECK_EQ(rec_port.lock(), 0);
	xp__reclaim_trim();
	rec_port.unlock();
	rec_port.bounded = true;
	live_while_held = rec.live;
	rec_forget();
	rec_fail(REC_ALLOC, 1, 1, -ENOMEM);
	rec.step = end_handler;
	CHECK_EQ(commit(ELSEWHERE, other_jmp), 0);
	rec.step = NULL;
	CHECK_EQ(rec.calls[REC_ALLOC], 2);
	check_done(handler.trap, SITE, jmp);
	rec_heal();
}

/* Others that come and go in the meantime, in every shard, do not release what H looks at, nor hold it back after. */
XP_TEST(other_shards_do_not_matter)
{
	hold_in_table();
	for (unsigned shard = 0; shard < 600; shard++)
		check_restarted(trap_at(SITE, shard), SITE);
	CHECK_EQ(commit(SITE, other_jmp), 0);
	CHECK_EQ(commit(ELSEWHERE, other_jmp), 0);
	handler_finish();
	check_done(handler.trap, SITE, jmp);
}

/* S7: a trap inside the handler of a trap, in the same shard; the inner one's end is not the outer one's. */
static void trap_inside(enum xp__point point)
{
	static bool inside;

	if (point != XP__POINT_TRAP_FOUND || inside)
		return;
	inside = true;
	check_done(trap_at(SITE, 3), SITE, jmp);
	inside = false;
}

static void trap_twice(enum xp__point point)
{
	if (point == XP__POINT_SYNCED)
		check_done(trap_at(SITE, 3), SITE, jmp);
	trap_inside(point);
}

XP_TEST(nested_traps)
{
	struct xp_stats before, after;

	start();
	xp_stats_read(&before);
	at_point = trap_twice;
	xp__inject = pass;
	CHECK_EQ(commit(SITE, jmp), 0);
	at_point = NULL;
	xp_stats_read(&after);
	CHECK_EQ(after.traps - before.traps, 6); /* two at each of three syncs */
}

/* With many sites the search must find each of them, and none between. */
static struct xp_batch *batch_of(size_t nr, size_t stride)
{
	struct xp_batch *batch = xp_batch_new();

	for (size_t i = 0; batch && i < nr; i++) {
		/* Forth and back, so that they come unsorted. */
		size_t offset = (i % 2 ? nr - i - nr % 2 : i) * stride + SITE;
		struct xp_poke poke = {.addr = rec_text + offset, .expect = nop5, .replace = jmp, .len = 5};

		rec_put(offset, nop5, 5);
		CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	}
	return batch;
}

#define MANY 301u
#define STRIDE 7u

static void trap_at_each(enum xp__point point)
{
	if (point != XP__POINT_SYNCED)
		return;
	for (size_t at = SITE; at < SITE + MANY * STRIDE; at++) {
		bool site = (at - SITE) % STRIDE == 0;
		uint8_t saved = rec_text[at];

		if (site) {
			check_done(trap_at(at, 0), at, jmp);
			continue;
		}
		rec_text[at] = 0xcc;
		check_foreign(trap_at(at, 0), at);
		rec_text[at] = saved;
	}
}

XP_TEST(every_site_is_found)
{
	struct xp_batch *batch;

	start();
	batch = batch_of(MANY, STRIDE);
	REQUIRE(batch != NULL);
	at_point = trap_at_each;
	xp__inject = pass;
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	at_point = NULL;
	xp_batch_free(batch);
	for (size_t i = 0; i < MANY; i++)
		CHECK_MEM(rec_text + SITE + i * STRIDE, jmp, 5);
}

XP_TEST_MAIN()
