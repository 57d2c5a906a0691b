// SPDX-License-Identifier: MIT
/*
 * A static key whose sites stand at every offset of a cache line and across page boundaries, three threads executing,
 * one toggling, under each policy, writer and sync.
 */
#define XP_SITES_KEY sites_key
#include "xp_sites.h"

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	struct xp_torture torture = {
		.execute = xp_sites_execute,
		.patch = xp_sites_toggle,
		.nr_threads = 3,
		.traps = policy == XP_POLICY_BREAKPOINT ? XP_TRAPS_SOME : XP_TRAPS_NONE,
	};

	xp_sites_check_cover();
	if (!xp_torture_set(policy, writer, sync))
		return;
	xp_torture_run(&torture);
	xp_sites_check_right();
}

#define RUN(policy, POLICY, writer, WRITER, sync, SYNC)                                                                \
	XP_TEST(policy##_##writer##_##sync)                                                                            \
	{                                                                                                              \
		run(XP_POLICY_##POLICY, XP_WRITER_##WRITER, XP_SYNC_##SYNC);                                           \
	}

RUN(auto, AUTO, procmem, PROCMEM, membarrier, MEMBARRIER)
RUN(auto, AUTO, procmem, PROCMEM, signal, SIGNAL)
RUN(auto, AUTO, mprotect, MPROTECT, membarrier, MEMBARRIER)
RUN(auto, AUTO, mprotect, MPROTECT, signal, SIGNAL)
RUN(breakpoint, BREAKPOINT, procmem, PROCMEM, membarrier, MEMBARRIER)
RUN(breakpoint, BREAKPOINT, procmem, PROCMEM, signal, SIGNAL)
RUN(breakpoint, BREAKPOINT, mprotect, MPROTECT, membarrier, MEMBARRIER)
RUN(breakpoint, BREAKPOINT, mprotect, MPROTECT, signal, SIGNAL)
RUN(quiesce, QUIESCE, procmem, PROCMEM, signal, SIGNAL)

XP_TORTURE_MAIN()
