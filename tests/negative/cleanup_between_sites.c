// SPDX-License-Identifier: MIT
/*
 * Sites on both sides of the beginning of the scope of a variable with a cleanup, for clang 14 to 16.
 *
 * clang: in clang before 17: see XP_NO_ASM_GOTO, static_key.h
 */
#ifdef RIGHT
#define XP_NO_ASM_GOTO
#endif
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(first);
XP_DEFINE_STATIC_KEY_FALSE(second);
void clean(const int *value);
int look(void);

int look(void)
{
	int sum = xp_static_branch_unlikely(&first) ? 1 : 0;
	__attribute__((cleanup(clean))) int cleaned = 3;

	return xp_static_branch_unlikely(&second) ? sum + cleaned : sum;
}
