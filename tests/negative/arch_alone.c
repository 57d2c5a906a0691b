// SPDX-License-Identifier: MIT
/*
 * An architecture's header is no header: another one chooses it.
 *
 * gcc: do not include <crosspatch/arch/x86.h>
 * clang: do not include <crosspatch/arch/x86.h>
 * g++: do not include <crosspatch/arch/x86.h>
 * clang++: do not include <crosspatch/arch/x86.h>
 */
#ifdef RIGHT
#include <crosspatch/arch.h>
#endif
#include <crosspatch/arch/x86.h>
