// SPDX-License-Identifier: MIT
/*
 * What a port calls, but for traps, which come in by trap.c, and threads with traced calls, which src/trace knows.
 * From here down a reader meets each part of the engine; nothing of the core calls anything here.
 */
#include "core/deps.h"
#include "core/kind.h"
#include "core/poke.h"
#include "core/reclaim.h"
#include "core/site.h"
#include "core/state.h"
#include "core/trap.h"

int xp_port_set(const struct xp_port *port)
{
	if (port == NULL || port->abi != XP_PORT_ABI)
		return -XP__EINVAL;
	xp__start(port);
	xp__modules_adopt();
	return 0;
}

void xp_modules_keep(void)
{
	xp__modules_keep();
}

void xp_deferred_run(void)
{
	for (unsigned kind = 0; kind < XP_NR_SITE_KINDS; kind++)
		if (xp__kind_of(kind)->due)
			xp__kind_of(kind)->due();
}

void xp_fork_child(void)
{
	for (unsigned kind = 0; kind < XP_NR_SITE_KINDS; kind++)
		if (xp__kind_of(kind)->fork_child)
			xp__kind_of(kind)->fork_child();
}

size_t xp_memory_needed(void)
{
	return xp__reclaim_needed();
}

void xp_stats_read(struct xp_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	xp__poke_count(stats);
	xp__trap_count(stats);
}
