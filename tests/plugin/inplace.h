/* SPDX-License-Identifier: MIT */
/*
 * A static call and its callers. caller.c is compiled several times, each with its own prefix: with the plugin, without,
 * annotated, and as C++.
 */
#ifndef INPLACE_H
#define INPLACE_H

#include <crosspatch/crosspatch.h>

#ifdef __cplusplus
extern "C" {
#endif

int add_one(int x);
int add_two(int x);

/* The same call as an ordinary function, known to the plugin by its attribute. */
#if defined(__has_attribute)
#if __has_attribute(xp_static_call)
int change(int x) __attribute__((xp_static_call));
#define HAS_CHANGE
#endif
#endif
#ifndef HAS_CHANGE
int change(int x) __attribute__((visibility("hidden")));
#endif

#define CALLERS(prefix)                                                                                                \
	int prefix##_calls(int x);                                                                                     \
	int prefix##_ordinary(int x);                                                                                  \
	int prefix##_tail(int x);                                                                                      \
	int prefix##_many(int x)
CALLERS(plugin);
CALLERS(plugincc);
CALLERS(plain);
CALLERS(annotated);

#ifdef __cplusplus
}
#endif
XP_DECLARE_STATIC_CALL(change, add_one);

#endif
