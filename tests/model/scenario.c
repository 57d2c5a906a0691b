// SPDX-License-Identifier: MIT
#include "scenario.h"

#include "arch/x86/insn.h"
#include "bystander.h"
#include "xp_test.h"

#define NOP5 0x0f, 0x1f, 0x44, 0x00, 0x00
#define JMP 0xe9, 0x11, 0x22, 0x33, 0x04
#define JMP_ELSEWHERE 0xe9, 0x71, 0x62, 0x53, 0x08
#define CALL 0xe8, 0x11, 0x22, 0x33, 0x04
#define CALL_ELSEWHERE 0xe8, 0x71, 0x62, 0x53, 0x08
#define TEST 0xa9, 0x11, 0x22, 0x33, 0x04
#define JE 0x0f, 0x84, 0x11, 0x22, 0x33, 0x04
#define JG_ELSEWHERE 0x0f, 0x8f, 0x71, 0x62, 0x53, 0x08
#define RET_PADDED 0xc3, 0x90, 0x90, 0x90, 0x90
#define MOV_EAX 0xb8, 0x11, 0x22, 0x33, 0x44
#define MOV_EAX_OTHER 0xb8, 0x55, 0x66, 0x77, 0x08
#define MOV_RAX 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8
#define MOV_RAX_OTHER 0x48, 0xb8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88
#define NOPS_5X1 0x90, 0x90, 0x90, 0x90, 0x90

