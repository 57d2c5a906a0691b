// SPDX-License-Identifier: MIT
/*
 * The parts of the litmus that decide what a result means. If these were wrong, every count would be.
 *
 * Mixtures are not predicted a second time here but executed: each is written into an area and run, alone.
 */
#include "litmus/litmus.h"
#include "xp_test.h"

#include <Zydis/Zydis.h>
#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAID 65536

int cmd_litmus(int argc, char **argv);

/* ---- mixtures ---- */

static ZydisDecoder decoder;

/* The length of the instructions from the entry to the end of what changes. */
static unsigned decoded_length(const struct litmus_code *code, const uint8_t *image)
{
	unsigned at = code->entry, last = code->store + 31 - (unsigned)__builtin_clz(code->changed);

	while (at <= last) {
		ZydisDecodedInstruction insn;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, image + at, code->len - at, &insn)))
			return 0;
		at += insn.length;
	}
	return at;
}

static void check_mixture(struct litmus_area *area, const struct litmus_code *code, unsigned at, uint32_t mask)
{
	uint8_t image[LITMUS_IMAGE];
	uint64_t result, second;

	litmus_code_mix(code, mask, image);
	CHECK_EQ(decoded_length(code, image), decoded_length(code, code->old));
	if (litmus_area_fill(area, at - code->store, image, code->len))
		CHECK(!"written");
	result = litmus_call(area->code + at - code->store + code->entry, NULL, &second);
	CHECK_EQ(litmus_code_mask(code, result), mask);
	if (mask == 0)
		CHECK_EQ(result, code->old_result);
	if (mask == code->changed)
		CHECK_EQ(result, code->new_result);
}

XP_TEST(each_mixture_returns_its_own_result)
{
	uint64_t random = xp_test_seed();
	struct litmus_area area;
	unsigned nr = 0;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	REQUIRE_EQ(litmus_area_open(&area, LITMUS_ALIAS), 0);
	for (unsigned shape = 0; shape < LITMUS_NR_SHAPES; shape++) {
		for (unsigned w = 0; w < LITMUS_NR_WIDTHS; w++) {
			struct litmus_code code;

			litmus_code_make(&code, shape, LITMUS_WIDTH(w));
			CHECK(code.len <= LITMUS_IMAGE);
			CHECK(code.old_result != code.new_result);
			for (uint32_t mask = code.changed;; mask = (mask - 1) & code.changed) {
				unsigned place = xp_test_random(&random) & 1;

				for (unsigned offset = xp_test_random(&random) % 4; offset < 64; offset += 4)
					check_mixture(&area, &code, LITMUS_AT(place) + offset, mask);
				nr++;
				if (mask == 0)
					break;
			}
		}
	}
	XP_TEST_NOTE("%u mixtures", nr);
	CHECK_EQ(nr, (2 + 4 + 16 * 3) + (2 + 4 + 16 + 256 + (1 << 14)) + (2 + 4 + 16 * 3) + 2 * 5);
	litmus_area_close(&area);
}

/* What is alone is executed, as above; what would fault is decoded. */
XP_TEST(mixtures_of_a_nop_and_a_jump_show)
{
	struct litmus_area area;
	struct litmus_code code;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	REQUIRE_EQ(litmus_area_open(&area, LITMUS_ALIAS), 0);
	litmus_code_make(&code, LITMUS_NOP, 8);
	CHECK_EQ(code.changed, 0x1f);
	CHECK_EQ(code.entry, code.store);
	for (uint32_t mask = 0; mask <= code.changed; mask++) {
		unsigned at = LITMUS_AT(mask & 2 ? LITMUS_MID : LITMUS_END) + 31;
		uint8_t image[LITMUS_IMAGE];
		ZydisDecodedInstruction insn;
		uint64_t result, second;

		litmus_code_mix(&code, mask, image);
		REQUIRE(ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, image, code.len, &insn)));
		if ((mask & 3) == 2) {
			CHECK_EQ(insn.mnemonic, ZYDIS_MNEMONIC_SETNLE); /* to address 3 or 6 */
			continue;
		}
		CHECK_EQ(insn.length, LITMUS_NOP_LEN);
		REQUIRE_EQ(litmus_area_fill(&area, at, image, code.len), 0);
		result = litmus_call(area.code + at, NULL, &second);
		CHECK_EQ(result == code.old_result, !(mask & 1));
		CHECK_EQ(result == code.new_result, mask == code.changed);
	}
	litmus_area_close(&area);
}

