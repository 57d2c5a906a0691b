// SPDX-License-Identifier: MIT
/*
 * The machine: see machine.h. Compiled as a kernel is; what it calls of a test's out of an exception runs with the SSE
 * registers saved.
 *
 * I1  Nothing that runs in an NMI or a machine check prints, waits for another processor, or takes a lock.
 * I2  Text is mapped read and execute, data no-execute, from before the first commit on.
 */
#include "machine.h"

#include "arch/x86/sync.h"
#include "core/inject.h"
#include "port/bare/port.h"

#include <string.h>

#define KERNEL_BASE 0xffffffff80000000ul
#define IMAGE 0x200000ul
#define TRAMPOLINE 0x8000ul
#define PAGE 4096ul
#define ENTRY_PRESENT 0x1ul
#define ENTRY_WRITABLE 0x2ul
#define ENTRY_NX (1ul << 63)

#define VECTOR_DEBUG 1
#define VECTOR_NMI 2
#define VECTOR_BREAKPOINT 3
#define VECTOR_ILLEGAL 6
#define VECTOR_DOUBLE_FAULT 8
#define VECTOR_PAGE_FAULT 14
#define VECTOR_MACHINE_CHECK 18
#define VECTOR_BARE 0xf0
#define VECTOR_WAKE 0xf1
#define VECTOR_SPURIOUS 0xff

#define FLAGS_IF 0x200u

#define APIC ((volatile uint32_t *)0xfee00000ul)
#define APIC_ID (0x20 / 4)
#define APIC_EOI (0xb0 / 4)
#define APIC_SPURIOUS (0xf0 / 4)
#define APIC_ICR (0x300 / 4)
#define APIC_ICR_HIGH (0x310 / 4)
#define ICR_PENDING (1u << 12)
#define ICR_ASSERT (1u << 14)
#define ICR_NMI (4u << 8)
#define ICR_INIT (5u << 8)
#define ICR_STARTUP (6u << 8)

#define PORT_EXIT 0xf4
#define PORT_FW_CFG 0x510
#define FW_CFG_NR_CPUS 5

struct tss {
	uint32_t reserved0;
	uint64_t rsp[3], reserved1, ist[7], reserved2;
	uint16_t reserved3, iomap;
} __attribute__((packed, aligned(16)));

enum { IST_TRAP = 1, IST_NMI, IST_MCE, IST_DOUBLE };

struct cpu {
	struct tss tss;
	uintptr_t fixup; /* where a page fault continues */
	void (*job)(void *);
	void *argument;
	uint32_t running;
	uint32_t started;
} __attribute__((aligned(64)));

struct gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_middle;
	uint32_t offset_high, reserved;
};

extern uint64_t machine_gdt[], machine_pml4[], machine_pages[], machine_low[];
extern uint32_t boot_info;
extern const uint8_t trampoline[], trampoline_end[], machine_stubs[];
extern uint64_t trampoline_stack;
extern uint8_t machine_text_start[], machine_text_end[], machine_data_start[], machine_end[];
extern void (*const machine_init_start[])(void), (*const machine_init_end[])(void);
void machine_entry_wake(void);
void machine_entry_spurious(void);
void machine_start(uint32_t info);
void machine_cpu_start(void);
void machine_exception(struct xp_bare_frame *frame, unsigned vector);
void machine_wake(struct xp_bare_frame *frame);
int machine_main(void);

/* All stacks are of one size and aligned to it, so that the end of one is known from any address on it. */
uint8_t machine_stacks[MACHINE_CPUS_MAX][MACHINE_STACK] __attribute__((aligned(MACHINE_STACK)));
static uint8_t ist_stacks[MACHINE_CPUS_MAX][4][MACHINE_STACK] __attribute__((aligned(MACHINE_STACK)));
uint8_t machine_arena[MACHINE_ARENA] __attribute__((aligned(4096)));
uint8_t machine_window[4096] __attribute__((aligned(4096)));
static uint8_t memory[2u << 20] __attribute__((aligned(64)));

