/* SPDX-License-Identifier: MIT */
/*
 * One key, XP_SITES_KEY, with a site at each of the 64 offsets of a cache line and four that cross a page boundary.
 * Even sites are as of xp_static_branch_unlikely(), odd ones as of _likely(). Included once in a program.
 */
#ifndef XP_SITES_H
#define XP_SITES_H

#include "xp_torture.h"

#include <crosspatch/static_key.h>

XP_DEFINE_STATIC_KEY_FALSE(XP_SITES_KEY);

/*
 * The site stands @offset bytes after a multiple of @align. As the macros of static_key.h, with the position inside
 * the same asm: at -O0 the compiler would put a store between two.
 */
#define XP_SITES_ONE(align, offset)                                                                                    \
	static __attribute__((noinline)) bool xp_site_##align##_##offset(void)                                         \
	{                                                                                                              \
		__asm__ goto("jmp 771f\n\t"                                                                            \
			     ".balign " #align "\n\t"                                                                  \
			     ".skip " #align " + %c[xp__skip]\n"                                                       \
			     "771:\n\t" XP__BRANCH_SITE("%l[xp__jump]")                                                \
			     :                                                                                         \
			     : [xp__key] XP__ADDRESS(&XP_SITES_KEY.key),                                               \
			       [xp__opcode] "i"((offset)&1 ? XP__OPCODE_JMP : XP__OPCODE_TEST),                        \
			       [xp__flags] "i"((offset)&1 ? XP_SITE_LIKELY : 0), [xp__skip] "i"(offset)                \
			     : "cc"                                                                                    \
			     : xp__jump);                                                                              \
		return (offset)&1;                                                                                     \
xp__jump:                                                                                                              \
		return !((offset)&1);                                                                                  \
	}

/* Offsets in octal: each row one digit. */
#define XP_SITES_ROW(X, row)                                                                                           \
	X(64, 0##row##0)                                                                                               \
	X(64, 0##row##1)                                                                                               \
	X(64, 0##row##2)                                                                                               \
	X(64, 0##row##3)                                                                                               \
	X(64, 0##row##4)                                                                                               \
	X(64, 0##row##5)                                                                                               \
	X(64, 0##row##6)                                                                                               \
	X(64, 0##row##7)
#define XP_SITES_ALL(X)                                                                                                \
	XP_SITES_ROW(X, 0)                                                                                             \
	XP_SITES_ROW(X, 1)                                                                                             \
	XP_SITES_ROW(X, 2)                                                                                             \
	XP_SITES_ROW(X, 3)                                                                                             \
	XP_SITES_ROW(X, 4)                                                                                             \
	XP_SITES_ROW(X, 5)                                                                                             \
	XP_SITES_ROW(X, 6)                                                                                             \
	XP_SITES_ROW(X, 7)                                                                                             \
	X(4096, 4092)                                                                                                  \
	X(4096, 4093)                                                                                                  \
	X(4096, 4094)                                                                                                  \
	X(4096, 4095)

XP_SITES_ALL(XP_SITES_ONE)

#define XP_SITES_NAME(align, offset) xp_site_##align##_##offset,
static bool (*const xp_sites[])(void) = {XP_SITES_ALL(XP_SITES_NAME)};
#define XP_NR_SITES (sizeof(xp_sites) / sizeof(xp_sites[0]))

/* Each commit of the key is one epoch; the key is on in the odd states. */
static uint32_t xp_sites_epoch;

/* All sites once. The number executed. Context: any, signal handlers included: what it finds wrong it counts. */
static unsigned xp_sites_wrong;

static inline uint64_t xp_sites_execute(void *context, uint64_t *random)
{
	(void)context;
	(void)random;
	for (unsigned i = 0; i < XP_NR_SITES; i++) {
		uint32_t before = xp_epoch_read(&xp_sites_epoch);
		bool on = xp_sites[i]();
		uint32_t after = xp_epoch_read(&xp_sites_epoch);

		if (!xp_epoch_allows(before, after, 2, on))
			__atomic_add_fetch(&xp_sites_wrong, 1, __ATOMIC_RELAXED);
	}
	return XP_NR_SITES;
}

static inline int xp_sites_toggle(void *context, uint64_t *random, struct xp_diag *diag)
{
	bool on = xp_epoch_state(xp_sites_epoch) % 2 == 0;
	int error;

	(void)context;
	(void)random;
	(void)diag;
	xp_epoch_begin(&xp_sites_epoch);
	error = on ? xp_static_branch_enable(&XP_SITES_KEY) : xp_static_branch_disable(&XP_SITES_KEY);
	if (!error)
		xp_epoch_end(&xp_sites_epoch);
	return error;
}

/* From the records: is every offset there, and a page crossed? */
static inline void xp_sites_check_cover(void)
{
	bool offset[64] = {false};
	unsigned crossing = 0, missing = 0;

	for (const struct xp_branch_site *site = __start_xp_branch_sites; site < __stop_xp_branch_sites; site++) {
		uintptr_t code = (uintptr_t)&site->code + (uintptr_t)(intptr_t)site->code;
		uintptr_t key = (uintptr_t)&site->key + (uintptr_t)(intptr_t)site->key;

		if ((key & ~(uintptr_t)XP_SITE_FLAGS) != (uintptr_t)&XP_SITES_KEY)
			continue;
		offset[code % 64] = true;
		crossing += code / 4096 != (code + 4) / 4096;
	}
	for (unsigned i = 0; i < 64; i++)
		missing += !offset[i];
	CHECK_EQ(missing, 0);
	CHECK(crossing >= 4);
}

static inline void xp_sites_check_right(void)
{
	CHECK_EQ(__atomic_load_n(&xp_sites_wrong, __ATOMIC_RELAXED), 0);
}

#endif
