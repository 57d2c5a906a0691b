// SPDX-License-Identifier: MIT
/* Which front end a table of records belongs to. */
#include "core/front.h"

const struct xp__front *xp__front_of(unsigned kind)
{
	static const struct xp__front *const fronts[XP_NR_SITE_KINDS] = {
		[XP_SITE_BRANCH] = &xp__branch_front,
		[XP_SITE_CALL] = &xp__call_front,
		[XP_SITE_SWITCH] = &xp__switch_front,
		[XP_SITE_IMV] = &xp__imv_front,
		[XP_SITE_GATE] = &xp__gate_front,
		[XP_SITE_FAR] = &xp__gate_far_front,
		[XP_SITE_ENTRY] = &xp__entry_front,
		[XP_SITE_PATCHABLE] = &xp__patchable_front,
		[XP_SITE_HEADER] = &xp__header_front,
	};

	return fronts[kind];
}
