/* SPDX-License-Identifier: MIT */
/*
 * Static switches, or N-way keys: a choice among 2 to 256 that costs one jump while it does not change, and a commit
 * when it does.
 *
 *	XP_DEFINE_STATIC_SWITCH(format, 3, 0);
 *
 *	switch (xp_static_switch(&format)) {         // one jmp, to the chosen block
 *	case 0: …
 *	case 1: …
 *	case 2: …
 *	}
 *	…
 *	xp_static_switch_set(&format, 2);            // from any thread, while others run
 *
 * A switch is a file-scope object, hidden as static keys are: visible in its own executable or shared object, through
 * XP_DECLARE_STATIC_SWITCH in a header; `static XP_DEFINE_STATIC_SWITCH(name, n, init);` confines it to its file. One
 * that several objects share is declared by XP_DECLARE_STATIC_SWITCH_SHARED.
 */
#ifndef XP_STATIC_SWITCH_H
#define XP_STATIC_SWITCH_H

#include <crosspatch/error.h>
#include <crosspatch/site.h>
#include <crosspatch/static_key.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XP_SWITCH_MAX 256 /* choices */

/* What the library sees of a switch. All fields are the library's. */
struct xp_static_switch {
	struct xp_object object;
	uint32_t choice; /* stored once the text says so */
	uint32_t nr;     /* of choices */

#ifdef __cplusplus
	constexpr xp_static_switch(struct xp_object *real_, const char *name_, const char *file_, uint32_t line_,
				   uint32_t choice_, uint32_t nr_)
	    : object{XP__OBJECT(real_, name_, file_, line_)}, choice(choice_), nr(nr_)
	{
	}
#endif
} __attribute__((may_alias, aligned(8))); /* as keys */

/* Functions behind the macros below; they take the struct xp_static_switch itself. */
struct xp_batch;
int xp__static_switch_set(struct xp_static_switch *key, int choice);
int xp__batch_add_switch(struct xp_batch *batch, struct xp_static_switch *key, int choice);

/* always_inline: sites of GCC's hold it, and a function that calls another one saves registers for it. */
static inline __attribute__((always_inline)) int xp__static_switch_choice(const struct xp_static_switch *key)
{
	if (key->object.real)
		key = (const struct xp_static_switch *)key->object.real;
	/* ordering: (N2) pairs with (N1) */
	return XP__SAW((int)__atomic_load_n(&key->choice, __ATOMIC_ACQUIRE), &key->object);
}

#ifdef __cplusplus
}

/* The number of choices is part of the type, for the sites. */
template <unsigned nr_> struct xp_static_switch_of {
	struct xp_static_switch key;
	constexpr xp_static_switch_of(const struct xp_static_switch &key_) : key(key_) {}
};
template <unsigned nr_> char (&xp__switch_nr(const struct xp_static_switch_of<nr_> *))[nr_];

#define XP__SWITCH_DECLARATOR(name, n) XP__STRUCT xp_static_switch_of<(n)> name
#define XP__SWITCH_OBJECT(real, name, n, choice)                                                                       \
	xp_static_switch_of<(n)>(xp_static_switch{real, name, __FILE__, __LINE__, choice, n})
#define XP__SWITCH_NR(x) sizeof(xp__switch_nr(x))
#define XP__SWITCH_KEY(x) (&(x)->key)
#define XP__SWITCH_SHARED(name) &xp_shared_switch_##name.key.object
#else
/*
 * The same in C, where arrays are the only types that hold a number, and a structure cannot be declared twice: words
 * of type pointer to char[n], struct xp_static_switch to the library.
 */
#define XP__SWITCH_DECLARATOR(name, n)                                                                                 \
	char(*name[sizeof(struct xp_static_switch) / sizeof(void *)])[n] __attribute__((aligned(8)))