XP_TEST(other_results_are_no_mixture)
{
	for (unsigned shape = 0; shape < LITMUS_NR_SHAPES; shape++) {
		for (unsigned w = 0; w < LITMUS_NR_WIDTHS; w++) {
			struct litmus_code code;

			litmus_code_make(&code, shape, LITMUS_WIDTH(w));
			CHECK_EQ(litmus_code_mask(&code, 0x33), LITMUS_NO_MIXTURE);
			CHECK_EQ(litmus_code_mask(&code, code.old_result ^ 0x4400), LITMUS_NO_MIXTURE);
			CHECK_EQ(litmus_code_mask(&code, ~0ull), LITMUS_NO_MIXTURE);
		}
	}
}

XP_TEST(pads_do_not_meet)
{
	uint32_t start[LITMUS_NR_PADS * LITMUS_NR_PLACES];
	uint8_t pad[128];

	for (unsigned i = 0; i < LITMUS_NR_PADS * LITMUS_NR_PLACES; i++) {
		start[i] = LITMUS_AT(i / LITMUS_NR_PADS) + litmus_pad(i % LITMUS_NR_PADS, pad);
		CHECK(start[i] > LITMUS_AT(LITMUS_END) + 192);
		CHECK(start[i] + sizeof(pad) <= LITMUS_AREA_SIZE);
		for (unsigned j = 0; j < i; j++)
			CHECK(start[i] >= start[j] + sizeof(pad) || start[j] >= start[i] + sizeof(pad));
	}
}

/* ---- boundaries ---- */

XP_TEST(boundaries_of_the_changed_bytes)
{
	struct litmus_code imm, disp, flip;

	litmus_code_make(&imm, LITMUS_IMM, 8);
	litmus_code_make(&disp, LITMUS_DISP, 16);
	litmus_code_make(&flip, LITMUS_FLIP, 16);
	CHECK_EQ(litmus_code_bound(&imm, 8, LITMUS_MID), LITMUS_QUAD);
	CHECK_EQ(litmus_code_bound(&imm, 1, LITMUS_MID), LITMUS_CROSS8);
	CHECK_EQ(litmus_code_bound(&imm, 15, LITMUS_MID), LITMUS_CROSS16);
	CHECK_EQ(litmus_code_bound(&imm, 31, LITMUS_MID), LITMUS_CROSS32);
	CHECK_EQ(litmus_code_bound(&imm, 56, LITMUS_MID), LITMUS_QUAD);
	CHECK_EQ(litmus_code_bound(&imm, 57, LITMUS_MID), LITMUS_LINE);
	CHECK_EQ(litmus_code_bound(&imm, 57, LITMUS_END), LITMUS_PAGE);
	/* Bytes 6 to 9 of the store change. */
	CHECK_EQ(litmus_code_bound(&disp, 54, LITMUS_MID), LITMUS_QUAD);
	CHECK_EQ(litmus_code_bound(&disp, 55, LITMUS_MID), LITMUS_LINE);
	CHECK_EQ(litmus_code_bound(&disp, 58, LITMUS_MID), LITMUS_QUAD);
	for (unsigned offset = 0; offset < 64; offset++)
		CHECK_EQ(litmus_code_bound(&flip, offset, LITMUS_END), LITMUS_QUAD);
}

XP_TEST(torn_inside_a_granule)
{
	struct litmus_code imm, two;

	litmus_code_make(&imm, LITMUS_IMM, 8);
	litmus_code_make(&two, LITMUS_IMM, 16);
	/* The first 4 bytes new, at an offset where a line ends after them. */
	CHECK(litmus_mask_torn(&imm, 0x0f, 60, 4096));
	CHECK(!litmus_mask_torn(&imm, 0x0f, 60, 64));
	CHECK(!litmus_mask_torn(&imm, 0x0f, 60, 8));
	CHECK(litmus_mask_torn(&imm, 0x0f, 59, 64));
	CHECK(litmus_mask_torn(&imm, 0x0f, 4, 64));
	CHECK(!litmus_mask_torn(&imm, 0x0f, 4, 8));
	CHECK(!litmus_mask_torn(&imm, 0, 60, 4096));
	CHECK(!litmus_mask_torn(&imm, 0xff, 60, 4096));
	/* A-B' and A'-B are no torn instructions. */
	CHECK(!litmus_mask_torn(&two, 0xff, 0, 4096));
	CHECK(!litmus_mask_torn(&two, 0xfc00, 0, 4096));
	CHECK(litmus_mask_torn(&two, 0xfd, 0, 8));
	CHECK(litmus_mask_torn(&two, 0x04ff, 0, 8));
}