static struct gate idt[256] __attribute__((aligned(16)));
static struct cpu cpus[MACHINE_CPUS_MAX];
static unsigned nr_cpus;
static struct xp_bare_cpu bare_cpus[MACHINE_CPUS_MAX];
static uint64_t tsc_per_ms;
static const char *command_line = "";

struct machine_counts machine_counts[MACHINE_CPUS_MAX];
unsigned machine_slowness[MACHINE_CPUS_MAX];
bool machine_held[MACHINE_CPUS_MAX], machine_stopped[MACHINE_CPUS_MAX];
void (*machine_on_nmi)(struct xp_bare_frame *frame);
void (*machine_on_mce)(struct xp_bare_frame *frame);
void (*machine_on_foreign)(struct xp_bare_frame *frame);
void (*machine_on_debug)(struct xp_bare_frame *frame);
void (*machine_on_inject)(int point);
struct xp_module machine_module = {
	.abi = XP_MODULE_ABI,
	.nr_tables = XP_NR_SITE_KINDS,
	.tables =
		{
			[XP_SITE_BRANCH] = {__start_xp_branch_sites, __stop_xp_branch_sites},
			[XP_SITE_CALL] = {__start_xp_call_sites, __stop_xp_call_sites},
			[XP_SITE_SWITCH] = {__start_xp_switch_sites, __stop_xp_switch_sites},
			[XP_SITE_IMV] = {__start_xp_imv_sites, __stop_xp_imv_sites},
			[XP_SITE_GATE] = {__start_xp_gate_sites, __stop_xp_gate_sites},
		},
};

__attribute__((weak)) size_t machine_memory_size(void)
{
	return sizeof(memory);
}

__attribute__((weak)) void machine_before_cpus(void) {}

/* ---- ports and registers ---- */

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

unsigned machine_cpu(void)
{
	uint32_t selector;

	__asm__ volatile("strl %0" : "=r"(selector));
	return (selector - 0x18) / 16;
}

unsigned machine_nr_cpus(void)
{
	return nr_cpus;
}

void machine_exit(int status)
{
	/* 0 passed, 1 failed, 77 skipped; the device shifts it left and adds one. */
	outb(PORT_EXIT, (uint8_t)(status == 0 ? 0x20 : status == 77 ? 0x22 : status == 1 ? 0x21 : 0x23));
	for (;;)
		__asm__ volatile("cli\n\thlt");
}

static uint64_t physical(const void *address)
{
	return (uintptr_t)address - KERNEL_BASE;
}

/* ---- console ---- */

static uint32_t console;

void machine_console_lock(void)
{
	while (__atomic_exchange_n(&console, 1, __ATOMIC_ACQUIRE))
		xp__cpu_relax();
}

void machine_console_unlock(void)
{
	__atomic_store_n(&console, 0, __ATOMIC_RELEASE);
}

void machine_putc(char c)
{
	while (!(inb(0x3f8 + 5) & 0x20))
		;
	outb(0x3f8, (uint8_t)c);
}

static void put(const char *text)
{
	while (*text)
		machine_putc(*text++);
}

static void put_hex(uint64_t value)
{
	for (int shift = 60; shift >= 0; shift -= 4)
		machine_putc("0123456789abcdef"[value >> shift & 15]);
}

void machine_monitor(const char *command)
{
	machine_console_lock();
	put("\n!");
	put(command);
	put("\n");
	machine_console_unlock();
}

void machine_bail(const char *why)
{
	put("\nBail out! ");
	put(why);
	put("\n");
	machine_exit(2);
}

/* ---- time ---- */

#define TIMER_HZ 1193182ul

