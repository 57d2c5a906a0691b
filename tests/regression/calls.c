// SPDX-License-Identifier: MIT
/*
 * A call that meets the breakpoint of a commit is a real call: it returns behind the site, and a caller that unwinds from the
 * function that is called finds the caller. The committing thread itself calls, at every point of the commit.
 * And a target stays mapped while a call goes there, even if its shared object is closed.
 */
#include "xp_calls.h"
#include "xp_test.h"

#include "core/inject.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#ifndef XP_INJECT
#error "this program is linked with a library built with XP_INJECT"
#endif

enum { MAX_FRAMES = 16 };

static void *frames[MAX_FRAMES];
static int nr_frames;

static __attribute__((noinline)) int unwind(int which)
{
	nr_frames = backtrace(frames, MAX_FRAMES);
	return which;
}

static int first(int x)
{
	return unwind(x + 1);
}

static int second(int x)
{
	return unwind(x + 2);
}

XP_DEFINE_STATIC_CALL(call, first);
XP_CALL_SITES(sites, call);
XP_CALL_SITES_TAIL(tails, call);

static bool in_frames(uintptr_t address)
{
	for (int i = 0; i < nr_frames; i++)
		if ((uintptr_t)frames[i] == address)
			return true;
	return false;
}

static int calls;

/* Noinline, and something to do afterwards: it has a frame, which must be found. */
static __attribute__((noinline)) int call_by(uintptr_t site)
{
	int which = ((int (*)(int))site)(100) - 100;

	__asm__ volatile("" : "+r"(which));
	calls++;
	return which;
}

static uintptr_t here(void)
{
	return (uintptr_t)call_by;
}

static bool found_caller(void)
{
	for (int i = 0; i < nr_frames; i++)
		if ((uintptr_t)frames[i] - here() < 128)
			return true;
	return false;
}

static void call_all(void)
{
	for (unsigned i = 0; i < XP_NR_CALL_SITES; i++) {
		int which = call_by(xp_call_site(sites, i));

		CHECK(which == 1 || which == 2);
		CHECK(in_frames(xp_call_site_return(sites, i)));
		CHECK(found_caller());
		which = call_by(xp_call_site(tails, i));
		CHECK(which == 1 || which == 2);
		CHECK(found_caller());
	}
	CHECK(xp_static_call(call)(100) - 100 <= 2);
}

static void at_point(enum xp__point point)
{
	xp__inject = NULL; /* the handler passes points too */
	if (point <= XP__POINT_RETIRED)
		call_all();
	xp__inject = at_point;
}

static void update(int (*target)(int), int which)
{
	struct xp_stats before, after;
	int traps_before;

	xp_stats_read(&before);
	traps_before = (int)before.traps;
	calls = 0;
	xp__inject = at_point;
	CHECK_EQ(xp_static_call_update(call, target), 0);
	xp__inject = NULL;
	xp_stats_read(&after);
	CHECK(calls > 0);
	XP_TEST_NOTE("%d calls, %d traps", calls, (int)after.traps - traps_before);
	CHECK(after.traps > before.traps);
	for (unsigned i = 0; i < XP_NR_CALL_SITES; i++)
		CHECK_EQ(call_by(xp_call_site(sites, i)), which);
}

XP_TEST(unwinding_in_mid_commit)
{
	void *warm[1];

	(void)backtrace(warm, 1); /* it loads a library the first time */
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	update(second, 2);
	update(first, 1);
}

/* ---- a target in a shared object that its owner closes ---- */

static const char *path(const char *name)
{
	static char path[PATH_MAX + 64];
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[len > 0 ? len : 0] = '\0';
	snprintf(path, sizeof(path), "%s/%s", dirname(self), name);
	return path;
}

static bool is_mapped(const char *name)
{
	void *object = dlopen(path(name), RTLD_NOW | RTLD_NOLOAD);

	if (object)
		CHECK_EQ(dlclose(object), 0);
	return object != NULL;
}

static int (*load(void **object))(int)
{
	int (*provider)(int) = NULL;

	*object = dlopen(path("regression_provider.so"), RTLD_NOW | RTLD_LOCAL);
	if (*object)
		*(void **)&provider = dlsym(*object, "provider");
	CHECK(provider != NULL);
	return provider;
}

XP_TEST(a_target_is_not_closed)
{
	void *object;
	int (*provider)(int) = load(&object);

	REQUIRE(provider != NULL);
	CHECK_EQ(xp_static_call_update(call, provider), 0);
	CHECK_EQ(xp_static_call(call)(2), 42);
	CHECK_EQ(dlclose(object), 0);
	CHECK(is_mapped("regression_provider.so"));
	CHECK_EQ(xp_static_call(call)(2), 42);
	CHECK_EQ(call_by(xp_call_site(sites, 3)), 40);
	CHECK_EQ(xp_static_call_update(call, provider), 0); /* again: one reference is enough */
	CHECK_EQ(xp_static_call(call)(2), 42);
	CHECK_EQ(xp_static_call_update(call, NULL), 0);
	CHECK(!is_mapped("regression_provider.so"));
	CHECK_EQ(xp_static_call_update(call, first), 0);
}

