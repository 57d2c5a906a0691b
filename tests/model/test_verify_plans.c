// SPDX-License-Identifier: MIT
/*
 * plans/: every plan has the verdict that its comments expect, under every model, at every address. And the reader of
 * plan files: what it refuses, where it says the mistake is, and what it makes of the rest.
 */
#include "verify/explore.h"
#include "verify/planfile.h"
#include "verify/report.h"

#include "xp_test.h"

#include <dirent.h>
#include <errno.h>

#define PLANS "../../plans"

static char *slurp(const char *path, size_t *len)
{
	FILE *file = fopen(path, "r");
	char *text = malloc(1u << 20);

	*len = file && text ? fread(text, 1, (1u << 20) - 1, file) : 0;
	if (file)
		fclose(file);
	if (text)
		text[*len] = 0;
	return text;
}

/* "proven at …" of @schedule under @model. */
static void judge(struct xp__explorer *explorer, const struct xp__schedule *schedule, const struct xp__model *model,
		  char *text, size_t size)
{
	uint64_t proven = 0;
	char addresses[140];

	for (unsigned addr = 0; addr < 64; addr++) {
		struct xp__result result;

		CHECK_EQ(xp__explore(explorer, schedule, addr, model, &result), 0);
		proven |= (uint64_t)result.proven << addr;
	}
	xp__report_addresses(addresses, sizeof(addresses), proven, model->granule);
	snprintf(text, size, "proven at %s", addresses);
}

/* The expectations stand in comments before each plan. Returns how many there were. */
static unsigned check_file(struct xp__explorer *explorer, const char *path)
{
	struct xp__planfile file;
	size_t len;
	char *text = slurp(path, &len), *save = NULL;
	char expected[XP__NR_MODELS][160];
	unsigned nr_plans = 0, nr_expected = 0;

	CHECK_EQ(xp__planfile_read(&file, text, len), 0);
	if (file.nr == 0)
		XP_TEST_NOTE("%s:%u:%u: %s", path, file.line, file.column, file.reason);
	memset(expected, 0, sizeof(expected));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[32], what[160];

		if (sscanf(line, "# expect %31[^:]: %159[^\n]", name, what) == 2) {
			const struct xp__model *model = xp__model_find(name);

			CHECK(model != NULL);
			if (model)
				strcpy(expected[model - xp__models], what);
		} else if (strncmp(line, "plan ", 5) == 0 && nr_plans < file.nr) {
			const struct xp__schedule *schedule = &file.schedules[nr_plans++];

			CHECK_STR(schedule->name, line + 5);
			for (unsigned m = 0; m < XP__NR_MODELS; m++) {
				judge(explorer, schedule, &xp__models[m], what, sizeof(what));
				if (strcmp(what, expected[m]) != 0)
					XP_TEST_NOTE("%s: %s: %s", path, schedule->name, xp__models[m].name);
				CHECK_STR(what, expected[m]);
				nr_expected++;
			}
			memset(expected, 0, sizeof(expected));
		}
	}
	CHECK_EQ(nr_plans, file.nr);
	xp__planfile_free(&file);
	free(text);
	return nr_expected;
}

XP_TEST(published_plans_get_the_verdict_expected)
{
	struct xp__explorer *explorer = xp__explorer_new();
	DIR *dir = opendir(PLANS);
	struct dirent *entry;
	unsigned nr = 0;

	REQUIRE(explorer && dir);
	while ((entry = readdir(dir))) {
		char path[300];

		if (strstr(entry->d_name, ".plan") == NULL)
			continue;
		snprintf(path, sizeof(path), PLANS "/%s", entry->d_name);
		nr += check_file(explorer, path);
	}
	closedir(dir);
	XP_TEST_NOTE("%u verdicts", nr);
	/* S3, S4, S5, ten sequences of S8 twice, their replacements, S9, S12, branches inside: five models each. */
	CHECK(nr >= 5 * 80);
	xp__explorer_free(explorer);
}

