/* SPDX-License-Identifier: MIT */
/* Everything, under its own names. kernel_names.h adds the kernel's. */
#ifndef XP_CROSSPATCH_H
#define XP_CROSSPATCH_H

#include <crosspatch/error.h>
#include <crosspatch/function.h>
#include <crosspatch/gate.h>
#include <crosspatch/gate_far.h>
#include <crosspatch/imv.h>
#include <crosspatch/static_call.h>
#include <crosspatch/static_key.h>
#include <crosspatch/static_switch.h>
#include <crosspatch/text_poke.h>

#endif
