// SPDX-License-Identifier: MIT
#include "plugin.h"

static XP_DEFINE_STATIC_KEY_FALSE(own);

static int look(void)
{
	return (xp_static_branch_unlikely(&own) ? 1 : 0) + (xp_static_branch_unlikely(&common) ? 2 : 0);
}

static int enable_own(void)
{
	return xp_static_branch_enable(&own);
}

static int disable_own(void)
{
	return xp_static_branch_disable(&own);
}

static int enable_common(void)
{
	return xp_static_branch_enable(&common);
}

static int disable_common(void)
{
	return xp_static_branch_disable(&common);
}

static int pick(void)
{
	return xp_static_switch(&common_choice);
}

static int choose(int choice)
{
	return xp_static_switch_set(&common_choice, choice);
}

static int read(void)
{
	return xp_imv_read(common_value);
}

static int set(int value)
{
	return xp_imv_set(common_value, value);
}

extern const struct plugin plugin;
const struct plugin plugin = {look, enable_own, disable_own, enable_common, disable_common, pick, choose,
				     read, set};
