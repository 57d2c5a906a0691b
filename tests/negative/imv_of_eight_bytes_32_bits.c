// SPDX-License-Identifier: MIT
/*
 * In 32-bit code no mov has an operand of 8 bytes, and two of 4 are not one value: a reader could have half of each.
 *
 * flags: -m32
 * gcc: an immediate value has 1, 2 or 4 bytes in 32-bit code
 * g++: an immediate value has 1, 2 or 4 bytes in 32-bit code
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DEFINE_IMV(int, value, 1);
#else
XP_DEFINE_IMV(long long, value, 1);
#endif
