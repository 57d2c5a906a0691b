// SPDX-License-Identifier: MIT
/*
 * The explorer, rule by rule; and the table of what is proven in src/arch/x86/method.c, cell by cell. It stands on Zydis.
 */
#include "arch/x86/method.h"
#include "verify/decode.h"
#include "verify/explore.h"
#include "verify/matrix.h"

#include "xp_test.h"

#define AMD (&xp__models[XP__FETCH_AMD])
#define REREAD (&xp__models[XP__FETCH_AMD_REREAD])
#define BYTE (&xp__models[XP__FETCH_BYTE])
#define LINE64 (&xp__models[XP__FETCH_LINE64])
#define SDM (&xp__models[XP__FETCH_INTEL_SDM])

static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static const uint8_t jmp5[5] = {0xe9, 0x11, 0x22, 0x33, 0x44};
static const uint8_t test5[5] = {0xa9, 0x11, 0x22, 0x33, 0x44};

static struct xp__explorer *explorer;

static struct xp__result explore(const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model)
{
	static struct xp__result result;

	if (!explorer)
		explorer = xp__explorer_new();
	CHECK_EQ(xp__explore(explorer, schedule, addr, model, &result), 0);
	return result;
}

static void check_proven(const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model)
{
	struct xp__result result = explore(schedule, addr, model);

	if (!result.proven)
		XP_TEST_NOTE("%s at %u: %s", model->name, addr, result.why);
	CHECK(result.proven);
}

static void check_wrong(const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model,
			const char *why)
{
	struct xp__result result = explore(schedule, addr, model);

	CHECK(!result.proven);
	if (!result.proven)
		CHECK_STR(result.why, why);
}

static const char foreign[] = "an instruction that neither the old nor the new code executes";
static const char neither[] = "the execution did what neither the old nor the new code does";
static const char elsewhere[] = "execution leaves the site to where neither the old nor the new code goes";
static const char stale[] = "the commit had returned, and this is not the final code";
static const char unknown_trap[] = "the trap handler has no record of this breakpoint";
static const char reclaimed[] = "the trap handler uses a record whose memory was given back";
static const char unsynchronized[] = "it was changed, and this processor has not serialized since";

static struct xp__schedule course_of(const uint8_t *old, const uint8_t *new, unsigned len)
{
	struct xp__schedule schedule;

	memset(&schedule, 0, sizeof(schedule));
	schedule.mode = 64;
	schedule.len = (uint8_t)len;
	schedule.resume = XP__RESUME_EMULATE;
	schedule.reclaim_waits = true;
	memcpy(schedule.old, old, len);
	memcpy(schedule.new, new, len);
	return schedule;
}

static void store(struct xp__schedule *schedule, unsigned off, unsigned len, const uint8_t *bytes, bool single)
{
	struct xp__event *event = xp__schedule_add(schedule, XP__EVENT_STORE);

	event->off = (uint8_t)off;
	event->len = (uint8_t)len;
	event->single = single;
	memcpy(event->bytes, bytes, len);
}

/* The library's own schedule for a change under a policy. */
static struct xp__schedule planned(const uint8_t *old, const uint8_t *new, unsigned len, unsigned addr,
				   enum xp_policy policy)
{
	struct xp__change change = {.addr = addr,
				    .old = old,
				    .new = new,
				    .len = (uint8_t)len,
				    .known = (uint8_t)len,
				    .policy = policy,
				    .can = ~0u};
	struct xp__schedule schedule;
	struct xp__plan plan;
	const char *detail = "";

	CHECK_EQ(xp__plan_build(&change, &plan, &detail), 0);
	xp__schedule_of_plan(&schedule, &plan, XP__NO_FAILURE);
	return schedule;
}

/* The @nth event of @kind, from 0. */
static unsigned find(const struct xp__schedule *schedule, enum xp__event_kind kind, unsigned nth)
{
	for (unsigned i = 0; i < schedule->nr_events; i++)
		if (schedule->event[i].kind == kind && nth-- == 0)
			return i;
	CHECK(!"no such event");
	return 0;
}

static void drop(struct xp__schedule *schedule, unsigned at)
{
	schedule->nr_events--;
	memmove(&schedule->event[at], &schedule->event[at + 1],
		(schedule->nr_events - at) * sizeof(schedule->event[0]));
}

/* Moves event @from before event @to, which stands before it. */
static void move_up(struct xp__schedule *schedule, unsigned from, unsigned to)
{
	struct xp__event event = schedule->event[from];

	memmove(&schedule->event[to + 1], &schedule->event[to], (from - to) * sizeof(event));
	schedule->event[to] = event;
}

/* ---- stores and fetches ---- */