/* What channel 2 of the interval timer has counted down to, and when: @width ticks of the processor to know it. */
static unsigned timer_read(uint64_t *when, uint64_t *width)
{
	uint64_t before = __builtin_ia32_rdtsc(), after;
	unsigned count;

	outb(0x43, 0x80);
	count = inb(0x42);
	after = __builtin_ia32_rdtsc();
	*when = before + (after - before) / 2;
	*width = after - before;
	return count | (unsigned)inb(0x42) << 8;
}

/*
 * The host may stop this processor at any instruction, for longer than the 55 ms that the timer counts. So both clocks
 * are read together, at both ends, and the attempt counts in which that took least of the time between.
 */
static void calibrate(void)
{
	uint64_t best = ~0ul;

	for (unsigned attempt = 0; attempt < 100 && best > 100; attempt++) {
		uint64_t start, end, width_start, width_end, error;
		unsigned from, to;

		outb(0x61, (uint8_t)((inb(0x61) & ~2) | 1));
		outb(0x43, 0xb0);
		outb(0x42, 0xff);
		outb(0x42, 0xff);
		from = timer_read(&start, &width_start);
		do
			to = timer_read(&end, &width_end);
		while (!(inb(0x61) & 0x20) && from < to + TIMER_HZ / 200);
		if (inb(0x61) & 0x20 || from <= to)
			continue; /* it ran out */
		error = (width_start + width_end) * 10000 / (end - start);
		if (error < best) {
			best = error;
			tsc_per_ms = (end - start) * TIMER_HZ / 1000 / (from - to);
		}
	}
	if (tsc_per_ms == 0)
		machine_bail("the timer does not count");
}

uint64_t machine_ns(void)
{
	uint64_t tsc = __builtin_ia32_rdtsc();

	return tsc / tsc_per_ms * 1000000 + tsc % tsc_per_ms * 1000000 / tsc_per_ms;
}

/* ---- local APIC ---- */

static void icr(unsigned cpu, uint32_t command)
{
	uint64_t flags;
	uint32_t high;

	__asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags) : : "memory");
	/* An NMI may come between the two stores, and send something itself: it leaves the upper half as it was. */
	high = APIC[APIC_ICR_HIGH];
	while (APIC[APIC_ICR] & ICR_PENDING)
		xp__cpu_relax();
	APIC[APIC_ICR_HIGH] = (uint32_t)cpu << 24;
	APIC[APIC_ICR] = command;
	APIC[APIC_ICR_HIGH] = high;
	__asm__ volatile("pushq %0\n\tpopfq" : : "r"(flags) : "memory", "cc");
}

void machine_send_ipi(unsigned cpu)
{
	icr(cpu, ICR_ASSERT | VECTOR_BARE);
}

void machine_send_nmi(unsigned cpu)
{
	icr(cpu, ICR_ASSERT | ICR_NMI);
}

static void end_of_interrupt(void)
{
	APIC[APIC_EOI] = 0;
}

static void start_apic(void)
{
	/* The firmware leaves the old interrupt controllers with the timer on, at the vector of the double fault. */
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	APIC[APIC_SPURIOUS] = 0x100 | VECTOR_SPURIOUS;
}

/* ---- pages ---- */

static uint64_t *entry_of(const void *address)
{
	return &machine_pages[(physical(address) - IMAGE) / PAGE];
}

static void flush(void)
{
	__asm__ volatile("movq %0, %%cr3" : : "r"(physical(machine_pml4)) : "memory");
}

void machine_protect(void *start, size_t size, bool writable, bool executable)
{
	for (size_t at = 0; at < size; at += PAGE) {
		uint64_t *entry = entry_of((uint8_t *)start + at);

		*entry = (physical(start) + at) | ENTRY_PRESENT | (writable && !executable ? ENTRY_WRITABLE : 0) |
			 (executable ? 0 : ENTRY_NX);
	}
	flush();
}

