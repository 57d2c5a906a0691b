// SPDX-License-Identifier: MIT
/* Provides the gate "compress" while it is loaded, and calls the host's gate "report". */
#include "gates.h"

int leave(void);

static int halve(int size)
{
	return size / 2;
}

__attribute__((constructor)) static void come(void)
{
	if (xp_gate_provide("compress", halve) == 0)
		xp_gate(report)("here");
}

/* Before it is closed. Calls may still be inside: the host knows when they are not. */
int leave(void)
{
	xp_gate(report)("going");
	return xp_gate_withdraw("compress");
}