/* The fetch that was asked about: half gate number, half offset, across a line, with the older half below. */
XP_TEST(torn_offset_across_a_line)
{
	static const uint8_t torn[] = {0x3e, 0x67, 0x66, 0x9a, 0x34, 0x12, 0xbc, 0x1a, 0x47, 0x23};
	struct xp__explorer *explorer = xp__explorer_new();
	struct xp__planfile file;
	struct xp__result result;
	size_t len;
	char *text = slurp(PLANS "/s8-published.plan", &len);
	bool found = false;

	REQUIRE(explorer && text);
	REQUIRE_EQ(xp__planfile_read(&file, text, len), 0);
	for (size_t i = 0; i < file.nr; i++) {
		if (strcmp(file.schedules[i].name, "16-bit code, 32-bit handler, far (second version)") != 0)
			continue;
		found = true;
		REQUIRE_EQ(xp__explore(explorer, &file.schedules[i], 58, &xp__models[XP__FETCH_LINE64], &result), 0);
		REQUIRE(!result.proven);
		CHECK_MEM(result.step[result.nr_steps - 1].bytes, torn, sizeof(torn));
		CHECK_EQ(result.step[result.nr_steps - 1].version[0], 0);
		CHECK_EQ(result.step[result.nr_steps - 1].version[6], 2);
		REQUIRE_EQ(xp__explore(explorer, &file.schedules[i], 60, &xp__models[XP__FETCH_LINE64], &result), 0);
		CHECK(result.proven);
	}
	CHECK(found);
	xp__planfile_free(&file);
	xp__explorer_free(explorer);
	free(text);
}

/* ---- the reader ---- */

static void refused(const char *text, unsigned line, unsigned column, const char *reason)
{
	struct xp__planfile file;

	CHECK_EQ(xp__planfile_read(&file, text, strlen(text)), -EINVAL);
	CHECK_EQ(file.line, line);
	CHECK_EQ(file.column, column);
	CHECK_STR(file.reason, reason);
	if (file.line != line || file.column != column || strcmp(file.reason, reason) != 0)
		XP_TEST_NOTE("in: %s", text);
	xp__planfile_free(&file);
}