/* Offsets modulo 64 decide: 0x40 inside a quadword, 0x44 even across two, 0x45 odd; 0x7e across a line, 0xffe a page. */
const struct scenario scenarios[] = {
	{"none", XP_POLICY_AUTO, SCENARIO_SINGLE, 0, {{0x40, 5, {NOP5}, {NOP5}, 0}}, 0, 0, false},
	{"flip", XP_POLICY_AUTO, SCENARIO_PLAIN, 1, {{0x7e, 5, {TEST}, {JMP}, 0}}, 0, 0, false},
	{"flip, 3 adjacent", XP_POLICY_AUTO, SCENARIO_PLAIN, 1, {{0x40, 5, {TEST}, {JMP}, 0}}, 3, 5, false},
	{"flip, 3 far apart", XP_POLICY_AUTO, SCENARIO_PLAIN, 1, {{0x40, 5, {TEST}, {JMP}, 0}}, 3, 8192, false},
	{"word", XP_POLICY_AUTO, SCENARIO_SINGLE, 1, {{0x40, 5, {NOP5}, {JMP}, 0}}, 0, 0, false},
	{"word, tail of a line",
	 XP_POLICY_AUTO,
	 SCENARIO_SINGLE,
	 1,
	 {{0x7b, 5, {CALL}, {CALL_ELSEWHERE}, 0}},
	 0,
	 0,
	 false},
	{"word, 3 adjacent", XP_POLICY_AUTO, SCENARIO_SINGLE, 1, {{0x40, 5, {NOP5}, {JMP}, 0}}, 3, 8, false},
	{"shortjmp to jmp", XP_POLICY_AUTO, SCENARIO_SINGLE, 3, {{0x44, 5, {NOP5}, {JMP}, 0}}, 0, 0, false},
	{"shortjmp to nop", XP_POLICY_AUTO, SCENARIO_SINGLE, 3, {{0x7e, 5, {JMP}, {NOP5}, 0}}, 0, 0, false},
	{"shortjmp to call", XP_POLICY_AUTO, SCENARIO_SINGLE, 3, {{0x44, 5, {NOP5}, {CALL}, 0}}, 0, 0, false},
	{"shortjmp, 3 sites", XP_POLICY_AUTO, SCENARIO_SINGLE, 3, {{0x44, 5, {NOP5}, {JMP}, 0}}, 3, 64, false},
	{"breakpoint to jmp", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x7e, 5, {NOP5}, {JMP}, 0}}, 0, 0, false},
	{"breakpoint to nop", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0xffe, 5, {JMP}, {NOP5}, 0}}, 0, 0, false},
	{"breakpoint jmp to jmp",
	 XP_POLICY_AUTO,
	 SCENARIO_SINGLE,
	 3,
	 {{0x45, 5, {JMP}, {JMP_ELSEWHERE}, 0}},
	 0,
	 0,
	 false},
	{"breakpoint call to call",
	 XP_POLICY_AUTO,
	 SCENARIO_PLAIN,
	 3,
	 {{0x45, 5, {CALL}, {CALL_ELSEWHERE}, 0}},
	 0,
	 0,
	 false},
	{"breakpoint call to nop", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x45, 5, {CALL}, {NOP5}, 0}}, 0, 0, false},
	{"breakpoint nop to call", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x45, 5, {NOP5}, {CALL}, 0}}, 0, 0, false},
	{"breakpoint jcc to jcc", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x3e, 6, {JE}, {JG_ELSEWHERE}, 0}}, 0, 0, false},
	{"breakpoint ret to jmp", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x45, 5, {RET_PADDED}, {JMP}, 0}}, 0, 0, false},
	{"breakpoint jmp to ret", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x45, 5, {JMP}, {RET_PADDED}, 0}}, 0, 0, false},
	{"breakpoint nop to test", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x45, 5, {NOP5}, {TEST}, 0}}, 0, 0, false},
	{"breakpoint, resume",
	 XP_POLICY_AUTO,
	 SCENARIO_PLAIN,
	 3,
	 {{0x45, 5, {MOV_EAX}, {MOV_EAX_OTHER}, 0x9000}},
	 0,
	 0,
	 false},
	{"breakpoint, first byte", XP_POLICY_BREAKPOINT, SCENARIO_PLAIN, 2, {{0x45, 5, {TEST}, {JMP}, 0}}, 0, 0, false},
	{"breakpoint, last byte",
	 XP_POLICY_BREAKPOINT,
	 SCENARIO_PLAIN,
	 3,
	 {{0x45, 5, {JMP}, {0xe9, 0x11, 0x22, 0x33, 0x01}, 0}},
	 0,
	 0,
	 false},
	{"breakpoint, policy", XP_POLICY_BREAKPOINT, SCENARIO_SINGLE, 3, {{0x40, 5, {NOP5}, {JMP}, 0}}, 0, 0, false},
	{"breakpoint, 3 adjacent", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x45, 5, {NOP5}, {JMP}, 0}}, 3, 5, false},
	{"breakpoint, 3 far apart", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x45, 5, {NOP5}, {JMP}, 0}}, 3, 8192, false},
	{"breakpoint, keys",
	 XP_POLICY_BREAKPOINT,
	 SCENARIO_PLAIN,
	 3,
	 {{0x45, 5, {NOP5}, {JMP}, 0}},
	 0,
	 0,
	 SCENARIO_KEYS},
	{"quiesce", XP_POLICY_QUIESCE, SCENARIO_PLAIN, 0, {{0x45, 5, {NOP5}, {JMP}, 0}}, 0, 0, false},
	{"quiesce, several instructions",
	 XP_POLICY_QUIESCE,
	 SCENARIO_PLAIN,
	 0,
	 {{0x45, 5, {NOPS_5X1}, {JMP}, 0}},
	 2,
	 8192,
	 false},
	{"quiesce, keys", XP_POLICY_QUIESCE, SCENARIO_PLAIN, 0, {{0x45, 5, {NOP5}, {JMP}, 0}}, 0, 0, SCENARIO_KEYS},
	{"early", XP_POLICY_EARLY, SCENARIO_PLAIN, 0, {{0x45, 5, {NOPS_5X1}, {JMP}, 0}}, 2, 8192, false},
	{"mixed, flip and word",
	 XP_POLICY_AUTO,
	 SCENARIO_SINGLE,
	 1,
	 {{0x35, 5, {TEST}, {JMP}, 0}, {0x40, 5, {NOP5}, {JMP}, 0}, {0x55, 5, {JMP}, {TEST}, 0}},
	 0,
	 0,
	 false},
	{"mixed, all methods",
	 XP_POLICY_AUTO,
	 SCENARIO_SINGLE,
	 3,
	 {{0x45, 5, {CALL}, {NOP5}, 0},
	  {0x60, 5, {NOP5}, {JMP}, 0},
	  {0x2b, 5, {JMP}, {TEST}, 0},
	  {0x74, 5, {NOP5}, {JMP}, 0}},
	 0,
	 0,
	 false},
	{"mixed, twice, keys",
	 XP_POLICY_AUTO,
	 SCENARIO_SINGLE,
	 3,
	 {{0x45, 5, {JMP}, {NOP5}, 0},
	  {0x60, 5, {NOP5}, {JMP}, 0},
	  {0x2b, 5, {JMP}, {TEST}, 0},
	  {0x74, 5, {NOP5}, {JMP}, 0}},
	 2,
	 6000,
	 SCENARIO_KEYS},
	{"the same change at all places of a quadword",
	 XP_POLICY_AUTO,
	 SCENARIO_SINGLE,
	 3,
	 {{0x45, 5, {NOP5}, {JMP}, 0}},
	 8,
	 5,
	 false},
	{"places alike, half of the change different",
	 XP_POLICY_AUTO,
	 SCENARIO_PLAIN,
	 3,
	 {{0x45, 5, {CALL}, {NOP5}, 0},
	  {0x4d, 5, {JMP}, {NOP5}, 0},
	  {0x55, 5, {NOP5}, {JMP}, 0},
	  {0x5d, 5, {NOP5}, {CALL}, 0}},
	 0,
	 0,
	 false},
	{"breakpoint nop to mov", XP_POLICY_AUTO, SCENARIO_PLAIN, 3, {{0x45, 5, {NOP5}, {MOV_EAX}, 0}}, 0, 0, false},
	{"breakpoint mov to mov",
	 XP_POLICY_AUTO,
	 SCENARIO_SINGLE,
	 3,
	 {{0x45, 5, {MOV_EAX}, {MOV_EAX_OTHER}, 0}},
	 0,
	 0,
	 false},
