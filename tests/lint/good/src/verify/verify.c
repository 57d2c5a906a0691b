// SPDX-License-Identifier: MIT
#include "core/poke.h"
#include <stdio.h>
