// SPDX-License-Identifier: MIT
/*
 * Function entries on the recording port: what is written, how many syncs, what a failure of each step leaves behind, what is
 * refused; and lists of handlers that are replaced under the eyes of threads that run them.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* the registers of a signal handler */
#endif
#include "xp_test.h"

#include "recorder.h"

#include "arch/x86/thunk_trace.h"
#include "core/reclaim.h"
#include "trace/inside.h"
#include "trace/table.h"

#include <crosspatch/function.h>
#include <errno.h>
#include <signal.h>
#include <ucontext.h>

enum { NR = 800, STRIDE = 16, FIRST = 4096, STUB = 64, REPLACEMENT = 1024 };

static const uint8_t nop[5] = {0x0f, 0x1f, 0x44, 0, 0};
static struct xp_entry_site sites[NR + 1];
static char names[NR][16];
static struct xp_module module;
static struct xp_function_thread threads[2], *current_thread = &threads[0];

static struct xp_function_thread *function_thread(void)
{
	return current_thread;
}

static int hook_exit(struct xp_function_thread *thread)
{
	(void)thread;
	return 0;
}

static size_t place(unsigned i)
{
	return FIRST + STRIDE * (size_t)i;
}

static xp__any_function *function(unsigned i)
{
	return (xp__any_function *)(uintptr_t)(rec_text + place(i));
}

static int32_t distance(const void *to, const int32_t *from)
{
	return (int32_t)((uintptr_t)to - (uintptr_t)from);
}

/* @nr functions of 16 bytes, number 0 with 3 bytes before its entry; in descending order if @backwards. */
static int start(unsigned nr, bool stub, bool backwards)
{
	rec_start();
	memset(threads, 0, sizeof(threads));
	memset(&module, 0, sizeof(module));
	threads[1].shard = 1;
	current_thread = &threads[0];
	rec_port.function_thread = function_thread;
	rec_port.hook_exit = hook_exit;
	for (unsigned i = 0; i < nr; i++) {
		struct xp_entry_site *site = &sites[backwards ? nr - 1 - i : i];
		unsigned before = i == 0 ? 3 : 0;

		snprintf(names[i], sizeof(names[i]), "f%u", i);
		site->code = distance(rec_text + place(i) + before, &site->code);
		site->name = distance(names[i], &site->name);
		site->size = STRIDE << 8 | before << 4;
		rec_put(place(i) + before, nop, sizeof(nop));
	}
	sites[nr].code = distance(rec_text + STUB, &sites[nr].code);
	sites[nr].name = 0;
	sites[nr].size = XP_SITE_ENTRY_STUB;
	module.abi = XP_MODULE_ABI;
	module.nr_tables = XP_NR_SITE_KINDS;
	module.tables[XP_SITE_ENTRY].start = sites;
	module.tables[XP_SITE_ENTRY].end = sites + nr + stub;
	return xp_module_register(&module);
}

static void stop(void)
{
	rec_heal();
	CHECK_EQ(xp_module_unregister(&module), 0);
}

static bool entry_is(unsigned i, uint8_t opcode, size_t target)
{
	uint8_t bytes[5], *code = rec_text + place(i) + (i == 0 ? 3 : 0);

	if (opcode == nop[0])
		return memcmp(code, nop, sizeof(nop)) == 0;
	CHECK_EQ(xp_text_gen_insn(bytes, 0xe8, code, rec_text + target), 0);
	bytes[0] = opcode;
	return memcmp(code, bytes, 5) == 0;
}

static void put(unsigned i, const char *bytes)
{
	rec_put(place(i), (const uint8_t *)bytes, 5);
}

/* What does nothing, and is one byte away from the call. */
static bool is_off(unsigned i)
{
	return entry_is(i, 0xa9, STUB);
}

static void put_off(unsigned i, size_t target)
{
	uint8_t bytes[5], *code = rec_text + place(i);

	CHECK_EQ(xp_text_gen_insn(bytes, 0xe8, code, rec_text + target), 0);
	bytes[0] = 0xa9;
	rec_put(place(i), bytes, sizeof(bytes));
}

static unsigned nr_seen, seen[8];
static int (*in_the_handler)(void);

static void on_entry(const struct xp_function_call *call, void *data)
{
	(void)call;
	if (nr_seen < 8)
		seen[nr_seen++] = (unsigned)(uintptr_t)data;
	if (in_the_handler) {
		int (*run)(void) = in_the_handler;

		in_the_handler = NULL;
		CHECK_EQ(run(), 0);
	}
}

static const struct xp_function_handler handler = {.entry = on_entry};
static const struct xp_function_handler with_leave = {.entry = on_entry, .leave = on_entry};

#define DATA(n) ((void *)(uintptr_t)(n))

static uintptr_t returns_to;

/* What the thunk does. Returns where the call goes on, relative to the text. */
static size_t call(unsigned i)
{
	struct {
		struct xp__call call;
		uint64_t stack[2];
	} frame;
	struct xp__call *it = &frame.call;

	memset(&frame, 0, sizeof(frame));
	it->resume = (uintptr_t)rec_text + place(i) + (i == 0 ? 3 : 0) + 5;
	nr_seen = 0;
	if (xp__function_enter(it))
		xp__function_run(it, NULL);
	returns_to = it->caller;
	return it->resume - (uintptr_t)rec_text;
}

/* ---- calls that are only counted ---- */

