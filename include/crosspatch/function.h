/* SPDX-License-Identifier: MIT */
/*
 * Function entries: tracing and redirecting functions that were compiled with a patchable entry, while they run.
 *
 * An entry is one instruction of 5 bytes at the beginning of a function, which does nothing there, with a record. It is made by
 *	- the plugin for gcc: __attribute__((xp_patchable)), or -fplugin-arg-crosspatch-functions=PATTERN;
 *	- -fpatchable-function-entry=5 of clang, where it is one nop, and of gcc, where it is five of one byte, which
 *	  xp_function_prepare() makes one of. `crosspatch annotate` gives these names and sizes. Nops before the function
 *	  (-fpatchable-function-entry=N,M) are no entry, nor are five that lie on both sides of its first byte.
 * gcc knows which registers a function of the same file changes, and -O2 has its callers keep values in others (-fipa-ra).
 * A replacement changes others. The plugin and gcc's option turn that off; where the entry is made by gcc's attribute
 * patchable_function_entry instead, -fno-ipa-ra is needed for functions that are to be redirected.
 * One file at least of each executable or shared object with such functions includes this header: it holds the object's
 * stub, and registers its records.
 *
 * A traced function's entry is a call of the stub, which leads into the library; a redirected one's is a jmp. While it is off,
 * the plugin's entry is a TEST of a constant, which differs from the call in one byte: tracing takes one sync and no breakpoint.
 * An entry that is a nop (made by the option, or by the plugin with entries=nop) becomes the TEST when it is first traced, or by
 * xp_function_prepare(). TEST changes flags, as the stub does: at an entry they mean nothing by the System V ABI. A function
 * that assembly calls with a meaning in the flags must have no entry, or a nop that is redirected only. For x86-64.
 */
#ifndef XP_FUNCTION_H
#define XP_FUNCTION_H

#include <crosspatch/error.h>
#include <crosspatch/site.h>
#include <crosspatch/text_poke.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void xp__any_function(void);

/* What a handler is told of one call. Valid until it returns. */
struct xp_function_call {
	xp__any_function *function; /* as a pointer to it has it */
	const char *name;           /* the linker's; NULL: the record has none */
	const void *caller;         /* the address that it returns to */
	/*
	 * At the entry rdi, rsi, rdx, rcx, r8, r9; then rax (how many vector registers a call of a variadic function uses)
	 * and r10. At the return rax and rdx.
	 */
	const uint64_t *integer;
	const uint64_t *stack; /* at the entry the first argument on the stack */
	/* At the entry xmm0 to xmm7, at the return xmm0 and xmm1, of 16 bytes. NULL under XP_FUNCTION_GENERAL_REGS. */
	const void *vector;
	/* At the return st0 and st1, 16 bytes apart, of 10 bytes. NULL at the entry, and under XP_FUNCTION_GENERAL_REGS. */
	const void *x87;
	/* A word of this handler's and this call's own, 0 at the entry; the same at the return. NULL without a `leave`. */
	uint64_t *word;
};

/*
 * Handlers. Either function may be NULL.
 *
 * Context: the thread that calls the function, with all of its registers that a call may use saved; anything that the
 * thread was doing may be under way (locks that it holds, a signal handler). They return: no longjmp, no exception, no
 * pthread_exit, no switch to another stack. Traced functions that they call run untraced, also those called from signal
 * handlers meanwhile. Such a signal handler may leave a handler for good, by siglongjmp: the thread's calls are traced again
 * as soon as it is sure that the handler was left (stats.left_behind), most often from the next one on. A signal handler
 * must not switch to another stack while a handler runs below it.
 */
struct xp_function_handler {
	void (*entry)(const struct xp_function_call *call, void *data);
	void (*leave)(const struct xp_function_call *call, void *data);
	unsigned flags;
};

/*
 * The handlers are compiled with -mgeneral-regs-only, and so is what they call: vector and x87 state is not saved for them,
 * which is most of what tracing costs.
 */
#define XP_FUNCTION_GENERAL_REGS 1u

#define XP_FUNCTION_LEAVES 4 /* handlers with a `leave` that one function may have at a time */

