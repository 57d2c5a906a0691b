/* SPDX-License-Identifier: MIT */
/* The keys of the program, and what its files offer each other. */
#ifndef KEYS_H
#define KEYS_H

#include <crosspatch/crosspatch.h>

XP_DECLARE_STATIC_KEY_FALSE(key_false);
XP_DECLARE_STATIC_KEY_TRUE(key_true);
XP_DECLARE_STATIC_KEY_ARRAY_FALSE(keys_false, 3);
XP_DECLARE_STATIC_KEY_ARRAY_TRUE(keys_true, 2);
XP_DECLARE_STATIC_KEY_DEFERRED_FALSE(key_deferred);

/* Defined in C++. */
XP_DECLARE_STATIC_KEY_FALSE(key_cxx);
XP_DECLARE_STATIC_KEY_ARRAY_TRUE(keys_cxx, 2);

/* One for all objects of the process; defined by the main program. */
XP_DECLARE_STATIC_KEY_SHARED_FALSE(common_false);
XP_DECLARE_STATIC_KEY_SHARED_TRUE(common_true);

#ifdef __cplusplus
extern "C" {
#endif

/* Whether all sites of a file agree with its keys; each compares its sites with the plain loads. */
int look_main(void);
int look_first(void);
int look_second(void);
__attribute__((visibility("default"))) int look_library(void);
__attribute__((visibility("default"))) int switch_library(int on);

/* Counts a disagreement. */
static inline int differ(int site, int key)
{
	return !site != !key;
}

/* In every file that includes this: C's inline function, C++'s too. */
static inline int look_inline(void)
{
	int bad = 0;

	bad += differ(xp_static_branch_unlikely(&common_false), xp_static_key_enabled(&common_false));
	bad += differ(xp_static_branch_likely(&common_true), xp_static_key_enabled(&common_true));
	return bad;
}

#ifdef __cplusplus
}
#endif

#endif
