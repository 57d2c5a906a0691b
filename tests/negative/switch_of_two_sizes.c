// SPDX-License-Identifier: MIT
/*
 * A switch has as many choices in its header as where it is defined.
 *
 * gcc: conflicting types for
 * clang: redefinition of
 * g++: conflicting declaration
 * clang++: redefinition of
 */
#include <crosspatch/crosspatch.h>

XP_DECLARE_STATIC_SWITCH(three, 3);
#ifdef RIGHT
XP_DEFINE_STATIC_SWITCH(three, 3, 0);
#else
XP_DEFINE_STATIC_SWITCH(three, 4, 0);
#endif
