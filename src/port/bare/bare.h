/* SPDX-License-Identifier: MIT */
/*
 * The bare port: what a kernel on x86-64 gives to it, and what it calls.
 *
 *	at boot, one processor, interrupts as you like	xp_bare_start(&machine)
 *	its site tables					xp_module_register(&module)
 *	each further processor, on itself		xp_bare_cpu_up()
 *	vector 3				an entry that ends in xp_bare_trap()
 *	vectors 2 and 18			entries that end in xp_bare_nmi() and xp_bare_mce()
 *	vector 6, for gates			an entry that ends in xp_bare_illegal()
 *	one vector of the kernel's choice		an entry that ends in xp_bare_ipi()
 *
 * The entries xp_bare_entry_… are ready to go into the IDT of a kernel whose processors all run at CPL 0, or that finds
 * its processor without swapgs. Others bring their own, and keep the rules of doc/porting.md, "Bare metal".
 *
 * A commit runs in thread context, interrupts on. It is not preempted: see preempt_disable.
 */
#ifndef XP_BARE_H
#define XP_BARE_H

#include <crosspatch/port.h>

/* A trapped context, as the entries leave it on the stack. */
struct xp_bare_frame {
	uint64_t gpr[16]; /* in the order of struct xp_regs; gpr[4] is not used: see sp */
	uint64_t error;   /* error code, 0 where there is none */
	uint64_t ip, cs, flags, sp, ss;
};

/* One per processor; zeroed but for trap_ist, and the port's from then on. */
struct xp_bare_cpu {
	/*
	 * The field of this processor's TSS that holds the interrupt stack of vector 3. Below the address in it there
	 * are XP_BARE_TRAP_STACKS stacks of XP_BARE_TRAP_STACK bytes: a breakpoint met inside an NMI, a machine check
	 * or a foreign handler takes the next one.
	 */
	uint64_t *trap_ist;
	uint32_t online;
	uint32_t depth;    /* contexts of NMI, machine check and foreign trap that run here */
	uint32_t answered; /* the last round that this processor serialized in */
	uint32_t left;     /* the last round that it was parked in and serialized on leaving */
	uintptr_t pc, sp;  /* where that round found it */
} __attribute__((aligned(64)));

#define XP_BARE_TRAP_STACK 4096u
#define XP_BARE_TRAP_STACKS 8u

struct xp_bare {
	/* All the memory that the port ever uses. How much: doc/porting.md, "Bare metal". */
	void *memory;
	size_t size;

	/* Executable text, all of it mapped. What is outside is refused. Of modules: xp_bare_text_set(). */
	const struct xp_range *text;
	size_t nr_text;

	/* Processors, by number; only those that called xp_bare_cpu_up(), and the one that started, are asked. */
	struct xp_bare_cpu *cpus;
	unsigned nr_cpus;

	/* cpu - the number of the executing processor. Context: any, NMI included. */
	unsigned (*cpu)(void);

	/*
	 * ipi - sends the vector of xp_bare_ipi() to another processor. All stores before it are visible there before
	 * the interrupt is (an x2APIC needs a fence for it). done - end of that interrupt, for the interrupt controller.
	 */
	void (*ipi)(unsigned cpu);
	void (*done)(void);

	/*
	 * preempt_disable - until preempt_enable() the executing thread stays on its processor, and no other runs there. Nests.
	 * The port calls them around each commit, and what else it does under the text lock. Context: any, NMI included;
	 * preempt_enable() reschedules only where its caller has interrupts on, and is in a thread. Both NULL: threads are
	 * not preempted anyway, or code that commits, or calls a gate, sees to it before.
	 */
	void (*preempt_disable)(void);
	void (*preempt_enable)(void);

	/*
	 * One page of address space and its last-level page-table entry, for the port alone: the writable alias through
	 * which text is written; absent in between. NULL: only the early policy can write, without CR4.CET.
	 * physical - the address of the page that holds a byte of text, for that entry.
	 */
	uint8_t *window;
	uint64_t *window_entry;
	uint64_t (*physical)(const void *text);

	/* What an NMI, a machine check and a breakpoint that is not ours are for. May execute sites. Interrupts off. */
	void (*nmi)(struct xp_bare_frame *frame);
	void (*mce)(struct xp_bare_frame *frame);
	void (*foreign)(struct xp_bare_frame *frame);

	/* An illegal instruction that is no gate's. NULL: gates have no sites that fault. */
	void (*illegal)(struct xp_bare_frame *frame);

