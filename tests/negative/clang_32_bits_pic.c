// SPDX-License-Identifier: MIT
/*
 * Clang cannot write the address of a key into a record of 32-bit position-independent code: said in words.
 *
 * flags: -m32
 * clang: clang names no key in 32-bit position-independent code: compile with -fno-pie or gcc
 * clang++: clang names no key in 32-bit position-independent code: compile with -fno-pie or gcc
 */
#ifdef RIGHT
#define XP_NO_PATCHING
#endif
#include <crosspatch/crosspatch.h>

static XP_DEFINE_STATIC_KEY_FALSE(key);

int f(void);
int f(void)
{
	return xp_static_branch_unlikely(&key);
}