XP_TEST(a_counted_call_runs_no_handler)
{
	static struct xp_function_counter counters[2];
	struct xp_function_stats before, after;
	struct xp__call outer = {.own = {NULL, NULL, &threads[0]}};

	memset(counters, 0, sizeof(counters));
	REQUIRE(start(4, true, false) == 0);
	CHECK_EQ(xp_function_trace(function(1), xp_function_counting(), &counters[0]), 0);
	CHECK_EQ(xp_function_trace(function(1), xp_function_counting(), &counters[1]), 0);
	CHECK_EQ(xp_function_trace(function(2), xp_function_counting(), &counters[0]), 0);
	CHECK_EQ(xp_function_trace(function(2), &handler, DATA(7)), 0);
	CHECK_EQ(call(1), place(1) + 5);
	CHECK_EQ(xp_function_counted(&counters[0]), 1);
	CHECK_EQ(xp_function_counted(&counters[1]), 1);
	/* Beside another one it is a handler like any. */
	(void)call(2);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(xp_function_counted(&counters[0]), 2);
	CHECK_EQ(xp_function_trace(function(3), &handler, DATA(7)), 0);
	CHECK_EQ(xp_function_trace(function(3), xp_function_counting(), &counters[1]), 0);
	(void)call(3);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(xp_function_counted(&counters[1]), 2);
	CHECK_EQ(threads[0].busy, 0);
	/* A signal handler interrupted a thunk of the thread that has not come to its handlers: nothing of the program's runs. */
	xp_function_stats_read(&before);
	threads[0].busy = (uintptr_t)&outer;
	(void)call(1);
	CHECK_EQ(xp_function_counted(&counters[0]), 3);
	/* It runs one: its calls are not traced. */
	threads[0].floor = (uintptr_t)&outer;
	(void)call(1);
	CHECK_EQ(xp_function_counted(&counters[0]), 3);
	xp_function_stats_read(&after);
	CHECK_EQ(after.missed_calls - before.missed_calls, 1);
	CHECK_EQ(after.left_behind, before.left_behind);
	threads[0].busy = threads[0].floor = 0;
	/* Redirected as well. */
	CHECK_EQ(xp_function_redirect(function(1), (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT)), 0);
	CHECK_EQ(call(1), REPLACEMENT);
	CHECK_EQ(xp_function_counted(&counters[1]), 4);
	CHECK_EQ(xp_function_untrace(function(2), xp_function_counting(), &counters[0]), 0);
	(void)call(2);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(xp_function_counted(&counters[0]), 4);
	stop();
}

/* ---- what is written ---- */

XP_TEST(an_entry_becomes_a_call_and_is_off_again)
{
	REQUIRE(start(3, true, false) == 0);
	rec_forget();
	CHECK_EQ(xp_function_trace(function(1), &handler, DATA(1)), 0);
	CHECK(entry_is(0, nop[0], 0) && entry_is(1, 0xe8, STUB) && entry_is(2, nop[0], 0));
	CHECK_EQ(rec.calls[REC_WRITE], 1);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	/* Another handler, or one less, is no business of the text's. */
	rec_forget();
	CHECK_EQ(xp_function_trace(function(1), &handler, DATA(2)), 0);
	CHECK_EQ(xp_function_untrace(function(1), &handler, DATA(1)), 0);
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_SYNC], 0);
	CHECK_EQ(call(1), place(1) + 5);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(seen[0], 2);
	CHECK_EQ(xp_function_untrace(function(1), &handler, DATA(2)), 0);
	CHECK(is_off(1));
	stop();
}

/* One byte, one sync and no trap, whatever the writer and the place, from what the compiler left or prepare() made. */
XP_TEST(an_entry_flips)
{
	for (int prepared = 0; prepared < 2; prepared++) {
		REQUIRE(start(6, true, false) == 0);
		rec_port.function_begins = NULL;
		rec.can &= ~(unsigned)(XP_NEED_SINGLE | XP_NEED_TRAP | XP_NEED_CALL);
		for (unsigned i = 1; i < 6 && !prepared; i++)
			put_off(i, STUB);
		put(3, "\x0f\x1f\x44\x00\x00");
		if (prepared) {
			CHECK_EQ(xp_function_prepare("f[1-5]", NULL), 5);
			CHECK_EQ(rec.calls[REC_SYNC], 0);
			CHECK_EQ(xp_function_prepare("f[1-5]", NULL), 0);
		} else {
			/* A nop among them is no reason for the others. */
			CHECK_EQ(xp_function_trace_matching("f[1-5]", &handler, NULL, NULL), -XP_E_NO_METHOD);
			put_off(3, STUB);
			REQUIRE(xp_module_unregister(&module) == 0);
			REQUIRE(xp_module_register(&module) == 0);
		}
		for (unsigned round = 0; round < 3; round++) {
			rec_forget();
			CHECK_EQ(xp_function_trace_matching("f[1-5]", &handler, DATA(1), NULL), 5);
			CHECK_EQ(rec.calls[REC_SYNC], 1);
			CHECK_EQ(rec.calls[REC_WRITE], 1);
			CHECK(!(rec.prepared & XP_NEED_TRAP));
			for (unsigned i = 1; i < 6; i++) {
				CHECK(entry_is(i, 0xe8, STUB));
				CHECK_EQ(call(i), place(i) + 5);
				CHECK_EQ(nr_seen, 1);
			}
			rec_forget();
			CHECK_EQ(xp_function_untrace_matching("f[1-5]", &handler, DATA(1), NULL), 5);
			CHECK_EQ(rec.calls[REC_SYNC], 1);
			for (unsigned i = 1; i < 6; i++)
				CHECK(is_off(i));
			CHECK_EQ(xp_repair(NULL), 0);
		}
		stop();
	}
}

XP_TEST(an_entry_flips_behind_a_breakpoint)
{
	enum xp_policy policy = xp_policy();

	REQUIRE(start(3, true, false) == 0);
	put_off(1, STUB);
	put_off(2, STUB);
	CHECK_EQ(xp_function_trace_matching("f[12]", &handler, NULL, NULL), 2);
	CHECK_EQ(xp_function_untrace_matching("f[12]", &handler, NULL, NULL), 2);
	REQUIRE(xp_set_policy(XP_POLICY_BREAKPOINT) == 0);
	for (unsigned round = 0; round < 2; round++) {
		rec_forget();
		CHECK_EQ(xp_function_trace_matching("f[12]", &handler, NULL, NULL), 2);
		CHECK(rec.prepared & XP_NEED_TRAP);
		CHECK_EQ(rec.calls[REC_SYNC], 2);
		CHECK(entry_is(1, 0xe8, STUB) && entry_is(2, 0xe8, STUB));
		CHECK_EQ(xp_function_untrace_matching("f[12]", &handler, NULL, NULL), 2);
		CHECK(is_off(1) && is_off(2));
	}
	REQUIRE(xp_set_policy(policy) == 0);
	stop();
}

/* A stub is another one's, or there is none: the one is refused, the other is as good as a nop. */
XP_TEST(an_entry_that_flips_names_its_stub)
{
	xp__any_function *replacement = (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT);

	REQUIRE(start(3, true, false) == 0);
	put_off(1, STUB + 1);
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), -XP_E_MISMATCH);
	CHECK_EQ(xp_function_redirect(function(1), replacement), -XP_E_MISMATCH);
	CHECK(entry_is(1, 0xa9, STUB + 1));
	stop();
	REQUIRE(start(3, false, false) == 0);
	put_off(1, STUB + 1);
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), -XP_E_NO_ENTRY);
	CHECK_EQ(xp_function_prepare("f*", NULL), 0);
	CHECK_EQ(xp_function_redirect(function(1), replacement), 0);
	CHECK(entry_is(1, 0xe9, REPLACEMENT));
	CHECK_EQ(xp_function_restore(function(1)), 0);
	CHECK(entry_is(1, nop[0], 0));
	stop();
}

