// SPDX-License-Identifier: MIT
/* Loaded by calls.c: it knows nothing of the library. */
int provider(int x);
int provider(int x)
{
	return x + 40;
}
