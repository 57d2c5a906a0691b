// SPDX-License-Identifier: MIT
/*
 * Unwinding through functions whose entry and return are traced, and through redirected ones: exceptions, backtraces, threads
 * that end in the middle. What a `leave` put in the place of a return address is in the way of each.
 */
#include "xp_entries.h"
#include "xp_test.h"

#include <execinfo.h>
#include <pthread.h>
#include <stdexcept>

extern "C" {
int thrower(int depth);
int passes(int depth);
int looks(int depth);
int other(int depth);
int thrower_body(int depth);
int passes_body(int depth);
int looks_body(int depth);
int other_body(int depth);
}

XP_ENTRY(thrower);
XP_ENTRY(passes);
XP_ENTRY(looks);
XP_ENTRY(other);

static __thread unsigned destroyed;
static unsigned entered, left;
static void *addresses[64];
static int nr_addresses;

struct object {
	~object()
	{
		destroyed++;
	}
};

int thrower_body(int depth)
{
	object o;

	if (depth == 0)
		throw std::runtime_error("from below");
	return passes(depth - 1) + 1;
}

int passes_body(int depth)
{
	object o;

	if (depth == 0)
		throw std::runtime_error("from below");
	return thrower(depth - 1) + 1;
}

int looks_body(int depth)
{
	if (depth > 0)
		return looks(depth - 1) + 1;
	nr_addresses = backtrace(addresses, 64);
	return 0;
}

int other_body(int depth)
{
	object o;

	throw depth;
}

static void on_entry(const struct xp_function_call *, void *)
{
	__atomic_add_fetch(&entered, 1, __ATOMIC_RELAXED);
}

static void on_leave(const struct xp_function_call *, void *)
{
	__atomic_add_fetch(&left, 1, __ATOMIC_RELAXED);
}

static const struct xp_function_handler both = {on_entry, on_leave, 0};
static const struct xp_function_handler entry_only = {on_entry, nullptr, 0};

static bool catches(int depth)
{
	try {
		thrower(depth);
	} catch (const std::runtime_error &error) {
		return strcmp(error.what(), "from below") == 0;
	}
	return false;
}

static void throw_and_catch(const struct xp_function_handler *handler)
{
	struct xp_function_stats before, after;

	entered = left = destroyed = 0;
	REQUIRE_EQ(xp_function_trace_matching("*", handler, NULL, NULL), 5);
	xp_function_stats_read(&before);
	for (int depth = 0; depth < 300; depth++) {
		destroyed = 0;
		CHECK(catches(depth));
		CHECK_EQ(destroyed, depth + 1);
	}
	CHECK_EQ(entered, 300 * 301 / 2);
	CHECK_EQ(left, 0);
	CHECK_EQ(looks(5), 5);
	CHECK_EQ(left, handler->leave ? 6 : 0);
	/* That an exception passed them was noticed. */
	xp_function_stats_read(&after);
	CHECK_EQ(after.missed_returns, before.missed_returns);
	CHECK_EQ(after.abandoned - before.abandoned, handler->leave ? 300 * 301 / 2 - 1 : 0);
	CHECK_EQ(after.awaited, 0);
	REQUIRE_EQ(xp_function_untrace_matching("*", handler, NULL, NULL), 5);
	CHECK(catches(7));
}

XP_TEST(exceptions_through_entries)
{
	throw_and_catch(&entry_only);
}

XP_TEST(exceptions_through_returns)
{
	throw_and_catch(&both);
}

XP_TEST(exceptions_of_a_replacement)
{
	int caught = 0;

	REQUIRE_EQ(xp_function_redirect(thrower, other), 0);
	for (int traced = 0; traced < 2; traced++) {
		if (traced)
			REQUIRE_EQ(xp_function_trace_matching("*", &both, NULL, NULL), 5);
		destroyed = 0;
		try {
			passes(3);
		} catch (int depth) {
			caught += depth;
		}
		CHECK_EQ(destroyed, 2);
	}
	CHECK_EQ(caught, 4);
	REQUIRE_EQ(xp_function_untrace_matching("*", &both, NULL, NULL), 5);
	REQUIRE_EQ(xp_function_restore(thrower), 0);
}

__attribute__((noinline)) static int call_looks()
{
	return looks(6) + 1;
}

/* Each call of looks is in the backtrace, with one place to return to behind it, and then the same callers as without. */
XP_TEST(backtraces_pass)
{
	void *plain[64];
	int nr_plain = 0, nr_below = 0;

	for (volatile int traced = 0; traced < 2; traced = traced + 1) {
		if (traced)
			REQUIRE_EQ(xp_function_trace(looks, &both, NULL), 0);
		CHECK_EQ(call_looks(), 7);
		if (!traced) {
			nr_plain = nr_addresses;
			memcpy(plain, addresses, sizeof(plain));
		}
	}
	REQUIRE_EQ(xp_function_untrace(looks, &both, NULL), 0);
	REQUIRE_EQ(nr_addresses, nr_plain + 7);
	while (nr_below < nr_plain && plain[nr_plain - 1 - nr_below] == addresses[nr_addresses - 1 - nr_below])
		nr_below++;
	/* The seven calls of looks are where they were, with those between; call_looks and what is below are the same. */
	CHECK_EQ(nr_below, nr_plain - 7);
}

static void *ends(void *)
{
	struct object o;

	(void)looks(3);
	try {
		passes(5);
	} catch (const std::runtime_error &) {
		pthread_exit(&destroyed);
	}
	return nullptr;
}

extern "C" int exits(int);
extern "C" int exits_body(int);
XP_ENTRY(exits);
int exits_body(int depth)
{
	object o;

	if (depth)
		return exits(depth - 1) + 1;
	pthread_exit(&destroyed);
}

static void *leaves(void *)
{
	struct object o;

	return exits(10) ? nullptr : &destroyed;
}

/* glibc unwinds the thread by force, through every frame. */
XP_TEST(threads_that_end_in_the_middle)
{
	pthread_t thread;
	void *value;

	REQUIRE_EQ(xp_function_trace_matching("*", &both, NULL, NULL), 5);
	for (int i = 0; i < 100; i++) {
		REQUIRE_EQ(pthread_create(&thread, NULL, i & 1 ? ends : leaves, NULL), 0);
		REQUIRE_EQ(pthread_join(thread, &value), 0);
		CHECK(value != NULL);
	}
	REQUIRE_EQ(xp_function_untrace_matching("*", &both, NULL, NULL), 5);
}

XP_TEST_MAIN()
