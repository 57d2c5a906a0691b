// SPDX-License-Identifier: MIT
/* Which kind a table of records belongs to. */
#include "core/kind.h"

/* Sites for which the architecture has no forms: a module that has any is refused. */
static int absent_coming(const struct xp_site_table *table)
{
	return table->start == table->end ? 0 : -XP_E_NO_METHOD;
}

static const struct xp__kind absent = {.coming = absent_coming};

const struct xp__kind *xp__kind_of(unsigned kind)
{
	static const struct xp__kind *const kinds[XP_NR_SITE_KINDS] = {
		[XP_SITE_BRANCH] = &xp__key_kind,
		[XP_SITE_CALL] = &xp__call_kind,
		[XP_SITE_SWITCH] = XP__HAS_SWITCHES ? &xp__switch_kind : &absent,
		[XP_SITE_IMV] = &xp__value_kind,
		[XP_SITE_GATE] = XP__HAS_GATES ? &xp__gate_kind : &absent,
		[XP_SITE_FAR] = XP__HAS_FAR ? &xp__gate_far_kind : &absent,
		[XP_SITE_ENTRY] = XP__HAS_ENTRIES ? &xp__entry_kind : &absent,
		[XP_SITE_PATCHABLE] = XP__HAS_ENTRIES ? &xp__patchable_kind : &absent,
		[XP_SITE_HEADER] = &xp__header_kind,
	};

	return kinds[kind];
}

int xp__group_site(const struct xp__group *group, size_t i, struct xp__site *site)
{
	const struct xp__kind *kind = group->kind;
	const void *record;

	if (i >= group->nr)
		return -1;
	record = (const uint8_t *)group->records + (size_t)group->numbers[i] * kind->record_size;
	*site = (struct xp__site){.code = xp__relative(record), .record = record, .len = kind->site_len};
	return 1;
}