static void protect_image(void)
{
	size_t text = (size_t)(machine_text_end - machine_text_start);

	machine_protect(machine_text_start, text, false, true);
	machine_protect(machine_text_end, (size_t)(machine_data_start - machine_text_end), false, false);
	machine_protect(machine_data_start, (size_t)(machine_end - machine_data_start), true, false);
	*entry_of(machine_window) = 0;
	flush();
}

bool machine_store_faults(const volatile void *at)
{
	volatile uintptr_t *fixup = &cpus[machine_cpu()].fixup;
	bool faulted = true;

	__asm__ volatile("leaq 1f(%%rip), %%rax\n\t"
			 "movq %%rax, (%[fixup])\n\t"
			 "movb (%[at]), %%al\n\t"
			 "movb %%al, (%[at])\n\t"
			 "movb $0, %[faulted]\n"
			 "1:\n\t"
			 "movq $0, (%[fixup])"
			 : [faulted] "+m"(faulted)
			 : [fixup] "r"(fixup), [at] "r"(at)
			 : "rax", "memory");
	return faulted;
}

/* ---- exceptions ---- */

#define SSE_REGISTERS "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"

/*
 * The SSE registers alone, by MOVAPS: nothing here uses others. Not by FXRSTOR, which in QEMU stores a flag of processor 0
 * from whichever processor executes it, without a lock: processor 0 then forgets that it is in an NMI, or that it has left.
 */
static void save_sse(void (*function)(struct xp_bare_frame *), struct xp_bare_frame *frame)
{
	uint8_t area[16][16] __attribute__((aligned(16)));

	__asm__ volatile(".irp n, " SSE_REGISTERS "\n\tmovaps %%xmm\\n, 16*\\n(%0)\n\t.endr" : : "r"(area) : "memory");
	function(frame);
	__asm__ volatile(".irp n, " SSE_REGISTERS "\n\tmovaps 16*\\n(%0), %%xmm\\n\n\t.endr" : : "r"(area) : "memory");
}

static void put_value(const char *what, uint64_t value)
{
	put(what);
	put_hex(value);
}

/* Ends the machine, and says where each processor's stack for breakpoints is, how deep it is nested, and what it is in. */
static void bail_with_stacks(const char *why)
{
	for (unsigned i = 0; i < nr_cpus; i++) {
		put_value("\n# cpu ", i);
		put_value(" IST1 ", cpus[i].tss.ist[IST_TRAP - 1]);
		put_value(" of ", (uintptr_t)ist_stacks[i][IST_TRAP - 1] + MACHINE_STACK);
		put_value(" depth ", bare_cpus[i].depth);
		put_value(" nmis ", machine_counts[i].nmis);
		put_value(" in NMI ", machine_counts[i].in_nmi);
		put_value(" in trap ", machine_counts[i].in_trap);
		put_value(" traps ", machine_counts[i].traps);
		put_value(" in NMIs ", machine_counts[i].traps_in_nmi);
		put_value(" faults ", machine_counts[i].faults);
		put_value(" mces ", machine_counts[i].mces);
	}
	/* What the processor and the entry pushed last, on each of its interrupt stacks. */
	for (unsigned i = 0; i < IST_DOUBLE; i++) {
		const uint64_t *top = (const uint64_t *)((uintptr_t)ist_stacks[machine_cpu()][i] + MACHINE_STACK);

		put_value("\n# IST", i + 1);
		for (unsigned word = 1; word <= 22; word++)
			put_value(" ", *(top - word));
	}
	machine_bail(why);
}

/*
 * The stack for breakpoints is where it was at the start, less one for each context that has moved it (breakpoint.c, I2). A
 * machine check may come between the two stores of an NMI's entry: one that is counted may not have moved it yet. An NMI
 * inside an NMI is on the stack of the first, whose frame is lost.
 */