XP_TEST(a_batch_keeps_its_targets)
{
	struct xp_batch *batch = xp_batch_new();
	void *object;
	int (*provider)(int) = load(&object);

	REQUIRE(batch != NULL && provider != NULL);
	CHECK_EQ(xp_batch_add_call(batch, call, provider), 0);
	CHECK_EQ(dlclose(object), 0);
	CHECK(is_mapped("regression_provider.so"));
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	CHECK_EQ(xp_static_call(call)(2), 42);
	CHECK_EQ(xp_batch_add_call(batch, call, provider), 0);
	CHECK_EQ(xp_batch_add_call(batch, call, first), 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	CHECK(!is_mapped("regression_provider.so"));

	provider = load(&object);
	REQUIRE(provider != NULL);
	CHECK_EQ(xp_batch_add_call(batch, call, provider), 0);
	CHECK_EQ(dlclose(object), 0);
	xp_batch_free(batch); /* never committed */
	CHECK(!is_mapped("regression_provider.so"));
	CHECK(xp_static_call_query(call) == first);
}

XP_TEST(a_failed_update_keeps_the_old_target)
{
	void *object;
	int (*provider)(int) = load(&object);
	sigset_t trap, before;

	REQUIRE(provider != NULL);
	CHECK_EQ(xp_static_call_update(call, provider), 0);
	CHECK_EQ(dlclose(object), 0);
	sigemptyset(&trap);
	sigaddset(&trap, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &trap, &before);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_static_call_update(call, first), -EBUSY);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	CHECK(is_mapped("regression_provider.so"));
	CHECK_EQ(xp_static_call(call)(2), 42);
	CHECK_EQ(xp_static_call_update(call, first), 0);
	CHECK(!is_mapped("regression_provider.so"));
}

XP_DECLARE_GATE(int, provided, (int x));

XP_TEST(a_gates_provider_is_not_closed)
{
	void *object;
	int (*provider)(int) = load(&object);
	struct xp_batch *batch = xp_batch_new();

	REQUIRE(provider != NULL && batch != NULL);
	CHECK_EQ(xp_gate_provide("provided", provider), 0);
	CHECK_EQ(xp_gate(provided)(2), 42);
	CHECK_EQ(dlclose(object), 0);
	CHECK(is_mapped("regression_provider.so"));
	CHECK_EQ(xp_gate(provided)(2), 42);
	CHECK_EQ(xp_gate_withdraw("provided"), 0);
	CHECK(!is_mapped("regression_provider.so"));
	CHECK_EQ(xp_gate(provided)(2), 0);

	provider = load(&object);
	REQUIRE(provider != NULL);
	CHECK_EQ(xp_batch_add_gate(batch, "provided", provider), 0);
	CHECK_EQ(dlclose(object), 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	CHECK_EQ(xp_gate(provided)(2), 42);
	CHECK_EQ(xp_batch_add_gate(batch, "provided", NULL), 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	CHECK(!is_mapped("regression_provider.so"));
	xp_batch_free(batch);
}

/* A plugin with a call of its own, that goes elsewhere: closed, it lets go. And one into itself does not keep it. */
XP_TEST(who_calls_may_be_closed)
{
	void *object, *caller;
	int (*provider)(int) = load(&object);
	int (*set)(int (*)(int)), (*caller_call)(int), (*own)(int);

	caller = dlopen(path("regression_caller.so"), RTLD_NOW | RTLD_LOCAL);
	REQUIRE(provider != NULL && caller != NULL);
	*(void **)&set = dlsym(caller, "caller_set");
	*(void **)&caller_call = dlsym(caller, "caller_call");
	*(void **)&own = dlsym(caller, "caller_own");
	REQUIRE(set && caller_call && own);
	CHECK_EQ(set(own), 0);
	CHECK_EQ(caller_call(1), 8);
	CHECK_EQ(dlclose(caller), 0);
	CHECK(!is_mapped("regression_caller.so"));

	caller = dlopen(path("regression_caller.so"), RTLD_NOW | RTLD_LOCAL);
	REQUIRE(caller != NULL);
	*(void **)&set = dlsym(caller, "caller_set");
	*(void **)&caller_call = dlsym(caller, "caller_call");
	CHECK_EQ(set(provider), 0);
	CHECK_EQ(caller_call(1), 41);
	CHECK_EQ(dlclose(object), 0);
	CHECK(is_mapped("regression_provider.so"));
	CHECK_EQ(dlclose(caller), 0);
	CHECK(!is_mapped("regression_caller.so"));
	CHECK(!is_mapped("regression_provider.so"));
}

XP_TEST_MAIN()
