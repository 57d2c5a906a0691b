// SPDX-License-Identifier: MIT
#include "port/linux/port.h"
#include <errno.h>
#include <unistd.h>