XP_TEST(a_single_store_is_seen_whole_inside_a_block)
{
	struct xp__schedule schedule = course_of(nop5, jmp5, 5);

	store(&schedule, 0, 5, jmp5, true);
	for (unsigned addr = 0; addr < 64; addr++) {
		struct xp__result amd = explore(&schedule, addr, AMD), line = explore(&schedule, addr, LINE64);

		CHECK_EQ(amd.proven, addr % 8 <= 3);
		CHECK_EQ(line.proven, addr <= 59);
		CHECK(!explore(&schedule, addr, BYTE).proven);
		CHECK(!explore(&schedule, addr, REREAD).proven);
	}
}

XP_TEST(what_is_no_single_store_falls_into_bytes)
{
	struct xp__schedule schedule = course_of(nop5, jmp5, 5);

	store(&schedule, 0, 5, jmp5, false);
	CHECK(!explore(&schedule, 0, AMD).proven);
	CHECK(!explore(&schedule, 0, LINE64).proven);
	schedule = course_of(nop5, jmp5, 5);
	store(&schedule, 0, 1, jmp5, false);
	memcpy(schedule.new, nop5, 5);
	schedule.new[0] = jmp5[0]; /* one byte has no halves */
	check_proven(&schedule, 7, BYTE);
}

/* Two instructions, both changed by one store: the old first with the new second. */
XP_TEST(a_store_may_come_between_two_instructions)
{
	static const uint8_t old[4] = {0xb0, 0x11, 0xb4, 0x11}; /* mov $0x11, %al; mov $0x11, %ah */
	static const uint8_t new[4] = {0xb0, 0x22, 0xb4, 0x22};
	struct xp__schedule schedule = course_of(old, new, 4);

	store(&schedule, 0, 4, new, true);
	check_wrong(&schedule, 0, LINE64, neither);
}

/* Unreachable code is written, then published by one store: right if what was seen is not unseen. */
XP_TEST(order_of_stores)
{
	static const uint8_t old[4] = {0xeb, 0x02, 0xb0, 0x11}; /* jmp over; mov $0x11, %al */
	static const uint8_t new[4] = {0x66, 0x90, 0xb0, 0x22}; /* nop; mov $0x22, %al */
	struct xp__schedule schedule = course_of(old, new, 4);
	struct xp__model any = *AMD;

	any.program_order = false;
	store(&schedule, 2, 2, new + 2, true);
	store(&schedule, 0, 2, new, true);
	for (unsigned addr = 0; addr < 8; addr += 2) {
		check_proven(&schedule, addr, AMD);
		check_wrong(&schedule, addr, &any, foreign);
	}
	schedule = course_of(old, new, 4);
	store(&schedule, 0, 2, new, true);
	store(&schedule, 2, 2, new + 2, true);
	check_wrong(&schedule, 0, AMD, foreign);
}

/* The same by one store: right inside a block; across two blocks the first may be seen before the second is stored. */
XP_TEST(a_single_store_falls_into_blocks)
{
	static const uint8_t old[4] = {0xeb, 0x02, 0xb0, 0x11}; /* jmp over; mov $0x11, %al */
	static const uint8_t new[4] = {0x66, 0x90, 0xb0, 0x22}; /* nop; mov $0x22, %al */
	struct xp__schedule schedule = course_of(old, new, 4);

	store(&schedule, 0, 4, new, true);
	check_proven(&schedule, 4, AMD);
	check_wrong(&schedule, 6, AMD, foreign);
	check_proven(&schedule, 6, LINE64);
	check_wrong(&schedule, 62, LINE64, foreign);
}

/* One store that falls into two pieces: a thread that has seen the first piece does not see its bytes old again. */
XP_TEST(a_piece_that_was_seen)
{
	static const uint8_t old[6] = {0xeb, 0x02, 0xb0, 0x11, 0x66, 0x90}; /* jmp over; mov $0x11, %al; nop */
	static const uint8_t new[6] = {0x66, 0x90, 0xb0, 0x22, 0x90, 0x90}; /* nop; mov $0x22, %al; nop; nop */
	struct xp__schedule schedule = course_of(old, new, 6);

	store(&schedule, 0, 5, new, true);
	check_proven(&schedule, 4, AMD);
	check_wrong(&schedule, 4, BYTE, elsewhere);
}

XP_TEST(ascending_blocks_need_no_middle_sync)
{
	struct xp__schedule schedule = planned(nop5, jmp5, 5, 5, XP_POLICY_BREAKPOINT);
	struct xp__model ascending = *AMD;

	ascending.ascending = true;
	drop(&schedule, find(&schedule, XP__EVENT_SYNC, 1));
	for (unsigned i = 0; i < schedule.nr_events; i++)
		schedule.event[i].single = true;
	check_wrong(&schedule, 5, AMD, elsewhere);
	check_proven(&schedule, 5, &ascending);
}

