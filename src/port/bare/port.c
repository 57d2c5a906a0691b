// SPDX-License-Identifier: MIT
/*
 * The bare port: the core's operations on x86-64 without an operating system below.
 *
 * I1  No allocation: all memory is the buffer that the kernel gave. What does not fit is refused.
 * I2  Nothing here calls outside core and arch but the kernel's functions in struct xp_bare.
 * I3  Where memory is short the core may wait for trap handlers: they run with interrupts off until xp_trap() has returned, so those
 *     that began before a commit's last sync ended before their processor answered it; and the committing processor is in
 *     none, or lock() had refused.
 */
#include "port/bare/port.h"

#include "arch/arch.h"
#include "core/deps.h"

#define CR4_CET (1ull << 23)

const struct xp_bare *xp__bare;
struct xp_bare_stats xp__bare_stats;

int xp__bare_refuse(struct xp_diag *diag, int error, const char *detail)
{
	if (diag) {
		diag->error = error;
		diag->detail = detail;
	}
	return error;
}

static bool alone(void)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < xp__bare->nr_cpus; i++)
		nr += __atomic_load_n(&xp__bare->cpus[i].online, __ATOMIC_RELAXED);
	return nr == 1;
}

static bool cet(void)
{
	uint64_t cr4;

	__asm__ volatile("movq %%cr4, %0" : "=r"(cr4));
	return cr4 & CR4_CET;
}

static unsigned can(unsigned needs)
{
	unsigned served = XP_NEED_SYNC | XP_NEED_TRAP | XP_NEED_PARK | XP_NEED_ALONE | XP_NEED_SINGLE;

	/* Shadow stacks may be on: neither an emulated call nor the return of entry.c would be on them. */
	if (!cet())
		served |= XP_NEED_CALL;
	else
		served &= ~(unsigned)XP_NEED_TRAP;
	if (xp__bare->illegal)
		served |= XP_NEED_ILLEGAL;
	return served & needs;
}

static int prepare(unsigned needs, struct xp_diag *diag)
{
	int error = 0;

	xp__bare_write_early = xp__bare->window == NULL;
	if (needs & XP_NEED_ALONE && !alone())
		return xp__bare_refuse(diag, -XP_E_NOT_EARLY, "other processors are running");
	if (xp__bare_write_early && !(needs & XP_NEED_ALONE))
		return xp__bare_refuse(diag, -XP_E_NO_WRITER, "the kernel gave no window to write text through");
	if (xp__bare_write_early && cet()) /* CR0.WP cannot be cleared then (SDM vol. 3, 2.5) */
		return xp__bare_refuse(diag, -XP_E_NO_WRITER,
				       "CR4.CET is set, and there is no window yet to write text through");
	if (needs & XP_NEED_TRAP)
		error = xp__bare_gates(diag);
	if (!error && needs & XP_NEED_ILLEGAL)
		error = xp__bare_illegal_gate(diag);
	return error;
}

static struct xp_port port = {
	.abi = XP_PORT_ABI,
	.name = "bare",
	.lock = xp__bare_lock,
	.unlock = xp__bare_unlock,
	.alloc = xp__bare_alloc,
	.release = xp__bare_release,
	.bounded = true,
	.can = can,
	.prepare = prepare,
	.text_check = xp__bare_text_check,
	.text_read = xp__bare_text_read,
	.text_peek = xp__bare_text_peek,
	.text_write = xp__bare_text_write,
	.sync_core = xp__bare_sync,
	.park = xp__bare_park,
	.unpark = xp__bare_unpark,
};

int xp_bare_start(const struct xp_bare *machine)
{
	if (machine == NULL || machine->memory == NULL || machine->text == NULL || machine->cpus == NULL ||
	    machine->cpu == NULL || machine->ipi == NULL || machine->done == NULL || machine->nmi == NULL ||
	    machine->mce == NULL || machine->foreign == NULL || machine->stack_end == NULL ||
	    (machine->window && (machine->window_entry == NULL || machine->physical == NULL)) ||
	    !machine->preempt_disable != !machine->preempt_enable || (machine->defer && machine->clock_ms == NULL) ||
	    machine->cpu() >= machine->nr_cpus)
		return -XP__EINVAL;
	xp__bare = machine;
	xp__bare_memory_start(machine->memory, machine->size);
	port.defer = machine->defer;
	port.clock_ms = machine->clock_ms;
	xp__bare_self()->online = 1;
	return xp_port_set(&port);
}

static int set_online(uint32_t online)
{
	unsigned number = xp__bare->cpu();
	int error;

	if (number >= xp__bare->nr_cpus)
		return -XP__EINVAL;
	error = xp__bare_lock(); /* no commit is under way that counts on which processors are online */
	if (error)
		return error;
	__atomic_store_n(&xp__bare->cpus[number].online, online, __ATOMIC_RELAXED);
	xp__serialize();
	xp__bare_unlock();
	return 0;
}

int xp_bare_cpu_up(void)
{
	return set_online(1);
}

int xp_bare_cpu_down(void)
{
	return set_online(0);
}

void xp_bare_stats_read(struct xp_bare_stats *stats)
{
	*stats = xp__bare_stats;
}
