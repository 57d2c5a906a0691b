/* SPDX-License-Identifier: MIT */
/* Why a commit is refused. */
#ifndef XP_LINUX_DIAG_H
#define XP_LINUX_DIAG_H

#include <crosspatch/error.h>

#include <stddef.h>

/* xp__refuse - fills @diag and returns @error. */
static inline int xp__refuse(struct xp_diag *diag, int error, int system, const char *detail)
{
	if (diag) {
		diag->error = error;
		diag->system = system;
		diag->detail = detail;
	}
	return error;
}

#endif
