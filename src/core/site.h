/* SPDX-License-Identifier: MIT */
/* Site tables: which sites belong to a key, in which module. */
#ifndef XP_CORE_SITE_H
#define XP_CORE_SITE_H

#define XP_NO_MODULE /* the library itself has no sites */
#include <crosspatch/site.h>
#include <crosspatch/static_key.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The sites of one key in one module: @nr numbers of records, in ascending order. */
struct xp__key_use {
	struct xp__key_use *next; /* of the same key, in other modules */
	struct xp_static_key *key;
	const struct xp_branch_site *sites; /* the module's records */
	const uint32_t *numbers;
	uint32_t nr;
	uint32_t nr_likely;
	uint32_t nr_true; /* emitted for a key that starts on */
};

static inline uintptr_t xp__site_code(const struct xp_branch_site *site)
{
	return (uintptr_t)&site->code + (uintptr_t)(intptr_t)site->code;
}

static inline uintptr_t xp__site_target(const struct xp_branch_site *site)
{
	return (uintptr_t)&site->target + (uintptr_t)(intptr_t)site->target;
}

static inline unsigned xp__site_flags(const struct xp_branch_site *site)
{
	return (unsigned)((uintptr_t)&site->key + (uintptr_t)(intptr_t)site->key) & XP_SITE_FLAGS;
}

static inline struct xp_static_key *xp__site_key(const struct xp_branch_site *site)
{
	uintptr_t key = (uintptr_t)&site->key + (uintptr_t)(intptr_t)site->key;

	return xp__key_real((struct xp_static_key *)(key & ~(uintptr_t)XP_SITE_FLAGS));
}

/* Whether the site jumps when its key is @on. */
static inline bool xp__site_jumps(const struct xp_branch_site *site, bool on)
{
	return on != ((xp__site_flags(site) & XP_SITE_LIKELY) != 0);
}

#endif
