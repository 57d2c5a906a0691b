/* SPDX-License-Identifier: MIT */
/*
 * The contract between the core and whatever it runs on: an operating system,
 * a kernel, or a test that records. Freestanding.
 *
 * The core calls only these functions (and memcpy, memmove, memset, memcmp).
 * Those of struct xp_port run in the thread that commits, between lock() and unlock(), unless their comment says otherwise.
 */
#ifndef XP_PORT_H
#define XP_PORT_H

#include <crosspatch/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XP_PORT_ABI 1

/* What a commit is going to need of the port, told before its first store. */
enum xp_need {
	XP_NEED_SYNC = 1 << 0,    /* sync_core() */
	XP_NEED_TRAP = 1 << 1,    /* xp_trap() must be reached from any thread that executes a breakpoint */
	XP_NEED_SINGLE = 1 << 2,  /* text_write() with XP_WRITE_SINGLE and up to 8 bytes */
	XP_NEED_PARK = 1 << 3,    /* park() and unpark() */
	XP_NEED_ALONE = 1 << 4,   /* no other thread executes: the early policy's promise */
	XP_NEED_ILLEGAL = 1 << 6, /* xp_trap_illegal() must be reached from any thread that executes an UD2 */
	XP_NEED_FAULT = 1 << 7,   /* xp_trap_fault() must be reached from any thread whose far call faults */
	XP_NEED_CALL = 1 << 5,    /* calls and returns may be emulated: no shadow stacks */
};

/* The write must reach instruction fetch as one store. The bytes lie inside one aligned quadword. */
#define XP_WRITE_SINGLE 1u
/* The stores of a failed commit are being taken back. Each way in is worth a try, more than once: else the engine is wedged. */
#define XP_WRITE_UNDO 2u
/* Unless the commit fails, nothing is written after this: files that were opened for it are no longer needed. A hint. */
#define XP_WRITE_LAST 4u
/* All bytes belong to sites of registered modules: what the port found out about that text holds until text_gone(). A hint. */
#define XP_WRITE_KNOWN 8u

/* The registers of an interrupted bystander: the architecture's, see <crosspatch/arch.h>. */
struct xp_regs;

struct xp_range {
	uintptr_t start; /* first byte */
	uintptr_t end;   /* one past the last */
};

struct xp_port {
	uint32_t abi; /* XP_PORT_ABI */
	const char *name;

	/*
	 * lock/unlock - the text lock: one writer at a time.
	 * Ordering: lock() acquires what the last unlock() released. Errors: -XP_E_REENTRANT if the
	 * caller already holds it (a signal handler that interrupted a commit), or runs in a handler that a
	 * foreign trap was passed to; -XP_E_HELD if a holder does not let go. Progress: waits for the holder.
	 */
	int (*lock)(void);
	void (*unlock)(void);

	/*
	 * alloc/release - zeroed memory, 64-byte aligned; NULL if there is none. Called under the text lock.
	 * Must not depend on anything that a signal handler may have interrupted (no malloc).
	 * bounded - there is only so much of it: released memory can be had again under the same lock. Where there is none
	 * left, the core gives back what it keeps for the next commit, and waits for the trap handlers that may still look at
	 * an earlier one: each must end by itself while a thread that is in none holds the text lock.
	 */
	void *(*alloc)(size_t size);
	void (*release)(void *memory, size_t size);
	bool bounded;

	/*
	 * can - those of @needs that the port could serve with the writer and sync in force, cheaply and
	 * without effect; the method selection asks it. prepare() has the last word. Asked for XP_NEED_TRAP alone: whether
	 * breakpoints cost no more than usual; if not, single stores are tried first. Without XP_NEED_TRAP among @needs, which is
	 * asked where prepare() refused breakpoints: with any writer that may be used, and XP_NEED_SINGLE, asked of
	 * prepare(), then has that commit written by it.
	 */
	unsigned (*can)(unsigned needs);

	/*
	 * prepare - called once per commit under the text lock, before its first store, with XP_NEED_ bits.
	 * Sees that the writer works, registers the sync, installs the trap handler, checks that no thread blocks or
	 * ignores the trap. Errors: a code, with @diag telling tid, system error and detail. Text untouched.
	 * Also called without any bit, before a sync_core() that an earlier, asynchronous commit left.
	 */
	int (*prepare)(unsigned needs, struct xp_diag *diag);

	/* text_check - 0 if [addr, addr+len) is mapped executable text, -XP_E_NOT_TEXT if not; -errno: it cannot tell. */
	int (*text_check)(const void *addr, size_t len);