#if UINTPTR_MAX > UINT32_MAX
#define XP__SWITCH_WORDS(n, low, high) (char(*)[n])((uintptr_t)(low) | (uintptr_t)(high) << 32)
#else
#define XP__SWITCH_WORDS(n, low, high) (char(*)[n])(low), (char(*)[n])(high)
#endif
#define XP__SWITCH_OBJECT(real, name, n, choice)                                                                       \
	{                                                                                                              \
		(char(*)[n])(real), (char(*)[n])(name), (char(*)[n])__FILE__, XP__SWITCH_WORDS(n, __LINE__, 0), NULL,  \
			NULL, XP__SWITCH_WORDS(n, choice, n)                                                           \
	}
#define XP__SWITCH_NR(x) sizeof(***(x))
#define XP__SWITCH_KEY(x) ((struct xp_static_switch *)(x))
#define XP__SWITCH_SHARED(name) &xp_shared_switch_##name
#endif

/* A choice that is known to the compiler is checked by it. */
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wgcc-compat"
static inline int xp__switch_checked(int choice, int nr)
	__attribute__((diagnose_if(choice < 0 || choice >= nr, "the static switch has no such choice", "error")))
{
	(void)nr;
	return choice;
}
#pragma clang diagnostic pop
#define XP__SWITCH_CHECKED(x, i) xp__switch_checked(i, XP__SWITCH_NR(x))
#else
int xp__switch_beyond(void) __attribute__((error("the static switch has no such choice")));
#define XP__SWITCH_CHECKED(x, i)                                                                                       \
	(__builtin_constant_p(i) && ((int)(i) < 0 || (int)(i) >= (int)XP__SWITCH_NR(x)) ? xp__switch_beyond() : (i))
#endif

/*
 * XP_DEFINE_STATIC_SWITCH(name, n, init) - a switch of @n choices, 2 to XP_SWITCH_MAX, that starts with choice @init;
 * at file scope, `static` may stand before it. Both are constants.
 * XP_DECLARE_STATIC_SWITCH(name, n) - for a header. Another @n than the definition's is found when a choice is set:
 * -XP_E_CORRUPT.
 */
#define XP__SWITCH_ASSERT(n, init)                                                                                     \
	XP__ASSERT((n) >= 2 && (n) <= XP_SWITCH_MAX, "a static switch has 2 to 256 choices");                          \
	XP__ASSERT((init) >= 0 && (init) < (n), "the static switch has no such choice")
