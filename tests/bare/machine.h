/* SPDX-License-Identifier: MIT */
/*
 * The machine that the images of tests/bare boot: processors, interrupt stacks, pages, local APIC, console. It is the
 * kernel that src/port/bare asks for, and nothing more.
 *
 * The order of things: console, pages with their rights, interrupts, constructors, xp_bare_start(), registration of the
 * image's sites by hand, machine_before_cpus(), the other processors, main(). What main() returns ends the machine.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include "port/bare/bare.h"

#include <crosspatch/site.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* xp_torture.h: commits are slow where four processors are threads of one or two. */
#define XP_TORTURE_FAULTS 40
#define MACHINE_CPUS_MAX 8
#define MACHINE_STACK 32768u

/* For a test to define: called while one processor runs. */
void machine_before_cpus(void);
/* For a test to define: bytes given to the port. */
size_t machine_memory_size(void);

/* What the machine gave to the port; a test may change a function between two commits. */
extern struct xp_bare machine_bare;
extern struct xp_module machine_module;
#define xp__module machine_module /* as <crosspatch/site.h> calls what it defines */
/* The bounds that <crosspatch/site.h> declares where it defines a module; hosted sources look at them. */
extern const struct xp_branch_site __start_xp_branch_sites[], __stop_xp_branch_sites[];
extern const struct xp_call_site __start_xp_call_sites[], __stop_xp_call_sites[];
extern const struct xp_switch_site __start_xp_switch_sites[], __stop_xp_switch_sites[];
extern const struct xp_imv_site __start_xp_imv_sites[], __stop_xp_imv_sites[];
extern const struct xp_gate_site __start_xp_gate_sites[], __stop_xp_gate_sites[];

unsigned machine_cpu(void);
unsigned machine_nr_cpus(void);

/* Runs @job on another processor, which must be idle; waits for its end. */
void machine_run(unsigned cpu, void (*job)(void *), void *argument);
void machine_wait(unsigned cpu);

/* The vector of the port and NMI, by the local APIC; the processor itself included. Context: any. */
void machine_send_ipi(unsigned cpu);
void machine_send_nmi(unsigned cpu);

/*
 * What a test wants of NMIs, machine checks and foreign breakpoints: called with the SSE registers saved, so that tests
 * may be compiled as usual. NULL: they are counted and nothing else; a foreign breakpoint ends the machine.
 */
extern void (*machine_on_nmi)(struct xp_bare_frame *frame);
extern void (*machine_on_mce)(struct xp_bare_frame *frame);
extern void (*machine_on_foreign)(struct xp_bare_frame *frame);
/* The debug exception, of a watchpoint that a test has set on the processor. NULL: it ends the machine. */
extern void (*machine_on_debug)(struct xp_bare_frame *frame);
/* A point of core/inject.h, the same way. */
extern void (*machine_on_inject)(int point);

/* What happened on each processor. Written by it alone. */
struct machine_counts {
	uint64_t nmis, nested_nmis; /* nested: inside another NMI, which must not be */
	uint64_t mces;
	uint64_t traps, traps_in_nmi, traps_in_mce, traps_in_trap, foreign;
	uint64_t nmis_in_trap, mces_in_trap;
	uint64_t faults, faults_off; /* illegal instructions; handled with interrupts off */
	uint64_t serialized; /* calls of xp__serialize() */
	uint64_t in_nmi, in_mce, in_trap; /* now */
} __attribute__((aligned(64)));
extern struct machine_counts machine_counts[MACHINE_CPUS_MAX];
/* How long a processor takes to serialize: a writer that does not wait for it is found out. */
extern unsigned machine_slowness[MACHINE_CPUS_MAX];
/* It does not serialize while held is set; stopped: it is about to, and waits for that. */
extern bool machine_held[MACHINE_CPUS_MAX], machine_stopped[MACHINE_CPUS_MAX];
struct machine_counts machine_counts_sum(void);

/* The interrupt stack of a vector, for a test that breaks it; the number that stood there before. */
unsigned machine_set_stack(unsigned vector, unsigned ist);
/* A page of the kernel's that the port may map text into; not mapped otherwise. */
extern uint8_t machine_window[];

/* Whether a store of the byte that is there already faults. */
bool machine_store_faults(const volatile void *at);

/* Rights of the pages from @start on: executable ones are never writable. Seen by jobs that start afterwards. */
void machine_protect(void *start, size_t size, bool writable, bool executable);
/* Text made at run time. */
extern uint8_t machine_arena[];
#define MACHINE_ARENA (2u << 20)

/* A line for the program that runs the image: a command of QEMU's monitor. */
void machine_monitor(const char *command);

void machine_exit(int status) __attribute__((noreturn));
void machine_bail(const char *why) __attribute__((noreturn));

void machine_putc(char c);
void machine_console_lock(void);
void machine_console_unlock(void);
uint64_t machine_ns(void);
const char *machine_command_line(void);

#endif
