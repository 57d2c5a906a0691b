// SPDX-License-Identifier: MIT
/*
 * A header and a definition that disagree about the initial state would leave sites in the wrong one.
 *
 * gcc: conflicting types for 'key'
 * clang: redefinition of 'key' with a different type
 * g++: conflicting declaration 'xp_static_key_false key'
 * clang++: redefinition of 'key' with a different type
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DECLARE_STATIC_KEY_FALSE(key);
#else
XP_DECLARE_STATIC_KEY_TRUE(key);
#endif
XP_DEFINE_STATIC_KEY_FALSE(key);
