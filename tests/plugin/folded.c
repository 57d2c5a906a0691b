// SPDX-License-Identifier: MIT
/*
 * Functions that differ in nothing but their names. Those with entries (compiled apart, with ENTRIES) must stay apart under a
 * linker that folds identical code; the others show whether it does. Exit status 0: only calls of the traced one were seen.
 */
extern volatile int sink;
__attribute__((cold, noinline)) void rare(void);
int traced_a(int x), traced_b(int x), traced_parts_a(int x), traced_parts_b(int x);

#ifdef ENTRIES
#define FUNCTION(name)                                                                                                 \
	__attribute__((noinline)) int name(int x)                                                                      \
	{                                                                                                              \
		return x + 77;                                                                                         \
	}
FUNCTION(traced_a)
FUNCTION(traced_b)
/* With a part that gcc splits off. */
#undef FUNCTION
#define FUNCTION(name)                                                                                                 \
	__attribute__((noinline)) int name(int x)                                                                      \
	{                                                                                                              \
		if (__builtin_expect(x > 1000, 0)) {                                                                   \
			rare();                                                                                        \
			sink = 3;                                                                                      \
			rare();                                                                                        \
		}                                                                                                      \
		return x + 78;                                                                                         \
	}
FUNCTION(traced_parts_a)
FUNCTION(traced_parts_b)
#else
#include <crosspatch/function.h>

#define FUNCTION(name)                                                                                                 \
	__attribute__((noinline)) int name(int x);                                                                     \
	int name(int x)                                                                                                \
	{                                                                                                              \
		__asm__ volatile("");                                                                                  \
		return x * 3;                                                                                          \
	}
FUNCTION(same_a)
FUNCTION(same_b)

volatile int sink;

void rare(void)
{
	sink = 1;
}

int main(void)
{
	static struct xp_function_counter counter;
	int before = same_a(1) + same_b(2);

	if (before != 9 || xp_function_prepare(NULL, NULL) < 0)
		return 1;
	if (xp_function_trace(traced_a, xp_function_counting(), &counter))
		return 2;
	if (xp_function_trace(traced_parts_a, xp_function_counting(), &counter))
		return 3;
	if (traced_a(1) + traced_b(1) + traced_b(1) + traced_parts_a(0) + traced_parts_b(0) != 5 * 78)
		return 4;
	return xp_function_counted(&counter) != 2;
}
#endif
