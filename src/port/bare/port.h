/* SPDX-License-Identifier: MIT */
/* What the files of this port have of each other. */
#ifndef XP_BARE_PORT_H
#define XP_BARE_PORT_H

#include "port/bare/bare.h"

extern const struct xp_bare *xp__bare;
extern struct xp_bare_stats xp__bare_stats;

/* xp__bare_refuse - fills @diag (may be NULL) and returns @error. */
int xp__bare_refuse(struct xp_diag *diag, int error, const char *detail);

static inline struct xp_bare_cpu *xp__bare_self(void)
{
	return &xp__bare->cpus[xp__bare->cpu()];
}

/* xp__bare_irq_save / _restore - interrupts off, and as before. */
static inline uint64_t xp__bare_irq_save(void)
{
	uint64_t flags;

	__asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags) : : "memory");
	return flags;
}

static inline void xp__bare_irq_restore(uint64_t flags)
{
	__asm__ volatile("pushq %0\n\tpopfq" : : "r"(flags) : "memory", "cc");
}

static inline void xp__bare_preempt_disable(void)
{
	if (xp__bare->preempt_disable)
		xp__bare->preempt_disable();
}

static inline void xp__bare_preempt_enable(void)
{
	if (xp__bare->preempt_disable)
		xp__bare->preempt_enable();
}

/* ---- memory.c: first fit in the kernel's buffer; text lock ---- */
void xp__bare_memory_start(void *memory, size_t size);
void *xp__bare_alloc(size_t size);
void xp__bare_release(void *memory, size_t size);

/* ---- lock.c ---- */
int xp__bare_lock(void);
void xp__bare_unlock(void);

/* ---- write.c ---- */
int xp__bare_text_check(const void *addr, size_t len);
int xp__bare_text_peek(const void *addr);
int xp__bare_text_read(void *to, const void *addr, size_t len);
int xp__bare_text_write(void *addr, const void *bytes, size_t len, unsigned flags);
/* xp__bare_write_early - whether the writes of this commit go by CR0.WP. */
extern bool xp__bare_write_early;

/* ---- rendezvous.c ---- */
int xp__bare_sync(void);
int xp__bare_park(const struct xp_range *ranges, size_t nr_ranges, struct xp_diag *diag);
void xp__bare_unpark(void);

/* ---- breakpoint.c ---- */
/* xp__bare_gates - 0 if the executing processor's IDT gives vectors 2, 3 and 18 an interrupt stack each. */
int xp__bare_gates(struct xp_diag *diag);
/* xp__bare_illegal_gate - 0 if it gives vector 6 a handler, without one. */
int xp__bare_illegal_gate(struct xp_diag *diag);

#endif
