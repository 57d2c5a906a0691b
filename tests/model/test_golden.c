// SPDX-License-Identifier: MIT
/*
 * What a commit asks of its port, call by call, against golden.txt: one trace of each method, and one of all in a batch. Of
 * every scenario: in which order it asks; and how many calls it may take.
 *
 * Run in tests/model. To write golden.txt anew after a wanted change, and then read the difference:
 *	cd tests/model && XP_GOLDEN=write ../../build/check/tests/model_golden traces
 */
#include "bystander.h"
#include "scenario.h"
#include "xp_test.h"

#define GOLDEN "golden.txt"
#define GOLDEN_MAX (256u << 10)

/* Filling a batch takes the text lock for memory; that is no part of the protocol. */
static void drop_idle_locks(char *trace)
{
	static const char idle[] = "lock\nunlock\n";
	size_t len = strlen(idle);

	for (char *at = trace; (at = strstr(at, idle)) != NULL;)
		memmove(at, at + len, strlen(at + len) + 1);
}

static void run(const struct scenario *s, char *trace, size_t size)
{
	struct xp_diag diag;

	scenario_start(s);
	CHECK_EQ(scenario_commit(s, &diag), 0);
	CHECK(scenario_is(s, true));
	snprintf(trace, size, "%s", rec_trace());
	drop_idle_locks(trace);
	scenario_end(s);
}

/* The section "[name]" of the golden file, up to the next. */
static bool find_section(const char *golden, const char *name, char *section, size_t size)
{
	char head[128];
	const char *start, *end;

	snprintf(head, sizeof(head), "[%s]\n", name);
	start = strstr(golden, head);
	if (start == NULL)
		return false;
	start += strlen(head);
	end = strstr(start, "\n[");
	snprintf(section, size, "%.*s", (int)(end ? end + 1 - start : (long)strlen(start)), start);
	return true;
}

static void compare(const char *name, const char *golden, const char *trace)
{
	static char section[GOLDEN_MAX];

	REQUIRE(find_section(golden, name, section, sizeof(section)));
	if (strcmp(section, trace) != 0 && xp_test_failure())
		printf("# %s\n# ---- expected\n%s# ---- found\n%s", name, section, trace);
}

static const char *const golden_scenarios[] = {"none",
					"flip",
					"word",
					"shortjmp to jmp",
					"breakpoint to jmp",
					"quiesce, several instructions",
					"early",
					"mixed, all methods"};

XP_TEST(traces)
{
	static char golden[GOLDEN_MAX], trace[GOLDEN_MAX];
	bool write = getenv("XP_GOLDEN") && strcmp(getenv("XP_GOLDEN"), "write") == 0;
	FILE *file = fopen(GOLDEN, write ? "w" : "r");

	REQUIRE(file != NULL);
	if (!write)
		golden[fread(golden, 1, sizeof(golden) - 1, file)] = '\0';
	for (size_t i = 0; i < sizeof(golden_scenarios) / sizeof(golden_scenarios[0]); i++) {
		run(scenario_find(golden_scenarios[i]), trace, sizeof(trace));
		if (write)
			fprintf(file, "[%s]\n%s", golden_scenarios[i], trace);
		else
			compare(golden_scenarios[i], golden, trace);
	}
	fclose(file);
}

static bool is_call(const char *line, const char *name)
{
	size_t len = strlen(name);

	return strncmp(line, name, len) == 0 && (line[len] == '\n' || line[len] == ' ');
}

/*
 * Looks are before prepare, stores behind it; behind the last store of each phase is a sync, or all are between park and
 * unpark, or no other thread executes. @stores: of which no sync, or unpark, was seen yet.
 */
static bool in_order(const char *trace)
{
	bool locked = false, prepared = false, parked = false, alone = false, right = true;
	unsigned stores = 0;

	for (const char *line = trace; *line && right; line = strchr(line, '\n') + 1) {
		if (is_call(line, "lock")) {
			right = !locked;
			locked = true;
		} else if (is_call(line, "check") || is_call(line, "read")) {
			right = locked && !prepared;
		} else if (is_call(line, "prepare")) {
			right = locked && !prepared;
			prepared = true;
			alone = is_call(line, "prepare ALONE");
		} else if (is_call(line, "park")) {
			right = prepared && !parked && stores == 0;
			parked = true;
		} else if (is_call(line, "write")) {
			right = prepared;
			stores++;
		} else if (is_call(line, "sync") || is_call(line, "unpark")) {
			right = stores > 0 && is_call(line, "unpark") == parked;
			parked = false;
			stores = 0;
		} else {
			right = is_call(line, "unlock") && locked && !parked && (stores == 0 || alone);
			locked = prepared = false;
			stores = 0;
		}
	}
	return right && !locked;
}