	/*
	 * For the quiesce policy; called while all others are parked, with interrupts off: no locks, no sites.
	 * stack_end - one past the last byte of the stack that @sp lies on; @sp itself where there is nothing to look at: in
	 * user mode. sleepers - whether a thread that the port does not find rests in one of the ranges, or will return there:
	 * a thread that no processor runs; a thread, or handler, that was interrupted by a handler on a stack of its own.
	 * NULL: there are no such. Where there is one the commit ends at once, with -XP_E_IN_RANGE: let it run, and commit
	 * again. Inside are addresses from `start` on and below `end`; the first byte of a site is not: a thread that rests before it
	 * executes what stands there then.
	 */
	uintptr_t (*stack_end)(uintptr_t sp);
	bool (*sleepers)(const struct xp_range *ranges, size_t nr_ranges);

	/* For deferred keys, as in struct xp_port; both NULL: a deferred decrement happens at once. */
	int (*defer)(uint64_t deadline_ms);
	uint64_t (*clock_ms)(void);
};

/*
 * xp_bare_start - gives the core this port. The executing processor is online from then on.
 * Context: once, at boot, before any other processor runs. @machine stays valid for ever. Ordering: none.
 * Errors: -EINVAL: a field that must be there is not, or cpu() is not below nr_cpus; nothing was done. Progress: wait-free.
 */
int xp_bare_start(const struct xp_bare *machine);

/*
 * xp_bare_cpu_up / _down - the executing processor takes part from here on, or no more. It must be able to take the
 * interrupt of xp_bare_ipi() when it is up, and must not execute sites before it is up, or when it is down.
 * Context: on that processor, no commit of its own. Ordering: up: executes nothing older than the last commit.
 * Errors: -EINVAL: no such number; -XP_E_REENTRANT. Progress: waits for a commit in progress.
 */
int xp_bare_cpu_up(void);
int xp_bare_cpu_down(void);

/*
 * xp_bare_text_set - from now on executable text is @text, in place of what it was: with a module's before it is
 * registered, without it after it was unregistered, before its pages go. @text stays valid until the next call returns.
 * Context: thread; takes the text lock. Ordering: on return no processor, in a trap included, reads what is outside, or the old
 * @text. Errors: -EINVAL, -XP_E_REENTRANT; nothing was done. Progress: waits for a commit in progress, and for a sync.
 */
int xp_bare_text_set(const struct xp_range *text, size_t nr);

/*
 * xp_bare_trap, _nmi, _mce, _ipi, _illegal - the entries in C. Interrupts off, on the stack that the IDT gave.
 * When they return, the context goes on as @frame says: by IRET, but after xp_bare_trap(), xp_bare_mce() and
 * xp_bare_illegal() without it if the interrupted context had interrupts off, since it may be an NMI's, whose end IRET
 * would declare. xp_bare_illegal() commits, with interrupts on where they were on; in an NMI, a machine check or a
 * foreign trap it makes the call without. It may be entered again while it waits, so its gate has no interrupt stack;
 * and since it may push onto the interrupted stack, @frame leaves five words free between itself and that.
 */
void xp_bare_trap(struct xp_bare_frame *frame);
void xp_bare_nmi(struct xp_bare_frame *frame);
void xp_bare_mce(struct xp_bare_frame *frame);
void xp_bare_ipi(struct xp_bare_frame *frame);
void xp_bare_illegal(struct xp_bare_frame *frame);

/* What the IDT may point to: vectors 3, 2, 18, each with an interrupt stack of its own; the port's and 6, without. */
void xp_bare_entry_trap(void);
void xp_bare_entry_nmi(void);
void xp_bare_entry_mce(void);
void xp_bare_entry_ipi(void);
void xp_bare_entry_illegal(void);

/*
 * xp_bare_poll - does what the interrupt would have done, if it is due. For code that waits with interrupts off.
 * Context: any but NMI, machine check and trap. Ordering: as the interrupt. Errors: none. Progress: waits while parked.
 */
void xp_bare_poll(void);

/*
 * xp_bare_parked - text is being replaced while all others are parked: an NMI or machine check that comes now must not
 * execute a site. Context: NMI, machine check. Ordering: true from before the first store until each processor has
 * serialized. Progress: wait-free.
 */
bool xp_bare_parked(void);

/* Counters since start. Exact when nothing runs. */
struct xp_bare_stats {
	uint64_t rounds;   /* in which all others were asked, to serialize or to park */
	uint64_t ipis;     /* sent */
	uint64_t answers;  /* by interrupt or by xp_bare_poll() */
	uint64_t retries;  /* parks that found a thread inside, or asleep there */
	uint64_t early;    /* writes with CR0.WP clear */
	size_t used, peak; /* bytes of the memory */
};
void xp_bare_stats_read(struct xp_bare_stats *stats);

#endif
