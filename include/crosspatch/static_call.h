/* SPDX-License-Identifier: MIT */
/*
 * Static calls: a call through a pointer that may change, compiled as a direct call.
 *
 *	int find_scalar(const char *, int), find_avx2(const char *, int);
 *
 *	XP_DEFINE_STATIC_CALL(find, find_scalar);
 *
 *	n = xp_static_call(find)(text, 'x');         // a direct call; no load, no indirect branch
 *	…
 *	xp_static_call_update(find, find_avx2);      // from any thread, while others call
 *
 * A call has a trampoline in its own executable or shared object, 8 bytes of text that xp_static_call(name) names:
 *
 *	FF 25 disp32 0F 0B      jmp *through(%rip); ud2         at first, and for a target farther than ±2 GiB
 *	E9 disp32 90 0F 0B      jmp target; nop; ud2            after the first update
 *
 * In 32-bit code, where no jmp finds a word without a register, it is the second form always, which at first jumps to code
 * behind it that goes through the word; registration of the executable or shared object makes it direct.
 *
 * Right from the first instruction of the program on, before anything is registered. A call site that has a record
 * (written by a compiler plugin: struct xp_call_site) calls the target itself, wherever the target is in reach and the
 * four bytes of the displacement lie inside one aligned quadword; every other site calls the trampoline.
 *
 * A static call is a file-scope object, hidden: visible in its own executable or shared object through
 * XP_DECLARE_STATIC_CALL in a header. One that several objects share: XP_DEFINE_STATIC_CALL_SHARED.
 */
#ifndef XP_STATIC_CALL_H
#define XP_STATIC_CALL_H

#include <crosspatch/arch.h>
#include <crosspatch/error.h>
#include <crosspatch/site.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Any function, as the library stores it. */
typedef void xp__call_func(void);

/*
 * The state of a call, or of the handle that an executable or shared object keeps for a shared one. All fields are the
 * library's. The trampoline's assembly knows the place of `slot`.
 */
struct xp_static_call {
	struct xp_object object;
	xp__call_func *slot;    /* where the trampoline jumps while it is indirect */
	xp__call_func *func;       /* the target, NULL: none; in a handle: the entry of the shared call */
	xp__call_func *trampoline; /* of this executable or shared object */
	xp__call_func *stub;       /* likewise: returns 0, and is what NULL jumps to */
	xp__call_func *text_target;     /* of text that does not jump through `slot`; NULL: there is none */
	void *pin;                /* keeps the target's shared object mapped */
	xp__call_func *lazy;       /* of a call that is to find its sites: a stub that jumps to the discoverer. Else NULL */
	xp__call_func *discoverer; /* the stub's assembly knows the place */
	struct xp__discovered *discovered;   /* sites without a record */
	uint32_t misses;             /* questions that found none */
} __attribute__((aligned(8))); /* whatever the size of a pointer: XP_SITE_FLAGS */

/* Without trampolines a call is a load and an indirect call. */
#if defined(XP_NO_PATCHING)
#define XP__CALLS_LOAD
#endif

#if __SIZEOF_POINTER__ < 8
#define XP__CALL_SLOT 28
#else
#define XP__CALL_SLOT 48
#endif
#ifdef __cplusplus
#define XP__CALL_ASSERT(condition, text) static_assert(condition, text)
#define XP__CALL_BEGIN extern "C" {
#define XP__CALL_END                                                                                                   \
	}                                                                                                              \
	static_assert(1, "")
#else
#define XP__CALL_ASSERT(condition, text) _Static_assert(condition, text)
#define XP__CALL_BEGIN
#define XP__CALL_END _Static_assert(1, "")
#endif
#if !defined(XP__CALLS_LOAD)
XP__CALL_ASSERT(offsetof(struct xp_static_call, slot) == XP__CALL_SLOT, "the trampolines know it");
#endif

/* The type of the functions that a call may have as target. @in: nothing, or in C++ a namespace or class and ::. */
#define XP__CALL_TYPE_IN(in, name) __typeof__(in xp_trampoline_##name)
#define XP__CALL_TYPE(name) XP__CALL_TYPE_IN(, name)

