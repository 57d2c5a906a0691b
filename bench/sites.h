/* SPDX-License-Identifier: MIT */
/* Functions with trace points, compiled once for each sort of condition: sites_body.c. bench_sites compares them. */
#ifndef SITES_H
#define SITES_H

#include <crosspatch/static_key.h>
#include <stddef.h>
#include <stdint.h>

enum { NR_SITES = 20000, TABLE_SIZE = 8192 };

struct sites {
	uint64_t (*all)(uint64_t sum); /* executes each of the sites once */
	/* How many of @nr keys are in the table: open addressing, 0 is free. A trace point for each key. */
	uint64_t (*lookup)(const uint64_t table[TABLE_SIZE], const uint64_t *keys, size_t nr);
	uint64_t (*parse)(const char *text); /* sum of the numbers in name=number; pairs. A trace point for each pair */
};
extern const struct sites sites_out, sites_flag, sites_flags, sites_key;

XP_DECLARE_STATIC_KEY_FALSE(bench_key);
extern bool bench_flag, bench_flags[NR_SITES + 2];

/* What a trace point does when it is on. */
uint64_t bench_note(uint64_t value, uint64_t site);

#endif
