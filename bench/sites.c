// SPDX-License-Identifier: MIT
/*
 * What trace points cost the code around them: compiled out, behind a flag, behind a static key; off and on.
 *
 * Many: 20,000 distinct sites in 200 functions, each executed once. Warm: they were executed just before, and are in the
 * second cache or the third. Evicted: 64 MiB of other data were written since. Floor: one flag for all, whose load hits at
 * every site but the first; beside it a flag of a byte for each site, side by side, which is as few lines as there can be.
 * Few: a lookup in a hash table, and a parser of name=number; pairs, with one trace point each.
 */
#include "bench.h"
#include "sites.h"

#include <crosspatch/crosspatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

XP_DEFINE_STATIC_KEY_FALSE(bench_key);
bool bench_flag, bench_flags[NR_SITES + 2];

static uint64_t sink, noted, expected;

uint64_t bench_note(uint64_t value, uint64_t site)
{
	noted++;
	__asm__ volatile("" : : "r"(site) : "memory");
	return value;
}

static void set_all(bool on)
{
	bench_check(on ? xp_static_branch_enable(&bench_key) : xp_static_branch_disable(&bench_key), "key");
	bench_flag = on;
	memset(bench_flags, on, sizeof(bench_flags));
}

static const struct {
	const char *name;
	const struct sites *sites;
} sorts[] = {
	{"one flag", &sites_flag},
	{"a flag of a byte for each", &sites_flags},
	{"static key", &sites_key},
	{"compiled out", &sites_out},
};
#define NR (sizeof(sorts) / sizeof(sorts[0]))
enum { KEY = 2, OUT = 3 };

/* ---- many sites ---- */

static void step_all(uint64_t sort)
{
	sink = sorts[sort].sites->all(sink);
}

static void evict(uint64_t unused)
{
	(void)unused;
	bench_evict();
}

/* ---- few ---- */

enum { NR_KEYS = 4096, NR_PAIRS = 2000 };
static uint64_t table[TABLE_SIZE], keys[NR_KEYS];
static char text[NR_PAIRS * 24 + 1];

static void fill(void)
{
	uint64_t random = 88172645463325252u;
	char *end = text;

	for (size_t i = 0; i < NR_KEYS; i++) {
		size_t at;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		keys[i] = random;
		at = random * 0x9e3779b97f4a7c15u >> 51;
		while (table[at])
			at = (at + 1) % TABLE_SIZE;
		if (i % 2)
			table[at] = random;
	}
	for (size_t i = 0; i < NR_PAIRS; i++)
		end += sprintf(end, "%.*s=%llu;", (int)(2 + i % 7), "namename",
			       (unsigned long long)(keys[i] % 1000000));
}

static void step_lookup(uint64_t sort)
{
	sink += sorts[sort].sites->lookup(table, keys, NR_KEYS);
}

static void step_parse(uint64_t sort)
{
	sink += sorts[sort].sites->parse(text);
}

/* @budget: of the key, to one flag. */
static void group(const char *title, void (*step)(uint64_t), void (*before)(uint64_t), double per, double budget,
		  unsigned rounds, unsigned block)
{
	struct bench_case cases[NR];

	memset(cases, 0, sizeof(cases));
	for (size_t k = 0; k < NR; k++) {
		cases[k].name = sorts[k].name;
		cases[k].step = step;
		cases[k].before = before;
		cases[k].argument = k;
		cases[k].per = per;
		cases[k].floor = k > 0 ? &cases[0] : NULL;
		cases[k].budget = k == KEY ? budget : 0;
	}
	bench_group(title, cases, NR, rounds, block);
}

/* Each sort of condition does the same, and notes what it is to note. */
static void check(bool on)
{
	uint64_t lookup = sites_out.lookup(table, keys, NR_KEYS), parse = sites_out.parse(text), all = sites_out.all(1);

	for (size_t k = 0; k < NR; k++) {
		noted = 0;
		expected = on && k != OUT ? NR_SITES + NR_KEYS + NR_PAIRS : 0;
		if (sorts[k].sites->lookup(table, keys, NR_KEYS) != lookup || sorts[k].sites->parse(text) != parse ||
		    sorts[k].sites->all(1) != all || noted != expected)
			bench_die("%s, %s: %llu of %llu noted", sorts[k].name, on ? "on" : "off",
				  (unsigned long long)noted, (unsigned long long)expected);
	}
}

int main(int argc, char **argv)
{
	int i = bench_start(argc, argv, "bench_sites", "");

	if (i < argc)
		bench_die("unknown option %s", argv[i]);
	bench_pin(0);
	bench_check(xp_module_error(), "registering the key");
	fill();
	for (int on = 0; on < 2; on++) {
		set_all(on);
		check(on);
		group(on ? "20,000 sites, on, warm, per site" : "20,000 sites, off, warm, per site", step_all, NULL,
		      NR_SITES, 1, 30, 20);
		group(on ? "20,000 sites, on, evicted, per site" : "20,000 sites, off, evicted, per site", step_all,
		      evict, NR_SITES, 1, 15, 3);
		group(on ? "hash lookup, on, per key" : "hash lookup, off, per key", step_lookup, NULL, NR_KEYS, 0, 100,
		      20);
		group(on ? "parser, on, per pair" : "parser, off, per pair", step_parse, NULL, NR_PAIRS, 0, 100, 20);
	}
	return bench_end();
}
