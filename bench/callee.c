// SPDX-License-Identifier: MIT
/* Empty functions of another shared object: one called through the procedure linkage table, one chosen by an IFUNC. */
void callee_plt(void);
void callee_ifunc(void);

void callee_plt(void)
{
	__asm__ volatile("" ::: "memory");
}

static void chosen(void)
{
	__asm__ volatile("" ::: "memory");
}

static void (*choose(void))(void)
{
	return chosen;
}

void callee_ifunc(void) __attribute__((ifunc("choose")));
