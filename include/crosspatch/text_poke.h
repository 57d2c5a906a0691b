/* SPDX-License-Identifier: MIT */
/* Changing instructions given by address, alone or many in one commit. Freestanding. */
#ifndef XP_TEXT_POKE_H
#define XP_TEXT_POKE_H

#include <crosspatch/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a thread does if it meets the breakpoint while a site is between old and new. */
enum xp_resume {
	XP_RESUME_EMULATE, /* it executes the new instruction, emulated (as Linux's text_poke_bp) */
	XP_RESUME_AT,      /* it continues at resume_at (as Linux's text_poke_fixup) */
	XP_RESUME_BYPASS, /* it executes the new instruction: emulated if that is known, else a copy of it out of line */
};

/*
 * One patch. `expect` and `replace` are `len` bytes each, 1 to XP_MAX_LEN.
 *
 * The site is one instruction. The library recognises nop, jmp, jcc, call, ret, test-immediate and mov of an immediate to
 * a register, and refuses a site that begins with one of these and is longer than it (-XP_E_MULTI: a thread may rest on
 * the second instruction); for anything else the caller promises it.
 * No branch may lead into the site but to its first byte; the library does not look for such branches. Under quiesce and
 * early, where a site may be several instructions, a branch may lead to the beginning of an instruction only if the
 * replacement has an instruction beginning there, too; the caller promises it.
 * `replace` is one instruction too, or a jmp or ret followed by nops.
 * XP_RESUME_BYPASS is for instructions that the library does not know: SSE, locked, with operands relative to the
 * instruction pointer. `replace` must be exactly one instruction, of `len` bytes. Those that branch, call or trap are
 * refused (-XP_E_EMULATE). The copy lies within 2 GiB of the site (else -XP_E_RANGE) and is kept, and the same, as long
 * as the process lives: a thread may rest there, and finish it, however late. A handler of signals, or an unwinder,
 * that looks at such a thread finds a program counter outside of all functions.
 * A call may take the place of another instruction only where the stack below the stack pointer is free: not in a
 * leaf function that uses the red zone.
 */
struct xp_poke {
	void *addr;
	const void *expect;
	const void *replace;
	uint8_t len;
	enum xp_resume resume;
	void *resume_at; /* used with XP_RESUME_AT; outside the site */
};

/*
 * xp_text_poke - one patch, one commit.
 *
 * Context: thread; may wait for another commit. From a signal handler it works unless the handler interrupted a
 * commit of the same thread, or is the program's own for a trap that is not the library's: then -XP_E_REENTRANT.
 * Ordering: on return no processor executes the old instruction; a thread that learns of the return (through an
 * acquire load, a lock, a join) executes the new one. While it runs, every execution is the old or the new.
 * Errors (text unchanged unless wedged): -EINVAL, -XP_E_LENGTH, -XP_E_MISMATCH, -EBUSY (a foreign breakpoint at the
 * site; a thread that blocks or ignores SIGTRAP where no single store will do instead of a trap; one that does not come to the rendezvous of the
 * quiesce policy or of the signal sync: linux.h), -XP_E_NOT_TEXT, -XP_E_MULTI,
 * -XP_E_EMULATE, -XP_E_RANGE, -XP_E_NO_METHOD, -XP_E_NO_SYNC, -XP_E_NO_WRITER, -XP_E_SHADOW_STACK, -XP_E_NOT_READY,
 * -XP_E_REENTRANT, -XP_E_HELD, -XP_E_WEDGED, -ENOMEM, what the system said (rolled back); -XP_E_BEGUN: it may still change later.
 * Progress: waits for the text lock and for each sync. Threads get the lock in the order in which they began to wait. While
 * one thread keeps it, the others wait at most 20 s, or 2 s if it forks: then -XP_E_HELD. @diag may be NULL. The thread that gets
 * the lock may make the changes of those that wait in one commit with its own; each is told the error of its own change. If a
 * thread took a change so, and its commit does not end, the one that asked waits once more as long: then -XP_E_BEGUN.
 */
int xp_text_poke(const struct xp_poke *poke, struct xp_diag *diag);