/* ---- classification, and that this test of it can fail ---- */

typedef void tally_add(struct litmus_cell *cell, const struct litmus_code *code, const struct litmus_tally *tally);

static uint64_t result_of(const struct litmus_code *code, uint64_t mask)
{
	return code->old_result + mask * 0x11; /* of imm, 8 bytes: 0x11 per new byte */
}

/* Whether @add sorts a tally of every kind of result as it should. */
static bool classifies(tally_add *add)
{
	struct litmus_cell cell = {.shape = LITMUS_IMM, .width = 8, .offset = 60};
	struct litmus_tally tally = {.runs = 1000, .old = 500, .new = 400, .seen = 70, .trapped = 3, .lost = 5};
	struct litmus_code code;

	litmus_code_make(&code, LITMUS_IMM, 8);
	tally.odd[0].result = result_of(&code, 0x01010101); /* up to the line's end */
	tally.odd[0].nr = 10;
	tally.odd[1].result = result_of(&code, 0x0101); /* half of that: in one line, and in one quadword */
	tally.odd[1].nr = 20;
	tally.odd[2].result = 42;
	tally.odd[2].nr = 30;
	add(&cell, &code, &tally);
	return cell.runs == 1000 && cell.old == 500 && cell.new == 400 && cell.seen == 70 && cell.torn == 30 &&
	       cell.torn_line == 20 && cell.torn_quad == 20 && cell.strange == 35 && cell.trapped == 3 &&
	       cell.between == 0;
}

static void add_swapped(struct litmus_cell *cell, const struct litmus_code *code, const struct litmus_tally *tally)
{
	struct litmus_tally wrong = *tally;

	wrong.old = tally->new;
	wrong.new = tally->old;
	litmus_tally_add(cell, code, &wrong);
}

static void add_torn_as_new(struct litmus_cell *cell, const struct litmus_code *code, const struct litmus_tally *tally)
{
	litmus_tally_add(cell, code, tally);
	cell->new += cell->torn;
	cell->torn = 0;
}

static void add_by_other_offset(struct litmus_cell *cell, const struct litmus_code *code,
				const struct litmus_tally *tally)
{
	cell->offset = 56;
	litmus_tally_add(cell, code, tally);
}

static void add_without_strange(struct litmus_cell *cell, const struct litmus_code *code,
				const struct litmus_tally *tally)
{
	litmus_tally_add(cell, code, tally);
	cell->torn += cell->strange;
	cell->strange = 0;
}

XP_TEST(results_are_sorted_and_seeded_faults_seen)
{
	CHECK(classifies(litmus_tally_add));
	CHECK(!classifies(add_swapped));
	CHECK(!classifies(add_torn_as_new));
	CHECK(!classifies(add_by_other_offset));
	CHECK(!classifies(add_without_strange));
}

/* ---- the verdict ---- */

static struct litmus_cell some_cells[2];

static struct litmus_report some_report(void)
{
	struct litmus_report report;

	memset(&report, 0, sizeof(report));
	memset(some_cells, 0, sizeof(some_cells));
	for (int i = 0; i < 2; i++) {
		some_cells[i] = (struct litmus_cell){.path = i ? LITMUS_PROCMEM : LITMUS_ALIAS,
						     .shape = LITMUS_IMM,
						     .width = 8,
						     .offset = 3,
						     .writes = 1000,
						     .runs = 100000,
						     .seen = 900};
	}
	strcpy(report.machine.model, "A \"processor\" <with> & \\ \n\x01\xe9");
	report.control[0].torn = 5;
	report.cells = some_cells;
	report.nr_cells = 2;
	report.nr_orders = 1;
	report.orders[0] = (struct litmus_order){.name = "two", .judged = true, .runs = 1000, .seen = 100};
	report.nr_changes_made = 1;
	report.changes_made[0] = (struct litmus_change){.name = "change \"", .runs = 7, .bound = LITMUS_CROSS32};
	report.nr_spreads = 1;
	report.spreads[0] = (struct litmus_spread){.name = "delay", .nr = 3, .min = 1, .max = 3};
	return report;
}

