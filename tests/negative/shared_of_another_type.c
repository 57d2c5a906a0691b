// SPDX-License-Identifier: MIT
/*
 * The definition of a shared call agrees with its declaration.
 *
 * gcc: not a function of the type of this static call
 * clang: not a function of the type of this static call
 * g++: not a function of the type of this static call
 * clang++: not a function of the type of this static call
 */
#include <crosspatch/crosspatch.h>

int add(int a, int b);
#ifdef RIGHT
int other(int a, int b);
#else
int other(int a, long b);
#endif

XP_DECLARE_STATIC_CALL_SHARED(call, add);
XP_DEFINE_STATIC_CALL_SHARED(call, other);