/*
 * xp_function_trace(fn, handler, data) - from now on each call of @fn runs @handler with @data, beside those it has. Entry
 * handlers run in the order in which they were added, return handlers in the reverse one.
 * xp_function_untrace(fn, handler, data) - no more.
 *
 * @fn is a pointer to a function with an entry. The handler structure is not copied. In an executable that is not
 * position-independent a pointer to a function of a shared object is one to a jump of the executable's own: it is followed,
 * once it is bound (by a call, or -z now); before that, -XP_E_NO_ENTRY.
 * Context: thread; handlers, too, of calls and of signals, unless that of a signal interrupted a commit of the same thread
 * (-XP_E_REENTRANT); not xp_function_synchronize().
 * Ordering: on return of 0 from trace every call that begins runs the handler, and sees what was written before; on return
 * of 0 from untrace none does. Those that began earlier may still run it: xp_function_synchronize().
 * A call that began before trace runs no `leave`. `leave` is not run either by a call that is left by longjmp or an
 * exception, when 8192 returns are awaited in the process already (missed_returns), and, with glibc, in a process that had
 * 32 keys of threads (pthread_key_create) before the library was loaded. A call that is left by longjmp is
 * awaited for ever, for it may lie on a stack that is copied back later: xp_function_stack_gone(). A call must not return
 * twice (fork-like functions, continuations that are resumed twice).
 * Errors: -EINVAL for NULL; -XP_E_NO_ENTRY: @fn has no record, or its object no stub; -XP_E_TRACED, -XP_E_NOT_TRACED: @fn
 * has that handler with that data already, or not; -XP_E_LEAVES: it has XP_FUNCTION_LEAVES already; -XP_E_SHADOW_STACK:
 * under shadow stacks no `leave`, and no tracing of a redirected function; those of xp_text_poke(). -XP_E_MULTI: the entry is
 * five instructions, see xp_function_prepare(). All is as before.
 * Progress: waits for the text lock, and for the syncs where the text changes.
 */
int xp__function_trace(xp__any_function *fn, const struct xp_function_handler *handler, void *data);
int xp__function_untrace(xp__any_function *fn, const struct xp_function_handler *handler, void *data);
#define xp_function_trace(fn, handler, data) xp__function_trace((xp__any_function *)(fn), handler, data)
#define xp_function_untrace(fn, handler, data) xp__function_untrace((xp__any_function *)(fn), handler, data)

/*
 * xp_function_trace_matching / _untrace_matching - the same for all functions whose name matches @pattern, in one commit:
 * as many syncs as for one. Those that have the handler already, or not, are left out, and nops that are no entries: as
 * xp_function_prepare() says, with -XP_E_NO_ENTRY as there. In a pattern * stands for any
 * characters, ? for one, [a-z] for one of these, [!a-z] for another. Names are the linker's; a function of C++ is _Z….
 * Return: how many functions changed, or an error as above, told to @diag (may be NULL); none changed then.
 */
int xp_function_trace_matching(const char *pattern, const struct xp_function_handler *handler, void *data,
			       struct xp_diag *diag);
int xp_function_untrace_matching(const char *pattern, const struct xp_function_handler *handler, void *data,
				 struct xp_diag *diag);

/*
 * xp_function_redirect(fn, replacement) - calls of @fn run @replacement, which has its type, from now on. One that is
 * redirected already is led elsewhere. A traced function stays so: handlers run before the replacement.
 * xp_function_restore(fn) - undoes it.
 * xp_function_original(fn) - a pointer to the code behind the entry: a call of it runs the original, neither traced nor
 * redirected. NULL if @fn has no entry. With -fcf-protection: no endbr64 stands there.
 *
 * Calls that the compiler inlined or cloned never were calls of @fn, and those whose result it knows it leaves out:
 * __attribute__((xp_patchable)) forbids all of it; noinline, which clang has, does not forbid the last.
 * A replacement farther than 2 GiB away is reached through the library, at the cost of some 20 ns. A shared object that it
 * lies in stays mapped until it is undone.
 * Context: as xp_function_trace(); but in handlers of either kind only where neither the replacement nor the one before it lies
 * in a shared object other than @fn's: to keep such a one mapped, or to let it go, takes the dynamic linker's lock and memory,
 * and the handler may have interrupted what uses them.
 * Progress, Errors: as xp_function_trace(); restore of a function that is not redirected does nothing; -EINVAL too for a part
 * of a function that the compiler cloned (f.isra.0: its arguments are others).
 * Ordering: as xp_text_poke(): on return no call that begins runs the other one. Those that began earlier are still in
 * there: xp_function_quiesce().
 */
