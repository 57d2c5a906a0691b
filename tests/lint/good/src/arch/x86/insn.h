/* SPDX-License-Identifier: MIT */
#include <crosspatch/good.h>
