// SPDX-License-Identifier: MIT
/* The least program: two keys, a switch, on and off; two static calls. C and C++ compile it alike. */
#include <crosspatch/crosspatch.h>
#include <crosspatch/kernel_names.h>
#include <stdio.h>

DEFINE_STATIC_KEY_FALSE(off_at_first);
static XP_DEFINE_STATIC_KEY_TRUE(on_at_first);
XP_DEFINE_STATIC_SWITCH(many, 30, 1);

static int one(int x)
{
	return x + 1;
}

static int two(int x)
{
	return x + 2;
}

DEFINE_STATIC_CALL(step, one);
XP_DEFINE_STATIC_CALL_NULL(jump, one);

/* Not inlined: each copy of a site would be one more to patch. */
__attribute__((noinline)) static int look(void)
{
	int seen = 0;

	if (static_branch_unlikely(&off_at_first))
		seen += 1;
	if (xp_static_branch_likely(&on_at_first))
		seen += 2;
	return seen;
}

__attribute__((noinline)) static int pick(void)
{
	return xp_static_switch(&many);
}

static int expect(int seen, int wanted, int error)
{
	if (!error && seen == wanted)
		return 0;
	printf("saw %d, not %d; %s\n", seen, wanted, error ? xp_strerror(error) : "no error");
	return 1;
}

int main(void)
{
	struct xp_stats before, stats;
	int bad = expect(look(), 2, xp_module_error());

	xp_stats_read(&before); /* the switch begins with choice 1; in 32 bits trampolines get their jumps at start */
	bad += expect(before.sites >= 1, 1, 0);
	bad += expect(look(), 2, 0);
	bad += expect(0, 0, static_branch_enable(&off_at_first));
	bad += expect(look(), 3, 0);
	bad += expect(0, 0, xp_static_branch_disable(&on_at_first));
	bad += expect(look(), 1, 0);
	bad += expect(0, 0, static_branch_disable(&off_at_first));
	bad += expect(look(), 0, 0);
	bad += expect(pick(), 1, 0);
	bad += expect(0, 0, xp_static_switch_set(&many, 29));
	bad += expect(pick(), 29, 0);
	xp_stats_read(&stats);
	bad += expect((int)(stats.sites - before.sites), 4, 0);

	bad += expect(static_call(step)(0), 1, 0);
	bad += expect(0, 0, static_call_update(step, two));
	bad += expect(xp_static_call(step)(1), 3, 0);
	bad += expect(static_call_query(step) == two, 1, 0);
	static_call_cond(jump)(0);
	bad += expect(0, 0, xp_static_call_update(jump, two));
	bad += expect(xp_static_call(jump)(3), 5, 0);
	bad += expect(0, 0, xp_static_call_update(jump, NULL));
	static_call_cond(jump)(3);
	return bad != 0;
}
