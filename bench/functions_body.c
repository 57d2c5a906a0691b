// SPDX-License-Identifier: MIT
/* A thousand functions and their table, FUNCTIONS: compiled once for each way to instrument them. */
#include "functions.h"

#if defined(PROBE_SDT)
#include <sys/sdt.h>
#define PROBE() DTRACE_PROBE(crosspatch_bench, function)
#elif defined(PROBE_LTTNG)
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "functions_lttng.h"
#define PROBE() lttng_ust_tracepoint(crosspatch_bench, function)

int functions_lttng_on(void);
int functions_lttng_on(void)
{
	return lttng_ust_tracepoint_enabled(crosspatch_bench, function) != 0;
}
#else
#define PROBE() ((void)0)
#endif

#define TEN(macro, n)                                                                                                  \
	macro(n##0) macro(n##1) macro(n##2) macro(n##3) macro(n##4) macro(n##5) macro(n##6) macro(n##7) macro(n##8)    \
		macro(n##9)
#define HUNDRED(macro, n)                                                                                              \
	TEN(macro, n##0) TEN(macro, n##1) TEN(macro, n##2) TEN(macro, n##3) TEN(macro, n##4) TEN(macro, n##5)          \
		TEN(macro, n##6) TEN(macro, n##7) TEN(macro, n##8) TEN(macro, n##9)
#define THOUSAND(macro)                                                                                                \
	HUNDRED(macro, 10) HUNDRED(macro, 11) HUNDRED(macro, 12) HUNDRED(macro, 13) HUNDRED(macro, 14)                 \
		HUNDRED(macro, 15) HUNDRED(macro, 16) HUNDRED(macro, 17) HUNDRED(macro, 18) HUNDRED(macro, 19)

#define DEFINE(n)                                                                                                      \
	static unsigned function_##n(unsigned x)                                                                       \
	{                                                                                                              \
		PROBE();                                                                                               \
		return 3 * x + (n);                                                                                    \
	}
#define NAME(n) function_##n,

THOUSAND(DEFINE)

extern function *const FUNCTIONS[NR_FUNCTIONS];
function *const FUNCTIONS[NR_FUNCTIONS] = {THOUSAND(NAME)};