/* Whether the models contradicted are those of the bits of @models. */
static bool contradicts(struct litmus_report *report, unsigned models)
{
	unsigned found = 0;

	litmus_judge(report);
	for (unsigned i = 0; i < LITMUS_NR_MODELS; i++)
		found |= (report->contrary[i] > 0) << i;
	return found == models;
}

#define BIT(model) (1u << LITMUS_##model)

XP_TEST(which_model_a_count_contradicts)
{
	struct litmus_report report = some_report();

	CHECK(contradicts(&report, 0));
	CHECK(report.power);
	CHECK_EQ(report.rests_on, 101007);
	some_cells[0].torn = 1; /* across something: what every model allows */
	CHECK(contradicts(&report, 0));
	some_cells[0].torn_line = 1;
	CHECK(contradicts(&report, BIT(LINE64)));
	some_cells[0].torn_quad = 1;
	CHECK(contradicts(&report, BIT(LINE64) | BIT(AMD)));
	some_cells[0].strange = 1;
	CHECK(contradicts(&report, BIT(LINE64) | BIT(AMD) | BIT(BYTE)));
	report = some_report();
	some_cells[1].torn = some_cells[1].torn_line = some_cells[1].torn_quad = 7; /* the path's doing */
	CHECK(contradicts(&report, 0));
	report.orders[0].wrong = 1;
	CHECK(contradicts(&report, BIT(LINE64) | BIT(AMD)));
	report.orders[0].judged = false;
	CHECK(contradicts(&report, 0));
	report.orders[0].after_sync = true;
	CHECK(contradicts(&report, BIT(LINE64) | BIT(AMD) | BIT(BYTE) | BIT(SDM)));
	report = some_report();
	report.nr_changes_made = 1;
	report.changes_made[0] = (struct litmus_change){.name = "one", .bound = LITMUS_LINE, .torn = 1, .runs = 5};
	CHECK(contradicts(&report, 0));
	CHECK_EQ(report.rests_on, 101000);
	report.changes_made[0].bound = LITMUS_CROSS32;
	CHECK(contradicts(&report, BIT(LINE64)));
	CHECK_EQ(report.rests_on, 101005);
	report.changes_made[0].bound = LITMUS_QUAD;
	CHECK(contradicts(&report, BIT(LINE64) | BIT(AMD)));
	/* Syncs left out: as far as the model has blocks; with all of them nothing may be torn. */
	report.changes_made[0].protocol = true;
	report.changes_made[0].syncs = 6;
	CHECK(contradicts(&report, BIT(LINE64) | BIT(AMD)));
	report.changes_made[0].bound = LITMUS_LINE;
	CHECK(contradicts(&report, 0));
	report.changes_made[0].syncs = 7;
	CHECK(contradicts(&report, BIT(LINE64) | BIT(AMD) | BIT(BYTE) | BIT(SDM)));
	report.changes_made[0].torn = 0;
	report.changes_made[0].strange = 1;
	CHECK(contradicts(&report, BIT(LINE64) | BIT(AMD) | BIT(BYTE)));
	report = some_report();
	report.control[0].torn = 0;
	litmus_judge(&report);
	CHECK(!report.power);
	report.control[1].torn = 1;
	litmus_judge(&report);
	CHECK(report.power && report.verdict);
	some_cells[0].runs = 0;
	litmus_judge(&report);
	CHECK(report.power && !report.verdict);
}

/* ---- what is printed ---- */

static char *printed(const struct litmus_report *report, void (*print)(const struct litmus_report *, FILE *))
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	print(report, out);
	fclose(out);
	return text;
}

static const char *json_value(const char *at);

static const char *blanks(const char *at)
{
	return at ? at + strspn(at, " \n") : NULL;
}

/* After the string at @at, or NULL. */
static const char *json_text(const char *at)
{
	if (*at++ != '"')
		return NULL;
	for (; *at != '"'; at++) {
		if ((unsigned char)*at < ' ' || (unsigned char)*at > '~')
			return NULL;
		if (*at == '\\' && !strchr("\"\\u", *++at))
			return NULL;
	}
	return at + 1;
}