#if XP__CODE_BITS == 64
	{"word mov64", XP_POLICY_AUTO, SCENARIO_SINGLE, 1, {{0x46, 10, {MOV_RAX}, {MOV_RAX_OTHER}, 0}}, 0, 0, false},
	{"breakpoint mov64",
	 XP_POLICY_AUTO,
	 SCENARIO_SINGLE,
	 3,
	 {{0x40, 10, {MOV_RAX}, {MOV_RAX_OTHER}, 0}},
	 0,
	 0,
	 false},
#endif
	{"values alone", XP_POLICY_AUTO, SCENARIO_SINGLE, 1, {{0, 0, {0}, {0}, 0}}, 0, 0, SCENARIO_VALUES},
	{"values, no single stores",
	 XP_POLICY_AUTO,
	 SCENARIO_PLAIN,
	 3,
	 {{0x45, 5, {NOP5}, {JMP}, 0}},
	 0,
	 0,
	 SCENARIO_VALUES},
	{"values, breakpoint",
	 XP_POLICY_BREAKPOINT,
	 SCENARIO_SINGLE,
	 3,
	 {{0x45, 5, {NOP5}, {JMP}, 0}},
	 0,
	 0,
	 SCENARIO_VALUES},
	{"values, quiesce", XP_POLICY_QUIESCE, SCENARIO_PLAIN, 0, {{0, 0, {0}, {0}, 0}}, 0, 0, SCENARIO_VALUES},
	{"values, early", XP_POLICY_EARLY, SCENARIO_PLAIN, 0, {{0, 0, {0}, {0}, 0}}, 0, 0, SCENARIO_VALUES},
	{"values, keys and calls",
	 XP_POLICY_AUTO,
	 SCENARIO_PLAIN,
	 3,
	 {{0x45, 5, {CALL}, {NOP5}, 0}},
	 0,
	 0,
	 SCENARIO_KEYS | SCENARIO_VALUES},
	{"keys alone", XP_POLICY_AUTO, SCENARIO_PLAIN, 1, {{0, 0, {0}, {0}, 0}}, 0, 0, SCENARIO_KEYS},
};

