/* SPDX-License-Identifier: MIT */
/*
 * Static keys: a condition that costs one instruction while it does not change, and a commit when it does.
 *
 *	XP_DEFINE_STATIC_KEY_FALSE(tracing);
 *
 *	if (xp_static_branch_unlikely(&tracing))
 *		trace();                             // out of line; disabled: one test, no load, no compare
 *	…
 *	xp_static_branch_enable(&tracing);           // from any thread, while others run
 *
 * What is emitted at first, and what a site holds later:
 *
 *	                  xp_static_branch_likely      xp_static_branch_unlikely
 *	key TRUE          test (block in line)         jmp  (block out of line)
 *	key FALSE         jmp  (block in line)         test (block out of line)
 *
 *	enabled  likely   instruction                  dynamic: instruction = enabled != likely ? jmp : test
 *	   0        0     test
 *	   0        1     jmp
 *	   1        0     jmp
 *	   1        1     test
 *
 * A key is a file-scope object. It is hidden: visible in its own executable or shared object, through
 * XP_DECLARE_STATIC_KEY_… in a header; `static XP_DEFINE_STATIC_KEY_FALSE(name);` confines it to its file. A key that
 * several objects share is a shared key, see XP_DEFINE_STATIC_KEY_SHARED_….
 *
 * Every xp_static_branch_ function:
 * Context: thread; may wait for another commit. From a signal handler, unless that interrupted a commit of the same
 * thread (-XP_E_REENTRANT).
 * Ordering: on return of 0 no processor executes the old state; a thread that learns of the return (acquire load, lock,
 * join) executes the new one. Of two callers that enable at once, neither returns before the text is changed.
 * Errors: those of xp_text_poke(), and as named; that of xp_module_register() while a module that has sites of the key
 * could not be registered. Key and text are as before.
 * Progress: waits for the text lock and for the syncs; inc above zero and dec above one are lock-free as long as every
 * module is registered and the engine is not wedged.
 */
#ifndef XP_STATIC_KEY_H
#define XP_STATIC_KEY_H

#include <crosspatch/error.h>
#include <crosspatch/site.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The state of a key. All fields are the library's. */
struct xp_static_key {
	struct xp_object object;
	int32_t count; /* 0 off, > 0 on; stored with release once the text says so */

#ifdef __cplusplus
	constexpr xp_static_key(struct xp_object *real_, const char *name_, const char *file_, uint32_t line_,
				int32_t count_)
	    : object{XP__OBJECT(real_, name_, file_, line_)}, count(count_)
	{
	}
#endif
} __attribute__((aligned(8))); /* room for the flags of a record, whatever the size of a pointer */

/* The two types differ in what the compiler emits, told by the size of a member that takes no room. */
struct xp_static_key_true {
	union {
		struct xp_static_key key;
		char xp__initially[2];
	};
#ifdef __cplusplus
	constexpr xp_static_key_true() : key(nullptr, "[]", nullptr, 0, 1) {}
	constexpr xp_static_key_true(const struct xp_static_key &k) : key(k) {}
#endif
};

struct xp_static_key_false {
	union {
		struct xp_static_key key;
		char xp__initially[1];
	};
#ifdef __cplusplus
	constexpr xp_static_key_false() : key(nullptr, "[]", nullptr, 0, 0) {}
	constexpr xp_static_key_false(const struct xp_static_key &k) : key(k) {}
#endif
};

/* A key whose last decrement waits, so that one used in short bursts does not cost two commits per burst. */
struct xp__deferred {
	struct xp_static_key *key; /* set while a decrement is pending */
	struct xp__deferred *next;
	uint64_t deadline_ms;
	uint32_t delay_ms;
	uint32_t pending;
};

struct xp_static_key_deferred_true {
	struct xp_static_key_true key;
	struct xp__deferred deferred;
};

struct xp_static_key_deferred_false {
	struct xp_static_key_false key;
	struct xp__deferred deferred;
};