static const char *json_members(const char *at, char end)
{
	at = blanks(at + 1);
	if (*at == end)
		return at + 1;
	for (;;) {
		if (end == '}') {
			at = blanks(json_text(at));
			if (at == NULL || *at++ != ':')
				return NULL;
			at = blanks(at);
		}
		at = blanks(json_value(at));
		if (at == NULL || (*at != ',' && *at != end))
			return NULL;
		if (*at == end)
			return at + 1;
		at = blanks(at + 1);
	}
}

static const char *json_value(const char *at)
{
	static const char *const words[] = {"true", "false", "null"};
	char *end;

	if (*at == '{' || *at == '[')
		return json_members(at, *at == '{' ? '}' : ']');
	if (*at == '"')
		return json_text(at);
	for (int i = 0; i < 3; i++)
		if (!strncmp(at, words[i], strlen(words[i])))
			return at + strlen(words[i]);
	if (*at != '-' && !isdigit((unsigned char)*at))
		return NULL;
	strtod(at, &end);
	return end;
}

static bool json_good(const char *text)
{
	const char *end = blanks(json_value(blanks(text)));

	return end && *end == '\0';
}

XP_TEST(json_is_well_formed)
{
	struct litmus_report report = some_report();
	char *text;

	litmus_judge(&report);
	text = printed(&report, litmus_print_json);
	CHECK(json_good(text));
	CHECK(strstr(text, "\"line64\": {\"contrary\": 0, \"consistent\": true}"));
	CHECK(strstr(text, "\"bound\": \"32\", \"syncs\": 0, \"executions\": 7, "));
	free(text);
	report.control[0].torn = 0;
	litmus_judge(&report);
	text = printed(&report, litmus_print_json);
	CHECK(json_good(text));
	CHECK(strstr(text, "\"power\": false"));
	CHECK(strstr(text, "\"line64\": {\"contrary\": 0, \"consistent\": null}"));
	free(text);
	/* The checker sees. */
	CHECK(json_good("{\"a\": [1, -2.5, true], \"b\": {}}\n"));
	CHECK(!json_good("{\"a\": [1, ]}") && !json_good("{\"a\" 1}") && !json_good("[1") && !json_good("[\"\n\"]") &&
	      !json_good("[] []") && !json_good("[nan]"));
}

/* Every element is closed in its turn, attributes are quoted, no stray < or &. */
static bool xml_good(const char *at)
{
	char stack[8][16];
	int depth = 0;

	for (; *at; at++) {
		size_t name = strspn(at + 1, "abcdefghijklmnopqrstuvwxyz");
		const char *end = strchr(at, '>');

		if (*at == '&' && strncmp(at, "&lt;", 4) && strncmp(at, "&gt;", 4) && strncmp(at, "&#", 2))
			return false;
		if (*at != '<')
			continue;
		if (end == NULL || (at[1] != '/' && at[1] != '?' && (name == 0 || name > 15 || depth == 8)))
			return false;
		if (memchr(at + 1, '<', (size_t)(end - at - 1)))
			return false;
		if (at[1] == '/') {
			if (depth-- == 0 || strncmp(at + 2, stack[depth], strlen(stack[depth])) ||
			    at[2 + strlen(stack[depth])] != '>')
				return false;
		} else if (at[1] != '?' && end[-1] != '/') {
			snprintf(stack[depth++], 16, "%.*s", (int)name, at + 1);
		}
		at = end;
	}
	return depth == 0;
}

XP_TEST(svg_is_well_formed)
{
	struct litmus_report report = some_report();
	char *text;

	some_cells[0].torn = 5;
	litmus_judge(&report);
	text = printed(&report, litmus_print_svg);
	CHECK(xml_good(text));
	CHECK(strstr(text, "8 bytes at offset 3: 5 torn in 1000 stores"));
	CHECK(!strstr(text, "NO POWER"));
	free(text);
	report.control[0].torn = 0;
	litmus_judge(&report);
	text = printed(&report, litmus_print_svg);
	CHECK(xml_good(text));
	CHECK(strstr(text, "NO POWER"));
	free(text);
	CHECK(xml_good("<a b=\"c\"><d/>&lt;</a>"));
	CHECK(!xml_good("<a><b></a></b>") && !xml_good("<a>") && !xml_good("<a>&</a>") && !xml_good("<a <b>"));
}

