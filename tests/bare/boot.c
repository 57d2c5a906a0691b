// SPDX-License-Identifier: MIT
/* One processor: the port comes up, keys and raw sites change under every policy. */
#include "xp_test.h"
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(off_key);
XP_DEFINE_STATIC_KEY_TRUE(on_key);

static __attribute__((noinline)) bool off_unlikely(void)
{
	return xp_static_branch_unlikely(&off_key);
}

static __attribute__((noinline)) bool on_likely(void)
{
	return xp_static_branch_likely(&on_key);
}

XP_TEST(keys)
{
	for (int policy = XP_POLICY_AUTO; policy <= XP_POLICY_EARLY; policy++) {
		REQUIRE_EQ(xp_set_policy((enum xp_policy)policy), 0);
		CHECK(!off_unlikely());
		CHECK_EQ(xp_static_branch_enable(&off_key), 0);
		CHECK(off_unlikely());
		CHECK_EQ(xp_static_branch_disable(&off_key), 0);
		CHECK(!off_unlikely());
		CHECK(on_likely());
		CHECK_EQ(xp_static_branch_disable(&on_key), 0);
		CHECK(!on_likely());
		CHECK_EQ(xp_static_branch_enable(&on_key), 0);
		CHECK(on_likely());
	}
	xp_set_policy(XP_POLICY_AUTO);
}

struct xp_test_state xp_test_state;
int main(int argc, char **argv)
{
	return xp_test_main(argc, argv);
}
