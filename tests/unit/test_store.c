/* SPDX-License-Identifier: MIT */
/*
 * The store of a quadword, executed step by step: after every instruction the quadword is the old one or the new one,
 * whole. No second processor is needed, and no luck: two stores show between them.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arch/x86/cpuid.h"
#include "arch/x86/store.h"
#include "xp_test.h"

#include <signal.h>

enum { TRAP_FLAG = 0x100, NEVER = -1 };

static struct {
	uint64_t before, text, behind;
} area __attribute__((aligned(8)));

static uint64_t old_text, new_text;
static unsigned steps, seen_old, seen_new, torn;
static int meddle_at = NEVER; /* the step at which another byte of the quadword changes */
static unsigned meddle_byte;

static void on_step(int signal)
{
	uint64_t now = area.text;

	(void)signal;
	if (steps == (unsigned)meddle_at) {
		((uint8_t *)&area.text)[meddle_byte] ^= 0xff;
		((uint8_t *)&old_text)[meddle_byte] ^= 0xff;
		((uint8_t *)&new_text)[meddle_byte] ^= 0xff;
		now = area.text;
	}
	steps++;
	seen_old += now == old_text;
	seen_new += now == new_text;
	torn += now != old_text && now != new_text;
}

static inline __attribute__((always_inline)) void set_trap_flag(bool on)
{
#ifdef __x86_64__
	__builtin_ia32_writeeflags_u64((__builtin_ia32_readeflags_u64() & ~(uint64_t)TRAP_FLAG) | (on ? TRAP_FLAG : 0));
#else
	__builtin_ia32_writeeflags_u32((__builtin_ia32_readeflags_u32() & ~(unsigned)TRAP_FLAG) | (on ? TRAP_FLAG : 0));
#endif
}

/* @len bytes at @offset of the quadword, watched. */
static void store_watched(unsigned offset, unsigned len)
{
	static const uint8_t bytes[8] = {0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87};
	struct sigaction act = {.sa_handler = on_step}, before;

	area.before = area.behind = 0x5555555555555555;
	area.text = old_text = new_text = 0x0807060504030201;
	memcpy((uint8_t *)&new_text + offset, bytes, len);
	steps = seen_old = seen_new = torn = 0;
	CHECK_EQ(sigaction(SIGTRAP, &act, &before), 0);
	set_trap_flag(true);
	xp__store_single((uint8_t *)&area.text + offset, bytes, len);
	set_trap_flag(false);
	sigaction(SIGTRAP, &before, NULL);
	CHECK_EQ(area.text, new_text);
	CHECK(area.before == 0x5555555555555555 && area.behind == 0x5555555555555555);
	CHECK_EQ(torn, 0);
	CHECK(seen_old > 0 && seen_new > 0);
}

XP_TEST(never_in_halves)
{
	CHECK(xp__can_store_single());
	for (unsigned offset = 0; offset < 8; offset++)
		for (unsigned len = 1; offset + len <= 8; len++)
			store_watched(offset, len);
	XP_TEST_NOTE("%u instructions at last", steps);
}

#ifndef __x86_64__

/* What a debugger puts into the quadword meanwhile stays there, at whatever instruction it does so. */
XP_TEST(others_bytes_stay)
{
	meddle_byte = 1;
	store_watched(3, 4);
	for (int last = (int)steps; meddle_at < last; meddle_at++)
		store_watched(3, 4);
	meddle_at = NEVER;
}

XP_TEST(a_processor_without)
{
	uint8_t known = xp__cmpxchg8b;

	xp__cmpxchg8b = XP__FEATURE_ABSENT;
	CHECK(!xp__can_store_single());
	xp__cmpxchg8b = XP__FEATURE_UNTRIED;
	CHECK_EQ(xp__can_store_single(), (xp__cpuid_edx(1) >> 8 & 1) != 0);
	xp__cmpxchg8b = known;
}

#endif

/* Asked twice, it says the same; a leaf that there is not says nothing. */
XP_TEST(cpuid)
{
	CHECK(xp__has_cpuid());
	CHECK(xp__cpuid_edx(1) & 1 << 4); /* the time-stamp counter */
	CHECK_EQ(xp__cpuid_edx(0x7fffffff), 0);
}

XP_TEST_MAIN()