#define XP_DEFINE_STATIC_SWITCH(name, n, init)                                                                         \
	XP__HIDDEN_FIRST XP__SWITCH_DECLARATOR(name, n) = XP__SWITCH_OBJECT(NULL, #name, n, init);                     \
	XP__HIDDEN_AFTER(XP__SWITCH_DECLARATOR(name, n));                                                              \
	XP__SWITCH_ASSERT(n, init)
#define XP_DECLARE_STATIC_SWITCH(name, n)                                                                              \
	extern XP__SWITCH_DECLARATOR(name, n) XP__HIDDEN;                                                              \
	XP__SWITCH_ASSERT(n, 0)

#ifdef __cplusplus
/* For a static member of a class: see XP_DEFINE_STATIC_KEY_MEMBER_FALSE. */
#define XP_DECLARE_STATIC_SWITCH_MEMBER(name, n)                                                                       \
	static XP__SWITCH_DECLARATOR(name, n) XP__HIDDEN;                                                              \
	XP__SWITCH_ASSERT(n, 0)
#define XP_DEFINE_STATIC_SWITCH_MEMBER(name, n, init)                                                                  \
	XP__SWITCH_DECLARATOR(name, n) = XP__SWITCH_OBJECT(NULL, #name, n, init);                                      \
	XP__SWITCH_ASSERT(n, init)
#endif

/*
 * A switch that several executables and shared objects of a process share; see XP_DECLARE_STATIC_KEY_SHARED_TRUE. The
 * DEFINE stands in one object, after the DECLARE, and exports the symbol xp_shared_switch_<name>.
 */
#define XP_DECLARE_STATIC_SWITCH_SHARED(name, n)                                                                       \
	extern XP__SWITCH_DECLARATOR(xp_shared_switch_##name, n);                                                      \
	extern XP__SWITCH_DECLARATOR(name, n);                                                                         \
	__attribute__((weak, visibility("hidden"))) XP__SWITCH_DECLARATOR(name, n) =                                   \
		XP__SWITCH_OBJECT(XP__SWITCH_SHARED(name), #name, n, 0);                                               \
	XP__SWITCH_ASSERT(n, 0)
#define XP_DEFINE_STATIC_SWITCH_SHARED(name, n, init)                                                                  \
	__attribute__((visibility("default"))) XP__SWITCH_DECLARATOR(xp_shared_switch_##name, n) =                     \
		XP__SWITCH_OBJECT(NULL, #name, n, init);                                                               \
	XP__SWITCH_ASSERT(n, init)

/*
 * xp_static_switch_set(&name, i) - makes choice @i, an int. Doing what is done already succeeds without a commit.
 *
 * Context: thread; may wait for another commit. From a signal handler, unless that interrupted a commit of the same
 * thread (-XP_E_REENTRANT).
 * Ordering: on return of 0 no processor executes another choice; a thread that learns of the return (acquire load,
 * lock, join) executes this one. While it runs, every execution is the choice before or this one, never a third.
 * Errors: -EINVAL if there is no such choice, for a constant when it is compiled; -XP_E_CORRUPT if a site was compiled
 * with another number of choices; those of xp_text_poke(). Switch and text are as before.
 * Progress: waits for the text lock and for the syncs.
 */
#define xp_static_switch_set(x, i) xp__static_switch_set(XP__SWITCH_KEY(x), XP__SWITCH_CHECKED(x, i))

/*
 * xp_batch_add_switch(batch, &name, i) - adds "this switch to choice @i" to a batch.
 * Context: thread. Ordering: none. Errors: -EINVAL, -ENOMEM; the batch is as before. Progress: may wait for the text lock.
 */
#define xp_batch_add_switch(batch, x, i) xp__batch_add_switch(batch, XP__SWITCH_KEY(x), XP__SWITCH_CHECKED(x, i))

/*
 * xp_static_switch_choice(&name) - the choice, by a plain load.
 * Context: any. Ordering: acquire: every site already executes the choice that is returned, or a later one. If an
 * asynchronous commit made it (xp_batch_commit_async()), that holds when the ticket is done. Errors:
 * none. Progress: wait-free.
 */
#define xp_static_switch_choice(x) xp__static_switch_choice(XP__SWITCH_KEY(x))

/*
 * xp_static_switch(&name) - the choice itself: an int, of which the compiler knows the possible values, so that a
 * switch statement on it becomes the one jump from -O1 on. &name is a constant address.
 * Context: any, signal handlers included. Unless each change is one store (xp_set_writer(XP_WRITER_MPROTECT) under
 * policy auto) or made under quiesce, not where SIGTRAP is blocked.
 * Ordering: none; it is not a memory access. Errors: none. Progress: wait-free.
 * Before its executable or shared object is registered, by a constructor of priority 100, it is choice 0 whatever @init: in
 * IFUNC resolvers, .preinit_array and constructors of priority below 100.
 * Cost: one 5-byte jump, up to 4 bytes of padding before it, 20 bytes of record and 4 for each choice. With GCC and more
 * than 24 choices, where the compiler has put code of its own between the groups of 24 (it may when it unrolls loops; it does
 * for -fprofile-arcs and -fsanitize-coverage), for the choices from 24 on: that jump, a load with acquire and the switch
 * statement as if on any other int.
 * With XP_NO_PATCHING defined, or in C XP_NO_ASM_GOTO (static_key.h), a load.
 */
#if defined(XP_NO_PATCHING) || (defined(XP_NO_ASM_GOTO) && !defined(__cplusplus))
#define xp_static_switch(x) xp_static_switch_choice(x)
#else
#include <crosspatch/arch.h>
#define xp_static_switch(x) XP__SAW(XP__SWITCH(XP__SWITCH_KEY(x), XP__SWITCH_NR(x)), &XP__SWITCH_KEY(x)->object)
#endif

#endif