int xp__function_redirect(xp__any_function *fn, xp__any_function *replacement);
int xp__function_restore(xp__any_function *fn);
xp__any_function *xp__function_original(xp__any_function *fn);
#define xp_function_redirect(fn, replacement)                                                                          \
	xp__function_redirect((xp__any_function *)(fn), (xp__any_function *)(replacement))
#define xp_function_restore(fn) xp__function_restore((xp__any_function *)(fn))
#define xp_function_original(fn) ((__typeof__(&*(fn)))xp__function_original((xp__any_function *)(fn)))

/*
 * The same as parts of a batch: a live patch changes all its functions, or none. Several changes to one function add up.
 * Context, Errors: as xp_batch_add_poke(), and -XP_E_NO_ENTRY; other errors are found at the commit.
 */
int xp__batch_add_trace(struct xp_batch *batch, xp__any_function *fn, const struct xp_function_handler *handler,
			void *data);
int xp__batch_add_untrace(struct xp_batch *batch, xp__any_function *fn, const struct xp_function_handler *handler,
			  void *data);
int xp__batch_add_redirect(struct xp_batch *batch, xp__any_function *fn, xp__any_function *replacement);
int xp__batch_add_restore(struct xp_batch *batch, xp__any_function *fn);
#define xp_batch_add_trace(batch, fn, handler, data) xp__batch_add_trace(batch, (xp__any_function *)(fn), handler, data)
#define xp_batch_add_untrace(batch, fn, handler, data)                                                                 \
	xp__batch_add_untrace(batch, (xp__any_function *)(fn), handler, data)
#define xp_batch_add_redirect(batch, fn, replacement)                                                                  \
	xp__batch_add_redirect(batch, (xp__any_function *)(fn), (xp__any_function *)(replacement))
#define xp_batch_add_restore(batch, fn) xp__batch_add_restore(batch, (xp__any_function *)(fn))

/*
 * xp_function_synchronize - waits until every handler that is running now has returned, so that the data of one that was
 * taken away may be freed. Context: thread, not a handler. Ordering: what those handlers did is visible. Errors:
 * -XP_E_REENTRANT in a handler; -XP_E_NOT_READY; -EBUSY: one was still running after 2 s, or a thread was thrown out of one
 * by siglongjmp and has called no traced function since: ask again, the data is still in use. Progress: waits for the
 * handlers, at most 2000 times a millisecond.
 */
int xp_function_synchronize(void);

/*
 * xp_function_stack_gone - the program vouches that no call whose return address stands on a stack between @low and @high
 * returns any more: after longjmp what lies below the stack pointer, before a coroutine's stack is freed the whole of it.
 * They are not awaited any more. Not needed where exceptions leave calls, if the process has an unwinder from its start, or
 * where threads end. If it is not true, such a return goes astray.
 * Return: how many calls that were. Context: any. Ordering, Errors: none. Progress: O(returns awaited at a time so far).
 */
size_t xp_function_stack_gone(const void *low, const void *high);

