/* SPDX-License-Identifier: MIT */
/* The keys of the program, and what its files offer each other. */
#ifndef KEYS_H
#define KEYS_H

#include <crosspatch/crosspatch.h>

XP_DECLARE_STATIC_KEY_FALSE(key_false);
XP_DECLARE_STATIC_KEY_TRUE(key_true);
XP_DECLARE_STATIC_KEY_ARRAY_FALSE(keys_false, 3);
XP_DECLARE_STATIC_KEY_ARRAY_TRUE(keys_true, 2);
XP_DECLARE_STATIC_KEY_DEFERRED_FALSE(key_deferred);

/* Defined in C++. */
XP_DECLARE_STATIC_KEY_FALSE(key_cxx);
XP_DECLARE_STATIC_KEY_ARRAY_TRUE(keys_cxx, 2);

/* One for all objects of the process; defined by the main program. */
XP_DECLARE_STATIC_KEY_SHARED_FALSE(common_false);
XP_DECLARE_STATIC_KEY_SHARED_TRUE(common_true);

#ifdef __cplusplus
extern "C" {
#endif

/* What the calls below go to: says its own number, from arguments of several sorts. */
struct amounts {
	double real;
	int whole;
};
int first_target(int x, double y, struct amounts z);
int second_target(int x, double y, struct amounts z);

/* Whether all sites of a file agree with its keys; each compares its sites with the plain loads. */
int look_main(void);
int look_first(void);
int look_second(void);
__attribute__((visibility("default"))) int look_library(void);
__attribute__((visibility("default"))) int switch_library(int on);

/* Of a shared call: the library changes it. 0: to its own function, 1: to none. */
__attribute__((visibility("default"))) int update_library(int none);

/* Counts a disagreement. */
static inline int differ(int site, int key)
{
	return !site != !key;
}

/* Defined in C, in C++, and one for all objects of the process, by the main program. */
XP_DECLARE_STATIC_CALL(call_c, first_target);
XP_DECLARE_STATIC_CALL(call_cxx, first_target);
XP_DECLARE_STATIC_CALL_SHARED(common_call, first_target);

#define CALL(name) xp_static_call(name)(1, 2.0, amounts_of(3))

static inline struct amounts amounts_of(int n)
{
	struct amounts amounts;

	amounts.real = n;
	amounts.whole = n;
	return amounts;
}

/* Called from every file, provided by the main program; the second by a stub that faults the first time. */
XP_DECLARE_GATE(int, gate_plain, (int x, double y, struct amounts z));
XP_DECLARE_GATE_UD2(int, gate_fault, (int x, double y, struct amounts z));
#define GATE(name) xp_gate(name)(1, 2.0, amounts_of(3))

/* The target by the call, and by asking for it. */
#define QUERY(name) (xp_static_call_query(name) ? xp_static_call_query(name)(1, 2.0, amounts_of(3)) : 0)

/* In every file that includes this: C's inline function, C++'s too. */
static inline int look_inline(void)
{
	int bad = 0;

	bad += differ(xp_static_branch_unlikely(&common_false), xp_static_key_enabled(&common_false));
	bad += differ(xp_static_branch_likely(&common_true), xp_static_key_enabled(&common_true));
	bad += CALL(common_call) != QUERY(common_call);
	bad += differ(GATE(gate_plain), xp_gate_available(gate_plain));
	bad += differ(GATE(gate_fault), xp_gate_available(gate_fault));
	return bad;
}

/* The same of what is hidden in the program. */
static inline int look_calls(void)
{
	int bad = 0;

	bad += CALL(call_c) != QUERY(call_c);
	bad += CALL(call_cxx) != QUERY(call_cxx);
	return bad;
}

#ifdef __cplusplus
}
#endif

#endif
