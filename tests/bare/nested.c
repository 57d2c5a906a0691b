// SPDX-License-Identifier: MIT
/*
 * One processor, and each nesting of breakpoint, NMI, machine check and foreign breakpoint made to happen at a known place:
 * the patcher itself executes the sites between two steps of its own commit, when breakpoints stand at them.
 */
#include "xp_test.h"
#include "xp_text.h"

#include "core/state.h"
#include "core/inject.h"
#include "port/bare/port.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/gate.h>

XP_DEFINE_STATIC_KEY_FALSE(first_key);
XP_DEFINE_STATIC_KEY_FALSE(second_key);

static __attribute__((noinline)) bool first_site(void)
{
	return xp_static_branch_unlikely(&first_key);
}

static __attribute__((noinline)) bool second_site(void)
{
	return xp_static_branch_unlikely(&second_key);
}

static void (*at_breakpoints)(void); /* what is done once, while breakpoints stand */
static void (*in_handler)(void);     /* once, in the handler that has found its site */
static unsigned cpu_now;
static int error_in_nmi, error_in_foreign;

static void on_point(int point)
{
	void (*what)(void) = NULL;

	if (point == XP__POINT_SYNCED && at_breakpoints) {
		what = at_breakpoints;
		at_breakpoints = NULL;
	} else if (point == XP__POINT_TRAP_FOUND && in_handler) {
		what = in_handler;
		in_handler = NULL;
	}
	if (what)
		what();
}

/* Both keys on and off again, by breakpoints; @during while they stand the first time. */
static void commit(void (*during)(void))
{
	struct xp_batch *batch = xp_batch_new();

	CHECK(batch != NULL);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	machine_on_inject = on_point;
	for (int on = 1; on >= 0; on--) {
		CHECK_EQ(xp_batch_add_key(batch, &first_key.key, on), 0);
		CHECK_EQ(xp_batch_add_key(batch, &second_key.key, on), 0);
		at_breakpoints = on ? during : NULL;
		CHECK_EQ(xp_batch_commit(batch, NULL), 0);
		CHECK(at_breakpoints == NULL);
		CHECK_EQ(first_site(), on);
		CHECK_EQ(second_site(), on);
	}
	machine_on_inject = NULL;
	machine_on_nmi = NULL;
	machine_on_mce = NULL;
	machine_on_foreign = NULL;
	xp_batch_free(batch);
}

static const struct machine_counts *counts(void)
{
	return &machine_counts[cpu_now];
}

static void send_nmi(void)
{
	machine_send_nmi(cpu_now);
}

/* Sends an NMI to this processor and waits for it. Not from an NMI. */
static void take_nmi(void)
{
	uint64_t before = counts()->nmis;

	send_nmi();
	while (*(volatile const uint64_t *)&counts()->nmis == before)
		__builtin_ia32_pause();
}

/* Time enough for an NMI that nothing holds back. */
static void dawdle(void)
{
	for (unsigned i = 0; i < 20000; i++)
		__builtin_ia32_pause();
}

/* The machine check exception without a machine check: the same gate, stack and handler. */
static void take_mce(void)
{
	__asm__ volatile("int $18" : : : "memory");
}

