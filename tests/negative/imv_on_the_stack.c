// SPDX-License-Identifier: MIT
/*
 * A value lives at file scope, and is named: a parameter that points to one is none.
 *
 * gcc: static storage
 * clang: static storage
 * g++: static storage
 * clang++: static storage
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_IMV(int, value, 1);

#ifdef __cplusplus
int f(xp_imv_of<int> *pointer);
int f(xp_imv_of<int> *pointer)
#else
int f(struct xp_imv *pointer);
int f(struct xp_imv *pointer)
#endif
{
#ifdef RIGHT
	(void)pointer;
	return xp_imv_read(value);
#elif defined(__cplusplus)
	return xp_imv_read(*pointer);
#else
	XP_DEFINE_IMV(int, automatic, 1);
	(void)pointer;
	return xp_imv_read(automatic);
#endif
}
