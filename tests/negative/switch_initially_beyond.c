// SPDX-License-Identifier: MIT
/*
 * The initial choice is one that the switch has.
 *
 * gcc: the static switch has no such choice
 * clang: the static switch has no such choice
 * g++: the static switch has no such choice
 * clang++: the static switch has no such choice
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DEFINE_STATIC_SWITCH(three, 3, 2);
#else
XP_DEFINE_STATIC_SWITCH(three, 3, 3);
#endif
