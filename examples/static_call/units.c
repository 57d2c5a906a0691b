// SPDX-License-Identifier: MIT
/* A call that is one call instruction, and goes somewhere else after an update. Built with the plugin: see beside. */
#include <crosspatch/crosspatch.h>
#include <stdio.h>

static int metres(int x)
{
	return x;
}

static int feet(int x)
{
	return (int)(x / 0.3048);
}

XP_DEFINE_STATIC_CALL(unit, metres);

__attribute__((noinline)) static int shown(int x)
{
	return xp_static_call(unit)(x) + 0;
}

int main(void)
{
	int before = shown(305);
	int error = xp_static_call_update(unit, feet);
	int after = shown(305);

	printf("%d m are %d ft; the call is %s\n", before, after, error ? xp_strerror(error) : "changed");
	return error || before != 305 || after != 1000;
}
