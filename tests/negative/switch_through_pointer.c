// SPDX-License-Identifier: MIT
/*
 * A site names its switch, it does not point to it.
 *
 * gcc: static storage
 * clang: static storage
 * g++: static storage
 * clang++: static storage
 */
#include <crosspatch/crosspatch.h>

#ifdef __cplusplus
typedef struct xp_static_switch_of<3> three_t;
#else
typedef char (*three_t[sizeof(struct xp_static_switch) / sizeof(void *)])[3];
#endif
XP_DEFINE_STATIC_SWITCH(three, 3, 0);

int f(three_t *pointer);
int f(three_t *pointer)
{
#ifdef RIGHT
	(void)pointer;
	return xp_static_switch(&three);
#else
	return xp_static_switch(pointer);
#endif
}
