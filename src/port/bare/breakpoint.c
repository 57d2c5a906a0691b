// SPDX-License-Identifier: MIT
/*
 * Breakpoints, and the contexts that breakpoints may interrupt and be met in.
 *
 * I1  The breakpoint handler takes no lock and executes no site; it may stand anywhere, also inside itself.
 * I2  Nesting. The processor puts a breakpoint's frame at the top of the stack that the TSS names, whether or not that
 *     stack is in use. So a handler that interrupts a breakpoint handler and may meet a breakpoint itself first moves the
 *     TSS on to a stack of its own, and back at its end: NMI, machine check, and the foreign handler that ours calls. An
 *     NMI that comes between the processor's push and the first instruction of the handler does so as well: there is
 *     no window.
 * I3  Before that move, and after the move back, no site is executed: neither here nor in the entry code.
 */
#include "port/bare/port.h"

#include <crosspatch/arch.h>

#define VECTOR_NMI 2
#define VECTOR_BREAKPOINT 3
#define VECTOR_ILLEGAL 6
#define VECTOR_MACHINE_CHECK 18

#define FLAGS_IF 0x200u
#define GATE_PRESENT 0x80u

static struct xp_bare_cpu *enter(void)
{
	struct xp_bare_cpu *self = xp__bare_self();

	self->depth++;
	*(volatile uint64_t *)self->trap_ist -= XP_BARE_TRAP_STACK;
	return self;
}

static void leave(struct xp_bare_cpu *self)
{
	*(volatile uint64_t *)self->trap_ist += XP_BARE_TRAP_STACK;
	self->depth--;
}

/* volatile: a plain loop would become memcpy, which may be what is being patched. */
static void copy_registers(volatile uint64_t to[16], const uint64_t from[16])
{
	for (unsigned i = 0; i < 16; i++)
		to[i] = from[i];
}

static void take_registers(struct xp_regs *regs, const struct xp_bare_frame *frame)
{
	copy_registers(regs->gpr, frame->gpr);
	regs->gpr[4] = frame->sp;
	regs->ip = frame->ip;
	regs->flags = frame->flags;
	regs->cs = 0;
}

static void give_registers(struct xp_bare_frame *frame, const struct xp_regs *regs)
{
	copy_registers(frame->gpr, regs->gpr);
	frame->sp = regs->gpr[4];
	frame->ip = regs->ip;
	frame->flags = regs->flags;
}

void xp_bare_trap(struct xp_bare_frame *frame)
{
	struct xp_regs regs;

	take_registers(&regs, frame);
	if (xp_trap(&regs, xp__bare->cpu()) == XP_TRAP_FOREIGN) {
		struct xp_bare_cpu *self = enter();

		xp__bare->foreign(frame);
		leave(self);
		return;
	}
	give_registers(frame, &regs);
}

void xp_bare_illegal(struct xp_bare_frame *frame)
{
	struct xp_regs regs;
	enum xp_trap_verdict verdict;

	take_registers(&regs, frame);
	/* A commit may wait until no handler looks at its table: one that looks must get on, and not lie preempted (port.c, I3). */
	xp__bare_preempt_disable();
	if (frame->flags & FLAGS_IF)
		__asm__ volatile("sti" : : : "memory");
	verdict = xp_trap_illegal(&regs, xp__bare->cpu());
	__asm__ volatile("cli" : : : "memory");
	xp__bare_preempt_enable();
	if (verdict == XP_TRAP_FOREIGN)
		xp__bare->illegal(frame);
	else
		give_registers(frame, &regs);
}

void xp_bare_nmi(struct xp_bare_frame *frame)
{
	struct xp_bare_cpu *self = enter();

	xp__bare->nmi(frame);
	leave(self);
}

void xp_bare_mce(struct xp_bare_frame *frame)
{
	struct xp_bare_cpu *self = enter();

	xp__bare->mce(frame);
	leave(self);
}

struct gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_middle;
	uint32_t offset_high, reserved;
};

static bool read_gate(unsigned vector, struct gate *gate)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr;

	__asm__ volatile("sidt %0" : "=m"(idtr));
	if (idtr.limit < (vector + 1) * sizeof(*gate) - 1)
		return false;
	*gate = ((const struct gate *)idtr.base)[vector];
	return true;
}

int xp__bare_gates(struct xp_diag *diag)
{
	struct gate nmi, trap, mce;

	if (!read_gate(VECTOR_NMI, &nmi) || !read_gate(VECTOR_BREAKPOINT, &trap) ||
	    !read_gate(VECTOR_MACHINE_CHECK, &mce))
		return xp__bare_refuse(diag, -XP_E_NO_METHOD, "the IDT has no gates for breakpoint and machine check");
	if (nmi.ist == 0 || trap.ist == 0 || mce.ist == 0 || nmi.ist == trap.ist || nmi.ist == mce.ist ||
	    trap.ist == mce.ist)
		return xp__bare_refuse(diag, -XP_E_NO_METHOD,
				       "NMI, breakpoint and machine check need an interrupt stack each");
	return 0;
}

int xp__bare_illegal_gate(struct xp_diag *diag)
{
	struct gate gate;

	if (!read_gate(VECTOR_ILLEGAL, &gate) || !(gate.type & GATE_PRESENT))
		return xp__bare_refuse(diag, -XP_E_NO_METHOD, "the IDT has no gate for illegal instructions");
	if (gate.ist)
		return xp__bare_refuse(diag, -XP_E_NO_METHOD,
				       "the gate of illegal instructions must not have an interrupt stack");
	return 0;
}