XP_TEST(a_reread_mixes_versions_inside_an_instruction)
{
	struct xp__schedule schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_AUTO);

	CHECK_EQ(schedule.nr_events, 3); /* a store, a sync, the return: word */
	check_proven(&schedule, 0, AMD);
	CHECK(!explore(&schedule, 0, REREAD).proven);
}

XP_TEST(the_result_depends_on_boundaries_only)
{
	static const struct {
		const uint8_t *old, *new;
	} changes[] = {{nop5, jmp5}, {jmp5, nop5}};

	for (unsigned c = 0; c < 2; c++)
		for (unsigned m = 0; m < XP__NR_MODELS; m++) {
			struct xp__schedule schedule = planned(changes[c].old, changes[c].new, 5, 6, XP_POLICY_AUTO);
			struct xp__result first[32];
			bool known[32] = {false};

			drop(&schedule, find(&schedule, XP__EVENT_SYNC, 0));
			for (unsigned addr = 0; addr < 4160; addr += addr == 200 ? 3800 : 1) {
				unsigned set = xp__boundaries(addr, 5, xp__models[m].granule);
				struct xp__result result = explore(&schedule, addr, &xp__models[m]);

				if (!known[set])
					first[set] = result;
				known[set] = true;
				CHECK_MEM(&result, &first[set], sizeof(result));
			}
		}
	CHECK_EQ(xp__boundaries(0, 16, 8), 1u << 8);
	CHECK_EQ(xp__boundaries(5, 5, 8), 1u << 3);
	CHECK_EQ(xp__boundaries(63, 3, 64), 1u << 1);
	CHECK_EQ(xp__boundaries(0, 4, 1), 0xe);
}

/* ---- syncs ---- */

XP_TEST(each_sync_of_a_breakpoint)
{
	struct xp__schedule whole = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);

	check_proven(&whole, 0, BYTE);
	for (unsigned nth = 0; nth < 3; nth++) {
		struct xp__schedule schedule = whole;

		drop(&schedule, find(&schedule, XP__EVENT_SYNC, nth));
		check_wrong(&schedule, 0, BYTE, nth == 0 ? foreign : nth == 1 ? elsewhere : stale);
	}
}

XP_TEST(each_sync_of_a_shortjmp)
{
	for (unsigned nth = 0; nth < 3; nth++) {
		struct xp__schedule schedule = planned(nop5, jmp5, 5, 6, XP_POLICY_AUTO);

		CHECK_EQ(find(&schedule, XP__EVENT_SYNC, 2) + 2, schedule.nr_events);
		/* The tail may be written byte by byte, the head not. */
		CHECK(schedule.event[0].single && !schedule.event[2].single && schedule.event[4].single);
		check_proven(&schedule, 6, AMD);
		drop(&schedule, find(&schedule, XP__EVENT_SYNC, nth));
		CHECK(!explore(&schedule, 6, AMD).proven);
	}
}

XP_TEST(steps_in_the_wrong_order)
{
	struct xp__schedule schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);

	move_up(&schedule, find(&schedule, XP__EVENT_STORE, 1), find(&schedule, XP__EVENT_STORE, 0));
	check_wrong(&schedule, 0, AMD, foreign);
	schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);
	move_up(&schedule, find(&schedule, XP__EVENT_STORE, 2), find(&schedule, XP__EVENT_STORE, 1));
	check_wrong(&schedule, 0, AMD, elsewhere);
	schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);
	move_up(&schedule, find(&schedule, XP__EVENT_RETURN, 0), find(&schedule, XP__EVENT_SYNC, 2));
	check_wrong(&schedule, 0, AMD, stale);
}

/* ---- the trap pipeline ---- */

XP_TEST(the_record_lives_while_a_trap_may_be_in_flight)
{
	struct xp__schedule whole = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT), schedule = whole;
	struct xp__result result = explore(&whole, 0, BYTE);

	CHECK(result.proven && result.nr_trap > 0 && result.nr_old > 0 && result.nr_new > 0);
	/* Published after the breakpoint. */
	move_up(&schedule, find(&schedule, XP__EVENT_STORE, 0), find(&schedule, XP__EVENT_PUBLISH, 0));
	check_wrong(&schedule, 0, BYTE, unknown_trap);
	/* Retired before the head is stored. */
	schedule = whole;
	move_up(&schedule, find(&schedule, XP__EVENT_RETIRE, 0), find(&schedule, XP__EVENT_STORE, 2));
	check_wrong(&schedule, 0, BYTE, unknown_trap);
	/* Retired after: a trap that is late finds no breakpoint any more, and executes again. */
	schedule = whole;
	move_up(&schedule, find(&schedule, XP__EVENT_RETIRE, 0), find(&schedule, XP__EVENT_SYNC, 2));
	check_proven(&schedule, 0, BYTE);
	/* Reclaimed while a handler holds it. */
	schedule = whole;
	schedule.reclaim_waits = false;
	check_wrong(&schedule, 0, BYTE, reclaimed);
}