/* What is no call and not what is one byte away from it was not written by us. */
XP_TEST(an_entry_that_flips_is_compared)
{
	REQUIRE(start(3, true, false) == 0);
	put_off(1, STUB);
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), 0);
	CHECK_EQ(xp_function_untrace(function(1), &handler, NULL), 0);
	for (int traced = 0; traced < 2; traced++) {
		put(1, "\x55\x48\x89\xe5\x90");
		CHECK_EQ(traced ? xp_function_untrace(function(1), &handler, NULL)
				: xp_function_trace(function(1), &handler, NULL),
			 -XP_E_MISMATCH);
		CHECK_EQ(traced ? xp_function_untrace_matching("f1", &handler, NULL, NULL)
				: xp_function_trace_matching("f1", &handler, NULL, NULL),
			 -XP_E_MISMATCH);
		CHECK(memcmp(rec_text + place(1), "\x55\x48\x89\xe5\x90", 5) == 0);
		put_off(1, STUB);
		if (traced == 0)
			CHECK_EQ(xp_function_trace(function(1), &handler, NULL), 0);
	}
	CHECK_EQ(xp_function_untrace(function(1), &handler, NULL), -XP_E_DRIFTED);
	CHECK_EQ(xp_function_untrace_matching("*", &handler, NULL, NULL), -XP_E_DRIFTED);
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(entry_is(1, 0xe8, STUB));
	CHECK_EQ(xp_function_untrace(function(1), &handler, NULL), 0);
	/* What a probe saved of it, written back over another form. */
	CHECK_EQ(xp_function_redirect(function(1), (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT)), 0);
	rec_text[place(1)] = 0xa9;
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(entry_is(1, 0xe9, REPLACEMENT));
	stop();
}

/* Those that are traced at once have one list, until one has another. */
XP_TEST(a_list_of_many_stays_for_the_others)
{
	REQUIRE(start(40, true, false) == 0);
	for (unsigned round = 0; round < 3; round++) {
		CHECK_EQ(xp_function_trace(function(3), &handler, DATA(5)), 0);
		CHECK_EQ(xp_function_trace_matching("f[1-4]", &handler, DATA(1), NULL), 4);
		CHECK_EQ(xp_function_untrace(function(1), &handler, DATA(1)), 0);
		/* What was given back too early is taken for these, and filled. */
		for (unsigned i = 10; i < 20; i++)
			CHECK_EQ(xp_function_trace(function(i), &handler, DATA(90)), 0);
		for (unsigned i = 1; i < 5; i++) {
			(void)call(i);
			CHECK_EQ(nr_seen, i == 1 ? 0 : i == 3 ? 2 : 1);
			CHECK(i == 1 || seen[i == 3] == 1);
			CHECK(i != 3 || seen[0] == 5);
		}
		CHECK_EQ(xp_function_untrace_matching("f?", &handler, DATA(1), NULL), 3);
		CHECK_EQ(xp_function_untrace_matching("*", &handler, DATA(90), NULL), 10);
		(void)call(3);
		CHECK(nr_seen == 1 && seen[0] == 5);
		(void)call(2);
		CHECK_EQ(nr_seen, 0);
		CHECK_EQ(xp_function_untrace(function(3), &handler, DATA(5)), 0);
	}
	stop();
}

XP_TEST(a_function_of_two_records_is_one)
{
	REQUIRE(start(3, true, false) == 0);
	REQUIRE(xp_module_unregister(&module) == 0);
	sites[2].code = distance(rec_text + place(1), &sites[2].code);
	REQUIRE(xp_module_register(&module) == 0);
	CHECK_EQ(xp_function_trace_matching("f[12]", &handler, DATA(1), NULL), 1);
	(void)call(1);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(xp_function_untrace_matching("*", &handler, DATA(1), NULL), 1);
	CHECK(is_off(1));
	stop();
}

/* What was redirected is what it was before: a nop that was never traced stays one, which leaves flags alone. */
XP_TEST(a_restored_entry_is_as_it_was)
{
	xp__any_function *replacement = (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT);

	REQUIRE(start(4, true, false) == 0);
	put_off(2, STUB);
	CHECK_EQ(xp_function_prepare("f3", NULL), 1);
	for (unsigned i = 1; i < 4; i++) {
		CHECK_EQ(xp_function_redirect(function(i), replacement), 0);
		CHECK(entry_is(i, 0xe9, REPLACEMENT));
		CHECK_EQ(xp_function_restore(function(i)), 0);
	}
	CHECK(entry_is(1, nop[0], 0));
	CHECK(is_off(2) && is_off(3));
	/* By the stub, and back: in one commit with what is one byte away. */
	CHECK_EQ(xp_function_redirect(function(2), replacement), 0);
	CHECK_EQ(xp_function_redirect(function(3), replacement), 0);
	CHECK_EQ(xp_function_trace_matching("f[0-3]", &handler, NULL, NULL), 4);
	for (unsigned i = 0; i < 4; i++)
		CHECK(entry_is(i, 0xe8, STUB));
	CHECK_EQ(xp_function_restore(function(2)), 0);
	CHECK(entry_is(2, 0xe8, STUB));
	CHECK_EQ(xp_function_untrace_matching("f[0-3]", &handler, NULL, NULL), 4);
	CHECK(is_off(0) && is_off(1) && is_off(2) && entry_is(3, 0xe9, REPLACEMENT));
	CHECK_EQ(xp_function_trace_matching("f[0-3]", &handler, NULL, NULL), 4);
	CHECK_EQ(xp_function_untrace_matching("f[0-3]", &handler, NULL, NULL), 4);
	CHECK_EQ(xp_function_restore(function(3)), 0);
	CHECK(is_off(3));
	stop();
}

XP_TEST(a_redirection_is_a_jmp)
{
	REQUIRE(start(3, true, true) == 0);
	CHECK_EQ(xp_function_redirect(function(0), (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT)), 0);
	CHECK(entry_is(0, 0xe9, REPLACEMENT));
	/* Traced as well, it goes by the thunk. */
	CHECK_EQ(xp_function_trace(function(0), &handler, DATA(1)), 0);
	CHECK(entry_is(0, 0xe8, STUB));
	CHECK_EQ(call(0), REPLACEMENT);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(xp_function_untrace(function(0), &handler, DATA(1)), 0);
	CHECK(entry_is(0, 0xe9, REPLACEMENT));
	CHECK_EQ(xp_function_restore(function(0)), 0);
	CHECK(is_off(0));
	stop();
}

