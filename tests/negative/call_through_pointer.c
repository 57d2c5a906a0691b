// SPDX-License-Identifier: MIT
/*
 * A pointer is data: it has no text to jump to.
 *
 * gcc: a static call is declared with a function, not with a pointer to one
 * clang: a static call is declared with a function, not with a pointer to one
 * g++: a static call is declared with a function, not with a pointer to one
 * clang++: a static call is declared with a function, not with a pointer to one
 */
#include <crosspatch/crosspatch.h>

int function(int x);
extern int (*pointer)(int x);

#ifdef RIGHT
XP_DECLARE_STATIC_CALL(call, function);
#else
XP_DECLARE_STATIC_CALL(call, pointer);
#endif
