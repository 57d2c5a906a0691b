// SPDX-License-Identifier: MIT
/*
 * The names without a prefix exist only for a file that includes kernel_names.h.
 *
 * gcc: implicit-int
 * clang: implicit-int|parameter list without types
 * g++: expected constructor, destructor, or type conversion
 * clang++: unknown type name 'DEFINE_STATIC_KEY_FALSE'
 */
#include <crosspatch/crosspatch.h>
#ifdef RIGHT
#include <crosspatch/kernel_names.h>
#endif

DEFINE_STATIC_KEY_FALSE(key);