const size_t nr_scenarios = sizeof(scenarios) / sizeof(scenarios[0]);

/* ---- keys: one likely and one unlikely site each ---- */

#define KEYS_AT 0x6000u
#define SITES_PER_KEY 2

static const struct {
	bool from, to;
} key_plan[SCENARIO_MAX_KEYS] = {{false, SCENARIO_KEYS}, {true, false}, {false, true}};

static struct xp_static_key keys[SCENARIO_MAX_KEYS];
static struct xp_branch_site records[SCENARIO_MAX_KEYS * SITES_PER_KEY];
static struct xp_module module;

static size_t key_site(size_t i)
{
	return KEYS_AT + i * 24 + 0x3d;
}

/* What key site @i is, or becomes. */
static void key_bytes(size_t i, bool new, uint8_t *bytes)
{
	size_t k = i / SITES_PER_KEY;
	bool on = new ? key_plan[k].to : key_plan[k].from;

	memcpy(bytes, rec_text + key_site(i), REC_BRANCH_LEN);
	bytes[0] = on != (i % SITES_PER_KEY != 0) ? 0xe9 : 0xa9;
}

static void start_keys(void)
{
	memset(keys, 0, sizeof(keys));
	for (size_t i = 0; i < SCENARIO_MAX_KEYS * SITES_PER_KEY; i++) {
		size_t k = i / SITES_PER_KEY;
		uint8_t old[REC_BRANCH_LEN], new[REC_BRANCH_LEN];

		keys[k].object.name = "key";
		keys[k].count = key_plan[k].from;
		rec_branch(&records[i], key_site(i), 0x12340 + i, &keys[k],
			   (i % SITES_PER_KEY ? XP_SITE_LIKELY : 0) | (key_plan[k].from ? XP_SITE_TRUE : 0));
		key_bytes(i, false, old);
		key_bytes(i, true, new);
		bystander_watch(key_site(i), old, new, REC_BRANCH_LEN, 0);
	}
}

static bool key_text_is(bool new)
{
	for (size_t i = 0; i < SCENARIO_MAX_KEYS * SITES_PER_KEY; i++) {
		uint8_t bytes[REC_BRANCH_LEN];

		key_bytes(i, new, bytes);
		if (memcmp(rec_text + key_site(i), bytes, REC_BRANCH_LEN) != 0)
			return false;
	}
	return true;
}

/* ---- values: two sites each, as the compiler emits them ---- */

#define VALUES_AT 0x7000u
#define NR_VALUES 3
#define SITES_PER_VALUE 2

static const struct {
	uint8_t size, len;
	size_t at;        /* its sites are at VALUES_AT + at + 64 * i */
	uint8_t insn[15]; /* the first of both; the other one is of another register */
	uint64_t from, to;
} value_plan[NR_VALUES] = {
	{1, 2, 0x07, {0xb0, 0x11}, 0x11, 0x95},
	{2, 4, 0x13, {0x66, 0xb8, 0x11, 0x22}, 0x2211, 0xa695},
	{4, 5, 0x1a, {0xb8, 0x11, 0x22, 0x33, 0x44}, 0x44332211, 0xc8b7a695},
};

static uint64_t variables[NR_VALUES];
static struct xp_imv values[NR_VALUES];
static struct xp_imv_site value_records[NR_VALUES * SITES_PER_VALUE];

static size_t value_site(size_t i)
{
	return VALUES_AT + value_plan[i / SITES_PER_VALUE].at + 64 * (i % SITES_PER_VALUE);
}

