/* SPDX-License-Identifier: MIT */
/*
 * Named points in the protocol and the trap path where a test build waits or looks around; nothing otherwise. Torture
 * that does not delay between the steps does not notice a wrong order.
 */
#ifndef XP_CORE_INJECT_H
#define XP_CORE_INJECT_H

enum xp__point {
	XP__POINT_PUBLISHED,    /* trap table published, no breakpoint stored */
	XP__POINT_STORED,       /* a phase's stores done, not synced */
	XP__POINT_SYNCED,       /* a phase synced */
	XP__POINT_RETIRED,      /* trap table retired */
	XP__POINT_TRAP_ENTERED, /* handler counted in, table not yet read */
	XP__POINT_TRAP_FOUND,   /* handler found its site, not yet emulated */
	XP__POINT_TRAP_MISSED,  /* handler found nothing, text not yet read */
	XP__POINT_FAULT_FOUND,  /* handler found its gate's site, text not yet read */
};

#ifdef XP_INJECT
extern void (*xp__inject)(enum xp__point point);
#define XP__INJECT(point)                                                                                              \
	do {                                                                                                           \
		if (xp__inject)                                                                                        \
			xp__inject(point);                                                                             \
	} while (0)
#else
#define XP__INJECT(point) ((void)0)
#endif

#endif