XP_TEST(a_breakpoint_elsewhere_is_foreign)
{
	static const uint8_t nops[3] = {0x90, 0x90, 0x90};
	static const uint8_t int3 = 0xcc;
	struct xp__schedule schedule = course_of(nops, nops, 3);

	xp__schedule_add(&schedule, XP__EVENT_PUBLISH);
	store(&schedule, 1, 1, &int3, true);
	store(&schedule, 1, 1, nops, true);
	check_wrong(&schedule, 0, BYTE, unknown_trap);
}

/* A fault is fetched, the site changes and every thread serializes, and only then the fault is delivered. */
XP_TEST(a_late_fault)
{
	static const uint8_t ud2[2] = {0x0f, 0x0b};
	static const uint8_t nop2[2] = {0x66, 0x90};
	struct xp__schedule schedule = course_of(ud2, nop2, 2);

	schedule.faults = true;
	xp__schedule_add(&schedule, XP__EVENT_PARK);
	store(&schedule, 0, 2, nop2, true);
	xp__schedule_add(&schedule, XP__EVENT_UNPARK);
	xp__schedule_add(&schedule, XP__EVENT_RETURN);
	check_proven(&schedule, 0, LINE64); /* what does not fault any more is executed again */
	schedule.restart_on_nop = true;
	check_wrong(&schedule, 0, LINE64, "the site is final, and the handler finds neither its gate nor a nop");
	/* It is final although another commit begins, if that one changes nothing; here it drives the fault out before. */
	xp__schedule_add(&schedule, XP__EVENT_PARK)->looks = true;
	store(&schedule, 0, 1, nop2, true);
	xp__schedule_add(&schedule, XP__EVENT_UNPARK);
	check_wrong(&schedule, 0, LINE64, "the site is final, and the handler finds neither its gate nor a nop");
}

XP_TEST(where_a_trap_resumes)
{
	struct xp__schedule schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);

	schedule.resume = XP__RESUME_OUT;
	check_proven(&schedule, 0, BYTE);
	schedule.resume = 5;
	check_proven(&schedule, 0, BYTE);
	schedule.resume = 2;
	CHECK(!explore(&schedule, 0, BYTE).proven);
}

/* The old code out of line: a thread in the copy is not driven out by a sync, nor by waiting for the handlers. */
XP_TEST(a_copy_outlives_whoever_is_in_it)
{
	struct xp__schedule schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);

	schedule.resume = XP__RESUME_COPY;
	check_proven(&schedule, 0, BYTE);
	xp__schedule_add(&schedule, XP__EVENT_FREE);
	check_wrong(&schedule, 0, BYTE, "the copy that it executes has been freed");
	drop(&schedule, schedule.nr_events - 1);
	xp__schedule_add(&schedule, XP__EVENT_PARK)->looks = true;
	xp__schedule_add(&schedule, XP__EVENT_UNPARK);
	xp__schedule_add(&schedule, XP__EVENT_FREE);
	check_proven(&schedule, 0, BYTE);
}

/* ---- two commits ---- */

static const uint8_t jmp5_again[5] = {0xe9, 0x95, 0xa6, 0xb7, 0xc8};

/* Continues @schedule with what the library does next, under a policy. */
static void then(struct xp__schedule *schedule, const uint8_t *old, const uint8_t *new, enum xp_policy policy)
{
	struct xp__change change = {.old = old, .new = new, .len = 5, .known = 5, .policy = policy, .can = ~0u};
	struct xp__plan plan;
	const char *detail = "";

	CHECK_EQ(xp__plan_build(&change, &plan, &detail), 0);
	xp__schedule_continue(schedule, &plan, XP__NO_FAILURE);
}

/* A trap of the first commit is delivered during the second: the handler may have missed the record of either. */
XP_TEST(a_late_trap_meets_the_next_commit)
{
	struct xp__schedule whole = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT), schedule;
	unsigned raise;

	then(&whole, jmp5, nop5, XP_POLICY_BREAKPOINT);
	check_proven(&whole, 3, BYTE);
	/* Not raised: a handler that searched before the record came takes the breakpoint that it reads after for foreign. */
	schedule = whole;
	drop(&schedule, find(&schedule, XP__EVENT_RAISE, 1));
	check_wrong(&schedule, 3, BYTE, unknown_trap);
	/* Raised after the breakpoint. */
	schedule = whole;
	move_up(&schedule, find(&schedule, XP__EVENT_STORE, 3), find(&schedule, XP__EVENT_RAISE, 1));
	check_wrong(&schedule, 3, BYTE, unknown_trap);
	/* Raised before the record is published: read as raised, and the search still finds nothing. */
	schedule = whole;
	raise = find(&schedule, XP__EVENT_RAISE, 1);
	move_up(&schedule, raise, raise - 1);
	check_wrong(&schedule, 3, BYTE, unknown_trap);
}

