// SPDX-License-Identifier: MIT
/*
 * At most 256 choices.
 *
 * gcc: a static switch has 2 to 256 choices
 * clang: a static switch has 2 to 256 choices
 * g++: a static switch has 2 to 256 choices
 * clang++: a static switch has 2 to 256 choices
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DECLARE_STATIC_SWITCH(many, 256);
#else
XP_DECLARE_STATIC_SWITCH(many, 257);
#endif