/*
 * xp_text_gen_insn - writes to @out the 5-byte call (@opcode 0xe8) or jmp (0xe9) at @addr to @target.
 * Context: any. Ordering: none. Errors: -EINVAL for another opcode, -XP_E_RANGE if the target is farther than a 32-bit
 * displacement reaches, which in 32-bit code nothing is; @out is unchanged. Progress: wait-free.
 */
int xp_text_gen_insn(uint8_t *out, uint8_t opcode, const void *addr, const void *target);

/*
 * A batch collects changes of any kind and commits them together: validated first, then phase by phase with one
 * sync per phase for all of them, undone as a whole if anything fails. Not thread-safe: one thread at a time.
 * Several changes to one object collapse to the last.
 */
struct xp_batch;

/*
 * xp_batch_new - an empty batch, or NULL if there is no memory or no port. xp_batch_free() takes NULL.
 * Context: thread. Ordering: none. Errors: as said. Progress: may wait for the text lock.
 */
struct xp_batch *xp_batch_new(void);
void xp_batch_free(struct xp_batch *batch);

/*
 * xp_batch_add_poke - adds a patch; the bytes are copied. Each kind's header has one more for its own objects.
 * Context: thread. Ordering: none. Progress: may wait for the text lock.
 * Errors: -EINVAL, -XP_E_LENGTH, -ENOMEM; the batch is as before. Errors that depend on the text are found at the commit.
 */
int xp_batch_add_poke(struct xp_batch *batch, const struct xp_poke *poke);

/*
 * xp_batch_commit - makes all the changes, or none.
 *
 * Context, Ordering, Progress: as xp_text_poke(), for every site of the batch. The order in which sites change
 * while it runs is unspecified. Number of syncs: the maximum over the methods used (flip, word 1; breakpoint 2 for a
 * one-byte change, else 3), never a function of the number of sites. Where the port's memory does not suffice the error is
 * -ENOMEM, and xp_memory_needed() (port.h) says how much would have.
 * Errors: those of xp_text_poke(), -XP_E_OVERLAP, -XP_E_COUNTED; that of xp_module_register() while a module that has
 * sites of one of the objects could not be registered. On success the batch is empty and may be used
 * again; on error it is unchanged and may be committed again.
 */
int xp_batch_commit(struct xp_batch *batch, struct xp_diag *diag);

/*
 * The number of a sync: the ticket is done when that sync, or a later one, has ended. All fields are the library's. Of zeros it is
 * done. It may be copied, and waited for and polled by any thread, any number of times; there is nothing to give back.
 */
struct xp_ticket {
	uint64_t sync;
};

/*
 * xp_batch_commit_async - xp_batch_commit() without the wait for other processors: all stores are made, and @ticket says when
 * they have taken effect everywhere.
 *
 * For changes of keys, values, switches and pokes that take one store for each site. For anything else -XP_E_NEEDS_SYNC: what
 * takes several stores needs a sync after each; and calls, gates and functions give something back after the sync.
 * Context: as xp_text_poke().
 * Ordering: until the ticket is done each execution is old or new, on each processor, also old after new. A thread that sees the
 * ticket done (by xp_ticket_wait() or xp_ticket_poll(), or told by a thread that did) executes the new instruction. Until then
 * what old code uses is not to be given back. Later commits may change the same sites: each execution is then of one of the
 * states since the last ticket that was done.
 * xp_static_key_enabled() says that a key is on when the ticket is done, and that it is off at once.
 * xp_static_switch_choice(), and the variable of an immediate value, are new at once.
 * Errors: those of xp_batch_commit(); -XP_E_NEEDS_SYNC; -EINVAL for no ticket. Text, batch and @ticket are then as before.
 * Progress: waits for the text lock, and for a sync where one is owed and the batch is not of keys alone; under the signal sync
 * (linux.h) for the round that comes before each commit.
 */
int xp_batch_commit_async(struct xp_batch *batch, struct xp_ticket *ticket, struct xp_diag *diag);

