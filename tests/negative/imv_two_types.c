// SPDX-License-Identifier: MIT
/*
 * Declaration and definition name one type.
 *
 * gcc: conflicting types for 'xp__imv_type_of_value'
 * clang: typedef redefinition with different types
 * g++: conflicting declaration
 * clang++: typedef redefinition with different types
 */
#include <crosspatch/crosspatch.h>

XP_DECLARE_IMV(unsigned, value);
#ifdef RIGHT
XP_DEFINE_IMV(unsigned, value, 1);
#else
XP_DEFINE_IMV(int, value, 1);
#endif
