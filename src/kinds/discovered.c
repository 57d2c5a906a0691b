// SPDX-License-Identifier: MIT
/* Lists of call sites that were found when they were executed. */
#include "kinds/discovered.h"

#include "core/commit.h"
#include "core/reclaim.h"
#include "core/state.h"

bool xp__discovered_add(struct xp__discovered **list, uintptr_t code)
{
	struct xp__discovered *discovered = xp__reclaim_take(sizeof(*discovered));

	if (discovered == NULL)
		return false;
	discovered->code = code;
	discovered->next = *list;
	*list = discovered;
	return true;
}

void xp__discovered_drop(struct xp__discovered **list)
{
	struct xp__discovered *discovered;

	while ((discovered = *list)) {
		*list = discovered->next;
		xp__reclaim_give(discovered, sizeof(*discovered));
	}
}

void xp__discovered_size(const struct xp__discovered *list, size_t nr, struct xp__size *size)
{
	for (; list; list = list->next)
		nr++;
	size->sites += nr;
	size->plans += nr;
}

bool xp__discovered_has(const struct xp__discovered *list, uintptr_t code)
{
	while (list && list->code != code)
		list = list->next;
	return list != NULL;
}

/* They are in the page of the return address, or are text as well. */
int xp__discovered_readable(uintptr_t code, size_t len)
{
	return code / 4096 == (code + len) / 4096 ? 0 : xp__port->text_check((const void *)code, len);
}
