// SPDX-License-Identifier: MIT
/* Loaded and unloaded by processes.c while others patch: keys of its own, and sites of keys of the program's. */
#include "plugin.h"

XP_DEFINE_STATIC_KEY_FALSE(plugin_key);

static __attribute__((noinline)) bool own_site(void)
{
	return xp_static_branch_unlikely(&plugin_key);
}

static __attribute__((noinline)) bool steady_site(void)
{
	return xp_static_branch_likely(&steady_key);
}

static __attribute__((noinline)) bool busy_site(void)
{
	return xp_static_branch_unlikely(&busy_key);
}

bool plugin_steady(void)
{
	return steady_site();
}

bool plugin_busy(void)
{
	return busy_site();
}

unsigned plugin_toggle(void)
{
	unsigned wrong = 0;

	wrong += own_site();
	wrong += xp_static_branch_enable(&plugin_key) != 0 || !own_site();
	wrong += xp_static_branch_disable(&plugin_key) != 0 || own_site();
	/* Left on: what a module leaves behind is its own affair. */
	wrong += xp_static_branch_enable(&plugin_key) != 0 || !own_site();
	return wrong;
}