/* One sync where the writer makes single stores and the entries lie in one quadword, else three. Back it is one. */
XP_TEST(syncs_do_not_depend_on_the_number_of_functions)
{
	for (int single = 0; single < 2; single++)
		for (unsigned nr = 2; nr <= NR; nr *= 20) {
			REQUIRE(start(nr, true, nr % 3 == 0) == 0);
			if (!single)
				rec.can &= ~(unsigned)XP_NEED_SINGLE;
			for (int on = 1; on >= 0; on--) {
				rec_forget();
				CHECK_EQ((on ? xp_function_trace_matching
					     : xp_function_untrace_matching)("f*", &handler, NULL, NULL),
					 (int)nr);
				CHECK_EQ(rec.calls[REC_SYNC], single || !on ? 1 : 3);
				for (unsigned i = 0; i<nr; i += nr> 200 ? 97 : 1)
					CHECK(on ? entry_is(i, 0xe8, STUB) : is_off(i));
			}
			stop();
		}
}

/* ---- failures ---- */

static void fails(enum rec_op op, unsigned nth, bool *struck)
{
	struct xp_function_stats stats;
	struct xp_diag diag;

	REQUIRE(start(5, true, false) == 0);
	REQUIRE(xp_function_redirect(function(3), (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT)) == 0);
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	rec_forget();
	rec_fail(op, nth, 1, -5);
	*struck = xp_function_trace_matching("*", &handler, DATA(7), &diag) < 0;
	if (*struck) {
		for (unsigned i = 0; i < 5; i++)
			CHECK(i == 3 ? entry_is(i, 0xe9, REPLACEMENT) : entry_is(i, nop[0], 0));
		(void)call(1);
		CHECK_EQ(nr_seen, 0);
		rec_heal();
		xp_function_stats_read(&stats);
		CHECK_EQ(stats.traced, 0);
		CHECK_EQ(stats.redirected, 1);
		CHECK_EQ(xp_function_trace_matching("*", &handler, DATA(7), &diag), 5);
	}
	(void)call(1);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(call(3), REPLACEMENT);
	/* One alone. */
	rec_forget();
	rec_fail(op, nth, 1, -5);
	if (xp_function_trace(function(1), &handler, DATA(8)) < 0) {
		rec_heal();
		CHECK_EQ(xp_function_trace(function(1), &handler, DATA(8)), 0);
	}
	rec_heal();
	CHECK_EQ(xp_function_untrace(function(1), &handler, DATA(8)), 0);
	CHECK_EQ(xp_function_untrace(function(1), &handler, DATA(7)), 0);
	rec_fail(op, nth, 1, -5);
	if (xp_function_trace(function(1), &handler, DATA(7)) < 0) {
		rec_heal();
		(void)call(1);
		CHECK_EQ(nr_seen, 0);
		CHECK_EQ(xp_function_trace(function(1), &handler, DATA(7)), 0);
	}
	stop();
}

XP_TEST(all_or_none)
{
	static const enum rec_op ops[] = {REC_LOCK, REC_PREPARE, REC_WRITE, REC_SYNC};

	for (unsigned o = 0; o < sizeof(ops) / sizeof(ops[0]); o++) {
		bool struck = true;
		unsigned nth = 1;

		for (; struck; nth++)
			fails(ops[o], nth, &struck);
		CHECK(nth > (ops[o] == REC_WRITE || ops[o] == REC_SYNC ? 4 : 2));
	}
}

/* ---- refusals ---- */

XP_TEST(refusals)
{
	xp__any_function *replacement = (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT);
	struct xp_diag diag;

	REQUIRE(start(8, true, false) == 0);
	put(1, "\xcc\x1f\x44\x00\x00");
	put(2, "\x90\x90\x90\x90\x90");
	put(3, "\x55\x48\x89\xe5\x90");
	put(5, "\x66\x0f\x1f\x40\x00");
	CHECK_EQ(xp_function_trace_matching("f[1]", &handler, NULL, &diag), -EBUSY);
	CHECK(diag.key && strcmp(diag.key, "f1") == 0);
	CHECK_EQ(xp_function_trace(function(2), &handler, NULL), -XP_E_MULTI);
	CHECK_EQ(xp_function_trace(function(3), &handler, NULL), -XP_E_MISMATCH);
	/* One that cannot be changed, and nothing is. */
	rec_forget();
	CHECK_EQ(xp_function_trace_matching("*", &handler, NULL, &diag), -EBUSY);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	CHECK(entry_is(0, nop[0], 0) && entry_is(4, nop[0], 0));
	/* Any nop of five bytes will do. */
	CHECK_EQ(xp_function_trace(function(5), &handler, NULL), 0);
	CHECK(entry_is(5, 0xe8, STUB));
	/* Under shadow stacks: no `leave`, no other place to go to than behind the entry. */
	rec.can &= ~(unsigned)XP_NEED_CALL;
	CHECK_EQ(xp_function_trace(function(4), &with_leave, NULL), -XP_E_SHADOW_STACK);
	CHECK_EQ(xp_function_redirect(function(5), replacement), -XP_E_SHADOW_STACK);
	CHECK_EQ(xp_function_redirect(function(4), replacement), 0);
	CHECK_EQ(xp_function_trace(function(4), &handler, NULL), -XP_E_SHADOW_STACK);
	CHECK(entry_is(4, 0xe9, REPLACEMENT));
	CHECK_EQ(xp_function_trace(function(6), &handler, NULL), 0);
	CHECK_EQ(xp_function_trace((xp__any_function *)((uintptr_t)function(6) + 1), &handler, NULL), -XP_E_NO_ENTRY);
	snprintf(names[7], sizeof(names[7]), "f.isra");
	CHECK_EQ(xp_function_redirect(function(7), replacement), -EINVAL);
	stop();
	REQUIRE(start(2, false, false) == 0);
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), -XP_E_NO_ENTRY);
	CHECK_EQ(xp_function_redirect(function(1), replacement), 0);
	stop();