static void check_nesting(const struct xp_bare_frame *frame)
{
	unsigned cpu = machine_cpu();
	uint64_t moved = (uintptr_t)ist_stacks[cpu][IST_TRAP - 1] + MACHINE_STACK - cpus[cpu].tss.ist[IST_TRAP - 1];
	uint64_t depth = bare_cpus[cpu].depth;

	bool nested = machine_counts[cpu].in_nmi > 1;

	if (moved >= XP_BARE_TRAP_STACK && moved <= depth * XP_BARE_TRAP_STACK && !nested)
		return;
	put_value("\n# cpu ", cpu);
	put_value(" interrupted at ", frame->ip);
	put_value(" sp ", frame->sp);
	put_value(" flags ", frame->flags);
	bail_with_stacks(nested ? "an NMI inside another" : "the stack for breakpoints is not where it must be");
}

void machine_exception(struct xp_bare_frame *frame, unsigned vector)
{
	uint64_t cr2;

	if (vector == VECTOR_PAGE_FAULT && cpus[machine_cpu()].fixup) {
		frame->ip = cpus[machine_cpu()].fixup;
		return;
	}
	if (vector == VECTOR_DEBUG && machine_on_debug) {
		save_sse(machine_on_debug, frame);
		return;
	}
	__asm__ volatile("movq %%cr2, %0" : "=r"(cr2));
	put_value("\n# cpu ", machine_cpu());
	put_value(" vector ", vector);
	put_value(" error ", frame->error);
	put_value(" at ", frame->ip);
	put_value(" sp ", frame->sp);
	put_value(" cr2 ", cr2);
	bail_with_stacks("an exception that nobody expects");
}

static void on_nmi(struct xp_bare_frame *frame)
{
	struct machine_counts *counts = &machine_counts[machine_cpu()];

	counts->nmis++;
	counts->nested_nmis += counts->in_nmi > 0;
	counts->nmis_in_trap += counts->in_trap > 0;
	counts->in_nmi++;
	check_nesting(frame);
	if (machine_on_nmi)
		save_sse(machine_on_nmi, frame);
	check_nesting(frame);
	counts->in_nmi--;
}

static void on_mce(struct xp_bare_frame *frame)
{
	struct machine_counts *counts = &machine_counts[machine_cpu()];

	counts->mces++;
	counts->mces_in_trap += counts->in_trap > 0;
	counts->in_mce++;
	check_nesting(frame);
	if (machine_on_mce)
		save_sse(machine_on_mce, frame);
	check_nesting(frame);
	counts->in_mce--;
	wrmsr(0x17a, 0); /* MCG_STATUS: the next one may come. As late as can be: it comes onto this stack. */
}

static void on_foreign(struct xp_bare_frame *frame)
{
	machine_counts[machine_cpu()].foreign++;
	if (machine_on_foreign == NULL) {
		put("\n# at ");
		put_hex(frame->ip);
		machine_bail("a breakpoint that is nobody's");
	}
	save_sse(machine_on_foreign, frame);
}

static void on_illegal(struct xp_bare_frame *frame)
{
	machine_exception(frame, VECTOR_ILLEGAL);
}

/* The linker sends the port's calls of these here (--wrap). */
enum xp_trap_verdict __real_xp_trap_illegal(struct xp_regs *regs, unsigned shard);
enum xp_trap_verdict __wrap_xp_trap_illegal(struct xp_regs *regs, unsigned shard);

enum xp_trap_verdict __wrap_xp_trap_illegal(struct xp_regs *regs, unsigned shard)
{
	uint64_t flags;

	__asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
	machine_counts[machine_cpu()].faults++;
	machine_counts[machine_cpu()].faults_off += !(flags & FLAGS_IF);
	return __real_xp_trap_illegal(regs, shard);
}

enum xp_trap_verdict __real_xp_trap(struct xp_regs *regs, unsigned shard);
enum xp_trap_verdict __wrap_xp_trap(struct xp_regs *regs, unsigned shard);
void __real_xp__serialize(void);
void __wrap_xp__serialize(void);

