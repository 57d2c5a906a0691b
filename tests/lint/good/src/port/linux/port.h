/* SPDX-License-Identifier: MIT */
#include "core/poke.h"
