// SPDX-License-Identifier: MIT
/*
 * A switch with one choice is none.
 *
 * gcc: a static switch has 2 to 256 choices
 * clang: a static switch has 2 to 256 choices
 * g++: a static switch has 2 to 256 choices
 * clang++: a static switch has 2 to 256 choices
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DEFINE_STATIC_SWITCH(one, 2, 0);
#else
XP_DEFINE_STATIC_SWITCH(one, 1, 0);
#endif
