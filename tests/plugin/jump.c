// SPDX-License-Identifier: MIT
/*
 * In an executable that is not position-independent the address of a shared object's function is that of the executable's own
 * jump to it. LIBRARY: the shared object. LAZY: the jump is not bound before the first call. Exit status 0, or what is wrong.
 */
#include <crosspatch/function.h>

int traced(int x);
int replacement(int x);

#ifdef LIBRARY
int traced(int x)
{
	__asm__ volatile("");
	return x + 1;
}
#else
int replacement(int x)
{
	return x + 2;
}

int main(void)
{
	static struct xp_function_counter counter;
	int (*volatile function)(int) = traced;
	int error = xp_function_trace(traced, xp_function_counting(), &counter);

#ifdef LAZY
	if (error != -XP_E_NO_ENTRY)
		return 1;
	if (function(1) != 2)
		return 2;
	error = xp_function_trace(traced, xp_function_counting(), &counter);
#endif
	if (error)
		return 3;
	if (function(1) != 2 || traced(2) != 3 || xp_function_counted(&counter) != 2)
		return 4;
	if (xp_function_redirect(traced, replacement) || function(1) != 3)
		return 5;
	if (xp_function_original(traced) == traced || xp_function_original(traced)(1) != 2)
		return 6;
	return xp_function_restore(traced) || function(1) != 2 ? 7 : 0;
}
#endif
