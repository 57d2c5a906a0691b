// SPDX-License-Identifier: MIT
#include <crosspatch/crosspatch.h>
#include <stdio.h>

XP_DEFINE_STATIC_KEY_FALSE(tracing);

__attribute__((noinline)) static int square(int x)
{
	if (xp_static_branch_unlikely(&tracing))
		printf("square(%d)\n", x);
	return x * x;
}

int main(void)
{
	square(2);                                     /* prints nothing */
	int error = xp_static_branch_enable(&tracing); /* other threads may be running square() */
	return error || square(3) != 9;                /* prints square(3) */
}