/* Executes the first site with every register known, and says which of them came back changed. */
static uint64_t changed_registers(void)
{
	uint64_t changed = 0;

	__asm__ volatile("pushq %%rbp\n\t"
			 "pushq %%rbx\n\t"
			 "movq $0x1111, %%rbx\n\tmovq $0x2222, %%rbp\n\tmovq $0x3333, %%r12\n\t"
			 "movq $0x4444, %%r13\n\tmovq $0x5555, %%r14\n\tmovq $0x6666, %%r15\n\t"
			 "movq $0x7777, %%r8\n\tmovq $0x8888, %%r9\n\tmovq $0x9999, %%r10\n\t"
			 "movq $0xaaaa, %%r11\n\tmovq $0xbbbb, %%rsi\n\tmovq $0xcccc, %%rdi\n\t"
			 "movq $0xdddd, %%rdx\n\tmovq $0xeeee, %%rcx\n\t"
			 "call *%%rax\n\t"
			 "xorq $0x1111, %%rbx\n\txorq $0x2222, %%rbp\n\txorq $0x3333, %%r12\n\t"
			 "xorq $0x4444, %%r13\n\txorq $0x5555, %%r14\n\txorq $0x6666, %%r15\n\t"
			 "xorq $0x7777, %%r8\n\txorq $0x8888, %%r9\n\txorq $0x9999, %%r10\n\t"
			 "xorq $0xaaaa, %%r11\n\txorq $0xbbbb, %%rsi\n\txorq $0xcccc, %%rdi\n\t"
			 "xorq $0xdddd, %%rdx\n\txorq $0xeeee, %%rcx\n\t"
			 "movq %%rbx, %%rax\n\torq %%rbp, %%rax\n\torq %%r12, %%rax\n\torq %%r13, %%rax\n\t"
			 "orq %%r14, %%rax\n\torq %%r15, %%rax\n\torq %%r8, %%rax\n\torq %%r9, %%rax\n\t"
			 "orq %%r10, %%rax\n\torq %%r11, %%rax\n\torq %%rsi, %%rax\n\torq %%rdi, %%rax\n\t"
			 "orq %%rdx, %%rax\n\torq %%rcx, %%rax\n\t"
			 "popq %%rbx\n\t"
			 "popq %%rbp"
			 : "=a"(changed)
			 : "0"((uintptr_t)first_site)
			 : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory",
			   "cc");
	return changed;
}

/* ---- one level ---- */

static void execute_both(void)
{
	uint64_t before = counts()->traps;

	/* The site changes eax alone. */
	CHECK_EQ(changed_registers(), 0);
	CHECK(first_site());
	CHECK(second_site());
	CHECK_EQ(counts()->traps - before, 3);
}

XP_TEST(trap)
{
	commit(execute_both);
}

/* ---- NMI inside a trap ---- */

static void nmi_executes(struct xp_bare_frame *frame)
{
	(void)frame;
	CHECK(second_site());
	error_in_nmi = xp_static_branch_enable(&first_key);
}

static void execute_first(void)
{
	struct machine_counts before = *counts();

	in_handler = take_nmi;
	CHECK_EQ(changed_registers(), 0);
	CHECK_EQ(counts()->nmis_in_trap - before.nmis_in_trap, 1);
	CHECK_EQ(counts()->traps_in_trap - before.traps_in_trap, 1);
	CHECK_EQ(counts()->traps_in_nmi - before.traps_in_nmi, 1);
}

XP_TEST(nmi_inside_a_trap)
{
	machine_on_nmi = nmi_executes;
	commit(execute_first);
	/* From an NMI nothing is patched, and nothing waited for. */
	CHECK_EQ(error_in_nmi, -XP_E_REENTRANT);
}

/* ---- a trap inside an NMI leaves NMIs blocked ---- */

static uint64_t nmis_after_trap;
static void (*inside_nmi)(void);

static void nmi_traps(struct xp_bare_frame *frame)
{
	uint64_t mine = counts()->nmis;

	(void)frame;
	if (inside_nmi == NULL)
		return;
	send_nmi(); /* pending until this one ends */
	inside_nmi();
	inside_nmi = NULL;
	dawdle();
	nmis_after_trap = *(volatile const uint64_t *)&counts()->nmis - mine;
}

static void nmi_with_second_pending(void)
{
	uint64_t before = counts()->nmis;

	nmis_after_trap = 99;
	take_nmi();
	dawdle();
	CHECK_EQ(nmis_after_trap, 0);
	CHECK_EQ(counts()->nmis - before, 2);
	CHECK_EQ(counts()->nested_nmis, 0);
}

XP_TEST(trap_inside_an_nmi)
{
	machine_on_nmi = nmi_traps;
	inside_nmi = execute_both;
	commit(nmi_with_second_pending);
}

XP_TEST(machine_check_inside_an_nmi)
{
	machine_on_nmi = nmi_traps;
	inside_nmi = take_mce;
	commit(nmi_with_second_pending);
}

/* ---- from an NMI or a machine check nothing is patched, not even while no other processor does ---- */

static int error_in_mce;

static void nmi_patches(struct xp_bare_frame *frame)
{
	(void)frame;
	error_in_nmi = xp_static_branch_enable(&first_key);
}

