// SPDX-License-Identifier: MIT
#include "arch/x86/insn.h"
#include <stdint.h>
int xp__insn;