#ifdef __x86_64__
	/* Farther than a jump leads: by the stub, which keeps something for each thread. */
	REQUIRE(start(2, true, false) == 0);
	replacement = (xp__any_function *)((uintptr_t)rec_text + (1ull << 40));
	rec_port.function_thread = NULL;
	CHECK_EQ(xp_function_redirect(function(1), replacement), -XP_E_NO_METHOD);
	rec_port.function_thread = function_thread;
	CHECK_EQ(xp_function_redirect(function(1), replacement), 0);
	stop();
	/* A stub 2 GiB away from its records, on the other side. */
	REQUIRE(start(2, true, false) == 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
	sites[2].code = (uintptr_t)rec_text < (uintptr_t)sites ? INT32_MAX : INT32_MIN;
	REQUIRE(xp_module_register(&module) == 0);
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), -XP_E_RANGE);
	CHECK(entry_is(1, nop[0], 0));
	stop();
#endif
}

/* What an entry may have had before: a nop of whatever form, the call, the jump. */
XP_TEST(an_entry_is_repaired)
{
	uint8_t call_[5], jump[5];

	REQUIRE(start(2, true, false) == 0);
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), 0);
	memcpy(call_, rec_text + place(1), sizeof(call_));
	CHECK_EQ(xp_repair(NULL), 0);
	put(1, "\x66\x0f\x1f\x40\x00");
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(entry_is(1, 0xe8, STUB));
	put(1, "\x90\x90\x90\x90\x90");
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(entry_is(1, 0xe8, STUB));
	CHECK_EQ(xp_function_redirect(function(1), (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT)), 0);
	CHECK_EQ(xp_text_gen_insn(jump, 0xe9, rec_text + place(1), rec_text + REPLACEMENT), 0);
	rec_put(place(1), jump, sizeof(jump));
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(entry_is(1, 0xe8, STUB));
	CHECK_EQ(xp_function_untrace(function(1), &handler, NULL), 0);
	rec_put(place(1), call_, sizeof(call_));
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(entry_is(1, 0xe9, REPLACEMENT));
	CHECK_EQ(xp_function_restore(function(1)), 0);
	rec_put(place(1), jump, sizeof(jump)); /* which it has in no state any more */
	CHECK_EQ(xp_repair(NULL), -XP_E_MISMATCH);
	rec_put(place(1), call_, sizeof(call_));
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(is_off(1));
	/* The first byte of the nop before the rest of what stands there now, as a probe leaves it. */
	rec_put(place(1), nop, 1);
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(is_off(1));
	rec_put(place(1), nop, sizeof(nop));
	CHECK_EQ(xp_repair(NULL), 1);
	CHECK(is_off(1));
	stop();
}

/* Number 4 begins a function, 5 does not, and of 6 it is known or not. */
static int known_of_6;

static int function_begins(const void *code)
{
	if (code == rec_text + place(6))
		return known_of_6;
	return code == rec_text + place(4);
}

XP_TEST(nops_that_do_not_begin_a_function_are_no_entry)
{
	static uint64_t words[3];
	struct xp_module patchable = {.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	struct xp_diag diag;

	REQUIRE(start(1, true, false) == 0);
	for (unsigned i = 0; i < 3; i++) {
		words[i] = (uintptr_t)(rec_text + place(4 + i));
		put(4 + i, "\x90\x90\x90\x90\x90");
	}
	patchable.tables[XP_SITE_PATCHABLE].start = words;
	patchable.tables[XP_SITE_PATCHABLE].end = words + 3;
	REQUIRE(xp_module_register(&patchable) == 0);
	rec_port.function_begins = NULL;
	CHECK_EQ(xp_function_prepare(NULL, &diag), -XP_E_NO_ENTRY);
	CHECK(diag.site == rec_text + place(4) && diag.detail);
	rec_port.function_begins = function_begins;
	known_of_6 = -ENOENT;
	CHECK_EQ(xp_function_prepare(NULL, &diag), -XP_E_NO_ENTRY);
	CHECK(diag.site == rec_text + place(6));
	CHECK_EQ(xp_function_trace_matching("*", &handler, NULL, &diag), -XP_E_NO_ENTRY);
	CHECK(!entry_is(4, nop[0], 0) && entry_is(0, nop[0], 0));
	known_of_6 = 0;
	/* A pointer makes no beginning of it. */
	CHECK(xp_function_trace(function(5), &handler, NULL) < 0);
	CHECK_EQ(xp_function_prepare(NULL, &diag), 2);
	CHECK(is_off(0));
	CHECK(entry_is(4, nop[0], 0) && !entry_is(5, nop[0], 0) && !entry_is(6, nop[0], 0));
	/* Nothing but number 0 has a stub to call. */
	CHECK_EQ(xp_function_redirect(function(4), function(8)), 0);
	CHECK_EQ(xp_function_restore(function(4)), 0);
	rec_port.function_begins = NULL;
	CHECK_EQ(xp_module_unregister(&patchable), 0);
	stop();
}

static int data_read(uintptr_t *to, const void *addr)
{
	memcpy(to, addr, sizeof(*to));
	return 0;
}

XP_TEST(a_jump_of_the_programs_own_is_followed)
{
	static const char *const forms[] = {
		"\xff\x25",
		"\xf3\x0f\x1e\xfa\xff\x25",
		"\xf3\x0f\x1e\xfa\xf2\xff\x25",
		"\xf3\x0f\x1e\xfa\x41\xbb\x01\x02\x03\x04\xff\x25",
	};
	uintptr_t slot;

	REQUIRE(start(4, true, false) == 0);
	rec_port.data_read = data_read;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		xp__any_function *jump = function(8);
		size_t len = strlen(forms[i]);
		int32_t to = (int32_t)(STRIDE + 8 - len - 4);

		rec_put(place(8), (const uint8_t *)forms[i], len);
		rec_put(place(8) + len, (const uint8_t *)&to, sizeof(to));
		slot = (uintptr_t)function(8) + 6;
		rec_put(place(9) + 8, (const uint8_t *)&slot, sizeof(slot));
		CHECK_EQ(xp_function_trace(jump, &handler, NULL), -XP_E_NO_ENTRY);
		slot = (uintptr_t)function(2);
		rec_put(place(9) + 8, (const uint8_t *)&slot, sizeof(slot));
		CHECK_EQ(xp_function_trace(jump, &handler, NULL), 0);
		CHECK_EQ(xp_function_trace(function(2), &handler, NULL), -XP_E_TRACED);
		CHECK(entry_is(2, 0xe8, STUB) && strcmp(xp_function_name(jump), "f2") == 0);
		CHECK(xp_function_original(jump) == xp_function_original(function(2)));
		CHECK_EQ(xp_function_untrace(jump, &handler, NULL), 0);
	}
	rec_port.data_read = NULL;
	CHECK_EQ(xp_function_trace(function(8), &handler, NULL), -XP_E_NO_ENTRY);
	stop();
}

