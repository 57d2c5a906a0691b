/* SPDX-License-Identifier: MIT */
/*
 * Waits at the points of core/inject.h, in the writer between its steps and in the trap handler between its looks, so
 * that windows of nanoseconds become wide enough to be hit: without this a wrong order of steps goes unnoticed.
 * The waits are long and short by chance; sometimes the processor is given to another.
 */
#ifndef XP_DELAYS_H
#define XP_DELAYS_H

#include "xp_test.h"

#include "core/inject.h"
#include "port/linux/sys.h"

#ifndef XP_INJECT
#error "this program is linked with a library built with XP_INJECT"
#endif

/* The last one, of faults, is passed by those alone that have gates. */
static uint64_t xp_delays_passed[XP__POINT_FAULT_FOUND + 1];

/* Whether each point up to @last was passed. */
static inline bool xp_delays_all(enum xp__point last)
{
	for (unsigned i = 0; i <= (unsigned)last; i++)
		if (__atomic_load_n(&xp_delays_passed[i], __ATOMIC_RELAXED) == 0)
			return false;
	return true;
}

/* Some @cycles at most. */
static inline void xp_delay_spin(uint64_t cycles)
{
	uint64_t until = __builtin_ia32_rdtsc() + cycles;

	while (__builtin_ia32_rdtsc() < until)
		__builtin_ia32_pause();
}

/* For xp__inject. In the trap handler: no libc. The state may be torn by a nested handler: that is random too. */
static inline void xp_delay_here(enum xp__point point)
{
	static __thread uint64_t state __attribute__((tls_model("initial-exec")));
	uint64_t random;

	__atomic_add_fetch(&xp_delays_passed[point], 1, __ATOMIC_RELAXED);
	if (state == 0)
		state = (uintptr_t)&state ^ __builtin_ia32_rdtsc();
	random = xp_test_random(&state);
	/*
	 * Most of all at the door of the handler, where what is taken out meanwhile makes the trap late, and after
	 * it found nothing, when the next commit may begin.
	 */
	switch (random % (point == XP__POINT_TRAP_ENTERED || point == XP__POINT_TRAP_MISSED ? 4 : 16)) {
	case 0:
		XP__SYS1(SYS_sched_yield, 0);
		break;
	case 1: /* some 50 µs: longer than a phase */
		xp_delay_spin((random >> 8) % 200000);
		break;
	case 2: /* some 2 µs: longer than a trap */
		xp_delay_spin((random >> 8) % 8000);
		break;
	default:
		break;
	}
}

#endif
