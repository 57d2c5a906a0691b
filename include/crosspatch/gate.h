/* SPDX-License-Identifier: MIT */
/*
 * Gates: calls that are bound when they are first executed, to a provider that is registered by name, at run time, by any
 * executable or shared object; earlier or later than the callers are there.
 *
 *	XP_DECLARE_GATE(int, compress, (const void *data, size_t size));
 *
 *	n = xp_gate(compress)(data, size);           // returns 0 as long as it has no provider
 *	…
 *	xp_gate_provide("compress", fast_compress);  // from any thread, of any object, while others call
 *
 * Each executable or shared object that declares a gate has a stub for it, which xp_gate(name) names:
 *
 *	lea gate(%rip), %r11
 *	jmp *through(%rip)
 *
 * and in 32-bit code the same without a register, over the stack.
 *
 * `slot` leads to the fallback while there is no provider, else to a resolver. That looks at the call that it came
 * from; if it is a call of the stub, the library changes it into a call of the provider, so that it costs what a direct
 * call costs from then on. A call that is none (a tail call, a call through a pointer), or that cannot be changed, goes on
 * through the stub: once the resolver was asked in vain often enough, straight to the provider. The same holds for a
 * provider farther than ±2 GiB.
 *
 * A second form of site raises a fault instead, eight bytes at an address divisible by eight, with a record whose flag is
 * XP_SITE_UD2; for code generators and assembly, and in front of the stub of XP_DECLARE_GATE_UD2:
 *
 *	0F 0B 2E E8 00 00 00 00     ud2, what it is to become, room; E9 in place of E8: the stub itself, a jump
 *	2E 2E 2E E8 disp32          the call, once it was executed: of the provider if there is one, else of the stub
 *
 * Withdrawn, it calls the stub. It never becomes an UD2 again. While the text cannot be changed each execution faults, and the
 * handler calls the provider, or the stub. To change it is tried at the first 8 faults of a gate, then ever more seldom, at
 * last at each 4096th.
 *
 * Gates of one name are one gate, in all executables and shared objects of the process: name and type are the
 * programmer's promise, as they are for the dynamic linker.
 */
#ifndef XP_GATE_H
#define XP_GATE_H

#include <crosspatch/arch.h>
#include <crosspatch/error.h>
#include <crosspatch/site.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Any function, as the library stores it. */
typedef void xp__gate_func(void);

/* A gate in one executable or shared object, or the one behind them all. All fields are the library's. */
struct xp_gate {
	struct xp_object object;
	xp__gate_func *slot;  /* where the stub jumps; its assembly knows the place */
	xp__gate_func *fallback; /* NULL in the one behind them all */
	xp__gate_func *stub;     /* NULL: calls load `slot` */
	xp__gate_func *text_target;   /* what bound sites call; in the one behind them all: the provider */
	struct xp_gate *next;    /* of the same name; in the one behind them all: the next name */
	struct xp__discovered *discovered; /* call sites without a record that were bound */
	xp__gate_func *resolver; /* 32-bit code: where a stub's part goes that asks; its assembly knows the place */
	uint16_t misses;   /* questions of the resolver that bound nothing */
	uint16_t faults; /* of sites in UD2 form, since one was bound */
} __attribute__((aligned(8))); /* whatever the size of a pointer: XP_SITE_FLAGS */

/* Without stubs a gate is a load and an indirect call. */
#if defined(XP_NO_PATCHING)
#define XP__GATES_LOAD
#endif

#ifdef __cplusplus
#define XP__GATE_ASSERT(condition, text) static_assert(condition, text)
#define XP__GATE_BEGIN extern "C" {
#define XP__GATE_END                                                                                                   \
	}                                                                                                              \
	static_assert(1, "")
#define XP__GATE_SAME(function, type) 1 /* the overload is chosen by it */
#define XP__GATE_FUNC(function, type) reinterpret_cast<xp__gate_func *>(static_cast<type>(function))
#else
#define XP__GATE_ASSERT(condition, text) _Static_assert(condition, text)
#define XP__GATE_BEGIN
#define XP__GATE_END _Static_assert(1, "")
#define XP__GATE_SAME(function, type) __builtin_types_compatible_p(__typeof__(&*(function)), type)
#define XP__GATE_FUNC(function, type) (xp__gate_func *)(function)
#endif

#define XP__GATE_HIDDEN __attribute__((visibility("hidden")))
#if defined(XP_NO_PATCHING)
#undef XP__GATE_STUB
#undef XP__GATE_STUB_UD2
#define XP__GATE_STUB(stub, gate) XP__GATE_ASSERT(1, "")
#define XP__GATE_STUB_UD2(stub, gate) XP__GATE_ASSERT(1, "")
#endif
#if defined(XP__GATES_LOAD)
#define XP__GATE_STUB_OF(name) NULL
#else
#define XP__GATE_STUB_OF(name) ((xp__gate_func *)xp_gate_stub_##name)
XP__GATE_ASSERT(offsetof(struct xp_gate, slot) == XP__GATE_SLOT, "the stubs know it");
#ifdef XP__GATE_RESOLVER
XP__GATE_ASSERT(offsetof(struct xp_gate, resolver) == XP__GATE_RESOLVER, "the stubs know it");
#endif
#endif