XP_TEST(nops_are_prepared_while_one_thread_runs)
{
	REQUIRE(start(4, true, false) == 0);
	put(2, "\x90\x90\x90\x90\x90");
	put(3, "\x90\x90\x90\x90\x90");
	rec_fail(REC_PREPARE, 1, 1, -XP_E_NOT_EARLY);
	CHECK_EQ(xp_function_prepare("*", NULL), -XP_E_NOT_EARLY);
	CHECK(!is_off(2) && entry_is(1, nop[0], 0));
	rec_heal();
	rec_forget();
	CHECK_EQ(xp_function_prepare("f3", NULL), 1);
	CHECK(rec.prepared & XP_NEED_ALONE);
	CHECK(!is_off(2) && is_off(3) && !is_off(1));
	CHECK_EQ(xp_function_prepare(NULL, NULL), 3);
	CHECK_EQ(rec.calls[REC_SYNC], 0);
	CHECK(is_off(0) && is_off(1) && is_off(2));
	CHECK_EQ(xp_function_prepare(NULL, NULL), 0);
	CHECK_EQ(xp_function_trace(function(2), &handler, NULL), 0);
	stop();
}

/* ---- lists that are replaced while a thread runs them ---- */

static int replace_the_list(void)
{
	int error = xp_function_untrace(function(1), &handler, DATA(1));

	/* What was given back too early is taken for these, and filled. */
	for (unsigned i = 2; i < 40 && !error; i++)
		error = xp_function_trace(function(i), &handler, DATA(90));
	for (unsigned n = 10; n < 14 && !error; n++)
		error = xp_function_trace(function(0), &handler, DATA(n));
	return error;
}

XP_TEST(a_list_outlives_who_runs_it)
{
	/* The last two share theirs with others. */
	static const uint32_t shards[] = {0, 1, 1000, 1001};

	for (unsigned other = 0; other < 4; other++) {
		REQUIRE(start(40, true, false) == 0);
		current_thread = &threads[other % 2];
		current_thread->shard = shards[other];
		REQUIRE(xp_function_trace(function(1), &handler, DATA(1)) == 0);
		REQUIRE(xp_function_trace(function(1), &handler, DATA(2)) == 0);
		REQUIRE(xp_function_trace(function(1), &handler, DATA(3)) == 0);
		in_the_handler = replace_the_list;
		(void)call(1);
		CHECK_EQ(nr_seen, 3);
		CHECK(seen[0] == 1 && seen[1] == 2 && seen[2] == 3);
		CHECK_EQ(call(1), place(1) + 5);
		CHECK_EQ(nr_seen, 2);
		CHECK(seen[0] == 2 && seen[1] == 3);
		stop();
	}
}

/* Afterwards it does not: the same blocks go round. */
XP_TEST(lists_are_given_back)
{
	unsigned allocated = 0;

	REQUIRE(start(2, true, false) == 0);
	for (int i = 0; i < 5000; i++) {
		rec_forget();
		REQUIRE(xp_function_trace(function(1), &handler, DATA(1)) == 0);
		(void)call(1);
		REQUIRE(xp_function_untrace(function(1), &handler, DATA(1)) == 0);
		if (i > 10)
			allocated += rec.calls[REC_ALLOC];
	}
	CHECK_EQ(allocated, 0);
	stop();
}

static int call_another(void)
{
	unsigned before = nr_seen;

	(void)call(0);
	return nr_seen ? 1 : (nr_seen = before, 0);
}

XP_TEST(calls_from_handlers_are_not_served)
{
	struct xp_function_stats stats, before;

	REQUIRE(start(2, true, false) == 0);
	REQUIRE(xp_function_trace_matching("*", &handler, DATA(1), NULL) == 2);
	xp_function_stats_read(&before);
	in_the_handler = call_another;
	(void)call(1);
	CHECK_EQ(nr_seen, 1);
	xp_function_stats_read(&stats);
	CHECK_EQ(stats.calls - before.calls, 2);
	CHECK_EQ(stats.missed_calls - before.missed_calls, 1);
	stop();
}

/* A function of a module that was refused is not traced, and no caller is told that it is. */
XP_TEST(a_module_that_was_refused)
{
	REQUIRE(start(3, true, false) == 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
	module.nr_tables = XP_NR_SITE_KINDS + 1;
	CHECK_EQ(xp_module_register(&module), -XP_E_CORRUPT);
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), -XP_E_CORRUPT);
	CHECK_EQ(xp_function_redirect(function(1), function(2)), -XP_E_CORRUPT);
	CHECK_EQ(xp_function_trace((xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT), &handler, NULL),
		 -XP_E_NO_ENTRY);
	CHECK_EQ(xp_function_trace_matching("f*", &handler, NULL, NULL), -XP_E_CORRUPT);
	CHECK_EQ(xp_function_trace_matching("g*", &handler, NULL, NULL), 0);
	CHECK_EQ(xp_function_untrace_matching("f*", &handler, NULL, NULL), 0);
	CHECK_EQ(xp_function_prepare(NULL, NULL), -XP_E_CORRUPT);
	module.nr_tables = XP_NR_SITE_KINDS;
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), 0);
	CHECK(entry_is(1, 0xe8, STUB));
	stop();
}

static uintptr_t unwinder_is_at;

static uintptr_t unwind_ip(void *context)
{
	(void)context;
	return unwinder_is_at;
}

enum { SEARCH = 1, CLEANUP = 2, FORCED = 8 + 2, GO_ON = 8 };

static uint64_t abandoned_by(int actions, uintptr_t at)
{
	struct xp_function_stats before, after;

	xp_function_stats_read(&before);
	unwinder_is_at = at;
	CHECK_EQ(xp__function_personality(1, actions, 0, NULL, NULL), GO_ON);
	xp_function_stats_read(&after);
	return after.abandoned - before.abandoned;
}