	/* text_read - copies text; must not fault. 0 or -XP_E_NOT_TEXT. */
	int (*text_read)(void *to, const void *addr, size_t len);

	/*
	 * text_write - stores @len bytes at @addr; the range may span pages and contain bytes that stay.
	 * Ordering (W): the bytes are globally visible as data when it returns; each byte goes from its old
	 * value to its new one once; nothing is promised about the order between bytes, unless @flags says
	 * XP_WRITE_SINGLE. Errors: -errno; part of the range may have been written.
	 */
	int (*text_write)(void *addr, const void *bytes, size_t len, unsigned flags);

	/*
	 * sync_core - on return every processor that executes this text, the caller included, has executed a
	 * core-serializing instruction since the call, and fetches nothing older than the stores before it.
	 * Ordering (S): a full memory barrier on every such processor. Errors: -errno; nothing is promised.
	 * Progress: waits for every running thread's processor. Where a thread may be kept from coming (by a mask, by
	 * a tracer), it fails in bounded time.
	 * It is not a grace period for traps: a trap taken before may reach xp_trap() after.
	 */
	int (*sync_core)(void);

	/*
	 * park - brings every other thread to a place outside @ranges and holds it there, serialized on
	 * leaving. unpark() lets go. A range leaves out the first byte of its site: a thread that rests there executes
	 * what then stands there.
	 * Errors: -XP_E_IN_RANGE, -EBUSY; then no thread is parked. Progress: as sync_core(); a thread that does not come
	 * holds up no other.
	 */
	int (*park)(const struct xp_range *ranges, size_t nr_ranges, struct xp_diag *diag);
	void (*unpark)(void);

	/*
	 * defer - arrange for xp_deferred_run() to be called, in a thread of the port's, at or after
	 * @deadline_ms of clock_ms(). One outstanding request; an earlier deadline replaces a later one.
	 * NULL if the port has no such thread: deferred decrements then happen at once, as they do if it returns an error.
	 * defer_start - makes that thread, if it has to be made; called after defer(), without the text lock. May be NULL.
	 */
	int (*defer)(uint64_t deadline_ms);
	int (*defer_start)(void);
	uint64_t (*clock_ms)(void);

	/*
	 * pin - keeps the text at @target from going away until unpin(), because a call whose object lies at @user goes
	 * there; @user NULL: a gate, which belongs to no object. NULL: there is nothing to keep. Both without the text lock,
	 * in the context of an update. Either both are NULL, where text never goes away, or none.
	 */
	void *(*pin)(const void *target, const void *user);
	void (*unpin)(void *pin);

	/*
	 * exec_alloc - @size bytes, a whole page, readable, executable and zero, so near to @near that a 32-bit
	 * displacement reaches; text_write() writes them. For ever. NULL if there are none. The function may be NULL:
	 * XP_RESUME_BYPASS is then refused.
	 */
	void *(*exec_alloc)(const void *near, size_t size);

	/*
	 * text_peek - the byte at @addr, or -1 if it cannot be read: a foreign breakpoint may stand where nothing may read,
	 * or be gone with its mapping. Called by xp_trap(), in its context. NULL: text that raises a trap can be read.
	 */
	int (*text_peek)(const void *addr);

	/*
	 * What tracing functions needs. All may be NULL, and functions then are not traced.
	 *
	 * function_thread - the calling thread's (processor's) own, zeroed at first but for `shard`, which differs between
	 * threads: below 192 between all that ever were. Context: any; vector and x87 registers hold the arguments of a call and
	 * are not touched.
	 * hook_exit - asked once of each thread, before it runs a handler: that xp_function_thread_exit() is called at its
	 * end. 0 or an error. Vector registers may be touched.
	 * data_read - reads a word that may be gone, or text that may only be executed: 0, or an error. Context: as
	 * function_thread(). NULL: all can be read.
	 * stack_check - whether the calling thread's own stack, from @from on, holds an address in @ranges, sorted:
	 * -XP_E_IN_RANGE. wait - lets a millisecond pass. Context: thread, with the text lock or without it.
	 * stack_left - whether what stood at @frame on one of the calling thread's stacks was left by a jump to where the
	 * stack pointer is now, at @here: it is below on the same stack, or on a stack for signal handlers that the thread is
	 * not on any more. False if that is not sure. Context: as function_thread(). NULL: nothing ever is.
	 * unwind_ip - _Unwind_GetIP(), or 0. Context: a personality function, in any thread. NULL: no exceptions here,
	 * or calls that they leave are awaited for ever.
	 */
	struct xp_function_thread *(*function_thread)(void);
	int (*hook_exit)(struct xp_function_thread *thread);
	int (*data_read)(uintptr_t *to, const void *addr);
	int (*stack_check)(const void *from, const struct xp_range *ranges, size_t nr_ranges, struct xp_diag *diag);
	void (*wait)(void);
	bool (*stack_left)(uintptr_t frame, uintptr_t here);
	uintptr_t (*unwind_ip)(void *context);