static void value_bytes(size_t i, bool new, uint8_t *bytes)
{
	size_t v = i / SITES_PER_VALUE, operand = value_plan[v].len - value_plan[v].size;

	memcpy(bytes, value_plan[v].insn, value_plan[v].len);
	bytes[operand - 1] += (uint8_t)(i % SITES_PER_VALUE);
	memcpy(bytes + operand, new ? &value_plan[v].to : &value_plan[v].from, value_plan[v].size);
}

static void start_values(void)
{
	memset(variables, 0, sizeof(variables));
	for (size_t i = 0; i < NR_VALUES * SITES_PER_VALUE; i++) {
		size_t v = i / SITES_PER_VALUE;
		uint8_t old[XP_MAX_LEN], new[XP_MAX_LEN];

		memcpy(&variables[v], &value_plan[v].from, value_plan[v].size);
		values[v] = (struct xp_imv){
			.object.name = "value", .value = &variables[v], .size = value_plan[v].size};
		value_bytes(i, false, old);
		value_bytes(i, true, new);
		rec_mov(&value_records[i], value_site(i), old, value_plan[v].len, &values[v]);
		bystander_watch(value_site(i), old, new, value_plan[v].len, 0);
	}
}

static bool value_text_is(bool new)
{
	for (size_t i = 0; i < NR_VALUES * SITES_PER_VALUE; i++) {
		uint8_t bytes[XP_MAX_LEN];

		value_bytes(i, new, bytes);
		if (memcmp(rec_text + value_site(i), bytes, value_plan[i / SITES_PER_VALUE].len) != 0)
			return false;
	}
	return true;
}

/* ---- both ---- */

static void start_module(const struct scenario *s)
{
	if (s->with & SCENARIO_KEYS)
		start_keys();
	if (s->with & SCENARIO_VALUES)
		start_values();
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	if (s->with & SCENARIO_KEYS)
		module.tables[XP_SITE_BRANCH] =
			(struct xp_site_table){records, records + SCENARIO_MAX_KEYS * SITES_PER_KEY};
	if (s->with & SCENARIO_VALUES)
		module.tables[XP_SITE_IMV] =
			(struct xp_site_table){value_records, value_records + NR_VALUES * SITES_PER_VALUE};
	CHECK_EQ(xp_module_register(&module), 0);
}

bool scenario_counts_are(const struct scenario *s, bool new)
{
	for (size_t k = 0; s->with & SCENARIO_KEYS && k < SCENARIO_MAX_KEYS; k++)
		if (keys[k].count != (new ? key_plan[k].to : key_plan[k].from))
			return false;
	for (size_t v = 0; s->with & SCENARIO_VALUES && v < NR_VALUES; v++)
		if (variables[v] != (new ? value_plan[v].to : value_plan[v].from))
			return false;
	return true;
}

static bool text_is(const struct scenario *s, bool new)
{
	return (!(s->with & SCENARIO_KEYS) || key_text_is(new)) && (!(s->with & SCENARIO_VALUES) || value_text_is(new));
}

/* ---- sites ---- */

const struct scenario *scenario_find(const char *name)
{
	for (size_t i = 0; i < nr_scenarios; i++)
		if (strcmp(scenarios[i].name, name) == 0)
			return &scenarios[i];
	CHECK_STR(name, "the name of a scenario");
	return &scenarios[0];
}

static size_t nr_different(const struct scenario *s)
{
	size_t nr = 0;

	while (nr < SCENARIO_MAX_SITES && s->site[nr].len)
		nr++;
	return nr;
}

static size_t nr_pokes(const struct scenario *s)
{
	return nr_different(s) * (s->repeat ? s->repeat : 1);
}

size_t scenario_nr_sites(const struct scenario *s)
{
	return nr_pokes(s) + (s->with & SCENARIO_KEYS ? SCENARIO_MAX_KEYS * SITES_PER_KEY : 0) +
	       (s->with & SCENARIO_VALUES ? NR_VALUES * SITES_PER_VALUE : 0);
}

static const struct scenario_site *poke_site(const struct scenario *s, size_t i, size_t *offset)
{
	const struct scenario_site *site = &s->site[i % nr_different(s)];

	*offset = site->offset + i / nr_different(s) * s->stride;
	return site;
}