/* A frame is given away when the unwinder has come to the next one: it reads the return address in between. */
XP_TEST(unwinders_tell_of_calls)
{
	struct xp_function_stats stats;
	uintptr_t one, another;

	REQUIRE(start(2, true, false) == 0);
	rec_port.unwind_ip = unwind_ip;
	REQUIRE(xp_function_trace(function(1), &with_leave, DATA(1)) == 0);
	(void)call(1);
	one = returns_to;
	(void)call(1);
	another = returns_to;
	REQUIRE(one - (uintptr_t)xp__function_return < (uintptr_t)XP__NR_FRAMES * XP__RETURN_SIZE && one != another);
	CHECK_EQ(abandoned_by(SEARCH, one), 0);
	CHECK_EQ(abandoned_by(FORCED, one), 0);
	CHECK_EQ(abandoned_by(CLEANUP, one + XP__RETURN_CALL), 0);
	xp_function_stats_read(&stats);
	CHECK_EQ(stats.awaited, 2);
	CHECK_EQ(abandoned_by(CLEANUP, one), 0);
	(void)call(1);
	CHECK(returns_to != one);
	CHECK_EQ(abandoned_by(CLEANUP, another), 1);
	(void)call(1);
	CHECK_EQ(returns_to, one);
	CHECK_EQ(abandoned_by(CLEANUP, another), 1);
	CHECK_EQ(abandoned_by(CLEANUP, another), 0);
	CHECK_EQ(xp_function_stack_gone((void *)1, (void *)UINTPTR_MAX), 2);
	rec_port.unwind_ip = NULL;
	stop();
}

/* A linker that puts records together in another order than the functions. */
XP_TEST(records_out_of_order)
{
	static const uint8_t orders[][8] = {{7, 6, 5, 4, 3, 2, 1, 0},
					    {3, 1, 4, 0, 5, 7, 2, 6},
					    {0, 1, 2, 3, 4, 5, 7, 6},
					    {1, 2, 3, 4, 5, 6, 7, 0},
					    {4, 0, 6, 2, 7, 3, 5, 1}};

	for (size_t n = 0; n < sizeof(orders) / sizeof(orders[0]); n++) {
		REQUIRE(start(8, true, false) == 0);
		CHECK_EQ(xp_module_unregister(&module), 0);
		for (unsigned k = 0; k < 8; k++) {
			unsigned i = orders[n][k], before = i == 0 ? 3 : 0;

			sites[k].code = distance(rec_text + place(i) + before, &sites[k].code);
			sites[k].name = distance(names[i], &sites[k].name);
			sites[k].size = STRIDE << 8 | before << 4;
		}
		REQUIRE(xp_module_register(&module) == 0);
		for (unsigned i = 0; i < 8; i++) {
			CHECK_EQ(xp_function_trace(function(i), &handler, DATA(i + 1)), 0);
			CHECK(entry_is(i, 0xe8, STUB));
			(void)call(i);
			CHECK_EQ(nr_seen, 1);
			CHECK_EQ(seen[0], i + 1);
			CHECK_EQ(xp_function_trace(function(i), &handler, DATA(i + 1)), -XP_E_TRACED);
			CHECK_EQ(xp_function_untrace(function(i), &handler, DATA(i)), -XP_E_NOT_TRACED);
			(void)call(i);
			CHECK_EQ(nr_seen, 1);
		}
		stop();
	}
}

/* A module's functions go with it; an entry that is left behind leads on. */
XP_TEST(a_module_comes_again)
{
	REQUIRE(start(3, true, false) == 0);
	REQUIRE(xp_function_trace_matching("*", &handler, DATA(1), NULL) == 3);
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(call(1), place(1) + 5);
	CHECK_EQ(nr_seen, 0);
	CHECK_EQ(xp_function_trace(function(1), &handler, NULL), -XP_E_NO_ENTRY);
	REQUIRE(xp_module_register(&module) == 0);
	(void)call(1);
	CHECK_EQ(nr_seen, 0);
	CHECK_EQ(xp_function_trace(function(1), &handler, DATA(2)), 0);
	CHECK_EQ(xp_function_redirect(function(2), (xp__any_function *)(uintptr_t)(rec_text + REPLACEMENT)), 0);
	(void)call(1);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(seen[0], 2);
	CHECK(entry_is(2, 0xe9, REPLACEMENT));
	stop();
}

/* ---- modules that go while a thread is inside ---- */

enum { OTHER = 600 };

static struct xp_module other;
static const struct xp__function *found;

/* Two functions in one module, and function number OTHER in another; @traces has numbers 1 and OTHER. */
static void start_two(const struct xp_function_handler *traces)
{
	static struct xp_entry_site site[2];

	REQUIRE(start(2, true, false) == 0);
	rec_put(place(OTHER), nop, sizeof(nop));
	site[0].code = distance(rec_text + place(OTHER), &site[0].code);
	site[0].name = distance("other", &site[0].name);
	site[0].size = STRIDE << 8;
	site[1].code = distance(rec_text + STUB, &site[1].code);
	site[1].size = XP_SITE_ENTRY_STUB;
	other = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	other.tables[XP_SITE_ENTRY] = (struct xp_site_table){site, site + 2};
	REQUIRE(xp_module_register(&other) == 0);
	REQUIRE(xp_function_trace(function(1), traces, DATA(1)) == 0);
	REQUIRE(xp_function_trace(function(OTHER), traces, DATA(2)) == 0);
	CHECK_EQ(rec_port.lock(), 0);
	found = xp__table_find((uintptr_t)(rec_text + place(1)));
	rec_port.unlock();
	REQUIRE(found);
}

static void stop_two(void)
{
	CHECK_EQ(xp_module_unregister(&other), 0);
	stop();
}

/* What is free is among the next blocks taken. */
static bool is_given_back(const void *block)
{
	enum { NEXT = 512 };
	static void *taken[NEXT];
	bool yes = false;

	CHECK_EQ(rec_port.lock(), 0);
	xp__reclaim();
	for (int i = 0; i < NEXT; i++) {
		taken[i] = xp__reclaim_take(sizeof(struct xp__function));
		yes = yes || taken[i] == block;
	}
	for (int i = NEXT; i-- > 0;)
		xp__reclaim_give(taken[i], sizeof(struct xp__function));
	rec_port.unlock();
	return yes;
}

/* Without memory for another table, the functions of a module that went stay in this one until the next. */
XP_TEST(a_module_goes_without_memory)
{
	const struct xp__function *dead;

	REQUIRE(start(300, true, false) == 0);
	REQUIRE(xp_function_trace_matching("*", &handler, DATA(1), NULL) == 300);
	CHECK_EQ(rec_port.lock(), 0);
	dead = xp__table_find((uintptr_t)(rec_text + place(1)));
	rec_port.unlock();
	REQUIRE(dead);
	rec_fail(REC_ALLOC, 1 + rec.calls[REC_ALLOC], REC_FOREVER, -ENOMEM);
	CHECK_EQ(xp_module_unregister(&module), 0);
	rec_heal();
	CHECK(!is_given_back(dead));
	CHECK_EQ(call(1), place(1) + 5);
	CHECK_EQ(nr_seen, 0);
	CHECK_EQ(rec_port.lock(), 0);
	CHECK_EQ(xp__table_reserve(1000), 0);
	rec_port.unlock();
	CHECK(is_given_back(dead));
	REQUIRE(xp_module_register(&module) == 0);
	CHECK_EQ(xp_function_trace_matching("*", &handler, DATA(2), NULL), 300);
	(void)call(1);
	CHECK_EQ(nr_seen, 1);
	stop();
}

