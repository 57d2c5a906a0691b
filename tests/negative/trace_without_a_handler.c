// SPDX-License-Identifier: MIT
/*
 * A handler is a structure: which of its functions is the entry's and which the return's.
 *
 * gcc: incompatible pointer type
 * clang: incompatible
 * g++: cannot convert
 * clang++: no matching function
 */
#include <crosspatch/function.h>
#include <stddef.h>

void traced(void);

#ifndef RIGHT
static void handler(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
}
#else
static const struct xp_function_handler handler = {NULL, NULL, 0};
#endif

int trace(void)
{
	return xp_function_trace(traced, &handler, NULL);
}