/*
 * xp_function_quiesce - waits until no thread is inside the functions fns[0…nr-1] themselves, that is, until none executes
 * them or will return into them. Their replacements are not looked at. To be asked after a redirect: the old code,
 * or data that only it used, may then go away.
 *
 * Every other thread is parked for a moment, and its stack read from its stack pointer to the end of the mapping: any word
 * that could be an address inside one of them counts, return addresses that a `leave` keeps elsewhere too. A stale word may
 * make it fail, never succeed. Not seen: an address into them in memory that is no running thread's stack (a coroutine
 * that rests, jmp_buf).
 * Context: thread, outside of these functions. Ordering: what they did is visible.
 * Errors: -XP_E_IN_RANGE: a thread is still in there, and was for 200 ms; -XP_E_NO_ENTRY; -EINVAL: a record does not tell how
 * long its function is (those of -fpatchable-function-entry do not, unless annotated); those of the quiesce policy.
 * Nothing was changed.
 * Progress: tries 200 times, a millisecond apart; and waits for the rendezvous as linux.h says.
 */
int xp_function_quiesce(xp__any_function *const *fns, size_t nr, struct xp_diag *diag);

/*
 * xp_function_prepare - makes each matching entry that is nops the TEST that is one byte away from the call; where the object has
 * no stub, one nop of five of one byte (gcc's -fpatchable-function-entry=5, which cannot be traced or redirected as it is).
 * With NULL: all. Names are unknown there, unless the object was annotated: only NULL and "*" match. Return: how many, or an
 * error; then none. Nops that do not stand at the beginning of their function are left out; what says where it begins is its
 * unwind information, or annotate's record.
 * Context: thread, as long as there is only one. Ordering: none. Errors: -XP_E_NOT_EARLY: there are others; -XP_E_NO_ENTRY:
 * nothing says where a function begins (no unwind tables; a static executable without --eh-frame-hdr); those of
 * xp_text_poke(). Progress: waits for the text lock.
 */
int xp_function_prepare(const char *pattern, struct xp_diag *diag);

/*
 * xp_function_find - a function by its name: the first one with an entry; NULL: none.
 * xp_function_name - the name of a function with an entry; NULL: it has none. Lives as long as its object.
 * Context: thread. Ordering, Errors: none. Progress: waits for the text lock; O(entries), O(log entries).
 */
xp__any_function *xp_function_find(const char *name);
const char *xp__function_name(xp__any_function *fn);
#define xp_function_name(fn) xp__function_name((xp__any_function *)(fn))

/* Since start. */
struct xp_function_stats {
	uint64_t calls;          /* of traced or far redirected functions */
	uint64_t returns;        /* that went through the library */
	uint64_t missed_calls;   /* made by handlers, or by signal handlers that interrupted one */
	uint64_t missed_returns; /* of calls whose return could not be awaited: too many were already */
	uint64_t abandoned;      /* calls whose return is not awaited any more, for it never comes */
	uint64_t entries;        /* functions with a record, now */
	uint64_t traced;         /* now */
	uint64_t redirected;     /* now */
	uint64_t awaited;        /* returns, now: of calls under way, and of those left in a way that does not show */
	uint64_t left_behind;    /* handlers that a signal handler left by siglongjmp, as far as noticed */
};

/* xp_function_stats_read - Context: thread. Ordering: none. Errors: none. Progress: waits for the text lock. */
void xp_function_stats_read(struct xp_function_stats *stats);

/*
 * A counter of calls that scales: threads add to different cache lines. xp_function_counting() is a handler whose data is
 * such a counter, zeroed; xp_function_counted() adds it up: exact when no thread counts. If a function has no other handlers,
 * its calls are counted without running a handler, which takes less time; calls made by signal handlers that interrupted the
 * library are then counted too, unless they interrupted a handler.
 * Context: any. Ordering: none. Errors: none. Progress: wait-free.
 */
struct xp_function_counter {
	struct {
		unsigned long nr;
		unsigned long pad[64 / sizeof(unsigned long) - 1];
	} shard[32];
};

const struct xp_function_handler *xp_function_counting(void);
unsigned long xp_function_counted(const struct xp_function_counter *counter);

/* Where stubs lead. Not to be called. */
void xp__function_entered(void);

#ifdef __cplusplus
}
#endif

#if !defined(XP_NO_MODULE) && !defined(XP_NO_PATCHING)
#include <crosspatch/arch.h>
#if defined(XP__FUNCTION_STUB) && __STDC_HOSTED__
XP__FUNCTION_STUB();
#endif
#endif

#endif