#ifdef __cplusplus
}
template <typename T, typename U> struct xp__same {
	enum { value = 0 };
};
template <typename T> struct xp__same<T, T> {
	enum { value = 1 };
};
extern "C" {
#define XP__CALL_SAME(a, b) (xp__same<a, b>::value)
/* A function of the call's type, or NULL; overloads are chosen by it. */
#define XP__CALL_FUNC(in, name, function)                                                                              \
	(reinterpret_cast<xp__call_func *>(static_cast<XP__CALL_TYPE_IN(in, name) *>(function)))
#else
#define XP__CALL_SAME(a, b) __builtin_types_compatible_p(a, b)
#define XP__CALL_FUNC(in, name, function)                                                                              \
	__extension__({                                                                                                \
		XP__CALL_ASSERT(XP__CALL_SAME(__typeof__(0 ? (function) : (XP__CALL_TYPE(name) *)0),                   \
					      XP__CALL_TYPE(name) *),                                                  \
				"not a function of the type of this static call");                                      \
		(xp__call_func *)(XP__CALL_TYPE(name) *)(function);                                                     \
	})
#endif

#define XP__CALL_HIDDEN __attribute__((visibility("hidden")))

/* A pointer has no place of its own in the text: only the name of a function says what its type is. */
#define XP__DECLARE_CALL(name, function)                                                                               \
	extern XP__STRUCT xp_static_call xp_call_##name XP__CALL_HIDDEN;                                               \
	extern __typeof__(function) xp_trampoline_##name XP__CALL_HIDDEN;                                              \
	XP__CALL_ASSERT(!XP__CALL_SAME(__typeof__(function), __typeof__(&*(function))),                                \
			"a static call is declared with a function, not with a pointer to one")

#define XP__CALL(real, name, function, trampoline, lazy)                                                               \
	{                                                                                                              \
		{XP__OBJECT(real, #name, __FILE__, __LINE__)}, (function), (function), (trampoline), &xp__call_stub,   \
			NULL, NULL, lazy, NULL, NULL, 0                                                                \
	}

#if defined(XP__CALLS_LOAD)
#ifdef XP__RETURNS_IN_MEMORY
/* A structure would be stored through an argument that was not passed, a real number left on a stack that is not popped. */
static inline long long xp__call_return0(void)
{
	return 0;
}
#else
/* One of each kind of register that a value comes back in. */
struct xp__call_zero {
	intptr_t integer;
	double real;
};
static inline struct xp__call_zero xp__call_return0(void)
{
	struct xp__call_zero zero = {0, 0};

	return zero;
}
#endif
#define xp__call_stub (*(xp__call_func *)xp__call_return0)
#undef XP__TRAMPOLINE
#undef XP__TRAMPOLINE_SHARED
#undef XP__TRAMPOLINE_ENTRY
#define XP__TRAMPOLINE(trampoline, call) XP__CALL_ASSERT(1, "")
#define XP__TRAMPOLINE_SHARED(trampoline, call) XP__CALL_ASSERT(1, "")
#define XP__TRAMPOLINE_ENTRY(entry, trampoline) XP__CALL_ASSERT(1, "")
#define XP__TRAMPOLINE_OF(name) NULL
#define XP__ENTRY_OF(name) NULL
#else
/* Returns 0, whatever it is called as: see XP_DEFINE_STATIC_CALL_RET0. Emitted with the trampolines. */
extern xp__call_func xp__call_stub XP__CALL_HIDDEN;
#define XP__TRAMPOLINE_OF(name) ((xp__call_func *)xp_trampoline_##name)
#define XP__ENTRY_OF(name) (&xp_shared_entry_##name)
#endif

#define XP__DEFINE_CALL(name, function, target)                                                                        \
	XP__CALL_BEGIN                                                                                                 \
	XP__DECLARE_CALL(name, function);                                                                              \
	XP__TRAMPOLINE(xp_trampoline_##name, xp_call_##name);                                                          \
	__attribute__((used)) XP__STRUCT xp_static_call xp_call_##name =                                               \
		XP__CALL(NULL, name, target, XP__TRAMPOLINE_OF(name), NULL);                                           \
	XP__CALL_END

/*
 * XP_DEFINE_STATIC_CALL(name, function) - a call whose target at start, and whose type for ever, is the function's.
 * XP_DEFINE_STATIC_CALL_NULL(name, function) - the same type, no target: calling it does nothing. For functions that
 * return void; call it by xp_static_call_cond().
 * XP_DEFINE_STATIC_CALL_RET0(name, function) - the same type; returns 0: rax, rdx, xmm0 and xmm1 are zero. For functions
 * that return void, integers, pointers, float, double, or structures of these of up to 16 bytes; not for larger
 * structures, long double or wider vectors. In 32-bit code, and in a kernel's (-mgeneral-regs-only), which leaves xmm0 and
 * xmm1 alone, for void, integers and pointers only.
 * XP_DECLARE_STATIC_CALL(name, function) - for a header. The function must be declared, and need not be defined.
 * At file scope. In C++ the name is one of C, whatever namespace it stands in: there is one of it in an executable or shared
 * object. Outside of the namespace see xp_static_call_in().
 */
#define XP_DEFINE_STATIC_CALL(name, function) XP__DEFINE_CALL(name, function, (xp__call_func *)(function))
#define XP_DEFINE_STATIC_CALL_NULL(name, function)                                                                     \
	XP__CALL_BEGIN                                                                                                 \
	XP__DECLARE_CALL(name, function);                                                                              \
	XP__TRAMPOLINE(xp_trampoline_##name, xp_call_##name);                                                          \
	__attribute__((used)) XP__STRUCT xp_static_call xp_call_##name = {                                             \
		{XP__OBJECT(NULL, #name, __FILE__, __LINE__)}, &xp__call_stub, NULL, XP__TRAMPOLINE_OF(name),          \
		&xp__call_stub, NULL, NULL, NULL, NULL, NULL, 0};                                                      \
	XP__CALL_END
/*
 * XP_DEFINE_STATIC_CALL_LAZY(name, function) - as XP_DEFINE_STATIC_CALL(), and call sites without a record are found: the
 * first execution of a call rewrites it into a call of the target, if the call is a plain one and its displacement lies
 * inside one aligned quadword. The others stay on the trampoline; once 16 such calls were made no more sites are looked for.
 * The first call of a site takes the text lock, and may commit: in a signal handler that interrupted a commit of the same
 * thread it only calls. A thread that makes one while the call is updated may be on its way into the old target when the
 * update returns. Needs the calling conventions of C: r11 does not survive the call. In 32-bit code, and with
 * XP_NO_PATCHING, XP_DEFINE_STATIC_CALL(). Code made at run time that calls the trampoline stays mapped as long as the call.
 */
#if defined(XP__CALLS_LOAD) || !defined(XP__CALL_DISCOVERER)
#define XP_DEFINE_STATIC_CALL_LAZY(name, function) XP_DEFINE_STATIC_CALL(name, function)
#else
XP__CALL_ASSERT(offsetof(struct xp_static_call, discoverer) == XP__CALL_DISCOVERER, "the stubs know it");
#define XP_DEFINE_STATIC_CALL_LAZY(name, function)                                                                     \
	XP__CALL_BEGIN                                                                                                 \
	XP__DECLARE_CALL(name, function);                                                                              \
	XP__TRAMPOLINE(xp_trampoline_##name, xp_call_##name);                                                          \
	XP__CALL_LAZY(xp_lazy_##name, xp_call_##name);                                                                 \
	extern xp__call_func xp_lazy_##name XP__CALL_HIDDEN;                                                           \
	__attribute__((used)) XP__STRUCT xp_static_call xp_call_##name =                                               \
		XP__CALL(NULL, name, (xp__call_func *)(function), XP__TRAMPOLINE_OF(name), &xp_lazy_##name);           \
	XP__CALL_END
#endif
#define XP_DEFINE_STATIC_CALL_RET0(name, function) XP__DEFINE_CALL(name, function, &xp__call_stub)
#define XP_DECLARE_STATIC_CALL(name, function)                                                                         \
	XP__CALL_BEGIN                                                                                                 \
	XP__DECLARE_CALL(name, function);                                                                              \
	XP__CALL_END

#ifdef __cplusplus
/*
 * XP_DECLARE_STATIC_CALL_MEMBER(name, function) - in a class: the call of that name, which an XP_DEFINE_STATIC_CALL at file
 * scope defines, is a member, too, private if it stands there. It is named xp_static_call_in(Class, name).
 */
#define XP_DECLARE_STATIC_CALL_MEMBER(name, function)                                                                  \
	static xp_static_call xp_call_##name __asm__("xp_call_" #name) XP__CALL_HIDDEN;                                \
	static __typeof__(function) xp_trampoline_##name __asm__("xp_trampoline_" #name) XP__CALL_HIDDEN
#endif

/*
 * A call that several executables and shared objects of a process share. The DECLARE goes into the common header: each
 * object that includes it keeps a hidden handle and a trampoline, and may call and update. The DEFINE stands in one
 * object, after the DECLARE, and exports the symbols xp_shared_call_NAME and xp_shared_entry_NAME.
 */
#define XP_DECLARE_STATIC_CALL_SHARED(name, function)                                                                  \
	XP__CALL_BEGIN                                                                                                 \
	extern XP__STRUCT xp_static_call xp_shared_call_##name;                                                        \
	extern xp__call_func xp_shared_entry_##name;                                                                    \
	XP__DECLARE_CALL(name, function);                                                                              \
	XP__TRAMPOLINE_SHARED(xp_trampoline_##name, xp_call_##name);                                                   \
	__attribute__((weak, used)) XP__STRUCT xp_static_call xp_call_##name =                                         \
		XP__CALL(&xp_shared_call_##name.object, name, XP__ENTRY_OF(name), XP__TRAMPOLINE_OF(name), NULL);      \
	XP__CALL_END
#define XP_DEFINE_STATIC_CALL_SHARED(name, function)                                                                   \
	XP__CALL_BEGIN                                                                                                 \
	XP__CALL_ASSERT(XP__CALL_SAME(__typeof__(&*(function)), XP__CALL_TYPE(name) *),                                \
			"not a function of the type of this static call");                                              \
	extern XP__STRUCT xp_static_call xp_real_call_##name XP__CALL_HIDDEN;                                          \
	extern xp__call_func xp_trampoline_real_##name XP__CALL_HIDDEN;                                                 \
	XP__TRAMPOLINE(xp_trampoline_real_##name, xp_real_call_##name);                                                \
	XP__TRAMPOLINE_ENTRY(xp_shared_entry_##name, xp_trampoline_real_##name);                                       \
	__attribute__((used)) XP__STRUCT xp_static_call xp_real_call_##name =                                          \
		XP__CALL(NULL, name, (xp__call_func *)(function), XP__TRAMPOLINE_OF(real_##name), NULL);                \
	extern XP__STRUCT xp_static_call xp_shared_call_##name                                                         \
		__attribute__((alias("xp_real_call_" #name), visibility("default")));                                  \
	XP__CALL_END

/* XP_STATIC_CALL_RET0(name) - the function that returns 0, as a target for xp_static_call_update(). */
#define XP_STATIC_CALL_RET0(name) ((XP__CALL_TYPE(name) *)&xp__call_stub)

/* Functions behind the macros below. */
int xp__static_call_update(struct xp_static_call *call, xp__call_func *func);
struct xp_batch;
int xp__batch_add_call(struct xp_batch *batch, struct xp_static_call *call, xp__call_func *func);

/*
 * xp_static_call_update(name, function) - from now on the call goes to @function, of the call's type (checked when this
 * is compiled), or nowhere if it is NULL. To update to the present target brings sites in place that are not yet there.
 *
 * Context: thread; may wait for another commit.
 * Ordering: on return of 0 no processor enters the old target through this call; a thread that learns of the return
 * (acquire load, lock, join) enters the new one. A thread may still run in the old one: it was called before.
 * Errors: those of xp_text_poke(); -XP_E_CORRUPT for a record that is malformed. Every site is as before.
 * Progress: waits for the text lock and for the syncs.
 */
#define xp_static_call_update(name, function) XP__CALL_UPDATE(, name, function)
#define XP__CALL_UPDATE(in, name, function)                                                                            \
	xp__static_call_update(&in xp_call_##name, XP__CALL_FUNC(in, name, function))

/*
 * xp_batch_add_call(batch, name, function) - adds such an update to a batch.
 * Context: thread. Ordering: none. Errors: -EINVAL, -ENOMEM; the batch is as before. Progress: may wait for the text lock.
 */
#define xp_batch_add_call(batch, name, function) XP__CALL_ADD(batch, , name, function)
#define XP__CALL_ADD(batch, in, name, function)                                                                        \
	xp__batch_add_call(batch, &in xp_call_##name, XP__CALL_FUNC(in, name, function))

static inline xp__call_func *xp__static_call_query(const struct xp_static_call *call)
{
	xp__call_func *func;

	if (call->object.real)
		call = (const struct xp_static_call *)call->object.real;
	/* ordering: (K4) pairs with (K3) */
	func = __atomic_load_n(&call->func, __ATOMIC_ACQUIRE);
	(void)XP__SAW(0, &call->object);
	return func;
}

/*
 * xp_static_call_query(name) - the target, or NULL.
 * Context: any. Ordering: acquire: every site already goes there. Errors: none. Progress: wait-free.
 */
#define xp_static_call_query(name) XP__CALL_QUERY(, name)
#define XP__CALL_QUERY(in, name) ((XP__CALL_TYPE_IN(in, name) *)xp__static_call_query(&in xp_call_##name))

/*
 * xp_static_call(name)(arguments) - the call itself. Not for taking its address.
 * xp_static_call_cond(name)(arguments) - the same where there may be no target; the arguments are evaluated, there is
 * no value.
 * Context: any, signal handlers included; under a policy that uses breakpoints, not where SIGTRAP is blocked.
 * Ordering: none of its own. Errors: none. Progress: wait-free.
 * With XP_NO_PATCHING defined, and under ThreadSanitizer, a load and an indirect call.
 */
#if defined(XP__CALLS_LOAD) || defined(XP__TSAN)
static inline xp__call_func *xp__static_call_target(const struct xp_static_call *call)
{
	xp__call_func *func = xp__static_call_query(call);

	return func ? func : call->stub;
}
#define XP__STATIC_CALL(in, name) ((XP__CALL_TYPE_IN(in, name) *)xp__static_call_target(&in xp_call_##name))
#else
#define XP__STATIC_CALL(in, name) in xp_trampoline_##name
#endif
#define xp_static_call(name) XP__STATIC_CALL(, name)
#define xp_static_call_cond(name) (void)xp_static_call(name)

#ifdef __cplusplus
/*
 * The same for a call that was declared in a namespace or is a member of a class, from anywhere:
 * xp_static_call_in(outer::inner, find)(text, 'x'). The rest of each is as without _in.
 */
#define xp_static_call_in(scope, name) XP__STATIC_CALL(scope::, name)
#define xp_static_call_cond_in(scope, name) (void)xp_static_call_in(scope, name)
#define xp_static_call_update_in(scope, name, function) XP__CALL_UPDATE(scope::, name, function)
#define xp_static_call_query_in(scope, name) XP__CALL_QUERY(scope::, name)
#define xp_batch_add_call_in(batch, scope, name, function) XP__CALL_ADD(batch, scope::, name, function)
#endif

#ifdef __cplusplus
}
#endif

#endif
