// SPDX-License-Identifier: MIT
/*
 * A value that begins outside of its range.
 *
 * gcc: an immediate value begins inside its range, which its type holds
 * clang: an immediate value begins inside its range, which its type holds
 * g++: an immediate value begins inside its range, which its type holds
 * clang++: an immediate value begins inside its range, which its type holds
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DEFINE_IMV_RANGE(unsigned char, value, 1, 1, 255);
#else
XP_DEFINE_IMV_RANGE(unsigned char, value, 0, 1, 255);
#endif