/* S8: does fetch obey the lock? The answer is said, or why there is none. */
XP_TEST(what_is_said_of_the_lock)
{
	struct litmus_report report = some_report();
	char *text;

	some_cells[0].path = LITMUS_XCHG;
	some_cells[0].offset = 60;
	some_cells[0].bound = LITMUS_LINE;
	some_cells[0].torn = 7;
	litmus_judge(&report);
	CHECK(report.verdict);
	text = printed(&report, litmus_print);
	CHECK(strstr(text, "Fetch does not obey the lock of xchg: 1000 locked exchanges across a line or page, and 7"));
	free(text);
	some_cells[0].torn = 0;
	text = printed(&report, litmus_print);
	CHECK(strstr(text, "Path xchg: 1000 locked exchanges across a line or page tore no execution."));
	CHECK(!strstr(text, "Path xchg: its own"));
	free(text);
	report.split_lock = -EFAULT;
	text = printed(&report, litmus_print);
	CHECK(strstr(text, "across a line a locked exchange raises SIGBUS here (split_lock_detect)"));
	free(text);
	text = printed(&report, litmus_print_json);
	CHECK(strstr(text, "\"split_lock\": false"));
	free(text);
}

/* Each path writes what it is asked to, at once or not, and nothing beside it. */
XP_TEST(each_path_stores)
{
	static const uint8_t to[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
	int split = litmus_split_lock();

	CHECK(split == 0 || split == -EFAULT);
	XP_TEST_NOTE("locked exchanges across a line %s", split ? "raise SIGBUS" : "work");
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++) {
		struct litmus_area area;
		int error = litmus_area_open(&area, path);

		if (error) {
			XP_TEST_NOTE("path %s: error %d", litmus_path_names[path], error);
			continue;
		}
		for (unsigned w = 0; w < LITMUS_NR_WIDTHS; w++)
			for (unsigned offset = 50; offset < 64; offset += 5) {
				unsigned width = LITMUS_WIDTH(w), at = LITMUS_AT(LITMUS_MID) + offset;
				uint8_t before[40], expected[40];

				if (!litmus_path_takes(path, width)) {
					CHECK(litmus_area_store(&area, at, to, width) == -EINVAL);
					continue;
				}
				if (path == LITMUS_XCHG && split && offset + width > 64)
					continue;
				memset(before, 0xcc, sizeof(before));
				CHECK_EQ(litmus_area_fill(&area, at - 12, before, sizeof(before)), 0);
				memcpy(expected, before, sizeof(before));
				memcpy(expected + 12, to, width);
				CHECK_EQ(litmus_area_store(&area, at, to, width), 0);
				CHECK_MEM(area.code + at - 12, expected, sizeof(expected));
			}
		litmus_area_close(&area);
		CHECK(area.code == NULL && area.data == NULL);
	}
}

XP_TEST(tables_never_say_safe)
{
	struct litmus_report report = some_report();
	char *text;

	litmus_judge(&report);
	text = printed(&report, litmus_print);
	CHECK(strstr(text, "line64     yes"));
	CHECK(!strstr(text, "safe") && !strstr(text, "no power"));
	free(text);
	some_cells[0].torn_line = 9;
	litmus_judge(&report);
	text = printed(&report, litmus_print);
	CHECK(strstr(text, "line64     no: 9 executions contradict it"));
	free(text);
	report.control[0].torn = 0;
	litmus_judge(&report);
	text = printed(&report, litmus_print);
	CHECK(strstr(text, "no power"));
	CHECK(!strstr(text, "line64  "));
	free(text);
}

/* ---- arguments ---- */

