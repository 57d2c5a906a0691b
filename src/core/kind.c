// SPDX-License-Identifier: MIT
/* Which kind a table of records belongs to. */
#include "core/kind.h"

const struct xp__kind *xp__kind_of(unsigned kind)
{
	static const struct xp__kind *const kinds[XP_NR_SITE_KINDS] = {
		[XP_SITE_BRANCH] = &xp__key_kind,    [XP_SITE_CALL] = &xp__call_kind,
		[XP_SITE_SWITCH] = &xp__switch_kind, [XP_SITE_IMV] = &xp__value_kind,
		[XP_SITE_GATE] = &xp__gate_kind,     [XP_SITE_FAR] = &xp__gate_far_kind,
		[XP_SITE_ENTRY] = &xp__entry_kind,   [XP_SITE_PATCHABLE] = &xp__patchable_kind,
		[XP_SITE_HEADER] = &xp__header_kind,
	};

	return kinds[kind];
}