	/*
	 * lasts - whether what lies at @module stays until the process ends, so that its destructor means the end. Asked when a
	 * module registers (@arrives) and when its destructor runs; no lock held. When the end begins while there are modules
	 * that do not last, the port calls xp_modules_keep(). NULL: whatever is unregistered goes.
	 */
	bool (*lasts)(const void *module, bool arrives);

	/*
	 * function_begins - whether a function's first byte stands at @code, which is text: 1, 0, or an error if nothing says it.
	 * Asked of the addresses that -fpatchable-function-entry leaves: with a second number they stand before it. Context: text
	 * lock. NULL: nothing ever says it.
	 */
	int (*function_begins)(const void *code);

	/*
	 * text_private - 0 if only this process executes the text at @addr, which then holds up to *@end. -XP_E_NO_METHOD: others
	 * do, which have no trap table and are neither synchronized nor parked; only one store may change it. -XP_E_NOT_TEXT: the
	 * handler of a trap could not read it; likewise. -errno: it cannot be told. NULL: there are no others.
	 */
	int (*text_private)(const void *addr, uintptr_t *end);

	/*
	 * module_check - whether a module whose ELF header is mapped at @header has its text where its records say.
	 * -XP_E_MOVED if not, or if it looks so and the file is not there to tell. NULL: it always has. Context: text lock.
	 */
	int (*module_check)(const void *header);

	/*
	 * data_check - whether the word at @addr can be read and written: 0, or an error. Its value is not changed. Asked of what
	 * records of a module name, before it is touched. Context: text lock. NULL: all that records name can be.
	 */
	int (*data_check)(const void *addr);

	/*
	 * lock_or - as lock(), but 1 without the lock: at once if @done is NULL and another thread has it; else as soon as *@done is not
	 * 0, which the owner writes when it has made the caller's change. told - the owner wrote such a word: its unlock() then wakes all
	 * threads that wait. Context of told: text lock. Both NULL: changes are not shared between threads.
	 */
	int (*lock_or)(const uint32_t *done);
	void (*told)(void);

	/* text_gone - a module goes, its text may follow: what XP_WRITE_KNOWN told holds no more. Context: text lock. NULL: not told. */
	void (*text_gone)(void);

	/*
	 * text_known - whether a store with XP_WRITE_KNOWN has shown, since the last text_gone(), that [addr, addr + len) is text
	 * that can be read and written: text_check() is then not needed. Makes no system call.
	 * Context: text lock. NULL: nothing is known.
	 */
	bool (*text_known)(const void *addr, size_t len);

	/*
	 * text_window - lets the calling thread store to text by itself, from @addr up to the address that is returned, until
	 * text_close(). 0: it may not. Between the two the core stores single bytes to sites of registered modules, and calls
	 * nothing else of the port. Context: text lock, after prepare(). Ordering: as text_write(). Both NULL: it never may.
	 */
	uintptr_t (*text_window)(const void *addr);
	void (*text_close)(void);
};

#define XP_FUNCTION_SPARE 16

/* What the core keeps for each thread. Its own but for `shard`. */
struct xp_function_thread {
	uint32_t shard;
	uint32_t inside;  /* how often it counted itself in, where threads share a counter */
	uintptr_t busy;   /* where on the stack the thunk stands that runs a handler; 0: none does */
	uintptr_t floor;  /* calls of that handler lie below; 0: as busy */
	uint32_t looks;   /* at calls inside a handler's */
	uint32_t kept;    /* hook_exit() was asked */
	uint32_t opened;  /* it awaited a return at least once */
	uint32_t in_vain; /* how often in a row there was no frame to take */
	uint32_t passing; /* the frame that an unwinder told of last: number + 1 */
	uint32_t nr_spare;
	uint32_t spare[XP_FUNCTION_SPARE]; /* frames to take next: number + 1 */
};

/*
 * xp_function_thread_exit - the thread ends: all that is kept for it is given back. Addresses from @low to @high are its stack,
 * exactly, and no call returns there any more; equal: unknown, and what is awaited there stays so. Context: the thread, in
 * its last moments; it may call traced functions afterwards, too.
 */
