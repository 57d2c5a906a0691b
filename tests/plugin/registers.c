// SPDX-License-Identifier: MIT
/*
 * A replacement changes registers that the original leaves alone. Callers that know the original's must not keep anything
 * there: gcc's -fipa-ra, part of -O2, has them do so. ENTRY: the attribute of a function that can be redirected.
 */
#include <crosspatch/crosspatch.h>

#ifndef ENTRY
#define ENTRY
#endif

__attribute__((noinline, noclone)) ENTRY static int original(int x)
{
	__asm__ volatile("");
	return x + 1;
}

__attribute__((noinline)) static int replacement(int x)
{
	__asm__ volatile("xor %%ecx, %%ecx; xor %%edx, %%edx; xor %%esi, %%esi; xor %%r8d, %%r8d; xor %%r9d, %%r9d\n\t"
			 "xor %%r10d, %%r10d; xor %%r11d, %%r11d" ::
				 : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11");
	return x + 2;
}

long caller(long a, long b, long c, long d);

__attribute__((noinline, noclone)) long caller(long a, long b, long c, long d)
{
	int result = original(1);

	return result + a + 2 * b + 3 * c + 4 * d;
}

int main(void)
{
	if (caller(10, 20, 30, 40) != 302 || xp_function_prepare("*", NULL) < 0 ||
	    xp_function_redirect(original, replacement))
		return 2;
	return caller(10, 20, 30, 40) != 303;
}
