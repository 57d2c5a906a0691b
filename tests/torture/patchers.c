// SPDX-License-Identifier: MIT
/*
 * Several threads patch at once (S11), the same sites and different ones; each of them executes what it patched.
 *
 * counted   keys shared by all, by inc and dec: a thread that holds a count must find the key on from the moment inc returned,
 *           also if another thread's inc is the one that patches
 * own       a key per thread, by enable and disable: exactly what the thread said last
 *           (once by itself, with a wait before the first store: were the count there before the text, it would be
 *           seen)
 * raw       one site for all: each expects what it read, exactly one of those that expect the same succeeds
 */
#include "xp_delays.h"
#include "xp_text.h"
#include "xp_torture.h"

#include <crosspatch/static_key.h>

enum { NR_PATCHERS = 3, NR_SHARED = 2 };

XP_DEFINE_STATIC_KEY_FALSE(shared_0);
XP_DEFINE_STATIC_KEY_TRUE(shared_1);
XP_DEFINE_STATIC_KEY_FALSE(own_0);
XP_DEFINE_STATIC_KEY_TRUE(own_1);
XP_DEFINE_STATIC_KEY_FALSE(own_2);

#define SITE(key)                                                                                                      \
	static __attribute__((noinline)) bool key##_unlikely(void)                                                     \
	{                                                                                                              \
		return xp_static_branch_unlikely(&key);                                                                \
	}                                                                                                              \
	static __attribute__((noinline)) bool key##_likely(void)                                                       \
	{                                                                                                              \
		return xp_static_branch_likely(&key);                                                                  \
	}
SITE(shared_0)
SITE(shared_1)
SITE(own_0)
SITE(own_1)
SITE(own_2)

struct key {
	struct xp_static_key *key;
	bool (*sites[2])(void);
};

static const struct key shared[NR_SHARED] = {
	{&shared_0.key, {shared_0_unlikely, shared_0_likely}},
	{&shared_1.key, {shared_1_unlikely, shared_1_likely}},
};
static const struct key own[NR_PATCHERS] = {
	{&own_0.key, {own_0_unlikely, own_0_likely}},
	{&own_1.key, {own_1_unlikely, own_1_likely}},
	{&own_2.key, {own_2_unlikely, own_2_likely}},
};

