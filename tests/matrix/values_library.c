// SPDX-License-Identifier: MIT
/* Values of a shared object, or of the program itself: its own and that of all. */
#include "values.h"

XP_DEFINE_IMV_STATIC(int, own, 6);
static int expected_own = 6;

int look_library(void)
{
	return look_inline() + (xp_imv_read(own) != expected_own);
}

int set_library(int value)
{
	expected_own = value;
	return xp_imv_set(own, value) | xp_imv_set(v_common, value);
}
