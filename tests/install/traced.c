// SPDX-License-Identifier: MIT
/* A consumer whose functions have entries, by the plugin or annotated: found by name, counted, redirected. */
#include <crosspatch/crosspatch.h>
#include <crosspatch/function.h>
#include <stdio.h>

#ifdef __clang__
#define PATCHABLE __attribute__((noinline))
#else
#define PATCHABLE __attribute__((xp_patchable))
#endif

PATCHABLE int twice(int x);
int twice(int x)
{
	/* Clang would look into it, though it is not inlined, and know what it returns, or that it returns the same again. */
	__asm__ volatile("" : "+r"(x) : : "memory");
	return 2 * x;
}

static int thrice(int x)
{
	return 3 * x;
}

int main(void)
{
	static struct xp_function_counter counter;
	int results[3], nr = xp_function_trace_matching("twi*", xp_function_counting(), &counter, NULL), error;

	results[0] = twice(5);
	error = xp_function_untrace(twice, xp_function_counting(), &counter);
	results[1] = twice(5);
	error = error ? error : xp_function_redirect(twice, thrice);
	results[2] = twice(5);
	if (nr == 1 && !error && xp_function_counted(&counter) == 1 && results[0] == 10 && results[1] == 10 &&
	    results[2] == 15)
		return 0;
	printf("traced %d, error %d, counted %lu; %d %d %d\n", nr, error, xp_function_counted(&counter), results[0],
	       results[1], results[2]);
	return 1;
}
