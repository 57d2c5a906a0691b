// SPDX-License-Identifier: MIT
/*
 * What comes before main and after it: constructors that execute sites and destructors that make changes find them
 * registered; a shared object that is closed is forgotten; a peer that asks from outside while the program starts waits.
 */
#include <stdbool.h>

static int early_choice, early_value;
static bool early_changed;
static bool look_early(void);

/* The first that a program may have, and of this file the first. */
__attribute__((constructor(101))) static void early(void)
{
	early_changed = look_early();
}

#include "xp_child.h"

#include <crosspatch/crosspatch.h>
#include <dlfcn.h>
#include <libgen.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

XP_DEFINE_STATIC_KEY_FALSE(lifetime_key);
XP_DEFINE_STATIC_SWITCH(lifetime_switch, 3, 2);
XP_DEFINE_IMV(int, lifetime_value, 77);
XP_DECLARE_GATE(int, lifetime_gate, (int));

static __attribute__((noinline)) bool is_on(void)
{
	return xp_static_branch_unlikely(&lifetime_key);
}

static __attribute__((noinline)) int choose(void)
{
	switch (xp_static_switch(&lifetime_switch)) {
	case 0:
		return 10;
	case 1:
		return 11;
	default:
		return 12;
	}
}

static __attribute__((noinline)) int call_gate(int x)
{
	return xp_gate(lifetime_gate)(x);
}

static int provider(int x)
{
	return x + 1;
}

/* On and off again, and each is so. */
static bool changes(void)
{
	bool good = xp_static_branch_enable(&lifetime_key) == 0 && is_on();

	return xp_static_branch_disable(&lifetime_key) == 0 && !is_on() && good;
}

static bool look_early(void)
{
	early_choice = choose();
	early_value = xp_imv_read(lifetime_value);
	return changes();
}

XP_TEST(before_main_all_is_as_it_was_defined)
{
	CHECK_EQ(early_choice, 12);
	CHECK_EQ(early_value, 77);
	CHECK(early_changed);
}

/* ---- after main ---- */

static void *plugin;
static int (*plugin_set)(int (*target)(int));
static int (*plugin_call)(int x);

static bool load(void)
{
	char path[PATH_MAX + 32] = {0};

	if (readlink("/proc/self/exe", path, PATH_MAX) < 0)
		return false;
	plugin = dlopen(strcat(dirname(path), "/regression_caller.so"), RTLD_NOW);
	if (plugin) {
		plugin_set = (int (*)(int (*)(int)))(uintptr_t)dlsym(plugin, "caller_set");
		plugin_call = (int (*)(int))(uintptr_t)dlsym(plugin, "caller_call");
	}
	return plugin != NULL;
}

static bool (*at_the_end)(void);

#pragma GCC diagnostic push
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wprio-ctor-dtor"
#endif
/* Later than the module's. */
__attribute__((destructor(50))) static void end(void)
{
	if (at_the_end)
		_exit(at_the_end() ? 0 : 1);
}

/* Earlier than the module's, but not than those of the shared library. */
__attribute__((constructor(50))) static void begin(void)
{
	struct timespec late = {0, 400000000};

	if (getenv("XP_LATE"))
		nanosleep(&late, NULL);
}
#pragma GCC diagnostic pop

static void exits(bool (*prepare)(void), bool (*check)(void))
{
	int status = -1;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		alarm(XP_CHILD_SECONDS);
		if (!prepare())
			_exit(2);
		at_the_end = check;
		exit(3);
	}
	waitpid(child, &status, 0);
	CHECK_EQ(status, 0);
}

static bool provide(void)
{
	return xp_gate_provide("lifetime_gate", provider) == 0 && xp_static_branch_enable(&lifetime_key) == 0;
}

static bool still_provided(void)
{
	return call_gate(1) == 2 && is_on() && xp_static_branch_disable(&lifetime_key) == 0 && changes() &&
	       xp_gate_withdraw("lifetime_gate") == 0 && call_gate(1) == 0;
}

