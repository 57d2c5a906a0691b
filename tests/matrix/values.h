/* SPDX-License-Identifier: MIT */
/* Immediate values of every kind of type, and what the files of the program offer each other. */
#ifndef VALUES_H
#define VALUES_H

#include <crosspatch/crosspatch.h>

#ifdef __cplusplus
extern "C" {
#endif

enum colour {
	RED,
	GREEN = -7,
};

typedef int function(int);
function twice, thrice;
extern char letters[];

/* X(type, name, first value, second value) */
#define VALUES(X)                                                                                                      \
	X(bool, v_bool, true, false)                                                                                   \
	X(unsigned char, v_u8, 200, 7)                                                                                 \
	X(signed char, v_s8, -100, 100)                                                                                \
	X(unsigned short, v_u16, 60000, 0x1234)                                                                        \
	X(short, v_s16, -2, 32767)                                                                                     \
	X(int, v_int, 42, -42)                                                                                         \
	X(unsigned, v_unsigned, 0xf0f1f2f3, 0)                                                                         \
	X(enum colour, v_enum, GREEN, RED)                                                                             \
	X(float, v_float, 1.5f, -2.25f)                                                                                \
	X(long, v_long, -5, 0x0123456789abcdef)                                                                        \
	X(unsigned long long, v_u64, 0x8182838485868788, 1)                                                            \
	X(double, v_double, 2.5, -1e100)                                                                               \
	X(char *, v_pointer, letters + 1, letters)                                                                     \
	X(function *, v_function, twice, thrice)

#define DECLARE(type, name, first, second)                                                                             \
	extern type expected_##name;                                                                                   \
	XP_DECLARE_IMV(type, name);
VALUES(DECLARE)

/* Defined in C++. */
XP_DECLARE_IMV(float, v_cxx);
XP_DECLARE_IMV(function *, v_cxx_function);

/* One for all objects of the process; defined by the main program. */
XP_DECLARE_IMV_SHARED(long, v_common);
extern __attribute__((visibility("default"))) long expected_common;

/* How many reads of a file are wrong. */
int look_main(void);
int look_first(void);
int look_second(void);
__attribute__((visibility("default"))) int look_library(void);
__attribute__((visibility("default"))) int set_library(int value);
int set_cxx(void);

/* In every file that includes this: C's inline function, C++'s too. */
static inline int look_inline(void)
{
	return xp_imv_read(v_common) != expected_common;
}

#ifdef __cplusplus
}
#endif

#endif