/* Between the two, what the first left stands; the old code is over. */
XP_TEST(what_was_old_before_the_first_commit)
{
	struct xp__schedule whole = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT), schedule;

	then(&whole, jmp5, jmp5_again, XP_POLICY_BREAKPOINT);
	check_proven(&whole, 3, BYTE);
	/* Without the first commit's last sync: the nop, or its breakpoint, after its return. */
	schedule = whole;
	drop(&schedule, find(&schedule, XP__EVENT_SYNC, 2));
	check_wrong(&schedule, 3, BYTE, "a commit had returned, and this is what stood there before");
	/* The same of a flip, which leaves no breakpoint. */
	schedule = planned(test5, jmp5, 5, 3, XP_POLICY_AUTO);
	then(&schedule, jmp5, jmp5_again, XP_POLICY_QUIESCE);
	check_proven(&schedule, 3, BYTE);
	drop(&schedule, find(&schedule, XP__EVENT_SYNC, 0));
	check_wrong(&schedule, 3, BYTE, "a commit had returned, and this is what stood there before");
	/* As the second commit's first sync comes before it returns, its breakpoint is not what is wrong. */
	schedule = whole;
	drop(&schedule, find(&schedule, XP__EVENT_SYNC, 5));
	check_wrong(&schedule, 3, BYTE, stale);
}

/* Back to what was old: an execution of the nop is right again only once the second commit has begun. */
XP_TEST(back_to_the_old_code)
{
	struct xp__schedule schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_QUIESCE);

	then(&schedule, jmp5, nop5, XP_POLICY_QUIESCE);
	check_proven(&schedule, 3, SDM);
	schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);
	then(&schedule, jmp5, nop5, XP_POLICY_QUIESCE);
	check_proven(&schedule, 3, BYTE);
}

/* ---- branches from elsewhere ---- */

XP_TEST(a_branch_leads_inside)
{
	static const uint8_t old[4] = {0xb0, 0x11, 0xa8, 0x22}; /* mov $0x11, %al; test $0x22, %al */
	static const uint8_t new[4] = {0xb0, 0x11, 0xeb, 0x22}; /* mov $0x11, %al; jmp */
	static const uint8_t shifted[4] = {0x66, 0xb8, 0x11, 0x22};
	struct xp__schedule schedule = course_of(old, new, 4);

	store(&schedule, 2, 1, new + 2, true);
	check_proven(&schedule, 0, BYTE);
	schedule.entries = 1u << 2;
	check_proven(&schedule, 0, BYTE);
	CHECK(explore(&schedule, 0, BYTE).nr_states > 4);
	schedule.entries = 1u << 3;
	check_wrong(&schedule, 0, BYTE, "a branch leads into the middle of an instruction");
	schedule = course_of(old, shifted, 4);
	store(&schedule, 0, 4, shifted, true);
	schedule.entries = 1u << 2;
	check_wrong(&schedule, 0, LINE64, "a branch leads into the middle of an instruction");
}

/* What a breakpoint keeps from a thread that comes from above it does not keep from a branch to what stands below. */
XP_TEST(a_branch_leads_past_the_breakpoint)
{
	static const uint8_t old[5] = {0xeb, 0x03, 0xb0, 0x11, 0xc3}; /* jmp over; mov $0x11, %al; ret */
	static const uint8_t new[5] = {0x66, 0x90, 0xb0, 0x22, 0xc3}; /* nop; mov $0x22, %al; ret */
	struct xp__schedule schedule = course_of(old, new, 5);
	static const uint8_t int3 = 0xcc;

	xp__schedule_add(&schedule, XP__EVENT_PUBLISH);
	xp__schedule_add(&schedule, XP__EVENT_RAISE);
	store(&schedule, 0, 1, &int3, true);
	xp__schedule_add(&schedule, XP__EVENT_SYNC);
	store(&schedule, 1, 3, new + 1, false);
	xp__schedule_add(&schedule, XP__EVENT_SYNC);
	store(&schedule, 0, 1, new, true);
	xp__schedule_add(&schedule, XP__EVENT_SYNC);
	xp__schedule_add(&schedule, XP__EVENT_RETURN);
	xp__schedule_add(&schedule, XP__EVENT_RETIRE);
	xp__schedule_add(&schedule, XP__EVENT_RECLAIM);
	check_proven(&schedule, 0, BYTE);
	schedule.entries = 1u << 2;
	check_proven(&schedule, 0, BYTE); /* one byte there changes: old or new, each whole */
	schedule.event[find(&schedule, XP__EVENT_STORE, 1)].bytes[2] = 0x66;
	check_wrong(&schedule, 0, BYTE, neither);
	/* What is jumped over is dead only if no branch leads there. */
	schedule = course_of(old, old, 5);
	store(&schedule, 3, 1, new + 3, true);
	store(&schedule, 3, 1, old + 3, true);
	check_proven(&schedule, 0, BYTE);
	schedule.entries = 1u << 2;
	check_wrong(&schedule, 0, BYTE, foreign);
}