/*
 * xp_ticket_wait - returns when the ticket is done: at once if a later sync of any commit, or of any wait, has ended since;
 * else it does that sync, for all tickets.
 * Context: as xp_text_poke(). Ordering: on return of 0 no processor executes what was old when the ticket was given. Errors: as
 * xp_text_poke()'s of lock and sync; -EINVAL for no ticket, or one that was never given; -XP_E_WEDGED. After an error the changes
 * stand, the ticket is not done, and it may be waited for again. Progress: waits for the text lock and for one sync.
 *
 * xp_ticket_poll - 1 if the ticket is done, 0 if not. It never makes it so.
 * Context: any, signal handlers included. Ordering: acquire: of 1, as above. Errors: -EINVAL as above; -XP_E_WEDGED: it
 * never will be. Progress: wait-free.
 *
 * In a child of fork the tickets of its parent are valid. In 32-bit code, after 2^31 syncs a ticket may seem not to be done.
 */
int xp_ticket_wait(const struct xp_ticket *ticket, struct xp_diag *diag);
int xp_ticket_poll(const struct xp_ticket *ticket);

/*
 * xp_repair - brings every site whose text drifted to the state of its object, of all keys, switches, values, calls, gates and
 * functions of the process. A site drifted if another program wrote a form there that it has in another state: a uprobe that
 * goes writes back what the file has, a debugger what it found. From then on the site executes that form, while
 * xp_static_key_enabled() and its like, which read memory, say what was asked for last. Until the repair changes of the
 * object fail with -XP_E_DRIFTED, and so does a change to what it is already; only inc above zero and dec above one do not
 * look at text.
 * Each site is changed as in any commit, never plainly overwritten; where the text is no instruction of ours any more (the
 * first byte of one form, the rest of another) while all other threads are parked, as under XP_POLICY_QUIESCE.
 * Context, Ordering, Progress: as xp_text_poke(), for each object that has such sites: a commit of its own.
 * Returns the number of sites that were changed, or an error, the first; all other sites are repaired nevertheless.
 * Errors: -EBUSY where a debugger or probe has a breakpoint just now, -XP_E_MISMATCH for text that the site never has: neither
 * is written to; those of xp_text_poke().
 */
int xp_repair(struct xp_diag *diag);

/* How a change is made. See doc/design.md for which method each policy chooses when. */
enum xp_policy {
	XP_POLICY_AUTO,       /* without a trap where that is proven: flip, then word, then shortjmp, then breakpoint */
	XP_POLICY_BREAKPOINT, /* everything behind a breakpoint, as the kernel does */
	XP_POLICY_QUIESCE,    /* every other thread parked meanwhile: Intel's written algorithm */
	XP_POLICY_EARLY,      /* plain stores: one thread runs, and the caller promises that it is so */
};

/*
 * xp_set_policy / xp_policy - for all later commits of the process. The environment variable CROSSPATCH_POLICY
 * (auto, breakpoint, quiesce, early) sets it at start; ignored in set-uid programs.
 * Context: any thread. Ordering: relaxed. Errors: -EINVAL. Progress: wait-free.
 */
int xp_set_policy(enum xp_policy policy);
enum xp_policy xp_policy(void);

enum xp_state {
	XP_STATE_NO_PORT, /* nothing can be patched yet */
	XP_STATE_READY,
	/*
	 * A commit failed and so did its rollback; the program runs on, nothing more is patched. doc/man/xp_text_poke.3 has
	 * the list of what it takes.
	 */
	XP_STATE_WEDGED,
};

/* xp_state - Context: any. Ordering: relaxed. Errors: none. Progress: wait-free. */
enum xp_state xp_state(void);

/* Counters since start. Each is exact when nothing runs; read while something does, they may be apart. */
struct xp_stats {
	uint64_t commits; /* that changed something */
	uint64_t rollbacks;
	uint64_t syncs;
	uint64_t writes;     /* calls of the port's text_write */
	uint64_t sites;      /* patched */
	uint64_t traps;      /* taken at our breakpoints and finished */
	uint64_t late_traps; /* that arrived after their breakpoint was gone, and were restarted */
};

/* xp_stats_read - Context: thread. Ordering: none. Errors: none. Progress: wait-free, O(trap shards). */
void xp_stats_read(struct xp_stats *stats);

#ifdef __cplusplus
}
#endif

#endif