static void mce_patches(struct xp_bare_frame *frame)
{
	(void)frame;
	error_in_mce = xp_static_branch_enable(&first_key);
}

XP_TEST(nothing_is_patched_from_an_nmi)
{
	machine_on_nmi = nmi_patches;
	machine_on_mce = mce_patches;
	take_nmi();
	take_mce();
	machine_on_nmi = NULL;
	machine_on_mce = NULL;
	CHECK_EQ(error_in_nmi, -XP_E_REENTRANT);
	CHECK_EQ(error_in_mce, -XP_E_REENTRANT);
	CHECK(!first_site());
}

/* ---- gates: a site that faults is bound by the fault, but not in an NMI, where it is called as it is ---- */

static int closed(int x)
{
	return x + 1;
}

static int open(int x)
{
	return x + 2;
}

XP_DECLARE_GATE_FALLBACK(int, entrance, (int x), closed);

#define SITE_AT 8 /* in a caller */
__asm__(".pushsection .text\n"
	".balign 64\n"
	"gate_callers:\n"
	".rept 2\n"
	".balign 64\n"
	"subq $8, %rsp\n"
	".balign 8\n"
	"661: .byte 0x0f, 0x0b, 0x2e, 0xe8, 0, 0, 0, 0\n"
	"addq $8, %rsp\n"
	"ret\n"
	".pushsection xp_gate_sites,\"a\",@progbits\n"
	".balign 4\n"
	".long 661b - .\n"
	".long xp_gate_entrance + 1 - .\n"
	".popsection\n"
	".endr\n"
	".popsection");
extern uint8_t gate_callers[];

static bool is_bound(unsigned caller)
{
	return *(volatile uint8_t *)&gate_callers[64 * caller + SITE_AT] != 0x0f;
}

static int call_gate(unsigned caller)
{
	return ((int (*)(int))(uintptr_t)(gate_callers + (size_t)64 * caller))(5);
}

XP_TEST(gate_faults_once)
{
	struct machine_counts before = *counts();

	CHECK_EQ(xp_gate_provide("entrance", open), 0);
	CHECK(!is_bound(0));
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(call_gate(0), 7);
		CHECK_EQ(counts()->faults - before.faults, 1);
	}
	CHECK(is_bound(0));
	CHECK_EQ(counts()->faults_off, before.faults_off); /* a processor that commits lets interrupts in */
	CHECK_EQ(xp_gate_withdraw("entrance"), 0);
	CHECK_EQ(call_gate(0), 6);
}

static void call_gate_twice(void)
{
	CHECK_EQ(call_gate(1), 7);
	CHECK_EQ(call_gate(1), 7);
}

XP_TEST(gate_inside_an_nmi)
{
	struct machine_counts before = *counts();

	CHECK_EQ(xp_gate_provide("entrance", open), 0);
	machine_on_nmi = nmi_traps;
	inside_nmi = call_gate_twice;
	nmi_with_second_pending();
	machine_on_nmi = NULL;
	CHECK_EQ(counts()->faults - before.faults, 2);
	CHECK(!is_bound(1));
	CHECK_EQ(call_gate(1), 7);
	CHECK(is_bound(1));
	CHECK_EQ(xp_gate_withdraw("entrance"), 0);
}

/* ---- a kernel's code touches no vector register: a user's values are in it, or CR0.TS says that they are elsewhere ---- */

XP_DECLARE_GATE(int, unmarked, (int x));
XP_DECLARE_GATE(int, nowhere, (int x));
#define CR0_TS 8ul

/* The call that the resolver is to find: what the compiler would make a tail call. */
static __attribute__((noinline)) int call_unmarked(int x)
{
	return xp_gate(unmarked)(x) + 1;
}

static inline uint64_t without_vectors(void)
{
	uint64_t cr0;

	__asm__ volatile("movq %%cr0, %0" : "=r"(cr0) : : "memory");
	__asm__ volatile("movq %0, %%cr0" : : "r"(cr0 | CR0_TS) : "memory");
	return cr0;
}

static inline void with_vectors(uint64_t cr0)
{
	__asm__ volatile("movq %0, %%cr0" : : "r"(cr0) : "memory");
}

