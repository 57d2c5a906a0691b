/* SPDX-License-Identifier: MIT */
/* Three static calls, declared as a header of theirs would do it, but for the types of the objects. */
#ifndef CALLS_H
#define CALLS_H

#define HIDDEN __attribute__((visibility("hidden")))
#ifdef __clang__
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noipa))
#endif
#ifdef __cplusplus
extern "C" {
#endif

extern int xp_trampoline_one(int) HIDDEN;
extern void *xp_trampoline_two(void *, const char *, ...) HIDDEN;
/* A trampoline that could be another object's: none of this one's, and never a site. */
extern int xp_trampoline_elsewhere(int);
/* By attribute, if the plugin is there. */
#if defined(__has_attribute)
#if __has_attribute(xp_static_call)
#define BY_ATTRIBUTE(args) __attribute__((xp_static_call args))
#endif
#endif
#ifndef BY_ATTRIBUTE
#define BY_ATTRIBUTE(args) HIDDEN
#endif
extern int three(int) BY_ATTRIBUTE();
extern int renamed(int) BY_ATTRIBUTE(("four"));
extern int ordinary(int);

#ifdef __cplusplus
}
#endif
#endif
