/* SPDX-License-Identifier: MIT */
#include "arch/arch.h"