enum xp_trap_verdict __wrap_xp_trap(struct xp_regs *regs, unsigned shard)
{
	struct machine_counts *counts = &machine_counts[machine_cpu()];
	enum xp_trap_verdict verdict;

	counts->traps++;
	counts->traps_in_nmi += counts->in_nmi > 0;
	counts->traps_in_mce += counts->in_mce > 0;
	counts->traps_in_trap += counts->in_trap > 0;
	counts->in_trap++;
	verdict = __real_xp_trap(regs, shard);
	counts->in_trap--;
	return verdict;
}

/* Slow before it counts: a processor that answers before it has serialized is found not to have. */
void __wrap_xp__serialize(void)
{
	for (unsigned i = 0; i < 20 + machine_slowness[machine_cpu()]; i++)
		xp__cpu_relax();
	while (__atomic_load_n(&machine_held[machine_cpu()], __ATOMIC_ACQUIRE)) {
		__atomic_store_n(&machine_stopped[machine_cpu()], true, __ATOMIC_RELEASE);
		xp__cpu_relax();
	}
	__real_xp__serialize();
	machine_counts[machine_cpu()].serialized++;
}

/*
 * QEMU before 8.1 translates an instruction without holding off stores to it: a processor that translates the old bytes
 * while another one stores the new ones may keep the old translation, past any serializing instruction, until the next
 * store to that page. After each sync every other processor has ended the translation that it was in, so what the phase
 * stored is stored once more, which drops those; what is translated later is new anyway. Bytes do not change by it.
 */
enum { NR_STORED = 1024 };
static struct {
	uint8_t *at;
	size_t len;
} stored[NR_STORED];
static unsigned nr_stored;

int __real_xp__bare_text_write(void *addr, const void *bytes, size_t len, unsigned flags);
int __wrap_xp__bare_text_write(void *addr, const void *bytes, size_t len, unsigned flags);
int __real_xp__bare_sync(void);
int __wrap_xp__bare_sync(void);

int __wrap_xp__bare_text_write(void *addr, const void *bytes, size_t len, unsigned flags)
{
	if (xp__bare_write_early || xp_bare_parked())
		return __real_xp__bare_text_write(addr, bytes, len, flags); /* no sync follows; nothing is translated */
	if (nr_stored == NR_STORED)
		machine_bail("more stores in a phase than the machine keeps");
	stored[nr_stored].at = addr;
	stored[nr_stored++].len = len;
	return __real_xp__bare_text_write(addr, bytes, len, flags);
}

int __wrap_xp__bare_sync(void)
{
	static uint8_t copy[64 << 10];
	int error = __real_xp__bare_sync();

	for (unsigned i = 0; i < nr_stored; i++) {
		memcpy(copy, stored[i].at, stored[i].len);
		__real_xp__bare_text_write(stored[i].at, copy, stored[i].len, 0);
	}
	nr_stored = 0;
	return error;
}

static void call_inject(struct xp_bare_frame *frame)
{
	machine_on_inject((int)(uintptr_t)frame);
}

static void inject(enum xp__point point)
{
	if (machine_on_inject)
		save_sse(call_inject, (struct xp_bare_frame *)(uintptr_t)point);
}

struct machine_counts machine_counts_sum(void)
{
	struct machine_counts sum;
	uint64_t *to = (uint64_t *)&sum;

	memset(&sum, 0, sizeof(sum));
	for (unsigned i = 0; i < nr_cpus; i++)
		for (unsigned j = 0; j < sizeof(sum) / sizeof(*to); j++)
			to[j] += ((volatile uint64_t *)&machine_counts[i])[j];
	return sum;
}

static void set_gate(unsigned vector, uintptr_t entry, unsigned ist)
{
	idt[vector] = (struct gate){
		.offset_low = (uint16_t)entry,
		.selector = 0x08,
		.ist = (uint8_t)ist,
		.type = 0x8e,
		.offset_middle = (uint16_t)(entry >> 16),
		.offset_high = (uint32_t)(entry >> 32),
	};
}

