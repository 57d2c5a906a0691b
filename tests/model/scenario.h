/* SPDX-License-Identifier: MIT */
/* The commits that the model tests are about: one of each method, many sites, several methods at once. */
#ifndef XP_TEST_SCENARIO_H
#define XP_TEST_SCENARIO_H

#include "recorder.h"

#define SCENARIO_MAX_SITES 4
#define SCENARIO_MAX_KEYS 3
#define SCENARIO_PLAIN (XP_NEED_SYNC | XP_NEED_TRAP | XP_NEED_PARK | XP_NEED_ALONE | XP_NEED_CALL)
#define SCENARIO_SINGLE (SCENARIO_PLAIN | XP_NEED_SINGLE)

struct scenario_site {
	size_t offset;
	uint8_t len;
	uint8_t old[XP_MAX_LEN], new[XP_MAX_LEN];
	size_t resume_at; /* offset, 0: emulated */
};

struct scenario {
	const char *name;
	enum xp_policy policy;
	unsigned can;
	unsigned nr_syncs;                             /* of a commit that nothing disturbs */
	struct scenario_site site[SCENARIO_MAX_SITES]; /* len 0 ends */
	unsigned repeat;                               /* all the sites so many times, 0 as 1, */
	size_t stride;                                 /* so many bytes apart */
	unsigned with;                                 /* SCENARIO_KEYS, SCENARIO_VALUES */
};

#define SCENARIO_KEYS 1u   /* and three keys: two go on, one goes off */
#define SCENARIO_VALUES 2u /* and immediate values of 1, 2 and 4 bytes */

extern const struct scenario scenarios[];
extern const size_t nr_scenarios;

/* scenario_find - by name; fails the case if there is none. */
const struct scenario *scenario_find(const char *name);

/* scenario_start - rec_start(), policy, the old text; all sites are watched by a bystander. */
void scenario_start(const struct scenario *scenario);

/* scenario_commit - one commit: xp_text_poke() for a single site, else a batch. @diag is filled if it says so. */
int scenario_commit(const struct scenario *scenario, struct xp_diag *diag);

/* scenario_end - takes the module and the bystander away. */
void scenario_end(const struct scenario *scenario);

/* scenario_is - whether all text, counts and values are as before (@new: as after) the commit. */
bool scenario_is(const struct scenario *scenario, bool new);

/* scenario_counts_are - the same of counts and values alone. */
bool scenario_counts_are(const struct scenario *scenario, bool new);

size_t scenario_nr_sites(const struct scenario *scenario);

/* scenario_has - whether @addr is the first byte of a site of the scenario. */
bool scenario_has(const struct scenario *scenario, const void *addr);

#endif
