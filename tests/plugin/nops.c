// SPDX-License-Identifier: MIT
/*
 * -fpatchable-function-entry=N,M: only nops at a function's first byte are an entry, those before it are none. BEFORE is M;
 * UNKNOWN: without unwind tables nothing says where functions begin. Exit status 0, or a number that says what is wrong.
 */
#include <crosspatch/function.h>
#include <string.h>

#define FUNCTION(name, number)                                                                                         \
	__attribute__((noinline)) int name(int x);                                                                     \
	int name(int x)                                                                                                \
	{                                                                                                              \
		__asm__ volatile("");                                                                                  \
		return x + (number);                                                                                   \
	}
FUNCTION(first, 1)
FUNCTION(second, 2)
FUNCTION(third, 3)

#define NOT_PATCHABLE __attribute__((patchable_function_entry(0)))

NOT_PATCHABLE static int works(void)
{
	int (*volatile functions[])(int) = {first, second, third};
	int sum = 0;

	for (int i = 0; i < 3; i++)
		sum += functions[i](10);
	return sum == 36;
}

NOT_PATCHABLE int main(void)
{
	static struct xp_function_counter counter;
	const struct xp_function_handler *handler = xp_function_counting();
	struct xp_diag diag;
	int prepared, traced, error;

	if (!works())
		return 1;
	prepared = xp_function_prepare(NULL, &diag);
	if (!works())
		return 2;
#ifdef UNKNOWN
	/* clang's are one instruction, of which nothing has to be made. */
	if (prepared != 0 && (prepared != -XP_E_NO_ENTRY || !strstr(diag.detail, "annotate")))
		return 3;
	return xp_function_trace_matching("*", handler, &counter, &diag) != -XP_E_NO_ENTRY;
#else
	if (prepared < 0 || (BEFORE && prepared))
		return 3;
	error = xp_function_trace(first, handler, &counter);
	if (error != (BEFORE ? -XP_E_NO_ENTRY : 0))
		return 4;
	if (!works() || xp_function_counted(&counter) != !BEFORE)
		return 5;
	/* All that are said to be traced are: those of the header's too, which the compiler made as these. */
	traced = xp_function_trace_matching("*", handler, &counter, NULL);
	if (BEFORE ? traced != 0 : traced < 2)
		return 6;
	if (!works() || xp_function_counted(&counter) != (BEFORE ? 0 : 4))
		return 7;
	return 0;
#endif
}