unsigned machine_set_stack(unsigned vector, unsigned ist)
{
	unsigned before = idt[vector].ist;

	idt[vector].ist = (uint8_t)ist;
	return before;
}

static void make_idt(void)
{
	for (unsigned i = 0; i < 32; i++)
		set_gate(i, (uintptr_t)machine_stubs + i * 16, i == VECTOR_DOUBLE_FAULT ? IST_DOUBLE : 0);
	set_gate(VECTOR_NMI, (uintptr_t)xp_bare_entry_nmi, IST_NMI);
	set_gate(VECTOR_BREAKPOINT, (uintptr_t)xp_bare_entry_trap, IST_TRAP);
	set_gate(VECTOR_ILLEGAL, (uintptr_t)xp_bare_entry_illegal, 0);
	set_gate(VECTOR_MACHINE_CHECK, (uintptr_t)xp_bare_entry_mce, IST_MCE);
	set_gate(VECTOR_BARE, (uintptr_t)xp_bare_entry_ipi, 0);
	set_gate(VECTOR_WAKE, (uintptr_t)machine_entry_wake, 0);
	set_gate(VECTOR_SPURIOUS, (uintptr_t)machine_entry_spurious, 0);
}

static void load_tables(unsigned number)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) gdtr = {(3 + 2 * 16) * 8 - 1, (uintptr_t)machine_gdt},
				  idtr = {sizeof(idt) - 1, (uintptr_t)idt};
	struct tss *tss = &cpus[number].tss;
	uintptr_t base = (uintptr_t)tss;

	for (unsigned i = 0; i < 4; i++)
		tss->ist[i] = (uintptr_t)ist_stacks[number][i] + MACHINE_STACK;
	tss->iomap = sizeof(*tss);
	bare_cpus[number].trap_ist = (uint64_t *)((uintptr_t)tss + __builtin_offsetof(struct tss, ist[IST_TRAP - 1]));
	machine_gdt[3 + 2 * number] = (sizeof(*tss) - 1) | (base & 0xffffff) << 16 | 0x89ul << 40 |
				      (base >> 24 & 0xff) << 56;
	machine_gdt[4 + 2 * number] = base >> 32;
	__asm__ volatile("lgdt %0" : : "m"(gdtr));
	__asm__ volatile("lidt %0" : : "m"(idtr));
	__asm__ volatile("ltr %w0" : : "r"(0x18 + 16 * number));
	/* Machine checks: everything reported. */
	for (unsigned i = 0; i < (rdmsr(0x179) & 0xff); i++)
		wrmsr(0x400 + 4 * i, ~0ul);
	if (rdmsr(0x179) & 0x100)
		wrmsr(0x17b, ~0ul);
}

/* ---- processors ---- */

/* An NMI right behind STI lets the interrupt in before HLT, which would wait for another one. */
void machine_wake(struct xp_bare_frame *frame)
{
	if (*(const uint8_t *)frame->ip == 0xf4)
		frame->ip++;
	end_of_interrupt();
}

void machine_cpu_start(void)
{
	unsigned number = APIC[APIC_ID] >> 24;
	struct cpu *self = &cpus[number];

	load_tables(number);
	start_apic();
	__asm__ volatile("sti");
	if (xp_bare_cpu_up())
		machine_bail("a processor was refused");
	__atomic_store_n(&self->started, 1, __ATOMIC_RELEASE);
	for (;;) {
		__asm__ volatile("cli");
		if (!__atomic_load_n(&self->running, __ATOMIC_ACQUIRE)) {
			__asm__ volatile("sti\n\thlt");
			continue;
		}
		__asm__ volatile("sti");
		flush();
		self->job(self->argument);
		__atomic_store_n(&self->running, 0, __ATOMIC_RELEASE);
	}
}