#define XP__DECLARE_GATE(ret, name, params, function, STUB)                                                                  \
	XP__GATE_BEGIN                                                                                                 \
	extern XP__STRUCT xp_gate xp_gate_##name XP__GATE_HIDDEN;                                                      \
	extern ret xp_gate_stub_##name params XP__GATE_HIDDEN;                                                         \
	STUB(xp_gate_stub_##name, xp_gate_##name);                                                                     \
	__attribute__((weak, used)) XP__STRUCT xp_gate xp_gate_##name = {                                              \
		{XP__OBJECT(NULL, #name, __FILE__, __LINE__)}, function, function, XP__GATE_STUB_OF(name), NULL, NULL, \
		NULL, NULL, 0, 0};                                                                                        \
	XP__GATE_END

/* The fallback of a gate without one of its own: returns 0. */
void xp__gate_return0(void);

/*
 * XP_DECLARE_GATE(ret, name, params) - a gate; params in parentheses. At file scope, in every file or header that calls
 * it; in C++ the name is one of C, whatever namespace it stands in: outside of that see xp_gate_in(). Without a provider it
 * returns 0: for functions that return void, integers or pointers, and in 64-bit code, unless it is a kernel's
 * (-mgeneral-regs-only), float, double, or structures of these of up to 16 bytes.
 * XP_DECLARE_GATE_FALLBACK(ret, name, params, function) - without a provider the function runs, of that very type. In one
 * executable or shared object all declarations of a gate name the same.
 * XP_DECLARE_GATE_UD2(ret, name, params), XP_DECLARE_GATE_UD2_FALLBACK(ret, name, params, function) - the same, but the
 * stub begins with an UD2 that the library takes away when it is first executed. Not to be called before the caller's
 * executable or shared object is registered, nor where SIGILL is blocked.
 */
#define XP_DECLARE_GATE(ret, name, params) XP__DECLARE_GATE(ret, name, params, &xp__gate_return0, XP__GATE_STUB)
#define XP_DECLARE_GATE_FALLBACK(ret, name, params, function)                                                          \
	XP__GATE_ASSERT(XP__GATE_SAME(function, ret(*) params), "not a function of the type of this gate");            \
	XP__DECLARE_GATE(ret, name, params, XP__GATE_FUNC(function, ret(*) params), XP__GATE_STUB)
#define XP_DECLARE_GATE_UD2(ret, name, params)                                                                         \
	XP__DECLARE_GATE(ret, name, params, &xp__gate_return0, XP__GATE_STUB_UD2)
#define XP_DECLARE_GATE_UD2_FALLBACK(ret, name, params, function)                                                      \
	XP__GATE_ASSERT(XP__GATE_SAME(function, ret(*) params), "not a function of the type of this gate");            \
	XP__DECLARE_GATE(ret, name, params, XP__GATE_FUNC(function, ret(*) params), XP__GATE_STUB_UD2)

/*
 * xp_gate(name)(arguments) - the call. Context: any, signal handlers included; under a policy that uses breakpoints, not
 * where SIGTRAP is blocked. The first call of each site with a provider takes the text lock and may commit.
 * Ordering: acquire: what the provider's registrar wrote before xp_gate_provide() is seen by the provider.
 * Errors: none: a call that cannot be bound goes through the stub. Progress: bound: wait-free; else waits for the text lock, and
 * as a commit does, at 16 calls of a gate that cannot be bound and at the faults that are named above.
 * In a signal handler that interrupted a commit of the same thread the call goes to the provider, and binds nothing. Nor do
 * calls in a program under ThreadSanitizer: each asks, so that it is seen to acquire.
 */
#if defined(XP__GATES_LOAD)
static inline xp__gate_func *xp__gate_through(const struct xp_gate *gate)
{
	/* ordering: (G2) pairs with (G1) */
	return __atomic_load_n(&gate->slot, __ATOMIC_ACQUIRE);
}
#define XP__GATE(in, name) ((__typeof__(&in xp_gate_stub_##name))xp__gate_through(&in xp_gate_##name))
#else
#define XP__GATE(in, name) in xp_gate_stub_##name
#endif
#define xp_gate(name) XP__GATE(, name)

static inline bool xp__gate_available(const struct xp_gate *gate)
{
	const struct xp_gate *real = (const struct xp_gate *)gate->object.real;

	/* ordering: (G2) pairs with (G1) */
	return real && XP__SAW(__atomic_load_n(&real->text_target, __ATOMIC_ACQUIRE) != NULL, &real->object);
}

/*
 * xp_gate_available(name) - whether the gate has a provider. The name is one that was declared.
 * Context: any. Ordering: acquire. Errors: none; false before the caller's executable or shared object is registered.
 * Progress: wait-free.
 */
#define xp_gate_available(name) xp__gate_available(&xp_gate_##name)

#ifdef __cplusplus
/*
 * The same for a gate that was declared in a namespace, or is a member of a class: xp_gate_in(outer::inner, compress)(data, n).
 * XP_DECLARE_GATE_MEMBER(ret, name, params) - in a class: the gate of that name, which an XP_DECLARE_GATE or its like declares
 * at file scope in some file of the executable or shared object, is a member, too, private if it stands there.
 */
#define xp_gate_in(scope, name) XP__GATE(scope::, name)
#define xp_gate_available_in(scope, name) xp__gate_available(&scope::xp_gate_##name)
#define XP_DECLARE_GATE_MEMBER(ret, name, params)                                                                      \
	static xp_gate xp_gate_##name __asm__("xp_gate_" #name) XP__GATE_HIDDEN;                                       \
	static ret xp_gate_stub_##name params __asm__("xp_gate_stub_" #name) XP__GATE_HIDDEN
#endif

/*
 * xp_gate_provide("name", function) - from now on the gate leads to the function; each call site when it is next
 * executed, or at once under CROSSPATCH_BIND=now. The gate need not be declared yet.
 * xp_gate_replace("name", function) - the same for a gate that has a provider, in one commit: a site leads to the old one or
 * the new one, never to the fallback. Sites that were bound are bound to the new one.
 * xp_gate_withdraw("name") - takes the provider away: every site of every object is unbound, and calls run their fallbacks.
 *
 * Context: thread; may wait for another commit. The name is copied.
 * Ordering: on return of 0 no call that begins enters what was there before. A call that began earlier may still be inside,
 * or on its way there: when the last has left is for the provider to know. An object that provides withdraws, and waits for
 * its calls, before it is closed. If it is closed all the same it stays mapped until the gate is withdrawn or leads elsewhere,
 * and its destructors do not run before: one that withdraws comes too late.
 * Errors: -EINVAL for NULL or an empty name; -XP_E_PROVIDED: there is a provider already; -XP_E_NO_PROVIDER: there is none;
 * -ENOMEM; those of xp_text_poke() from withdraw and replace. Every site is as before, or leads there.
 * Progress: waits for the text lock; withdraw and replace for the syncs.
 */
int xp__gate_provide(const char *name, xp__gate_func *function);
int xp__gate_replace(const char *name, xp__gate_func *function);
int xp_gate_withdraw(const char *name);
#define xp_gate_provide(name, function) xp__gate_provide(name, (xp__gate_func *)(function))
#define xp_gate_replace(name, function) xp__gate_replace(name, (xp__gate_func *)(function))

/*
 * xp_batch_add_gate(batch, "name", function) - adds "this gate leads to the function" to a batch, "nowhere" for NULL. As for
 * keys and calls a batch says what is to be, whatever it was before: it provides, replaces or withdraws, and is not refused
 * because another provider is there, as xp_gate_provide() is. The commit binds every site that is known (see
 * xp_gate_bind_all()); those that are not yet known are bound when they are first executed. While it runs, each call goes
 * to the provider before, or the fallback if there was none, or to the new one.
 * Context: thread. The name is copied. Ordering: none. Errors: -EINVAL for NULL or an empty name, -ENOMEM; those of
 * xp_text_poke() that say nothing was begun; the batch is as before. Progress: waits for the text lock.
 */
struct xp_batch;
int xp__batch_add_gate(struct xp_batch *batch, const char *name, xp__gate_func *function);
#define xp_batch_add_gate(batch, name, function) xp__batch_add_gate(batch, name, (xp__gate_func *)(function))

/*
 * xp_gate_bind_all - binds, in one commit, every site that is known and whose gate has a provider: those with a record
 * (struct xp_gate_site), and those that were bound before and still are. Other calls go from their stub straight to the
 * provider. After it no call of these gates runs the resolver, until a provider comes, goes or is replaced. What
 * CROSSPATCH_BIND=now in the environment does for each object that comes and each provider; ignored in set-uid programs.
 * Context: thread. Ordering: as xp_text_poke(). Errors: those of xp_text_poke(), -ENOMEM; every site is as before.
 * Progress: waits for the text lock and the syncs.
 */
int xp_gate_bind_all(void);

/* xp_gate_set_eager - what CROSSPATCH_BIND=now sets: @eager true. For ports. Context: any. Ordering: relaxed. Errors: none. */
void xp_gate_set_eager(bool eager);

#ifdef __cplusplus
}
#endif

#endif
