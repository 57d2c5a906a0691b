// SPDX-License-Identifier: MIT
/*
 * The first value is a constant: C++ would set it after the sites were brought to it.
 *
 * gcc: initializer element is not constant
 * clang: initializer element is not a compile-time constant
 * g++: does not have a constant initializer
 * clang++: variable does not have a constant initializer
 */
#include <crosspatch/crosspatch.h>

int compute(void);

#ifdef RIGHT
XP_DEFINE_IMV(int, value, 1);
#else
XP_DEFINE_IMV(int, value, compute());
#endif