void machine_run(unsigned cpu, void (*job)(void *), void *argument)
{
	cpus[cpu].job = job;
	cpus[cpu].argument = argument;
	__atomic_store_n(&cpus[cpu].running, 1, __ATOMIC_RELEASE);
	icr(cpu, ICR_ASSERT | VECTOR_WAKE);
}

void machine_wait(unsigned cpu)
{
	while (__atomic_load_n(&cpus[cpu].running, __ATOMIC_ACQUIRE))
		xp__cpu_relax();
}

static void pass_us(unsigned us)
{
	uint64_t end = machine_ns() + us * 1000ul;

	while (machine_ns() < end)
		xp__cpu_relax();
}

static void start_cpus(void)
{
	memcpy((void *)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));
	for (unsigned i = 1; i < nr_cpus; i++) {
		*(uint64_t *)(TRAMPOLINE + (size_t)((const uint8_t *)&trampoline_stack - trampoline)) =
			(uintptr_t)machine_stacks[i] + MACHINE_STACK;
		icr(i, ICR_ASSERT | ICR_INIT);
		pass_us(10000);
		for (int again = 0; again < 2 && !__atomic_load_n(&cpus[i].started, __ATOMIC_ACQUIRE); again++) {
			icr(i, ICR_ASSERT | ICR_STARTUP | (uint32_t)(TRAMPOLINE / PAGE));
			pass_us(200);
		}
		while (!__atomic_load_n(&cpus[i].started, __ATOMIC_ACQUIRE))
			xp__cpu_relax();
	}
	/* Only the low 2 MiB stay mapped a second time: text has no writable alias. */
	for (unsigned i = 1; i < 512; i++)
		machine_low[i] = 0;
	flush();
}

/* ---- start ---- */

static uintptr_t stack_end(uintptr_t sp)
{
	return (sp | (MACHINE_STACK - 1)) + 1;
}

static const struct xp_range text[] = {
	{(uintptr_t)machine_text_start, (uintptr_t)machine_text_end},
	{(uintptr_t)machine_arena, (uintptr_t)machine_arena + MACHINE_ARENA},
};

struct xp_bare machine_bare = {
	.memory = memory,
	.text = text,
	.nr_text = 2,
	.cpus = bare_cpus,
	.cpu = machine_cpu,
	.ipi = machine_send_ipi,
	.done = end_of_interrupt,
	.window = machine_window,
	.physical = physical,
	.nmi = on_nmi,
	.mce = on_mce,
	.foreign = on_foreign,
	.illegal = on_illegal,
	.stack_end = stack_end,
};

const char *machine_command_line(void)
{
	return command_line;
}

void machine_start(uint32_t info)
{
	static char words[1024];
	const char *from = (const char *)*(uint64_t *)(uintptr_t)(info + 24);

	for (unsigned i = 0; from && from[i] && i < sizeof(words) - 1; i++)
		words[i] = from[i];
	command_line = words;
	outw(PORT_FW_CFG, FW_CFG_NR_CPUS);
	nr_cpus = inb(PORT_FW_CFG + 1);
	if (nr_cpus > MACHINE_CPUS_MAX)
		machine_bail("more processors than there are stacks for");
	protect_image();
	make_idt();
	load_tables(0);
	start_apic();
	calibrate();
	for (void (*const *init)(void) = machine_init_start; init < machine_init_end; init++)
		(*init)();
	machine_bare.size = machine_memory_size();
	machine_bare.nr_cpus = nr_cpus;
	machine_bare.window_entry = entry_of(machine_window);
	if (xp_bare_start(&machine_bare))
		machine_bail("the port does not start");
	if (xp_module_register(&machine_module))
		machine_bail("the sites cannot be registered");
	xp__inject = inject;
	__asm__ volatile("sti");
	machine_before_cpus();
	start_cpus();
	machine_exit(machine_main());
}