/* ---- program counters inside ---- */

XP_TEST(a_program_counter_rests_inside)
{
	static const uint8_t nops[5] = {0x90, 0x90, 0x90, 0x90, 0x90};
	struct xp__schedule schedule = planned(nops, jmp5, 5, 0, XP_POLICY_QUIESCE);

	check_proven(&schedule, 0, BYTE);
	check_proven(&schedule, 0, SDM);
	/* park() that does not look where the others are. */
	schedule.event[find(&schedule, XP__EVENT_PARK, 0)].looks = false;
	CHECK(!explore(&schedule, 0, LINE64).proven);
	/* A breakpoint instead. */
	schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);
	memcpy(schedule.old, nops, 5);
	CHECK(!explore(&schedule, 0, LINE64).proven);
}

/* What made the selection refuse padding behind anything that comes back: a rollback under a callee. */
XP_TEST(a_rollback_finds_a_return_address)
{
	static const uint8_t nop9[9] = {0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00};
	static const uint8_t call[9] = {0xe8, 0x11, 0x22, 0x33, 0x44, 0x0f, 0x1f, 0x40, 0x00};
	static const uint8_t int3 = 0xcc;
	struct xp__change change = {.old = nop9, .new = call, .len = 9, .known = 9, .can = ~0u};
	struct xp__schedule schedule = course_of(nop9, call, 9);
	struct xp__plan plan;
	const char *detail;

	CHECK_EQ(xp__plan_build(&change, &plan, &detail), -XP_E_MULTI);
	xp__schedule_add(&schedule, XP__EVENT_PUBLISH);
	store(&schedule, 0, 1, &int3, true);
	xp__schedule_add(&schedule, XP__EVENT_SYNC);
	store(&schedule, 1, 8, call + 1, false);
	xp__schedule_add(&schedule, XP__EVENT_SYNC);
	store(&schedule, 0, 1, call, true);
	check_proven(&schedule, 0, BYTE);
	store(&schedule, 0, 1, &int3, true);
	xp__schedule_add(&schedule, XP__EVENT_SYNC);
	store(&schedule, 1, 8, nop9 + 1, false);
	xp__schedule_add(&schedule, XP__EVENT_SYNC);
	store(&schedule, 0, 1, nop9, true);
	xp__schedule_add(&schedule, XP__EVENT_SYNC);
	check_wrong(&schedule, 0, BYTE, foreign);
}

XP_TEST(a_rollback_ends_with_the_old_code)
{
	struct xp__change change = {.old = nop5, .new = jmp5, .len = 5, .known = 5, .can = ~0u};
	struct xp__schedule schedule;
	struct xp__plan plan;
	const char *detail;

	change.policy = XP_POLICY_BREAKPOINT;
	REQUIRE_EQ(xp__plan_build(&change, &plan, &detail), 0);
	for (unsigned fail = 0; fail < 3; fail++) {
		uint8_t final[XP_MAX_LEN];

		xp__schedule_of_plan(&schedule, &plan, fail);
		xp__schedule_final(&schedule, final);
		CHECK_MEM(final, nop5, 5);
		CHECK_EQ(find(&schedule, XP__EVENT_STORE, 2 * fail + 1) + 5, schedule.nr_events);
		check_proven(&schedule, 3, BYTE);
	}
	/* The last sync of the rollback is as important as that of the commit. */
	drop(&schedule, schedule.nr_events - 4);
	check_wrong(&schedule, 3, BYTE, stale);
}

/* ---- intel-sdm ---- */

XP_TEST(nothing_unsynchronized_under_intel_sdm)
{
	static const uint8_t over[5] = {0xeb, 0x03, 0x22, 0x33, 0x44};
	struct xp__schedule schedule = planned(test5, jmp5, 5, 0, XP_POLICY_AUTO);

	check_wrong(&schedule, 0, SDM, unsynchronized);
	schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_BREAKPOINT);
	check_wrong(&schedule, 0, SDM, unsynchronized);
	schedule = planned(nop5, jmp5, 5, 0, XP_POLICY_EARLY);
	check_proven(&schedule, 0, SDM);
	/* Bytes that no thread executes may change. */
	schedule = course_of(over, over, 5);
	store(&schedule, 2, 3, nop5 + 2, false);
	check_proven(&schedule, 0, SDM);
}

/* ---- instructions ---- */