XP_TEST(malformed_files)
{
	refused("", 1, 1, "there is no plan in this file");
	refused("# nothing\n\n", 1, 1, "there is no plan in this file");
	refused("state 90\n", 1, 1, "`plan NAME` is expected first");
	refused("plan\n", 1, 5, "a name is expected");
	refused("plan # x\n", 1, 6, "a name is expected");
	refused("plan 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\n", 1,
		6, "the name is longer than 79 characters");
	refused("plan a\nplan b\n", 1, 1, "a plan has at least two states: the old code and the new");
	refused("plan a\n\nstate 90\n", 1, 1, "a plan has at least two states: the old code and the new");
	refused("plan a\n nonsense 1\n", 2, 2, "there is no directive of this name");
	refused("plan a\nstates 90\n", 2, 1, "there is no directive of this name");
	refused("plan a\nmode 48\n", 2, 6, "16, 32 or 64 is expected");
	refused("plan a\nmode\n", 2, 5, "16, 32 or 64 is expected");
	refused("plan a\nmode 64 64\n", 2, 9, "nothing more is expected on this line");
	refused("plan a\nstate 90\nmode 16\n", 3, 1, "the mode stands before the first state");
	refused("plan a\nlet\n", 2, 4,
		"a symbol is expected: a letter, then letters, digits and _, and no hexadecimal byte");
	refused("plan a\nlet dd = 11\n", 2, 5,
		"a symbol is expected: a letter, then letters, digits and _, and no hexadecimal byte");
	refused("plan a\nlet 9g = 11\n", 2, 5,
		"a symbol is expected: a letter, then letters, digits and _, and no hexadecimal byte");
	refused("plan a\nlet gg 11\n", 2, 8, "= is expected");
	refused("plan a\nlet gg = 1\n", 2, 10, "a byte is expected: two hexadecimal digits");
	refused("plan a\nlet gg =\n", 2, 9, "a byte is expected: two hexadecimal digits");
	refused("plan a\nlet gg = 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10\n", 2, 58, "more than 16 bytes");
	refused("plan a\nlet gg = 11\nlet gg = 22\n", 3, 5, "the symbol is defined already");
	refused("plan a\nlet a_ = 11\nlet b_ = 11\nlet c_ = 11\nlet d_ = 11\nlet e_ = 11\nlet f_ = 11\nlet g_ = 11\n"
		"let h_ = 11\nlet i_ = 11\nlet j_ = 11\nlet k_ = 11\nlet l_ = 11\nlet m_ = 11\nlet n_ = 11\n"
		"let o_ = 11\nlet p_ = 11\nlet q_ = 11\n",
		18, 1, "more than 16 symbols");
	refused("plan a\ninvalid-selectors\n", 2, 18, "a selector is expected");
	refused("plan a\ninvalid-selectors 0-\n", 2, 19,
		"a selector, or FIRST-LAST, is expected, in up to four hexadecimal digits each");
	refused("plan a\ninvalid-selectors 3-1\n", 2, 19,
		"a selector, or FIRST-LAST, is expected, in up to four hexadecimal digits each");
	refused("plan a\ninvalid-selectors 10000\n", 2, 19,
		"a selector, or FIRST-LAST, is expected, in up to four hexadecimal digits each");
	refused("plan a\ninvalid-selectors 0 1 2 3 4 5 6 7 8 9 a b c d e f 10\n", 2, 51, "more than 16 ranges");
	refused("plan a\nstate\n", 2, 6, "a byte or a symbol is expected");
	refused("plan a\nstate 9\n", 2, 7, "a byte or a symbol is expected");
	refused("plan a\nstate 90 gg\n", 2, 10, "a byte or a symbol is expected");
	refused("plan a\nlet gg = 11\nstate gg gg\n", 3, 10, "gg has only 1 bytes");
	refused("plan a\nstate 0 1\n", 2, 7, "a byte or a symbol is expected");
	refused("plan a\nstate 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90\n", 2, 55,
		"a site has at most 16 bytes");
	refused("plan a\nstate 90\nstate 90 90\n", 3, 10, "this state is longer than the first");
	refused("plan a\nstate 90 90\nstate 91\n", 3, 9, "this state is shorter than the first");
	refused("plan a\nstate 90\nstate 90\n", 3, 1, "the state is the same as the one before");
	refused("plan a\nstate 00 00 00 00 00 00 00 00 00\nstate 11 00 00 00 00 00 00 00 11\n", 3, 1,
		"no store is 9 bytes long: say with `store OFFSET LENGTH` lines how it is reached");
	refused("plan a\nstore 0 1\nstate 90\n", 3, 1, "the first state is not reached by a store");
	refused("plan a\nstate 90\nstore 0 1\n", 3, 1, "no state follows this store");
	refused("plan a\nstate 90\nstore 0 1\nsync\n", 4, 1, "sync stands after a state");
	refused("plan a\nsync\n", 2, 1, "sync stands after a state");
	refused("plan a\nstate 90\nstore 16 1\n", 3, 7, "an offset in the site is expected");
	refused("plan a\nstate 90\nstore x 1\n", 3, 7, "an offset in the site is expected");
	refused("plan a\nstate 90\nstore 0 9\n", 3, 9, "a length from 1 to 8 is expected");
	refused("plan a\nstate 90\nstore 0 0\n", 3, 9, "a length from 1 to 8 is expected");
	refused("plan a\nstate 90\nstore 0\n", 3, 8, "a length from 1 to 8 is expected");
	refused("plan a\nstate 90 90\nstore 1 2\nstate 90 91\n", 3, 1, "the store reaches beyond the site");
	refused("plan a\nstate 90 90\nstore 1 1\nstate 91 91\n", 4, 1,
		"the stores before it do not lead to this state");
	refused("plan a\nresume\nstate 90\nstate 91\n", 2, 7,
		"an offset in the site, its length, or `copy` is expected");
	refused("plan a\nresume 17\nstate 90\nstate 91\n", 2, 8,
		"an offset in the site, its length, or `copy` is expected");
	refused("plan a\nresume 2\nstate 90\nstate 91\n", 2, 8, "the site ends at offset 1");
	refused("plan a\nentry\n", 2, 6, "an offset in the site is expected");
	refused("plan a\nentry 1 x\n", 2, 9, "an offset in the site is expected");
	refused("plan a\nentry 16\n", 2, 7, "an offset in the site is expected");
	refused("plan a\nentry 0 1\nstate 90\nstate 91\n", 2, 9, "the site ends at offset 1");
	refused("plan a\nstate 90\ncommit\n", 3, 1, "commit stands after the new code of the commit before");
	refused("plan a\nstate 90\nstate 91\ncommit\n", 4, 1, "a commit has at least one state: the new code");
	refused("plan a\nstate 90\nstate 91\ncommit\nsync\ncommit\n", 4, 1,
		"a commit has at least one state: the new code");
	refused("plan a\nstate 90\nstate 91\ncommit\nstate 92\ncommit\nstate 93\ncommit\nstate 94\ncommit\n", 10, 1,
		"more than 4 commits");
	refused("plan a\nstate 90\nstore 0 1\ncommit\n", 4, 1, "commit stands after the new code of the commit before");
	refused("plan a\nstate 90\nstate 91\nstore 0 1\ncommit\n", 4, 1, "no state follows this store");
	refused("plan a\nstate 90\nstate 91\nfree-copy\n", 4, 1,
		"free-copy stands after a state, in a plan with `resume copy`");
	refused("plan a\nresume copy\nstate 90\nfree-copy\n", 4, 1,
		"free-copy stands after a state, in a plan with `resume copy`");
	refused("plan a\nrestart-on-nop yes\n", 2, 16, "nothing more is expected on this line");
	refused("plan a\nstate 90 \x80\n", 2, 10, "only printable ASCII is expected outside comments");
	refused("plan a\x01\n", 1, 7, "only printable ASCII is expected outside comments");
}

