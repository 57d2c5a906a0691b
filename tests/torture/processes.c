// SPDX-License-Identifier: MIT
/*
 * Threads and processes come and go, and shared objects, while one thread patches and another executes.
 *
 * threads   short-lived threads execute sites; the commit meets them being born and dying
 * forks     children find the text as the key says, and switch their own copy; the parent's must not move, which the
 *           executing thread sees at once
 * vforks    children of vfork and posix_spawn run in the parent's memory: without traps
 * plugins   a shared object is loaded and unloaded: its sites must agree with keys switched before, and be left alone
 *           afterwards
 */
#define XP_SITES_KEY sites_key
#include "xp_sites.h"

#include "plugin.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

XP_DEFINE_STATIC_KEY_SHARED_FALSE(steady_key);
XP_DEFINE_STATIC_KEY_SHARED_FALSE(busy_key);

/* A thread beside the run that does one thing again and again. */
struct storm {
	pthread_t thread;
	bool (*act)(void); /* false: stop, it failed */
	uint64_t acts;
	bool stop;
};

static void *storm(void *argument)
{
	struct storm *self = argument;

	/* Once in any case. */
	while (self->act()) {
		self->acts++;
		if (__atomic_load_n(&self->stop, __ATOMIC_RELAXED))
			break;
	}
	return NULL;
}

static int toggle(void *context, uint64_t *random, struct xp_diag *diag)
{
	int error = xp_sites_toggle(context, random, diag);

	if (error)
		return error;
	return xp_epoch_state(xp_sites_epoch) % 2 ? xp_static_branch_enable(&busy_key)
						  : xp_static_branch_disable(&busy_key);
}

static void run(bool (*act)(void), enum xp_policy policy, enum xp_sync sync)
{
	bool traps = policy == XP_POLICY_BREAKPOINT;
	struct xp_torture torture = {
		.execute = xp_sites_execute,
		.patch = toggle,
		.nr_threads = 1,
		.traps = traps ? XP_TRAPS_SOME : XP_TRAPS_NONE,
	};
	struct storm self = {.act = act};

	if (!xp_torture_set(policy, XP_WRITER_AUTO, sync))
		return;
	REQUIRE_EQ(pthread_create(&self.thread, NULL, storm, &self), 0);
	xp_torture_run(&torture);
	__atomic_store_n(&self.stop, true, __ATOMIC_RELAXED);
	pthread_join(self.thread, NULL);
	XP_TEST_NOTE("meanwhile %llu times", (unsigned long long)self.acts);
	CHECK(self.acts > 0);
	xp_sites_check_right();
}

/* ---- threads ---- */

static void *live_shortly(void *unused)
{
	(void)xp_sites_execute(unused, NULL);
	return NULL;
}