XP_TEST(destructors_find_all_as_it_was)
{
	exits(provide, still_provided);
}

static bool load_and_set(void)
{
	return load() && plugin_set(provider) == 0 && plugin_call(5) == 6;
}

static int another(int x)
{
	return x + 2;
}

static bool plugin_acts(void)
{
	return plugin_call(5) == 6 && plugin_set(another) == 0 && plugin_call(5) == 7 && changes();
}

XP_TEST(what_was_loaded_later_is_kept_at_the_end)
{
	exits(load_and_set, plugin_acts);
}

static void close_plugin(void)
{
	(void)dlclose(plugin);
}

/* Registered before the plugin was there, so it runs after the library's: the plugin stays. */
static bool close_at_exit(void)
{
	return atexit(close_plugin) == 0 && load_and_set();
}

XP_TEST(what_a_handler_of_exit_closes_late)
{
	exits(close_at_exit, changes);
}

/* It runs before the library's: the plugin goes, and is forgotten. */
static bool close_first(void)
{
	return load_and_set() && atexit(close_plugin) == 0;
}

static bool is_gone_and_forgotten(void)
{
	return dlopen("regression_caller.so", RTLD_NOLOAD | RTLD_NOW) == NULL && changes();
}

XP_TEST(what_a_handler_of_exit_closes)
{
	exits(close_first, is_gone_and_forgotten);
}

static bool close_now(void)
{
	if (!load_and_set() || dlclose(plugin))
		return false;
	/* In the place of it there may be anything: nothing is written there. */
	return load_and_set() && changes() && dlclose(plugin) == 0;
}

XP_TEST(what_is_closed_is_forgotten)
{
	exits(close_now, changes);
}

static void quickly(void)
{
	CHECK(load_and_set());
	quick_exit(xp_test_state.failures != 0);
}

XP_TEST(quick_exit_runs_none_of_it)
{
	xp_child(quickly);
}

/* ---- asked while the program starts ---- */

static char path[64];

static void serve_late(void)
{
	setenv("XP_LATE", "1", 1);
	setenv("CROSSPATCH_CONTROL", path, 1);
}

XP_CHILD_PROGRAM(late)
{
	struct timespec while_asked = {2, 0};

	nanosleep(&while_asked, NULL);
}

/* Asks as soon as a socket listens. */
static size_t ask(char *answer, size_t size)
{
	static const char request[] = "crosspatch 1 list\n";
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	struct timespec moment = {0, 1000000};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t len = 0;
	ssize_t got = 1;

	strcpy(name.sun_path, path);
	for (int i = 0; i < 5000 && connect(fd, (const struct sockaddr *)&name, sizeof(name)); i++)
		nanosleep(&moment, NULL);
	if (write(fd, request, sizeof(request) - 1) < 0)
		got = 0;
	while (got > 0 && len + 1 < size) {
		got = read(fd, answer + len, size - len - 1);
		len += got > 0 ? (size_t)got : 0;
	}
	answer[len] = '\0';
	close(fd);
	return len;
}

XP_TEST(who_asks_early_waits)
{
	static char answer[1 << 16];
	int status = -1;
	pid_t child;

	snprintf(path, sizeof(path), "/tmp/xp-lifetime-%d", (int)getpid());
	fflush(stdout);
	child = fork();
	if (child == 0) {
		setenv("XP_CHILD", "late", 1);
		serve_late();
		execl("/proc/self/exe", "/proc/self/exe", (char *)NULL);
		_exit(127);
	}
	CHECK(ask(answer, sizeof(answer)) > 0);
	CHECK(strstr(answer, "name=lifetime_key") != NULL);
	CHECK(strstr(answer, "name=lifetime_switch") != NULL);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	unlink(path);
}

XP_CHILD_MAIN()