XP_TEST(gates_touch_no_vectors)
{
	int unbound, bound, again, returned;
	uint64_t cr0;

	CHECK_EQ(xp_gate_provide("unmarked", open), 0);
	cr0 = without_vectors();
	returned = xp_gate(nowhere)(5);
	unbound = call_unmarked(5);
	bound = call_unmarked(6);
	again = call_gate(0);
	with_vectors(cr0);
	CHECK_EQ(returned, 0);
	CHECK_EQ(unbound, 8);
	CHECK_EQ(bound, 9);
	CHECK_EQ(again, 6);
	CHECK_EQ(xp_gate_withdraw("unmarked"), 0);
}

/* Entered again while it waits, the handler would lose its frame. Refused when sites that fault are registered. */
XP_TEST(illegal_instructions_need_no_stack)
{
	struct xp_diag diag;

	CHECK_EQ(xp__port->prepare(XP_NEED_ILLEGAL, &diag), 0);
	machine_set_stack(6, 2);
	CHECK_EQ(xp__port->prepare(XP_NEED_ILLEGAL, &diag), -XP_E_NO_METHOD);
	machine_set_stack(6, 0);
	CHECK_STR(diag.detail, "the gate of illegal instructions must not have an interrupt stack");
}

/* ---- a call that is emulated moves the stack pointer ---- */

static struct xp_text calling;
static unsigned called;

static void execute_call(void)
{
	uint64_t before = counts()->traps;

	called = xp_text_call(calling.base, 1, 0);
	CHECK_EQ(counts()->traps - before, 1);
}

