// SPDX-License-Identifier: MIT
/*
 * A value has 1, 2, 4 or 8 bytes.
 *
 * gcc: an immediate value has 1, 2, 4 or 8 bytes
 * clang: an immediate value has 1, 2, 4 or 8 bytes
 * g++: an immediate value has 1, 2, 4 or 8 bytes
 * clang++: an immediate value has 1, 2, 4 or 8 bytes
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DEFINE_IMV(double, value, 1);
#else
XP_DEFINE_IMV(long double, value, 1);
#endif