/* Runs the command in a child; its exit status, and what it wrote to stderr and stdout in @said. */
static int run(const char *const *arguments, char said[SAID])
{
	int ends[2], status = -1, argc = 0;
	size_t len = 0;
	ssize_t got;
	pid_t child;

	while (arguments[argc])
		argc++;
	if (pipe(ends))
		return -1;
	fflush(stdout);
	child = fork();
	if (child == 0) {
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		close(ends[0]);
		status = cmd_litmus(argc, (char **)(uintptr_t)arguments);
		fflush(stdout);
		_exit(status);
	}
	close(ends[1]);
	while (len < SAID - 1 && (got = read(ends[0], said + len, SAID - 1 - len)) > 0)
		len += (size_t)got;
	said[len] = '\0';
	close(ends[0]);
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

XP_TEST(wrong_arguments_are_named)
{
	static const struct {
		const char *arguments[5], *said;
		int status;
	} cases[] = {
		{{"litmus", "--help", NULL}, "Usage: crosspatch litmus", 0},
		{{"litmus", "--seconds", "0", NULL}, "--seconds: \"0\" is not a number from 1 to 86400", 2},
		{{"litmus", "--seconds=x", NULL}, "--seconds: \"x\" is not", 2},
		{{"litmus", "--seconds=nan", NULL}, "--seconds: \"nan\" is not", 2},
		{{"litmus", "--seconds", NULL}, "--seconds: needs a value", 2},
		{{"litmus", "--seed=-1", NULL}, "--seed: \"-1\" is not a whole number", 2},
		{{"litmus", "--path=alias,ram", NULL}, "--path: \"alias,ram\" is not a list of alias, window, xchg", 2},
		{{"litmus", "--width=3", NULL}, "--width: \"3\" is not a list of 1, 2, 4, 8, 16", 2},
		{{"litmus", "--width=", NULL}, "--width: \"\" is not a list", 2},
		{{"litmus", "--cpus=1", NULL}, "--cpus: \"1\" is not two different processors", 2},
		{{"litmus", "--cpus=1,1", NULL}, "--cpus: \"1,1\" is not two different processors", 2},
		{{"litmus", "--cpus=0,9999", NULL}, "--cpus: \"0,9999\" names a processor that this process", 2},
		{{"litmus", "--bogus", NULL}, "--bogus: no such option", 2},
		{{"litmus", "more", NULL}, "\"more\" is one too many", 2},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char said[SAID];

		CHECK_EQ(run(cases[i].arguments, said), cases[i].status);
		if (!strstr(said, cases[i].said)) {
			XP_TEST_NOTE("case %zu said: %s", i, said);
			CHECK(!"said what it should");
		}
	}
}

/* ---- the state file, and one processor ---- */

static bool exists(const char *directory, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return access(path, R_OK) == 0;
}

static void unlink_state(const char *directory)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/crosspatch/litmus.json", directory);
	unlink(path);
}

XP_TEST(the_run_is_kept_for_later)
{
	static const char *const arguments[] = {"litmus", "--seconds=1", NULL};
	static const char *const narrow[] = {"litmus", "--seconds=1", "--path=alias", NULL};
	char directory[] = "/tmp/xp_litmus.XXXXXX", command[64], said[SAID];
	int status;

	REQUIRE(mkdtemp(directory) != NULL);
	setenv("XDG_STATE_HOME", directory, 1);
	status = run(arguments, said);
	if (status != 0 && !strstr(said, "no power")) {
		XP_TEST_NOTE("status %d, said: %.600s", status, said);
		CHECK(!"measured");
	}
	CHECK_EQ(exists(directory, "crosspatch/litmus.json"), status == 0);
	unlink_state(directory);
	CHECK(run(narrow, said) >= 0 && !exists(directory, "crosspatch/litmus.json"));
	/* Nowhere to write: said, and no failure. */
	setenv("XDG_STATE_HOME", "/dev/null", 1);
	if (status == 0 && run(arguments, said) == 0)
		CHECK(strstr(said, "warning: /dev/null/crosspatch/litmus.json not written"));
	unsetenv("XDG_STATE_HOME");
	snprintf(command, sizeof(command), "rm -r %s", directory);
	CHECK_EQ(system(command), 0);
}

XP_TEST(one_processor_is_no_race)
{
	static const char *const arguments[] = {"litmus", "--quick", NULL};
	cpu_set_t all, one;
	char said[SAID];
	int cpu = 0;

	REQUIRE_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	REQUIRE_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
	CHECK_EQ(run(arguments, said), 1);
	CHECK(strstr(said, "no power: nothing was measured: only one processor"));
	sched_setaffinity(0, sizeof(all), &all);
}

XP_TEST_MAIN()