XP_TEST(every_trace_is_in_order)
{
	static char trace[GOLDEN_MAX];

	for (size_t i = 0; i < nr_scenarios; i++) {
		run(&scenarios[i], trace, sizeof(trace));
		if (!in_order(trace) && xp_test_failure())
			printf("# %s\n%s", scenarios[i].name, trace);
	}
	/* It can tell. */
	CHECK(!in_order("lock\nprepare SYNC\nwrite 0x0+1: e9\nunlock\n"));
	CHECK(!in_order("lock\nwrite 0x0+1: e9\nprepare SYNC\nsync\nunlock\n"));
	CHECK(!in_order("lock\nprepare PARK\npark\nunpark\nwrite 0x0+1: e9\nunlock\n"));
	CHECK(!in_order("lock\nprepare SYNC\nsync\nwrite 0x0+1: e9\nsync\nunlock\n"));
}

XP_TEST(syncs_are_those_of_the_longest_plan)
{
	struct xp_diag diag;

	for (size_t i = 0; i < nr_scenarios; i++) {
		scenario_start(&scenarios[i]);
		CHECK_EQ(scenario_commit(&scenarios[i], &diag), 0);
		CHECK_EQ(rec.calls[REC_SYNC], scenarios[i].nr_syncs);
		scenario_end(&scenarios[i]);
	}
}

/* A scenario of one site, @repeat times @stride apart. */
static struct scenario many(const char *name, unsigned repeat, size_t stride)
{
	struct scenario s = *scenario_find(name);

	s.repeat = repeat;
	s.stride = stride;
	return s;
}

static void commit_many(const char *name, unsigned repeat, size_t stride)
{
	struct scenario s = many(name, repeat, stride);
	struct xp_diag diag;

	scenario_start(&s);
	CHECK_EQ(scenario_commit(&s, &diag), 0);
	CHECK(scenario_is(&s, true));
	CHECK_EQ(rec.calls[REC_SYNC], s.nr_syncs);
	scenario_end(&s);
}

XP_TEST(syncs_do_not_depend_on_the_number_of_sites)
{
	static const char *const names[] = {
		"flip", "word", "shortjmp to jmp", "breakpoint to jmp", "breakpoint, first byte", "mixed, all methods"};
	static const unsigned numbers[] = {1, 3, 400};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++)
			commit_many(names[i], numbers[n], 128);
	commit_many("breakpoint to jmp", 1000, 16);
}

XP_TEST(neighbours_are_written_together)
{
	commit_many("flip", 200, 16); /* 0x7e to 0xcfe: one page */
	CHECK_EQ(rec.calls[REC_WRITE], 1);
	commit_many("breakpoint to jmp", 200, 16);
	CHECK_EQ(rec.calls[REC_WRITE], 3);
	commit_many("flip", 40, 1000); /* over pages, with gaps that cost less than a call */
	CHECK_EQ(rec.calls[REC_WRITE], 1);
	commit_many("flip", 2, 3500); /* the gap is large, the page the same */
	CHECK_EQ(rec.calls[REC_WRITE], 1);
}

XP_TEST(strangers_are_written_apart)
{
	commit_many("flip", 20, 8192);
	CHECK_EQ(rec.calls[REC_WRITE], 20);
	CHECK_EQ(rec.largest_write, 1);
	commit_many("breakpoint to jmp", 20, 8192);
	CHECK_EQ(rec.calls[REC_WRITE], 60);
	CHECK_EQ(rec.largest_write, 4);
}

XP_TEST(single_stores_are_written_alone)
{
	commit_many("word", 20, 8);
	CHECK_EQ(rec.calls[REC_WRITE], 20);
	CHECK_EQ(rec.largest_write, 5);
}

