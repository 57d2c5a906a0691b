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

XP_TORTURE_CASE(auto_procmem_membarrier, AUTO, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(auto_procmem_signal, AUTO, PROCMEM, SIGNAL)
XP_TORTURE_CASE(auto_mprotect_membarrier, AUTO, MPROTECT, MEMBARRIER)
XP_TORTURE_CASE(auto_mprotect_signal, AUTO, MPROTECT, SIGNAL)
XP_TORTURE_CASE(breakpoint_procmem_membarrier, BREAKPOINT, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_procmem_signal, BREAKPOINT, PROCMEM, SIGNAL)
XP_TORTURE_CASE(breakpoint_mprotect_membarrier, BREAKPOINT, MPROTECT, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_mprotect_signal, BREAKPOINT, MPROTECT, SIGNAL)
XP_TORTURE_CASE(auto_pkey_membarrier, AUTO, PKEY, MEMBARRIER)
XP_TORTURE_CASE(auto_pkey_signal, AUTO, PKEY, SIGNAL)
XP_TORTURE_CASE(breakpoint_pkey_membarrier, BREAKPOINT, PKEY, MEMBARRIER)
XP_TORTURE_CASE(quiesce_pkey_signal, QUIESCE, PKEY, SIGNAL)
XP_TORTURE_CASE(quiesce_procmem_signal, QUIESCE, PROCMEM, SIGNAL)

XP_TORTURE_MAIN()
