// SPDX-License-Identifier: MIT
/* What gates.c loads: a hundred calls through the dynamic linker, each executed once. */
#define TEN(M, n) M(n##0) M(n##1) M(n##2) M(n##3) M(n##4) M(n##5) M(n##6) M(n##7) M(n##8) M(n##9)
#define HUNDRED(M)                                                                                                     \
	TEN(M, 0) TEN(M, 1) TEN(M, 2) TEN(M, 3) TEN(M, 4) TEN(M, 5) TEN(M, 6) TEN(M, 7) TEN(M, 8) TEN(M, 9)

#define FUNCTION(n)                                                                                                    \
	int bench_lazy_##n(void);                                                                                      \
	int bench_lazy_##n(void)                                                                                       \
	{                                                                                                              \
		__asm__ volatile("" ::: "memory");                                                                     \
		return 0;                                                                                              \
	}
HUNDRED(FUNCTION)

void bench_lazy_run(void);
void bench_lazy_run(void)
{
#define CALL(n) bench_lazy_##n();
	HUNDRED(CALL)
}
