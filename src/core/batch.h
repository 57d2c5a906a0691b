/* SPDX-License-Identifier: MIT */
/* From wishes (this key on, these bytes there) to a validated commit. */
#ifndef XP_CORE_BATCH_H
#define XP_CORE_BATCH_H

#include "core/poke.h"
#include "core/site.h"

/* A poke with its bytes. */
struct xp__poke {
	uintptr_t addr;
	uintptr_t resume_at;
	uint8_t len;
	uint8_t resume; /* enum xp_resume */
	uint8_t expect[XP_MAX_LEN];
	uint8_t replace[XP_MAX_LEN];
};

/* "The sites of this key as if it were on (off)." The count is the caller's business. */
struct xp__wish {
	struct xp_static_key *key; /* the real one */
	bool on;
	bool skip; /* nothing to do: it is so already, or a later wish for the same key takes its place */
};

/*
 * xp__patch_locked - one commit of all of them. Context: text lock.
 * Errors: as xp_batch_commit(); the text is as before unless wedged.
 */
int xp__patch_locked(const struct xp__poke *pokes, size_t nr_pokes, const struct xp__wish *wishes, size_t nr_wishes,
		     struct xp_diag *diag);

/*
 * xp__switch_locked - the same with the keys' counts: the wishes hold and are counted as one, or nothing changed.
 * Errors: -XP_E_COUNTED as well.
 */
int xp__switch_locked(const struct xp__poke *pokes, size_t nr_pokes, struct xp__wish *wishes, size_t nr_wishes,
		      struct xp_diag *diag);

/*
 * xp__patch_uses_locked - brings the sites of @nr uses to the state of their keys, where they are not there yet.
 * @as_built: the text is as the compiler left it, so that only the sites of keys already switched need a look.
 */
int xp__patch_uses_locked(const struct xp__key_use *uses, size_t nr, bool as_built, struct xp_diag *diag);

#endif
