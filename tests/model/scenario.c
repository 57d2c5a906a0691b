// SPDX-License-Identifier: MIT
#include "scenario.h"

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
	{"breakpoint, keys", XP_POLICY_BREAKPOINT, SCENARIO_PLAIN, 3, {{0x45, 5, {NOP5}, {JMP}, 0}}, 0, 0, true},
	{"quiesce", XP_POLICY_QUIESCE, SCENARIO_PLAIN, 0, {{0x45, 5, {NOP5}, {JMP}, 0}}, 0, 0, false},
	{"quiesce, several instructions",
	 XP_POLICY_QUIESCE,
	 SCENARIO_PLAIN,
	 0,
	 {{0x45, 5, {NOPS_5X1}, {JMP}, 0}},
	 2,
	 8192,
	 false},
	{"quiesce, keys", XP_POLICY_QUIESCE, SCENARIO_PLAIN, 0, {{0x45, 5, {NOP5}, {JMP}, 0}}, 0, 0, true},
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
	 true},
	{"keys alone", XP_POLICY_AUTO, SCENARIO_PLAIN, 1, {{0, 0, {0}, {0}, 0}}, 0, 0, true},
};

const size_t nr_scenarios = sizeof(scenarios) / sizeof(scenarios[0]);

/* ---- keys: one likely and one unlikely site each ---- */

#define KEYS_AT 0x6000u
#define SITES_PER_KEY 2

static const struct {
	bool from, to;
} key_plan[SCENARIO_MAX_KEYS] = {{false, true}, {true, false}, {false, true}};

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
	module = (struct xp_module){.abi = XP_MODULE_ABI,
				    .nr_tables = 1, .tables = {{records, records + SCENARIO_MAX_KEYS * SITES_PER_KEY}}};
	CHECK_EQ(xp_module_register(&module), 0);
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

bool scenario_counts_are(const struct scenario *s, bool new)
{
	for (size_t k = 0; s->keys && k < SCENARIO_MAX_KEYS; k++)
		if (keys[k].count != (new ? key_plan[k].to : key_plan[k].from))
			return false;
	return true;
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
	return nr_pokes(s) + (s->keys ? SCENARIO_MAX_KEYS * SITES_PER_KEY : 0);
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
	for (size_t i = 0; s->keys && i < SCENARIO_MAX_KEYS * SITES_PER_KEY; i++)
		if (key_site(i) == offset)
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
	return scenario_counts_are(s, new) && (!s->keys || key_text_is(new));
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
	if (s->keys)
		start_keys();
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
	for (size_t k = 0; s->keys && k < SCENARIO_MAX_KEYS && !error; k++)
		error = xp_batch_add_key(batch, &keys[k], key_plan[k].to);
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
	if (s->keys && xp_state() == XP_STATE_READY)
		CHECK_EQ(xp_module_unregister(&module), 0);
}
