// SPDX-License-Identifier: MIT
/*
 * The architecture's part of a header is no header.
 *
 * gcc: do not include <crosspatch/arch/x86.h>
 * clang: do not include <crosspatch/arch/x86.h>
 * g++: do not include <crosspatch/arch/x86.h>
 * clang++: do not include <crosspatch/arch/x86.h>
 */
#ifdef RIGHT
#include <crosspatch/static_key.h>
#endif
#include <crosspatch/arch/x86.h>