static int close_the_module(void)
{
	int error = xp_module_unregister(&module);

	return error ? error : is_given_back(found);
}

/* A thread that looks for another function may be reading this one, in the table before. */
XP_TEST(a_function_outlives_who_finds_it)
{
	start_two(&handler);
	in_the_handler = close_the_module;
	(void)call(OTHER);
	CHECK_EQ(nr_seen, 1);
	CHECK(in_the_handler == NULL);
	CHECK(is_given_back(found));
	stop_two();
}

/* What the return thunk does. */
static void return_to(uintptr_t address)
{
	struct {
		struct xp__call call;
		uint64_t stack[2];
	} frame;

	memset(&frame, 0, sizeof(frame));
	frame.call.resume = address;
	nr_seen = 0;
	if (xp__function_leave(&frame.call))
		xp__function_run_leave(&frame.call, NULL);
	CHECK_EQ(frame.call.resume, 0);
}

static int close_and_go_on(void)
{
	CHECK_EQ(close_the_module(), 0);
	CHECK(strcmp(found->object.name, "f1") == 0 && found->code == (uintptr_t)(rec_text + place(1)));
	return 0;
}

/* A call may be in a replacement, or in what its function called last, and its function's module go. */
XP_TEST(a_return_outlives_its_module)
{
	uintptr_t one, another, others;

	start_two(&with_leave);
	(void)call(1);
	one = returns_to;
	(void)call(1);
	another = returns_to;
	(void)call(OTHER);
	others = returns_to;
	in_the_handler = close_and_go_on;
	return_to(one);
	CHECK_EQ(nr_seen, 1);
	CHECK(in_the_handler == NULL);
	return_to(another);
	CHECK_EQ(nr_seen, 0);
	CHECK(is_given_back(found));
	return_to(others);
	CHECK_EQ(nr_seen, 1);
	CHECK_EQ(seen[0], 2);
	stop_two();
}

/* ---- another thread at each instruction ---- */

enum { TRAP_FLAG = 0x100 };

static unsigned nr_steps, step_at;
static void (*at_the_step)(void);

static void step(bool on)
{
#ifdef __x86_64__
	__builtin_ia32_writeeflags_u64((__builtin_ia32_readeflags_u64() & ~(uint64_t)TRAP_FLAG) | (on ? TRAP_FLAG : 0));
#else
	__builtin_ia32_writeeflags_u32((__builtin_ia32_readeflags_u32() & ~(unsigned)TRAP_FLAG) | (on ? TRAP_FLAG : 0));
#endif
}

static void on_step(int nr, siginfo_t *info, void *context)
{
	ucontext_t *at = context;

	(void)nr;
	(void)info;
	if (++nr_steps != step_at)
		return;
	at->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	at_the_step();
}

/* Runs @what up to instruction number @at, where another thread would do @then; false: it has not so many. */
static bool steps_to(unsigned at, void (*what)(void), void (*then)(void))
{
	struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO}, before;

	nr_steps = 0;
	step_at = at;
	at_the_step = then;
	sigaction(SIGTRAP, &action, &before);
	step(true);
	what();
	step(false);
	sigaction(SIGTRAP, &before, NULL);
	return nr_steps >= at;
}

static void call_1(void)
{
	(void)call(1);
}

/* What was given back too early is taken for the last of these, and filled. */
static void replace_and_fill(void)
{
	CHECK_EQ(xp_function_untrace(function(1), &handler, DATA(1)), 0);
	for (unsigned n = 90; n < 93; n++)
		CHECK_EQ(xp_function_trace(function(0), &handler, DATA(n)), 0);
}

/* A call runs the list before or the one after, wherever it is when the list is replaced. */
XP_TEST(a_list_is_replaced_at_each_instruction)
{
	bool more = true;

	for (unsigned at = 1; more; at++) {
		REQUIRE(start(2, true, false) == 0);
		for (unsigned n = 1; n < 4; n++)
			REQUIRE(xp_function_trace(function(1), &handler, DATA(n)) == 0);
		more = steps_to(at, call_1, replace_and_fill);
		CHECK(nr_seen == 2 || nr_seen == 3);
		for (unsigned i = 0; i < nr_seen; i++)
			CHECK_EQ(seen[i], i + 4 - nr_seen);
		CHECK(more || at > 100);
		stop();
	}
}

static void make_room(void)
{
	CHECK_EQ(xp__table_reserve(100), 0);
}

static void call_meanwhile(void)
{
	current_thread = &threads[1];
	(void)call(1);
	current_thread = &threads[0];
	CHECK_EQ(nr_seen, 1);
}

/* A call finds its function, wherever the thread is that replaces the table. Many instructions fill one: some of them do. */
XP_TEST(a_call_comes_while_the_table_is_replaced)
{
	bool more = true;
	unsigned at;

	for (at = 1; more; at += 251) {
		REQUIRE(start(2, true, false) == 0);
		REQUIRE(xp_function_trace(function(1), &handler, DATA(1)) == 0);
		CHECK_EQ(rec_port.lock(), 0);
		more = steps_to(at, make_room, call_meanwhile);
		rec_port.unlock();
		call_meanwhile();
		stop();
	}
	CHECK(at > 300);
}

static bool is_quiescent;

static void look(void)
{
	unsigned long asked[XP__SHARD_WORDS] = {1};

	is_quiescent = xp__inside_quiescent(asked);
}

static void enter_and_leave(void)
{
	xp__inside_enter(&threads[0]);
	xp__inside_leave(&threads[0]);
}

/* A thread is inside all the time; its signal handler comes and goes while another looks. */
XP_TEST(a_signal_handler_hides_no_thread)
{
	REQUIRE(start(2, true, false) == 0);
	xp__inside_enter(&threads[0]);
	for (unsigned at = 1; at < 100; at++) {
		CHECK(steps_to(at, look, enter_and_leave));
		CHECK(!is_quiescent);
	}
	xp__inside_leave(&threads[0]);
	look();
	CHECK(is_quiescent);
	stop();
}

XP_TEST_MAIN()
