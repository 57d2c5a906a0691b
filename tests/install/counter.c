// SPDX-License-Identifier: MIT
/* The least program: two keys, a switch, on and off. C and C++ compile it alike. */
#include <crosspatch/crosspatch.h>
#include <crosspatch/kernel_names.h>
#include <stdio.h>

DEFINE_STATIC_KEY_FALSE(off_at_first);
static XP_DEFINE_STATIC_KEY_TRUE(on_at_first);
XP_DEFINE_STATIC_SWITCH(many, 30, 1);

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
	struct xp_stats stats;
	int bad = expect(look(), 2, xp_module_error());

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
	bad += expect((int)stats.sites, 5, 0); /* one of them at start: the switch begins with choice 1 */
	return bad != 0;
}
