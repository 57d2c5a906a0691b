// SPDX-License-Identifier: MIT
/*
 * A program whose plugin provides what it calls: loaded while a thread calls, taken away again, and loaded once more. The
 * call costs what a direct call costs while the plugin is there.
 *
 *	cc -O2 host.c $(pkg-config --cflags --libs crosspatch) -lpthread -o host
 *	cc -O2 -shared -fPIC plugin.c $(pkg-config --cflags --libs crosspatch) -o plugin.so
 *	./host ./plugin.so
 */
#include "gates.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

static int shorter_by_nothing(int size)
{
	return size;
}

XP_DECLARE_GATE_FALLBACK(int, compress, (int size), shorter_by_nothing);

static unsigned long rounds; /* of the worker: between two of them it is in no call */
static int result;
static int stop;

static void *work(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		__atomic_store_n(&result, xp_gate(compress)(1000), __ATOMIC_RELAXED);
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* Every call that began before this one has returned. */
static void wait_for_calls(void)
{
	unsigned long before = __atomic_load_n(&rounds, __ATOMIC_ACQUIRE);

	while (__atomic_load_n(&rounds, __ATOMIC_ACQUIRE) < before + 2)
		sched_yield();
}

/* What the plugin calls. */
static void count_log(const char *text)
{
	printf("plugin: %s\n", text);
}

static int visit(const char *path)
{
	void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* its constructor provides */
	int (*leave)(void);
	int size;

	if (plugin == NULL) {
		fprintf(stderr, "%s\n", dlerror());
		return -1;
	}
	wait_for_calls();
	size = __atomic_load_n(&result, __ATOMIC_RELAXED);
	printf("with the plugin: %d\n", size);
	if (!xp_gate_available(compress) || size != 500)
		return -1;

	/* Withdrawn, then a wait for calls that were on their way, then closed: in this order. */
	*(void **)&leave = dlsym(plugin, "leave");
	if (leave == NULL || leave() != 0)
		return -1;
	wait_for_calls();
	dlclose(plugin);
	wait_for_calls();
	size = __atomic_load_n(&result, __ATOMIC_RELAXED);
	printf("without: %d\n", size);
	return xp_gate_available(compress) || size != 1000 ? -1 : 0;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int error;

	if (argc != 2) {
		fprintf(stderr, "usage: host PLUGIN\n");
		return 2;
	}
	if (xp_gate_provide("report", count_log) || pthread_create(&thread, NULL, work, NULL))
		return 1;
	error = visit(argv[1]);
	if (!error)
		error = visit(argv[1]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	return error ? 1 : 0;
}
