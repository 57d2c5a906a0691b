// SPDX-License-Identifier: MIT
/*
 * Where no instruction pair is known, it is an error to ask for sites, not a silent slow path.
 *
 * gcc: architecture is not supported yet
 * clang: architecture is not supported yet
 * g++: architecture is not supported yet
 * clang++: architecture is not supported yet
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#undef __x86_64__
#ifdef RIGHT
#define XP_NO_PATCHING
#endif
#include <crosspatch/static_key.h>
