// SPDX-License-Identifier: MIT
/* Values read in C++: from templates that two files have, lambdas, and an initializer that runs before main. */
#include "values_templates.h"

XP_DEFINE_IMV(float, v_cxx, -0.5f);
XP_DEFINE_IMV(function *, v_cxx_function, twice);
static float expected_cxx = -0.5f;
static function *expected_function = twice;

namespace
{
XP_DEFINE_IMV_STATIC(unsigned char, v_anonymous, 3);
const int initialized = xp_imv_read(v_int) + xp_imv_read(v_anonymous);
} // namespace

int look_first(void)
{
	return all<int>() + all<long>() + look_inline() + (xp_imv_read(v_cxx) != expected_cxx) +
	       (xp_imv_read(v_cxx_function) != expected_function) + (xp_imv_read(v_anonymous) != 3) +
	       (initialized != 42 + 3);
}

int set_cxx(void)
{
	expected_cxx = expected_cxx * 3;
	expected_function = expected_function == twice ? thrice : twice;
	return xp_imv_set(v_cxx, expected_cxx) | xp_imv_set(v_cxx_function, expected_function);
}