void xp_function_thread_exit(struct xp_function_thread *thread, uintptr_t low, uintptr_t high);

/* xp_function_fork_child - in the child of a fork: drops what was kept for other threads. Context: as xp_trap_fork_child(). */
void xp_function_fork_child(void);

/*
 * xp_port_set - gives the core its port. Called once, before any other function, by the port itself.
 * Context: one thread. Errors: -EINVAL for another ABI. Modules registered before it are taken over then.
 */
int xp_port_set(const struct xp_port *port);

/*
 * xp_memory_needed - how many bytes the core asked xp_port.alloc() for, in one piece, when it was last refused: so many more
 * would have done for the change that failed with -ENOMEM, before anything was touched. 0 if it never was. A commit takes
 * some hundred bytes, 28 for each site (12 in 32-bit code), and as a rule one plan of some 80 for each kind of change.
 * Context: any. Ordering: none. Errors: none. Progress: wait-free.
 */
size_t xp_memory_needed(void);

enum xp_trap_verdict {
	XP_TRAP_DONE,    /* ours: the registers say where to continue */
	XP_TRAP_RETRY,   /* the breakpoint is gone: ip was moved back to it, execute again */
	XP_TRAP_FOREIGN, /* not ours: registers untouched, give it to the next handler */
};

/*
 * xp_trap - decides a breakpoint trap; @regs->ip is the byte after the int3.
 *
 * Context: a trap handler, anywhere, NMI and nested traps included; takes no lock, allocates nothing,
 * executes no patched site. @shard: any number that differs between threads (or processors) running at
 * the same time; it chooses the cache line that the handler writes.
 * Ordering (T): its search pairs with the publication of the trap table. Progress: lock-free; it
 * starts over only if a commit ended meanwhile. O(log sites). Errors: none.
 */
enum xp_trap_verdict xp_trap(struct xp_regs *regs, unsigned shard);

/*
 * xp_trap_illegal - decides an illegal instruction; @regs->ip is its first byte. DONE: a gate's, and the registers say
 * where to continue. RETRY: a gate's, whose site is bound now, by this call or another: execute again. FOREIGN: no
 * gate's; registers untouched.
 *
 * Context: the handler of a fault that the interrupted thread raised itself, in a place where it may wait; commits. Where
 * the thread holds the text lock, and where nothing can be patched, DONE. @shard: as xp_trap()'s.
 * Ordering: (G4). Errors: none. Progress: waits for the text lock and for the syncs. O(log sites) to say FOREIGN or that
 * the site was bound by another.
 */
enum xp_trap_verdict xp_trap_illegal(struct xp_regs *regs, unsigned shard);

/* What a thread remembers of its last fault, zero at first. The port has one for each thread; its content is the core's. */
struct xp_fault_again {
	uintptr_t code;
	uint32_t count;
};

/*
 * xp_trap_fault - decides a general protection fault; @regs->ip is the first byte of what faulted. DONE: a far gate's, and
 * the registers say where to continue. RETRY: a far gate's that is bound now: execute again. FOREIGN: no far gate's, or
 * one of a bound site that executing again did not help.
 * Context, Ordering, Progress: as xp_trap_illegal(). @memory: of the interrupted thread. Errors: none.
 */
enum xp_trap_verdict xp_trap_fault(struct xp_regs *regs, unsigned shard, struct xp_fault_again *memory);

/* xp_deferred_run - carries out the deferred decrements that are due. Context: the port's own thread, no locks held. */
void xp_deferred_run(void);

/* xp_share_fork_child - in the child of a fork: no thread waits for a shared commit. Context: as xp_trap_fork_child(). */
void xp_share_fork_child(void);

/*
 * xp_trap_fork_child - in the child of a fork: no handler but the caller's own, of @shard, will ever end.
 * Without it the memory of the child's commits waits for threads that are not there.
 * Context: the only thread, before its first commit; signal handlers included, that of a trap too. Ordering: none.
 */
void xp_trap_fork_child(unsigned shard);

/*
 * xp_modules_keep - the process is about to end: from here on xp_module_exit() forgets no module whose object pin() keeps.
 * Context: thread; no lock held. Ordering: none. Errors: none; a module that is not kept is unregistered by its destructor.
 * Progress: waits for the text lock.
 */
void xp_modules_keep(void);

/*
 * xp_fork_child - in the child of a fork: drops what belonged to the parent's threads.
 * Context: the only thread; no lock held.
 */
void xp_fork_child(void);

#ifdef __cplusplus
}
#endif

#endif