#ifdef __cplusplus
#define XP__KEY(real, name, count)                                                                                     \
	{                                                                                                              \
		xp_static_key(real, name, __FILE__, __LINE__, count)                                                   \
	}
#define XP__ASSERT(condition, text) static_assert(condition, text)
#else
#define XP__KEY(real, name, count)                                                                                     \
	{                                                                                                              \
		{                                                                                                      \
			{                                                                                              \
				{XP__OBJECT(real, name, __FILE__, __LINE__)}, count                                    \
			}                                                                                              \
		}                                                                                                      \
	}
#define XP__ASSERT(condition, text) _Static_assert(condition, text)
#endif

/*
 * Hidden, so that position-independent code may name the key in an asm operand. GCC takes the attribute from a later
 * declaration too, and so leaves room for `static` before the macro, where it ignores the attribute; clang wants it
 * in the definition.
 */
#define XP__HIDDEN __attribute__((visibility("hidden")))
#ifdef __clang__
#define XP__HIDDEN_FIRST XP__HIDDEN
#define XP__HIDDEN_AFTER(declaration) XP__ASSERT(1, "")
#else
#define XP__HIDDEN_FIRST
#define XP__HIDDEN_AFTER(declaration)                                                                                  \
	_Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wattributes\"") _Pragma(                     \
		"GCC diagnostic ignored \"-Wredundant-decls\"") extern declaration XP__HIDDEN; /* static storage */    \
	_Pragma("GCC diagnostic pop") XP__ASSERT(1, "")
#endif

/*
 * XP_DEFINE_STATIC_KEY_{TRUE,FALSE}(name) - a key, on or off at start; at file scope, `static` may stand before it.
 * XP_DECLARE_STATIC_KEY_{TRUE,FALSE}(name) - for a header.
 */