XP_TEST(too_many_steps)
{
	char text[4096] = "plan a\nstate 00\n";
	struct xp__planfile file;

	for (unsigned i = 0; i < 90; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "state %02x\n", i + 1);
	CHECK_EQ(xp__planfile_read(&file, text, strlen(text)), -EINVAL);
	CHECK_STR(file.reason, "more stores and syncs than the verifier takes");
	xp__planfile_free(&file);
}

XP_TEST(what_the_reader_makes)
{
	static const char text[] = "# a comment\r\n"
				   "plan  one plan  # its name\r\n"
				   "mode 16\n"
				   "let gg = 34 12\n"
				   "\tlet x1 = AA\n"
				   "invalid-selectors 0-3 F5F5\n"
				   "restart-on-nop\n"
				   "state 9a gg gg x1\n"
				   "state 9A gg 90 x1\n"
				   "sync\n"
				   "store 3 1\n"
				   "store 0 2\n"
				   "state cc 00 90 01\n"
				   "sync\n"
				   "plan two\n"
				   "resume 1\n"
				   "state 90\n"
				   "state 91"; /* no newline at the end */
	static const uint8_t old[] = {0x9a, 0x34, 0x12, 0xaa};
	static const uint8_t new[] = {0xcc, 0x00, 0x90, 0x01};
	static const uint8_t kinds[] = {XP__EVENT_PUBLISH, XP__EVENT_RAISE,  XP__EVENT_STORE, XP__EVENT_SYNC,
					XP__EVENT_STORE,   XP__EVENT_STORE,  XP__EVENT_SYNC,  XP__EVENT_RETURN,
					XP__EVENT_RETIRE,  XP__EVENT_RECLAIM};
	struct xp__planfile file;
	const struct xp__schedule *schedule;

	REQUIRE_EQ(xp__planfile_read(&file, text, sizeof(text) - 1), 0);
	REQUIRE_EQ(file.nr, 2);
	schedule = &file.schedules[0];
	CHECK_STR(schedule->name, "one plan");
	CHECK_EQ(schedule->mode, 16);
	CHECK_EQ(schedule->len, 4);
	CHECK_EQ(schedule->resume, XP__RESUME_EMULATE);
	CHECK(schedule->restart_on_nop && schedule->faults);
	CHECK_EQ(schedule->nr_invalid, 2);
	CHECK_EQ(schedule->invalid[0].last, 3);
	CHECK_EQ(schedule->invalid[1].first, 0xf5f5);
	CHECK_MEM(schedule->old, old, 4);
	CHECK_MEM(schedule->new, new, 4);
	REQUIRE_EQ(schedule->nr_events, sizeof(kinds));
	for (unsigned i = 0; i < sizeof(kinds); i++)
		CHECK_EQ(schedule->event[i].kind, kinds[i]);
	CHECK_EQ(schedule->event[2].off, 2);
	CHECK_EQ(schedule->event[2].len, 1);
	CHECK_EQ(schedule->event[4].off, 3);
	CHECK_EQ(schedule->event[5].len, 2);
	schedule = &file.schedules[1];
	CHECK_EQ(schedule->mode, 64);
	CHECK_EQ(schedule->resume, 1);
	CHECK(!schedule->restart_on_nop);
	CHECK_EQ(schedule->nr_events, 1);
	xp__planfile_free(&file);
}