XP_TEST(call_is_emulated)
{
	/* nop5; inc %eax; ret - and at 16: mov $7, %eax; ret */
	static const uint8_t code[] = {0x0f, 0x1f, 0x44, 0x00, 0x00, 0xff, 0xc0, 0xc3, 0xcc, 0xcc, 0xcc,
				       0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xb8, 7,    0,    0,    0,    0xc3};
	uint8_t call[5];
	struct xp_poke poke = {.expect = code, .replace = call, .len = 5};

	REQUIRE(xp_text_make(&calling, code, sizeof(code)));
	poke.addr = calling.base;
	CHECK_EQ(xp_text_gen_insn(call, 0xe8, calling.base, calling.base + 16), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	machine_on_inject = on_point;
	at_breakpoints = execute_call;
	called = 0;
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	machine_on_inject = NULL;
	CHECK_EQ(called, 8);
	CHECK_EQ(xp_text_call(calling.base, 1, 0), 8);
	xp_text_free(&calling);
}

/* ---- machine check inside a trap, and everything at once ---- */

static void mce_executes(struct xp_bare_frame *frame)
{
	(void)frame;
	CHECK(first_site());
	CHECK(second_site());
}

static void mce_in_handler(void)
{
	struct machine_counts before = *counts();

	in_handler = take_mce;
	CHECK_EQ(changed_registers(), 0);
	CHECK_EQ(counts()->mces_in_trap - before.mces_in_trap, 1);
	CHECK_EQ(counts()->traps_in_mce - before.traps_in_mce, 2);
}

XP_TEST(machine_check_inside_a_trap)
{
	machine_on_mce = mce_executes;
	commit(mce_in_handler);
}

static void nmi_to_mce(struct xp_bare_frame *frame)
{
	(void)frame;
	in_handler = take_mce;
	CHECK(second_site());
	CHECK(first_site());
}

/* trap → NMI → trap → machine check → trap */
static void everything(void)
{
	struct machine_counts before = *counts();

	in_handler = take_nmi;
	CHECK_EQ(changed_registers(), 0);
	CHECK_EQ(counts()->nmis - before.nmis, 1);
	CHECK_EQ(counts()->mces - before.mces, 1);
	CHECK_EQ(counts()->traps - before.traps, 5);
	CHECK_EQ(counts()->traps_in_mce - before.traps_in_mce, 2);
}

XP_TEST(trap_nmi_trap_machine_check_trap)
{
	machine_on_nmi = nmi_to_mce;
	machine_on_mce = mce_executes;
	commit(everything);
}

/* ---- interrupts: a trap in a context that has them on returns to them on ---- */

static bool interrupts_on(void)
{
	uint64_t flags;

	__asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
	return flags & 0x200;
}

static void with_and_without_interrupts(void)
{
	CHECK(interrupts_on());
	CHECK(first_site());
	CHECK(interrupts_on());
	__asm__ volatile("cli" : : : "memory");
	CHECK(first_site());
	CHECK(!interrupts_on());
	__asm__ volatile("sti" : : : "memory");
}

XP_TEST(flags_come_back)
{
	commit(with_and_without_interrupts);
}

/* ---- a foreign prober beside ours ---- */

static struct xp_text probed;
static uint8_t *probe; /* its int3, where a nop was */
static unsigned probes;

static unsigned call_probed(void)
{
	return xp_text_call(probed.base, 1, 0);
}

static void on_probe(struct xp_bare_frame *frame)
{
	probes++;
	CHECK_EQ(frame->ip, (uintptr_t)probe + 1); /* as if we were not there; behind it the function goes on */
	CHECK_EQ(frame->gpr[0], 1);
	error_in_foreign = xp_static_branch_enable(&first_key);
	/* The prober's own handler meets our breakpoints, and its own. */
	CHECK(first_site());
	CHECK(second_site());
	if (probes == 1)
		CHECK_EQ(call_probed(), 1);
}

static void execute_probed(void)
{
	struct machine_counts before = *counts();

	CHECK_EQ(call_probed(), 1);
	CHECK_EQ(probes, 2);
	CHECK_EQ(counts()->foreign - before.foreign, 2);
	/* Two of the prober, two of ours in each of its handlers. */
	CHECK_EQ(counts()->traps - before.traps, 6);
}

XP_TEST(foreign_breakpoint_beside_ours)
{
	static const uint8_t code[] = {0x90, 0x90, 0xc3}, int3 = 0xcc;

	REQUIRE(xp_text_make(&probed, code, sizeof(code)));
	probe = probed.base + 1;
	probes = 0;
	CHECK_EQ(xp__bare_text_write(probe, &int3, 1, 0), 0);
	machine_on_foreign = on_probe;
	commit(execute_probed);
	CHECK_EQ(error_in_foreign, -XP_E_REENTRANT);
	xp_text_free(&probed);
}

/* A foreign breakpoint where the kernel may read nothing: a user's, whose page went away meanwhile. */
static uint64_t unreadable;

static void on_unreadable(struct xp_bare_frame *frame)
{
	unreadable = frame->ip;
}

XP_TEST(foreign_breakpoint_outside_of_text)
{
	static const uintptr_t nowhere[] = {0x7fffffffe000, 0, 0xffffffffffffffff};

	commit(NULL); /* before the first one the text is not looked at */
	machine_on_foreign = on_unreadable;
	for (unsigned i = 0; i < 3; i++) {
		struct xp_bare_frame frame = {.ip = nowhere[i], .flags = 0x202};

		unreadable = 1;
		xp_bare_trap(&frame);
		CHECK_EQ(unreadable, nowhere[i]);
	}
	machine_on_foreign = NULL;
}

/* The prober's int3 stands at a site of ours: refused, and left alone. */
XP_TEST(foreign_breakpoint_at_a_site)
{
	static const uint8_t code[] = {0x0f, 0x1f, 0x44, 0x00, 0x00, 0xc3}, int3 = 0xcc;
	uint8_t replace[5];
	struct xp_poke poke = {.expect = code, .replace = replace, .len = 5};
	struct xp_diag diag;

	REQUIRE(xp_text_make(&probed, code, sizeof(code)));
	poke.addr = probed.base;
	CHECK_EQ(xp_text_gen_insn(replace, 0xe9, probed.base, probed.base + 5), 0);
	CHECK_EQ(xp__bare_text_write(probed.base, &int3, 1, 0), 0);
	CHECK_EQ(xp_text_poke(&poke, &diag), -16);
	CHECK(diag.site == probed.base);
	CHECK_EQ(probed.base[0], 0xcc);
	CHECK_MEM(probed.base + 1, code + 1, 5);
	xp_text_free(&probed);
}

struct xp_test_state xp_test_state;
int main(int argc, char **argv)
{
	cpu_now = machine_cpu();
	return xp_test_main(argc, argv);
}