#define XP_DEFINE_STATIC_KEY_TRUE(name)                                                                                \
	XP__HIDDEN_FIRST XP__STRUCT xp_static_key_true name = XP__KEY(NULL, #name, 1);                                 \
	XP__HIDDEN_AFTER(XP__STRUCT xp_static_key_true name)
#define XP_DEFINE_STATIC_KEY_FALSE(name)                                                                               \
	XP__HIDDEN_FIRST XP__STRUCT xp_static_key_false name = XP__KEY(NULL, #name, 0);                                \
	XP__HIDDEN_AFTER(XP__STRUCT xp_static_key_false name)
#define XP_DECLARE_STATIC_KEY_TRUE(name) extern XP__STRUCT xp_static_key_true name XP__HIDDEN
#define XP_DECLARE_STATIC_KEY_FALSE(name) extern XP__STRUCT xp_static_key_false name XP__HIDDEN

#ifdef __cplusplus
/*
 * The same for a static member of a class: the DECLARE stands in the class, the DEFINE outside of it and with the class's
 * name: XP_DEFINE_STATIC_KEY_MEMBER_FALSE(Cache::tracing). A site names it &Cache::tracing, or where that is enough &tracing.
 */
#define XP_DECLARE_STATIC_KEY_MEMBER_TRUE(name) static XP__STRUCT xp_static_key_true name XP__HIDDEN
#define XP_DECLARE_STATIC_KEY_MEMBER_FALSE(name) static XP__STRUCT xp_static_key_false name XP__HIDDEN
#define XP_DEFINE_STATIC_KEY_MEMBER_TRUE(name) XP__STRUCT xp_static_key_true name = XP__KEY(NULL, #name, 1)
#define XP_DEFINE_STATIC_KEY_MEMBER_FALSE(name) XP__STRUCT xp_static_key_false name = XP__KEY(NULL, #name, 0)
#endif

/*
 * XP_{DEFINE,DECLARE}_STATIC_KEY_ARRAY_{TRUE,FALSE}(name, n) - n keys; a site names &name[constant]. All are called @name; in C++,
 * whose arrays take no such initializer, "[]".
 */
#ifdef __cplusplus
#define XP__DEFINE_ARRAY(type, name, n, count)                                                                         \
	XP__HIDDEN_FIRST XP__STRUCT type name[n];                                                                      \
	XP__HIDDEN_AFTER(XP__STRUCT type name[n])
#else
#define XP__DEFINE_ARRAY(type, name, n, count)                                                                         \
	XP__HIDDEN_FIRST XP__STRUCT type name[n] = {[0 ...(n) - 1] = XP__KEY(NULL, #name, count)};                     \
	XP__HIDDEN_AFTER(XP__STRUCT type name[n])
#endif
#define XP_DEFINE_STATIC_KEY_ARRAY_TRUE(name, n) XP__DEFINE_ARRAY(xp_static_key_true, name, n, 1)
#define XP_DEFINE_STATIC_KEY_ARRAY_FALSE(name, n) XP__DEFINE_ARRAY(xp_static_key_false, name, n, 0)
#define XP_DECLARE_STATIC_KEY_ARRAY_TRUE(name, n) extern XP__STRUCT xp_static_key_true name[n] XP__HIDDEN
#define XP_DECLARE_STATIC_KEY_ARRAY_FALSE(name, n) extern XP__STRUCT xp_static_key_false name[n] XP__HIDDEN

/*
 * A key that several executables and shared objects of a process share. The DECLARE goes into the common header; each
 * object that includes it keeps a hidden handle called name, through which its sites find the one key. The DEFINE
 * stands in one object, after the DECLARE, and exports the symbol xp_shared_key_<name>.
 */
#define XP__DECLARE_SHARED(type, name)                                                                                 \
	extern XP__STRUCT xp_static_key xp_shared_key_##name;                                                          \
	extern XP__STRUCT type name;                                                                                   \
	XP__STRUCT type name __attribute__((weak, visibility("hidden"))) =                                             \
		XP__KEY(&xp_shared_key_##name.object, #name, 0)
#ifdef __cplusplus
#define XP__DEFINE_SHARED(name, count)                                                                                 \
	__attribute__((visibility("default")))                                                                         \
	XP__STRUCT xp_static_key xp_shared_key_##name(NULL, #name, __FILE__, __LINE__, count)
#else
#define XP__DEFINE_SHARED(name, count)                                                                                 \
	__attribute__((visibility("default")))                                                                         \
	XP__STRUCT xp_static_key xp_shared_key_##name = {{XP__OBJECT(NULL, #name, __FILE__, __LINE__)}, count}
#endif
#define XP_DECLARE_STATIC_KEY_SHARED_TRUE(name) XP__DECLARE_SHARED(xp_static_key_true, name)
#define XP_DECLARE_STATIC_KEY_SHARED_FALSE(name) XP__DECLARE_SHARED(xp_static_key_false, name)
#define XP_DEFINE_STATIC_KEY_SHARED_TRUE(name) XP__DEFINE_SHARED(name, 1)
#define XP_DEFINE_STATIC_KEY_SHARED_FALSE(name) XP__DEFINE_SHARED(name, 0)

/* XP_{DEFINE,DECLARE}_STATIC_KEY_DEFERRED_{TRUE,FALSE}(name, ms) - sites and the functions above take &name.key. */
#define XP_DEFINE_STATIC_KEY_DEFERRED_TRUE(name, ms)                                                                   \
	XP__HIDDEN_FIRST XP__STRUCT xp_static_key_deferred_true name = {XP__KEY(NULL, #name, 1),                       \
									{NULL, NULL, 0, ms, 0}};                       \
	XP__HIDDEN_AFTER(XP__STRUCT xp_static_key_deferred_true name)
#define XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(name, ms)                                                                  \
	XP__HIDDEN_FIRST XP__STRUCT xp_static_key_deferred_false name = {XP__KEY(NULL, #name, 0),                      \
									 {NULL, NULL, 0, ms, 0}};                      \
	XP__HIDDEN_AFTER(XP__STRUCT xp_static_key_deferred_false name)
#define XP_DECLARE_STATIC_KEY_DEFERRED_TRUE(name) extern XP__STRUCT xp_static_key_deferred_true name XP__HIDDEN
#define XP_DECLARE_STATIC_KEY_DEFERRED_FALSE(name) extern XP__STRUCT xp_static_key_deferred_false name XP__HIDDEN

/* Functions behind the macros below; they take the struct xp_static_key itself. */
int xp_static_key_enable(struct xp_static_key *key);
int xp_static_key_disable(struct xp_static_key *key);
int xp_static_key_inc(struct xp_static_key *key);
int xp_static_key_dec(struct xp_static_key *key);
int xp__static_key_dec_deferred(struct xp_static_key *key, struct xp__deferred *deferred);
int xp__static_key_deferred_flush(struct xp__deferred *deferred);
int xp__static_key_rate_limit(struct xp__deferred *deferred, uint32_t delay_ms);

/*
 * xp_static_branch_enable / _disable(&name) - on / off. Doing what is done already succeeds without a commit, if
 * the text of every site says so: it is looked at.
 * Errors beyond the above: -XP_E_COUNTED while the key is on through xp_static_branch_inc(): the two ways to use a
 * key do not mix.
 */
#define xp_static_branch_enable(x) xp_static_key_enable(&(x)->key)
#define xp_static_branch_disable(x) xp_static_key_disable(&(x)->key)

/*
 * xp_static_branch_enable_async / _disable_async(&name, &ticket) - the same without the wait for other processors: the ticket says
 * when all execute the new state. Ordering, Progress: as xp_batch_commit_async(). xp_static_key_enabled() says at once that it is
 * off, and that it is on when the ticket is done. Any other change of the key, an enable too, returns 0 only when it is so everywhere.
 * Errors beyond the above: -XP_E_NEEDS_SYNC under policies breakpoint and quiesce; -EINVAL for no ticket.
 */
struct xp_ticket;
int xp_static_key_set_async(struct xp_static_key *key, bool on, struct xp_ticket *ticket);
#define xp_static_branch_enable_async(x, ticket) xp_static_key_set_async(&(x)->key, true, ticket)
#define xp_static_branch_disable_async(x, ticket) xp_static_key_set_async(&(x)->key, false, ticket)

/*
 * xp_static_branch_inc / _dec(&name) - counted: on from the first inc to the last dec. A key that starts TRUE, or was
 * enabled, counts as one.
 * Errors beyond the above: -XP_E_OVERFLOW at INT32_MAX, -XP_E_UNDERFLOW at zero.
 */
#define xp_static_branch_inc(x) xp_static_key_inc(&(x)->key)
#define xp_static_branch_dec(x) xp_static_key_dec(&(x)->key)

/*
 * xp_static_branch_deferred_inc(&name), xp_static_branch_slow_dec_deferred(&name) - for deferred keys: the decrement
 * that would switch the key off happens after its delay, in the port's own thread; an inc meanwhile makes it harmless.
 * xp_static_key_deferred_flush(&name) - carries out a pending decrement now. A shared object must call it before it is
 * closed. xp_jump_label_rate_limit(&name, ms) - changes the delay, for later decrements.
 * Context, Ordering, Progress: as above. That thread is made by the first decrement that waits, unless a signal handler asks
 * for it, where no thread can be made: without the thread a decrement happens at once.
 * Errors: as dec; a delayed one that fails is tried again after the delay.
 */
#define xp_static_branch_deferred_inc(x) xp_static_key_inc(&(x)->key.key)
#define xp_static_branch_slow_dec_deferred(x) xp__static_key_dec_deferred(&(x)->key.key, &(x)->deferred)
#define xp_static_key_deferred_flush(x) xp__static_key_deferred_flush(&(x)->deferred)
#define xp_jump_label_rate_limit(x, ms) xp__static_key_rate_limit(&(x)->deferred, ms)

/*
 * xp_batch_add_key - adds "this key on" or "off" to a batch; @key is &name.key.
 * Context: thread. Ordering: none. Errors: -EINVAL, -ENOMEM; the batch is as before. Progress: may wait for the text lock.
 */
struct xp_batch;
int xp_batch_add_key(struct xp_batch *batch, struct xp_static_key *key, bool on);

/*
 * xp_static_key_count / xp_static_key_enabled(&name) - the count, and whether it is above zero, by a plain load.
 * Context: any. Ordering: acquire: true means that every site already executes the enabled state, unless another program
 * wrote there since: see xp_repair(). Errors: none.
 * Progress: wait-free.
 */
static inline int xp__static_key_count(const struct xp_static_key *key)
{
	if (key->object.real)
		key = (const struct xp_static_key *)key->object.real;
	/* ordering: (K2) pairs with (K1) */
	return XP__SAW(__atomic_load_n(&key->count, __ATOMIC_ACQUIRE), &key->object);
}

#define xp_static_key_count(x) xp__static_key_count(&(x)->key)
#define xp_static_key_enabled(x) (xp__static_key_count(&(x)->key) > 0)

/*
 * xp_static_branch_likely / _unlikely(&name) - the condition itself: a bool. &name is a constant address: a key, an
 * element of an array with a constant index, the .key of a deferred key.
 * Context: any, signal handlers included; under a policy that uses breakpoints, not where SIGTRAP is blocked.
 * Ordering: none; it is not a memory access. Errors: none. Progress: wait-free.
 * Cost: one 5-byte instruction and 12 bytes of record.
 * With XP_NO_PATCHING defined, a load and a branch: what an unsupported architecture, else an #error, is left with.
 * With XP_NO_ASM_GOTO defined before this is included, in C, three instructions more, and a static switch is a load. That is
 * for clang before version 17, which otherwise refuses sites on both sides of the beginning or the end of the scope of a
 * variable with a cleanup, or of an array of variable length: "cannot jump from this asm goto statement".
 */
#if defined(XP_NO_PATCHING)
#define xp_static_branch_likely(x) __builtin_expect(xp_static_key_enabled(x), 1)
#define xp_static_branch_unlikely(x) __builtin_expect(xp_static_key_enabled(x), 0)
#else
#include <crosspatch/arch.h>
#define XP__INITIALLY(x) (sizeof((x)->xp__initially) == 2)
/*
 * GCC leaves the code behind a site in order if it takes it for executed less than one time in five, and spills what lives
 * across calls there to the stack, for which the whole function makes room, if it takes it for less than one in six.
 */
#if defined(__clang__)
#define XP__EXPECT(condition, value) __builtin_expect(condition, value)
#else
#define XP__EXPECT(condition, value) __builtin_expect_with_probability(condition, value, 0.81F)
#endif
#define xp_static_branch_likely(x)                                                                                     \
	XP__EXPECT(!XP__SAW(XP__BRANCH(&(x)->key, XP__INITIALLY(x) ? XP__OPCODE_TEST : XP__OPCODE_JMP,                 \
				       XP_SITE_LIKELY | (XP__INITIALLY(x) ? XP_SITE_TRUE : 0)),                        \
			    &(x)->key.object),                                                                         \
		   1)
#define xp_static_branch_unlikely(x)                                                                                   \
	XP__EXPECT(XP__SAW(XP__BRANCH(&(x)->key, XP__INITIALLY(x) ? XP__OPCODE_JMP : XP__OPCODE_TEST,                  \
				      XP__INITIALLY(x) ? XP_SITE_TRUE : 0),                                            \
			   &(x)->key.object),                                                                          \
		   0)
#endif

#ifdef __cplusplus
}
#endif

#endif