static bool make_threads(void)
{
	pthread_t threads[4];
	unsigned nr = 0;

	while (nr < 4 && pthread_create(&threads[nr], NULL, live_shortly, NULL) == 0)
		nr++;
	CHECK_EQ(nr, 4);
	for (unsigned i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	return nr == 4;
}

XP_TEST(threads_auto)
{
	run(make_threads, XP_POLICY_AUTO, XP_SYNC_MEMBARRIER);
}

XP_TEST(threads_auto_signal)
{
	run(make_threads, XP_POLICY_AUTO, XP_SYNC_SIGNAL);
}

XP_TEST(threads_breakpoint)
{
	run(make_threads, XP_POLICY_BREAKPOINT, XP_SYNC_MEMBARRIER);
}

XP_TEST(threads_quiesce)
{
	run(make_threads, XP_POLICY_QUIESCE, XP_SYNC_AUTO);
}

/* ---- forks ---- */

enum { CHILD_RIGHT, CHILD_TEXT, CHILD_REFUSED, CHILD_TOGGLE };

static bool all_are(bool on)
{
	for (unsigned i = 0; i < XP_NR_SITES; i++)
		if (xp_sites[i]() != on)
			return false;
	return true;
}

/* One thread, and no other patches: everything is exact. */
static int live_as_child(void)
{
	bool on = xp_static_key_enabled(&sites_key);

	if (!all_are(on))
		return CHILD_TEXT;
	for (unsigned i = 0; i < 4; i++) {
		on = !on;
		if (on ? xp_static_branch_enable(&sites_key) : xp_static_branch_disable(&sites_key))
			return CHILD_REFUSED;
		if (!all_are(on))
			return CHILD_TOGGLE;
	}
	return CHILD_RIGHT;
}

static bool wait_for(pid_t child)
{
	int status = -1;

	if (child < 0 || waitpid(child, &status, 0) != child)
		return false;
	CHECK_EQ(status, 0);
	return status == 0;
}

static bool make_child(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(live_as_child());
	return wait_for(child);
}

XP_TEST(forks_auto)
{
	run(make_child, XP_POLICY_AUTO, XP_SYNC_MEMBARRIER);
}

XP_TEST(forks_breakpoint)
{
	run(make_child, XP_POLICY_BREAKPOINT, XP_SYNC_MEMBARRIER);
}

XP_TEST(forks_breakpoint_signal)
{
	run(make_child, XP_POLICY_BREAKPOINT, XP_SYNC_SIGNAL);
}

/* ---- vforks ---- */

static __attribute__((noinline)) bool make_vfork_child(void)
{
	pid_t child = vfork();

	if (child == 0) {
		for (unsigned i = 0; i < 20; i++)
			(void)xp_sites_execute(NULL, NULL);
		_exit(0);
	}
	return wait_for(child);
}

static bool spawn_child(void)
{
	static char name[] = "/bin/true";
	static char *const argv[] = {name, NULL};
	pid_t child = -1;

	CHECK_EQ(posix_spawn(&child, name, NULL, NULL, argv, argv + 1), 0);
	return wait_for(child);
}

XP_TEST(vforks)
{
	run(make_vfork_child, XP_POLICY_AUTO, XP_SYNC_MEMBARRIER);
}

XP_TEST(spawns)
{
	run(spawn_child, XP_POLICY_AUTO, XP_SYNC_MEMBARRIER);
}

/* ---- plugins ---- */

static const char *plugin_path(void)
{
	static char path[PATH_MAX + sizeof("/torture_plugin.so")];
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[len > 0 ? len : 0] = '\0';
	snprintf(path, sizeof(path), "%s/torture_plugin.so", dirname(self));
	return path;
}

static void *find(void *object, const char *name)
{
	void *symbol = dlsym(object, name);

	CHECK(symbol != NULL);
	return symbol;
}

static bool load_plugin(void)
{
	static const char *path;
	static bool on;
	static unsigned loads;
	bool (*steady)(void), (*busy)(void);
	unsigned (*toggle_own)(void);
	void *object;

	if (path == NULL)
		path = plugin_path();
	object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (object == NULL) {
		XP_TEST_NOTE("%s", dlerror());
		CHECK(object != NULL);
		return false;
	}
	*(void **)&steady = find(object, "plugin_steady");
	*(void **)&busy = find(object, "plugin_busy");
	*(void **)&toggle_own = find(object, "plugin_toggle");
	if (steady == NULL || busy == NULL || toggle_own == NULL)
		return false;
	CHECK_EQ(xp_module_error(), 0);
	/* The key was switched before the object was there; then while it is. */
	CHECK_EQ(steady(), on);
	on = !on;
	CHECK_EQ(on ? xp_static_branch_enable(&steady_key) : xp_static_branch_disable(&steady_key), 0);
	CHECK_EQ(steady(), on);
	for (unsigned i = 0; i < 200; i++)
		(void)busy();
	CHECK_EQ(toggle_own(), 0);
	CHECK_EQ(dlclose(object), 0);
	CHECK(dlopen(path, RTLD_NOW | RTLD_NOLOAD) == NULL);
	/* And while it is away: every third time, so that it comes back in either state. */
	if (++loads % 3 == 0) {
		on = !on;
		CHECK_EQ(on ? xp_static_branch_enable(&steady_key) : xp_static_branch_disable(&steady_key), 0);
	}
	return true;
}

XP_TEST(plugins_auto)
{
	run(load_plugin, XP_POLICY_AUTO, XP_SYNC_MEMBARRIER);
}

XP_TEST(plugins_breakpoint)
{
	run(load_plugin, XP_POLICY_BREAKPOINT, XP_SYNC_MEMBARRIER);
}

XP_TORTURE_MAIN()