bool scenario_has(const struct scenario *s, const void *addr)
{
	size_t offset = (size_t)((const uint8_t *)addr - rec_text), at;

	for (size_t i = 0; i < nr_pokes(s); i++) {
		poke_site(s, i, &at);
		if (at == offset)
			return true;
	}
	for (size_t i = 0; s->with & SCENARIO_KEYS && i < SCENARIO_MAX_KEYS * SITES_PER_KEY; i++)
		if (key_site(i) == offset)
			return true;
	for (size_t i = 0; s->with & SCENARIO_VALUES && i < NR_VALUES * SITES_PER_VALUE; i++)
		if (value_site(i) == offset)
			return true;
	return false;
}

bool scenario_is(const struct scenario *s, bool new)
{
	for (size_t i = 0; i < nr_pokes(s); i++) {
		size_t offset;
		const struct scenario_site *site = poke_site(s, i, &offset);

		if (memcmp(rec_text + offset, new ? site->new : site->old, site->len) != 0)
			return false;
	}
	return scenario_counts_are(s, new) && text_is(s, new);
}

void scenario_start(const struct scenario *s)
{
	rec_start();
	rec.can = s->can;
	for (size_t i = 0; i < nr_pokes(s); i++) {
		size_t offset;
		const struct scenario_site *site = poke_site(s, i, &offset);

		rec_put(offset, site->old, site->len);
		bystander_watch(offset, site->old, site->new, site->len,
				site->resume_at ? (uintptr_t)rec_text + site->resume_at : 0);
	}
	if (s->with & (SCENARIO_KEYS | SCENARIO_VALUES))
		start_module(s);
	CHECK_EQ(xp_set_policy(s->policy), 0);
	rec_forget();
}

static struct xp_poke make_poke(const struct scenario *s, size_t i)
{
	size_t offset;
	const struct scenario_site *site = poke_site(s, i, &offset);

	return (struct xp_poke){
		.addr = rec_text + offset,
		.expect = site->old,
		.replace = site->new,
		.len = site->len,
		.resume = site->resume_at ? XP_RESUME_AT : XP_RESUME_EMULATE,
		.resume_at = site->resume_at ? rec_text + site->resume_at : NULL,
	};
}

static int fill(const struct scenario *s, struct xp_batch *batch)
{
	int error = 0;

	for (size_t i = 0; i < nr_pokes(s) && !error; i++) {
		struct xp_poke poke = make_poke(s, i);

		error = xp_batch_add_poke(batch, &poke);
	}
	for (size_t k = 0; s->with & SCENARIO_KEYS && k < SCENARIO_MAX_KEYS && !error; k++)
		error = xp_batch_add_key(batch, &keys[k], key_plan[k].to);
	for (size_t v = 0; s->with & SCENARIO_VALUES && v < NR_VALUES && !error; v++)
		error = xp__batch_add_imv(batch, &values[v], &value_plan[v].to, value_plan[v].size);
	return error;
}

int scenario_commit(const struct scenario *s, struct xp_diag *diag)
{
	struct xp_batch *batch;
	int error;

	memset(diag, 0, sizeof(*diag));
	if (scenario_nr_sites(s) == 1) {
		struct xp_poke poke = make_poke(s, 0);

		return xp_text_poke(&poke, diag);
	}
	batch = xp_batch_new();
	if (batch == NULL)
		return xp_state() == XP_STATE_WEDGED ? -XP_E_WEDGED : -12 /* ENOMEM */;
	error = fill(s, batch);
	if (!error)
		error = xp_batch_commit(batch, diag);
	xp_batch_free(batch);
	return error;
}

void scenario_end(const struct scenario *s)
{
	bystander_stop();
	if (s->with & (SCENARIO_KEYS | SCENARIO_VALUES) && xp_state() == XP_STATE_READY)
		CHECK_EQ(xp_module_unregister(&module), 0);
}
