/* SPDX-License-Identifier: MIT */
/* Slots: copies of instructions out of line, each followed by a jump behind its site. */
#ifndef XP_CORE_BYPASS_H
#define XP_CORE_BYPASS_H

#include <crosspatch/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * xp__bypass_slot - where a bystander executes @insn, of @len bytes, in place of the site at @site. Only
 * xp__bypass_fill() writes there. Context: text lock.
 * Errors, with *@detail: -XP_E_EMULATE: it cannot be executed elsewhere; -XP_E_NO_METHOD: the port has no memory to
 * execute from; -XP_E_RANGE: none that is near enough; -ENOMEM.
 */
int xp__bypass_slot(uintptr_t site, const uint8_t *insn, unsigned len, uintptr_t *slot, const char **detail);

/*
 * xp__bypass_fill - writes the slots given out since. Context: text lock, a prepared port. Errors: the port's; those not
 * written are written the next time.
 */
int xp__bypass_fill(struct xp_diag *diag);

/*
 * xp__bypass_returns_into - whether a thread that rests in a slot may come back to an address behind @start and before
 * @end. Context: text lock.
 */
bool xp__bypass_returns_into(uintptr_t start, uintptr_t end);

#endif
