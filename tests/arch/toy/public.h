/* SPDX-License-Identifier: MIT */
/* What <crosspatch/arch.h> has of the toy: its registers. No compiler emits its sites, so there are no macros. */
#ifndef XP_TOY_PUBLIC_H
#define XP_TOY_PUBLIC_H

#include <stdint.h>

struct xp_regs {
	uint64_t ip; /* of a trap: the instruction that traps itself */
	uint64_t link;
	uint64_t gpr[4];
};

#endif