XP_TEST(no_write_is_above_64_KiB)
{
	commit_many("flip", 400, 1000); /* 400,000 bytes without a gap worth a call */
	CHECK_EQ(rec.calls[REC_WRITE], 7);
	CHECK(rec.largest_write <= 64u << 10);
	CHECK(rec.largest_write > 63u << 10);
}

/*
 * The sites of one key, @nr of them @stride apart: their loop is another than that of pokes. Enabled, disabled, what is
 * between them as it was.
 */
static void key_many(size_t nr, size_t first, size_t stride, size_t writes, size_t largest)
{
	static uint8_t before[REC_TEXT_SIZE];
	static struct xp_branch_site records[400];
	static struct xp_static_key key;
	struct xp_module module = {.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {{records, records + nr}}};

	rec_start();
	for (size_t i = 0; i < REC_TEXT_SIZE; i++)
		rec_put(i, &(uint8_t){(uint8_t)(i * 7 + i / 256)}, 1);
	key = (struct xp_static_key){.object = {.name = "key"}};
	for (size_t i = 0; i < nr; i++)
		rec_branch(&records[i], first + i * stride, first + i * stride + 0x40, &key, 0);
	memcpy(before, rec_text, sizeof(before));
	CHECK_EQ(xp_module_register(&module), 0);
	rec_forget();
	CHECK_EQ(xp_static_key_enable(&key), 0);
	CHECK_EQ(rec.calls[REC_WRITE], writes);
	CHECK_EQ(rec.largest_write, largest);
	for (size_t i = 0; i < nr; i++) {
		CHECK_EQ(rec_text[first + i * stride], 0xe9);
		before[first + i * stride] = 0xe9;
	}
	CHECK(memcmp(before, rec_text, sizeof(before)) == 0);
	CHECK_EQ(xp_static_key_disable(&key), 0);
	for (size_t i = 0; i < nr; i++)
		before[first + i * stride] = 0xa9;
	CHECK(memcmp(before, rec_text, sizeof(before)) == 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

XP_TEST(sites_of_a_key_are_written_as_pokes_are)
{
	key_many(1, 0xffe, 16, 1, 1);
	key_many(200, 0x7e, 16, 1, 199 * 16 + 1);
	key_many(40, 0x7e, 1000, 1, 39 * 1000 + 1);
	key_many(2, 0x10, 3500, 1, 3501);	   /* the gap is large, the page the same */
	key_many(2, 0xfff - 1023, 1025, 1, 1026);  /* 1024 bytes between them, across the page */
	key_many(2, 0xfff - 1023, 1026, 2, 1);	   /* one more */
	key_many(20, 0x100, 8192, 20, 1);
	key_many(400, 0xff0, 1000, 7, 65001);	   /* without a gap worth a call */
	key_many(129, 0xfff, 512, 2, 65536 - 511); /* no byte above 64 KiB */
}

XP_TEST(nothing_is_done_where_nothing_differs)
{
	const struct scenario *s = scenario_find("none");
	struct xp_stats before, after;
	struct xp_diag diag;

	scenario_start(s);
	xp_stats_read(&before);
	CHECK_EQ(scenario_commit(s, &diag), 0);
	xp_stats_read(&after);
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_SYNC] + rec.calls[REC_PREPARE], 0);
	CHECK_EQ(after.commits, before.commits);
	scenario_end(s);
}

XP_TEST(statistics_agree_with_the_trace)
{
	const struct scenario *s = scenario_find("mixed, all methods");
	struct xp_stats before, after;
	struct xp_diag diag;

	scenario_start(s);
	xp_stats_read(&before);
	CHECK_EQ(scenario_commit(s, &diag), 0);
	xp_stats_read(&after);
	CHECK_EQ(after.commits - before.commits, 1);
	CHECK_EQ(after.writes - before.writes, rec.calls[REC_WRITE]);
	CHECK_EQ(after.syncs - before.syncs, rec.calls[REC_SYNC]);
	CHECK_EQ(after.sites - before.sites, scenario_nr_sites(s));
	CHECK_EQ(after.rollbacks, before.rollbacks);
	scenario_end(s);
}

XP_TEST_MAIN()