/* A jump's target counts from the site, and a load's operand may count from itself: the place belongs to the effect. */
XP_TEST(one_instruction_at_two_places)
{
	static const uint8_t jmp[] = {0xeb, 0x03}, load[] = {0x8b, 0x05, 0x00, 0x00, 0x00, 0x00}, ud2[] = {0x0f, 0x0b};
	struct xp__decoder *decoder = calloc(1, sizeof(*decoder));
	struct xp__effect first, second;

	REQUIRE(decoder != NULL);
	xp__decoder_set(decoder, 64);
	first = xp__decode(decoder, jmp, sizeof(jmp), 0);
	second = xp__decode(decoder, jmp, sizeof(jmp), 4);
	CHECK_EQ(first.target, 5);
	CHECK_EQ(second.target, 9);
	first = xp__decode(decoder, load, sizeof(load), 0);
	second = xp__decode(decoder, load, sizeof(load), 4);
	CHECK(!xp__effect_same(&first, &second));
	first = xp__decode(decoder, ud2, sizeof(ud2), 0);
	second = xp__decode(decoder, ud2, sizeof(ud2), 4);
	CHECK(!xp__effect_same(&first, &second)); /* the fault tells where it was */
	free(decoder);
}

XP_TEST(instructions_that_do_the_same)
{
	static const struct {
		unsigned mode;
		uint8_t a[8], b[8];
		unsigned len_a, len_b;
		bool same;
	} pairs[] = {
		{64, {0x90}, {0x66, 0x90}, 1, 2, true},
		{64, {0x90}, {0xf3, 0x90}, 1, 2, false},
		{64, {0xeb, 0x03}, {0xe9, 0x00, 0x00, 0x00, 0x00}, 2, 5, true},
		{64, {0xeb, 0x03}, {0xeb, 0x04}, 2, 2, false},
		{64, {0x74, 0x04}, {0x0f, 0x84, 0x00, 0x00, 0x00, 0x00}, 2, 6, true},
		{64, {0x74, 0x04}, {0x75, 0x04}, 2, 2, false},
		{64, {0xb0, 0x11}, {0xb0, 0x12}, 2, 2, false},
		{16, {0x9a, 1, 2, 3, 4}, {0x3e, 0x67, 0x9a, 1, 2, 3, 4}, 5, 7, true},
		{16, {0x9a, 1, 2, 3, 4}, {0x66, 0x9a, 1, 2, 0, 0, 3, 4}, 5, 8, false},
		{32, {0x9a, 1, 2, 3, 4, 5, 6}, {0x9a, 1, 2, 3, 4, 5, 7}, 7, 7, false},
		{16, {0xe8, 0x11, 0x22}, {0xe8, 0x11, 0x23}, 3, 3, false},
	};
	struct xp__decoder *decoder = calloc(1, sizeof(*decoder));
	char text[96];

	REQUIRE(decoder != NULL);
	for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		struct xp__effect a, b;

		xp__decoder_set(decoder, pairs[i].mode);
		a = xp__decode(decoder, pairs[i].a, pairs[i].len_a, 0);
		b = xp__decode(decoder, pairs[i].b, pairs[i].len_b, 0);
		CHECK_EQ(a.len, pairs[i].len_a);
		CHECK_EQ(b.len, pairs[i].len_b);
		CHECK_EQ(xp__effect_same(&a, &b), pairs[i].same);
		if (a.len != pairs[i].len_a || xp__effect_same(&a, &b) != pairs[i].same)
			XP_TEST_NOTE("pair %u", i);
		/* Cut off, it asks for more. */
		CHECK_EQ(xp__decode(decoder, pairs[i].a, pairs[i].len_a - 1, 0).kind, XP__EFFECT_MORE);
	}
	xp__decoder_set(decoder, 64);
	CHECK_EQ(xp__decode(decoder, (const uint8_t *)"\x9a\x01\x02\x03\x04\x05\x06", 7, 0).kind, XP__EFFECT_INVALID);
	CHECK_EQ(xp__decode(decoder, (const uint8_t *)"\xc3", 1, 0).kind, XP__EFFECT_LEAVE);
	CHECK_EQ(xp__decode(decoder, (const uint8_t *)"\xff\xe0", 2, 0).kind, XP__EFFECT_LEAVE);
	CHECK_EQ(xp__decode(decoder, (const uint8_t *)"\x0f\x0b", 2, 0).kind, XP__EFFECT_UD2);
	CHECK_EQ(xp__decode(decoder, (const uint8_t *)"\xff\xd0", 2, 0).kind, XP__EFFECT_OTHER);
	xp__disassemble(64, (const uint8_t *)"\xeb\x03", 2, 1, text, sizeof(text));
	CHECK_STR(text, "jmp site+6");
	xp__disassemble(64, (const uint8_t *)"\xeb\xf0", 2, 0, text, sizeof(text));
	CHECK_STR(text, "jmp site-14");
	xp__disassemble(64, (const uint8_t *)"\x9a", 1, 0, text, sizeof(text));
	CHECK_STR(text, "(no instruction)");
	xp__disassemble(64, (const uint8_t *)"\xe9\x01", 2, 0, text, sizeof(text));
	CHECK_STR(text, "(cut off)");
	free(decoder);
}

