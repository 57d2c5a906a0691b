/* SPDX-License-Identifier: MIT */
/* Which methods are proven under which model of a processor. */
#ifndef XP_ARCH_X86_METHOD_H
#define XP_ARCH_X86_METHOD_H

#include "arch/arch.h"

/*
 * xp__method_proven - whether every plan of @method is proven under @fetch, at every alignment at which it is offered,
 * rollback included. The tests hold the explorer against each cell, in both directions.
 */
bool xp__method_proven(enum xp__method method, enum xp__fetch fetch);

#endif