static const uint8_t raw_nop[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static uint8_t raw_jmp[5];
static void *raw_site;

struct patcher {
	pthread_t thread;
	unsigned number;
	uint64_t random;
	uint64_t toggles, executions;
	int held[NR_SHARED];
	bool on; /* its own key */
	bool only_counted;
	int64_t to_jmp, to_nop, lost;
	bool *stop;
};

static void check_on(struct patcher *self, const struct key *key, bool on)
{
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(key->sites[i](), on);
	self->executions += 2;
}

static void counted(struct patcher *self)
{
	unsigned n = (unsigned)xp_test_random(&self->random) % NR_SHARED;
	bool inc = self->held[n] == 0 || (self->held[n] < 3 && xp_test_random(&self->random) & 1);

	CHECK_EQ(inc ? xp_static_key_inc(shared[n].key) : xp_static_key_dec(shared[n].key), 0);
	self->held[n] += inc ? 1 : -1;
	if (self->held[n])
		check_on(self, &shared[n], true);
}

static void owned(struct patcher *self)
{
	const struct key *key = &own[self->number];

	self->on = !self->on;
	CHECK_EQ(self->on ? xp_static_key_enable(key->key) : xp_static_key_disable(key->key), 0);
	check_on(self, key, self->on);
}

static void raw(struct patcher *self)
{
	bool to_jmp = xp_test_random(&self->random) & 1;
	struct xp_poke poke = {
		.addr = raw_site,
		.expect = to_jmp ? raw_nop : raw_jmp,
		.replace = to_jmp ? raw_jmp : raw_nop,
		.len = 5,
	};
	int error = xp_text_poke(&poke, NULL);
	unsigned result = xp_text_call(raw_site, 0, 0);

	CHECK(error == 0 || error == -XP_E_MISMATCH);
	CHECK(result == 1 || result == 2);
	self->executions++;
	*(error ? &self->lost : to_jmp ? &self->to_jmp : &self->to_nop) += 1;
}

static void *patch(void *argument)
{
	static void (*const acts[])(struct patcher *) = {counted, owned, raw};
	struct patcher *self = argument;
	unsigned nr_acts = self->only_counted ? 1 : 3;

	while (!__atomic_load_n(self->stop, __ATOMIC_RELAXED)) {
		acts[xp_test_random(&self->random) % nr_acts](self);
		self->toggles++;
	}
	for (unsigned n = 0; n < NR_SHARED; n++)
		for (; self->held[n] > 0; self->held[n]--)
			CHECK_EQ(xp_static_key_dec(shared[n].key), 0);
	return NULL;
}

/* Patchers wait for each other most of the time; this one only executes. */
static void *execute(void *argument)
{
	struct patcher *self = argument;

	while (!__atomic_load_n(self->stop, __ATOMIC_RELAXED)) {
		unsigned result = xp_text_call(raw_site, 0, 0);

		CHECK(result == 1 || result == 2);
		for (unsigned i = 0; i < NR_SHARED; i++)
			(void)(shared[i].sites[0]() + shared[i].sites[1]());
		for (unsigned i = 0; i < NR_PATCHERS; i++)
			(void)(own[i].sites[0]() + own[i].sites[1]());
		self->executions += 1 + 2 * NR_SHARED + 2 * NR_PATCHERS;
	}
	return NULL;
}

static bool make_raw(struct xp_text *text)
{
	/* +60, so that it crosses a line: nop; mov $1, %eax; ret; … mov $2, %eax; ret */
	static const uint8_t code[] = {0xb8, 1, 0, 0, 0, 0xc3, 0xb8, 2, 0, 0, 0, 0xc3};

	if (!xp_text_alloc(text, 256))
		return false;
	raw_site = text->base + 60;
	memcpy(raw_site, raw_nop, 5);
	memcpy((uint8_t *)raw_site + 5, code, sizeof(code));
	return xp_text_gen_insn(raw_jmp, 0xe9, raw_site, (uint8_t *)raw_site + 11) == 0 && xp_text_seal(text);
}

static void wait_before_text(enum xp__point point)
{
	if (point == XP__POINT_PUBLISHED)
		xp_delay_spin(100000);
	else
		xp_delay_here(point);
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync, bool delays)
{
	struct patcher patchers[NR_PATCHERS] = {0}, bystander = {0};
	uint64_t random = xp_test_seed(), toggles = 0;
	int64_t balance = 0, lost = 0, raw_done = 0;
	struct xp_stats before, now;
	struct xp_text text;
	bool stop = false;

	if (!xp_torture_set(policy, writer, sync))
		return;
	REQUIRE(make_raw(&text));
	/* One starts true: its first count is the program's own. Each case begins as the compiler left it. */
	CHECK_EQ(xp_static_key_count(&shared_0), 0);
	CHECK_EQ(xp_static_key_count(&shared_1), 1);
	CHECK_EQ(xp_static_branch_disable(&shared_1), 0);
	xp_stats_read(&before);
	for (unsigned i = 0; i < NR_PATCHERS; i++) {
		patchers[i].number = i;
		patchers[i].random = xp_test_random(&random);
		patchers[i].on = xp_static_key_enabled(&own_1) && i == 1;
		patchers[i].stop = &stop;
		patchers[i].only_counted = delays;
		CHECK_EQ(i == 1 ? 0 : xp_static_key_disable(own[i].key), 0);
		CHECK_EQ(pthread_create(&patchers[i].thread, NULL, patch, &patchers[i]), 0);
	}
	bystander.stop = &stop;
	CHECK_EQ(pthread_create(&bystander.thread, NULL, execute, &bystander), 0);
	xp__inject = delays ? wait_before_text : NULL;
	xp_torture_pass(xp_torture_seconds);
	/* As in xp_torture_run(). */
	for (unsigned i = 0; i < 9 && policy == XP_POLICY_BREAKPOINT && !xp_torture_trapped(&before); i++)
		xp_torture_pass(xp_torture_seconds);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(bystander.thread, NULL);
	XP_TEST_NOTE("bystander: %llu executions", (unsigned long long)bystander.executions);
	CHECK(bystander.executions > 0);
	for (unsigned i = 0; i < NR_PATCHERS; i++) {
		const struct patcher *p = &patchers[i];

		pthread_join(p->thread, NULL);
		XP_TEST_NOTE("thread %u: %llu toggles, %llu executions", i, (unsigned long long)p->toggles,
			     (unsigned long long)p->executions);
		CHECK(p->toggles > 0 && p->executions > 0);
		toggles += p->toggles;
		balance += p->to_jmp - p->to_nop;
		raw_done += p->to_jmp + p->to_nop;
		lost += p->lost;
	}
	xp__inject = NULL;
	now = xp_torture_report(&before, toggles);
	CHECK(now.commits > 0);
	CHECK(delays || (raw_done > 0 && lost > 0));
	/* No thread patched twice: the site is where the balance of all says. */
	CHECK(balance == 0 || balance == 1);
	CHECK_EQ(xp_text_call(raw_site, 0, 0), balance ? 2 : 1);
	CHECK_EQ(xp_static_key_count(&shared_0), 0);
	CHECK_EQ(xp_static_key_count(&shared_1), 0);
	CHECK_EQ(xp_static_branch_enable(&shared_1), 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	if (policy == XP_POLICY_BREAKPOINT)
		CHECK(now.traps > 0);
	xp_text_free(&text);
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER, false)
XP_TORTURE_CASE(auto_mprotect_signal, AUTO, MPROTECT, SIGNAL, false)
XP_TORTURE_CASE(breakpoint_procmem, BREAKPOINT, PROCMEM, MEMBARRIER, false)
XP_TORTURE_CASE(breakpoint_delays, BREAKPOINT, PROCMEM, MEMBARRIER, true)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER, false)

XP_TORTURE_MAIN()