XP_TEST(several_commits)
{
	static const char text[] = "plan a\n"
				   "entry 1 0\n"
				   "resume copy\n"
				   "state 90 90\n"
				   "state 91 90\n"
				   "sync\n"
				   "commit\n"
				   "state cc 90\n"
				   "sync\n"
				   "state 92 90\n"
				   "sync\n"
				   "free-copy\n"
				   "commit\n"
				   "state 93 90\n";
	static const uint8_t kinds[] = {XP__EVENT_STORE,   XP__EVENT_SYNC,    XP__EVENT_RETURN, XP__EVENT_COMMIT,
					XP__EVENT_PUBLISH, XP__EVENT_RAISE,   XP__EVENT_STORE,  XP__EVENT_SYNC,
					XP__EVENT_STORE,   XP__EVENT_SYNC,    XP__EVENT_FREE,   XP__EVENT_RETURN,
					XP__EVENT_RETIRE,  XP__EVENT_RECLAIM, XP__EVENT_COMMIT, XP__EVENT_STORE};
	struct xp__planfile file;
	const struct xp__schedule *schedule;

	REQUIRE_EQ(xp__planfile_read(&file, text, sizeof(text) - 1), 0);
	schedule = &file.schedules[0];
	REQUIRE_EQ(schedule->nr_events, sizeof(kinds));
	for (unsigned i = 0; i < sizeof(kinds); i++)
		CHECK_EQ(schedule->event[i].kind, kinds[i]);
	CHECK_EQ(schedule->entries, 3);
	CHECK_EQ(schedule->resume, XP__RESUME_COPY);
	CHECK_EQ(schedule->old[0], 0x90);
	CHECK_EQ(schedule->new[0], 0x91);
	CHECK_EQ(schedule->event[3].bytes[0], 0x92);
	CHECK_EQ(schedule->event[14].bytes[0], 0x93);
	xp__planfile_free(&file);
}

XP_TEST(addresses_in_words)
{
	char text[80];

	xp__report_addresses(text, sizeof(text), 0, 8);
	CHECK_STR(text, "no address");
	xp__report_addresses(text, sizeof(text), ~0ull, 64);
	CHECK_STR(text, "every address");
	xp__report_addresses(text, sizeof(text), 0xff, 8);
	CHECK_STR(text, "every address");
	xp__report_addresses(text, sizeof(text), 0x4d, 8);
	CHECK_STR(text, "0, 2-3, 6 mod 8");
	xp__report_addresses(text, sizeof(text), 1ull << 63, 64);
	CHECK_STR(text, "63 mod 64");
	xp__report_addresses(text, 4, 0x4d, 8);
	CHECK_STR(text, "0, ");
}

XP_TEST_MAIN()