XP_TEST(a_jump_back_is_not_followed_for_ever)
{
	static const uint8_t loop[2] = {0xeb, 0xfe};
	static const uint8_t nop2[2] = {0x66, 0x90};
	struct xp__schedule schedule = course_of(nop2, loop, 2);

	store(&schedule, 0, 2, loop, true);
	check_proven(&schedule, 0, AMD); /* the new code is an endless loop: so be it */
	schedule = course_of(nop2, nop2, 2);
	store(&schedule, 0, 2, loop, true);
	store(&schedule, 0, 2, nop2, true);
	check_wrong(&schedule, 0, AMD, elsewhere);
}

/* ---- the selection's table ---- */

XP_TEST(the_table_of_what_is_proven)
{
	static struct xp__matrix matrix;
	struct xp__watch watch = {NULL, NULL, NULL};

	if (!explorer)
		explorer = xp__explorer_new();
	REQUIRE_EQ(xp__matrix_run(explorer, xp__models, XP__NR_MODELS, &watch, &matrix), 0);
	CHECK_EQ(matrix.nr_wrong, 0);
	for (unsigned method = XP__METHOD_FLIP; method < XP__NR_METHODS; method++)
		for (unsigned m = 0; m < XP__NR_MODELS; m++) {
			bool says = xp__method_proven((enum xp__method)method, (enum xp__fetch)m);
			unsigned nr_plans = 0;

			for (unsigned k = 0; k < xp__nr_kinds; k++) {
				const struct xp__cell *cell = &matrix.cell[k][method][m];

				/* Not a single plan of a method that is not proven, and every one of a method that is. */
				nr_plans += cell->nr_plans;
				CHECK_EQ(cell->nr_proven, says ? cell->nr_plans : 0);
				if (cell->nr_proven != (says ? cell->nr_plans : 0))
					XP_TEST_NOTE("%s, %s, %s", xp__kinds[k].name, xp__method_names[method],
						     xp__models[m].name);
			}
			CHECK(nr_plans > 0);
		}
	XP_TEST_NOTE("%zu plans and places, %zu explorations, %zu states", matrix.nr_asked, matrix.nr_explored,
		     matrix.nr_states);
}

static void say_wrong(void *data, const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model,
		      const struct xp__result *result)
{
	(void)data;
	XP_TEST_NOTE("%s at %u, %s: %s", schedule->name, addr, model->name, result->why);
}

/* A commit that ends leaves nothing behind that the next one at the same site, however it is made, stumbles over. */
XP_TEST(two_commits_of_the_library)
{
	static struct xp__matrix matrix;
	struct xp__watch watch = {.wrong = say_wrong};

	if (!explorer)
		explorer = xp__explorer_new();
	matrix.models = xp__models;
	matrix.nr_models = XP__NR_MODELS;
	REQUIRE_EQ(xp__matrix_run_two(explorer, &watch, &matrix), 0);
	CHECK_EQ(matrix.nr_wrong, 0);
	XP_TEST_NOTE("%zu pairs of commits, %zu states", matrix.nr_twice, matrix.nr_states);
	CHECK(matrix.nr_twice > 100000);
}

/* What a change gets that asks for a model; word and shortjmp must not come back under another name. */
XP_TEST(the_selection_asks_the_table)
{
	static const uint8_t expected[XP__NR_FETCHES] = {
		[XP__FETCH_AMD] = XP__METHOD_WORD,        [XP__FETCH_AMD_REREAD] = XP__METHOD_BREAKPOINT,
		[XP__FETCH_BYTE] = XP__METHOD_BREAKPOINT, [XP__FETCH_LINE64] = XP__METHOD_WORD,
		[XP__FETCH_INTEL_SDM] = XP__METHOD_NONE,
	};

	for (unsigned fetch = 0; fetch < XP__NR_FETCHES; fetch++) {
		struct xp__change change = {
			.old = nop5, .new = jmp5, .len = 5, .known = 5, .can = ~0u, .fetch = (enum xp__fetch)fetch};
		struct xp__plan plan;
		const char *detail;
		int error = xp__plan_build(&change, &plan, &detail);

		CHECK_EQ(error, expected[fetch] == XP__METHOD_NONE ? -XP_E_NO_METHOD : 0);
		CHECK_EQ(plan.method, expected[fetch]);
		change.policy = XP_POLICY_QUIESCE;
		CHECK_EQ(xp__plan_build(&change, &plan, &detail), 0);
	}
	CHECK(xp__model_find("amd-reread") == REREAD);
	CHECK(xp__model_find("arm") == NULL);
}

XP_TEST_MAIN()
