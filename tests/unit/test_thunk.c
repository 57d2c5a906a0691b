// SPDX-License-Identifier: MIT
/*
 * A call through a thunk is the call it would have been: every register that an argument may be in, the vector state as
 * far as this processor has it, the stack; and a backtrace from inside finds the caller.
 */
#include "xp_test.h"

#include "arch/x86/thunk.h"

#include <crosspatch/site.h>
#include <cpuid.h>
#include <stdarg.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <execinfo.h>
#else
#define backtrace(frames, nr) 0 /* is glibc's alone */
#endif

#define AVX (1u << 2)
#define AVX512 (7u << 5)

/* The asm below knows the offsets. gpr: rdi rsi rdx rcx r8 r9 rax r10 rbx rbp r12 r13 r14 r15. */
struct state {
	uint64_t gpr[14];
	uint64_t rsp;
	uint64_t mask[8];
	uint32_t mxcsr;
	uint16_t fpu_control;
	uint16_t fpu_status;
	uint8_t x87[10];
	uint8_t vector[32][64] __attribute__((aligned(64)));
};

struct state found_by_test __attribute__((visibility("hidden")));
static struct state given;
static uint32_t xcr0;

struct xp_object object_of_test __attribute__((visibility("hidden")));
void *target_of_test __attribute__((visibility("hidden")));
static struct xp_object *object_seen;
static uintptr_t return_seen;
static unsigned nr_resolved;
static void *trace[16];
static int trace_depth;

/* Puts something else into whatever the calling convention lets a function change. */
static void spoil(void)
{
	__asm__ volatile("fninit\n\tfldpi\n\tfldpi\n\tfldpi" : : : "memory");
	if ((xcr0 & AVX512) == AVX512)
		__asm__ volatile("vpternlogd $0xff, %%zmm0, %%zmm0, %%zmm0\n\t"
				 "vmovdqa64 %%zmm0, %%zmm1\n\tvmovdqa64 %%zmm0, %%zmm2\n\t"
				 "vmovdqa64 %%zmm0, %%zmm3\n\tvmovdqa64 %%zmm0, %%zmm4\n\t"
				 "vmovdqa64 %%zmm0, %%zmm5\n\tvmovdqa64 %%zmm0, %%zmm6\n\t"
				 "vmovdqa64 %%zmm0, %%zmm7\n\tvmovdqa64 %%zmm0, %%zmm15\n\t"
				 "vmovdqa64 %%zmm0, %%zmm16\n\tvmovdqa64 %%zmm0, %%zmm31\n\t"
				 "kxnorq %%k0, %%k0, %%k0\n\tkxnorq %%k0, %%k0, %%k1\n\tkxnorq %%k0, %%k0, %%k7"
				 :
				 :
				 : "memory");
	else if (xcr0 & AVX)
		__asm__ volatile("vzeroall" : : : "memory");
	else
		__asm__ volatile("pxor %%xmm0, %%xmm0\n\tmovdqa %%xmm0, %%xmm1\n\tmovdqa %%xmm0, %%xmm7"
				 :
				 :
				 : "memory");
	__asm__ volatile("xorl %%edi, %%edi\n\txorl %%esi, %%esi\n\txorl %%edx, %%edx\n\txorl %%ecx, %%ecx\n\t"
			 "xorl %%r8d, %%r8d\n\txorl %%r9d, %%r9d\n\txorl %%eax, %%eax\n\txorl %%r10d, %%r10d"
			 :
			 :
			 : "rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax", "r10", "memory");
}

void *resolve_of_test(struct xp_object *object, uintptr_t return_address);
void *resolve_of_test(struct xp_object *object, uintptr_t return_address)
{
	object_seen = object;
	return_seen = return_address;
	nr_resolved++;
	trace_depth = backtrace(trace, 16);
	spoil();
	return target_of_test;
}

XP__THUNK(thunk_of_test, resolve_of_test);


/* What a front end's stub does. */
__asm__(".text\n"
	"stub_of_test:\n\t"
	".cfi_startproc\n\t"
	"leaq object_of_test(%rip), %r11\n\t"
	"jmp thunk_of_test\n\t"
	".cfi_endproc");


/*
 * call_with_state(from, features) - loads registers from @from and calls the stub; features: 1 YMM, 2 ZMM and masks, 4 x87,
 * 8 ZMM16 to 31 and masks; those of the upper byte are the processor's: 1 AVX, 2 AVX-512. The target is dump_state, which
 * stores to found_by_test what there is.
 */
void call_with_state(const struct state *from, uint32_t features);
void dump_state(void);

#define SAVED "%rbx,%rbp,%r12,%r13,%r14,%r15"
#define ALL_16 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define ALL_32 ALL_16 ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

__asm__(".text\n"
	".globl call_with_state\n"
	"call_with_state:\n\t"
	".irp reg," SAVED "\n\tpushq \\reg\n\t.endr\n\t"
	"subq $24, %rsp\n\t"
	"stmxcsr (%rsp)\n\t"
	"fnstcw 4(%rsp)\n\t"
	"movl %esi, %eax\n\t"
	"shrl $8, %eax\n\t"
	"movl %eax, features_of_test(%rip)\n\t"
	"ldmxcsr 184(%rdi)\n\t"
	"testb $4, %sil\n\t"
	"jz 4f\n\t"
	"fldcw 188(%rdi)\n\t"
	"fldt 192(%rdi)\n"
	"4:\n\t"
	"testb $8, %sil\n\t"
	"jz 5f\n\t"
	".irp n,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\tvmovdqu64 256+64*\\n(%rdi), %zmm\\n\n\t.endr\n\t"
	".irp n,0,1,2,3,4,5,6,7\n\tkmovq 120+8*\\n(%rdi), %k\\n\n\t.endr\n"
	"5:\n\t"
	"testb $2, %sil\n\t"
	"jz 1f\n\t"
	".irp n," ALL_32 "\n\tvmovdqu64 256+64*\\n(%rdi), %zmm\\n\n\t.endr\n\t"
	".irp n,0,1,2,3,4,5,6,7\n\tkmovq 120+8*\\n(%rdi), %k\\n\n\t.endr\n\t"
	"jmp 3f\n"
	"1:\n\t"
	"testb $1, %sil\n\t"
	"jz 2f\n\t"
	".irp n," ALL_16 "\n\tvmovdqu 256+64*\\n(%rdi), %ymm\\n\n\t.endr\n\t"
	"jmp 3f\n"
	"2:\n\t"
	".irp n," ALL_16 "\n\tmovdqu 256+64*\\n(%rdi), %xmm\\n\n\t.endr\n"
	"3:\n\t"
	"movq 8(%rdi), %rsi\n\t"
	"movq 16(%rdi), %rdx\n\t"
	"movq 24(%rdi), %rcx\n\t"
	"movq 32(%rdi), %r8\n\t"
	"movq 40(%rdi), %r9\n\t"
	"movq 48(%rdi), %rax\n\t"
	"movq 56(%rdi), %r10\n\t"
	"movq 64(%rdi), %rbx\n\t"
	"movq 72(%rdi), %rbp\n\t"
	"movq 80(%rdi), %r12\n\t"
	"movq 88(%rdi), %r13\n\t"
	"movq 96(%rdi), %r14\n\t"
	"movq 104(%rdi), %r15\n\t"
	"movq 0(%rdi), %rdi\n\t"
	"movq %rsp, stack_of_test(%rip)\n\t"
	"call stub_of_test\n"
	".globl return_of_test\n"
	"return_of_test:\n\t"
	"fstpt found_by_test+192(%rip)\n\t"
	"ldmxcsr (%rsp)\n\t"
	"fldcw 4(%rsp)\n\t"
	"addq $24, %rsp\n\t"
	".irp reg,%r15,%r14,%r13,%r12,%rbp,%rbx\n\tpopq \\reg\n\t.endr\n\t"
	"ret\n"

	".globl dump_state\n"
	"dump_state:\n\t"
	"movq %rdi, found_by_test(%rip)\n\t"
	"leaq found_by_test(%rip), %rdi\n\t"
	"movq %rsi, 8(%rdi)\n\t"
	"movq %rdx, 16(%rdi)\n\t"
	"movq %rcx, 24(%rdi)\n\t"
	"movq %r8, 32(%rdi)\n\t"
	"movq %r9, 40(%rdi)\n\t"
	"movq %rax, 48(%rdi)\n\t"
	"movq %r10, 56(%rdi)\n\t"
	"movq %rbx, 64(%rdi)\n\t"
	"movq %rbp, 72(%rdi)\n\t"
	"movq %r12, 80(%rdi)\n\t"
	"movq %r13, 88(%rdi)\n\t"
	"movq %r14, 96(%rdi)\n\t"
	"movq %r15, 104(%rdi)\n\t"
	"leaq 8(%rsp), %rax\n\t"
	"movq %rax, 112(%rdi)\n\t"
	"stmxcsr 184(%rdi)\n\t"
	"fnstcw 188(%rdi)\n\t"
	"fnstsw 190(%rdi)\n\t"
	"movl features_of_test(%rip), %esi\n\t"
	"testb $2, %sil\n\t"
	"jz 1f\n\t"
	".irp n," ALL_32 "\n\tvmovdqu64 %zmm\\n, 256+64*\\n(%rdi)\n\t.endr\n\t"
	".irp n,0,1,2,3,4,5,6,7\n\tkmovq %k\\n, 120+8*\\n(%rdi)\n\t.endr\n\t"
	"ret\n"
	"1:\n\t"
	"testb $1, %sil\n\t"
	"jz 2f\n\t"
	".irp n," ALL_16 "\n\tvmovdqu %ymm\\n, 256+64*\\n(%rdi)\n\t.endr\n\t"
	"ret\n"
	"2:\n\t"
	".irp n," ALL_16 "\n\tmovdqu %xmm\\n, 256+64*\\n(%rdi)\n\t.endr\n\t"
	"ret");

extern const uint8_t return_of_test[];
extern uint8_t thunk_of_test[];
uint64_t stack_of_test __attribute__((visibility("hidden")));
uint32_t features_of_test __attribute__((visibility("hidden")));

/* Which registers there are to lose. */
static uint32_t find_features(void)
{
	uint32_t eax, ebx, ecx, edx;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(edx) : "c"(0));
	/* With the masks of 64 bits that AVX512BW has. */
	if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ebx & bit_AVX512BW))
		xcr0 &= ~AVX512;
	return (xcr0 & AVX ? 1 : 0) | ((xcr0 & AVX512) == AVX512 ? 2 : 0);
}

static void fill(struct state *state)
{
	static uint64_t x;

	if (x == 0)
		x = xp_test_seed();
	for (size_t i = 0; i < sizeof(*state); i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		((uint8_t *)state)[i] = (uint8_t)(x >> 33);
	}
	state->mxcsr = 0x5f80;       /* rounds up */
	state->fpu_control = 0x0f7f; /* rounds to zero */
	memcpy(state->x87, (const uint8_t[]){1, 2, 3, 4, 5, 6, 7, 0x88, 0x34, 0x40}, sizeof(state->x87));
}

/* Whatever calls do not need: as in a process that never used it. */
static void initial_state(void)
{
	static uint8_t area[4096] __attribute__((aligned(64)));

	/* MXCSR, which is loaded with AVX. */
	area[24] = 0x80;
	area[25] = 0x1f;
	if (xcr0)
		__asm__ volatile("xrstor64 %0" : : "m"(area), "a"(xcr0 & ~2u & 0xe7), "d"(0) : "memory");
}

/* What is found of a register of which @loaded bytes were given, and the processor has @width. */
static void check_register(const uint8_t *found, const uint8_t *expected, unsigned loaded, unsigned width)
{
	static const uint8_t nothing[64];

	CHECK_MEM(found, expected, loaded);
	CHECK_MEM(found + loaded, nothing, width - loaded);
}

static void check_survival(uint32_t features, uint32_t loaded)
{
	unsigned nr = features & 2 ? 32 : 16, width = features & 2 ? 64 : features & 1 ? 32 : 16;
	unsigned low = loaded & 2 ? 64 : loaded & 1 ? 32 : 16, high = loaded & 10 ? 64 : 0;

	fill(&given);
	memset(&found_by_test, 0, sizeof(found_by_test));
	nr_resolved = 0;
	initial_state();
	call_with_state(&given, features << 8 | loaded);
	CHECK_EQ(nr_resolved, 1);
	CHECK(object_seen == &object_of_test);
	CHECK_EQ(return_seen, (uintptr_t)return_of_test);
	CHECK_MEM(found_by_test.gpr, given.gpr, sizeof(given.gpr));
	CHECK_EQ(found_by_test.rsp, stack_of_test);
	CHECK_EQ(found_by_test.mxcsr, given.mxcsr);
	if (loaded & 4) {
		CHECK_EQ(found_by_test.fpu_control, given.fpu_control);
		CHECK_EQ(found_by_test.fpu_status >> 11 & 7, 7); /* one value on the x87 stack */
		CHECK_MEM(found_by_test.x87, given.x87, sizeof(given.x87));
	} else {
		CHECK_EQ(found_by_test.fpu_control, 0x37f);
		CHECK_EQ(found_by_test.fpu_status, 0);
	}
	if (features & 2)
		for (unsigned n = 0; n < 8; n++)
			CHECK_EQ(found_by_test.mask[n], high ? given.mask[n] : 0);
	for (unsigned n = 0; n < nr; n++)
		check_register(found_by_test.vector[n], given.vector[n], n < 16 ? low : high, width);
}

XP_TEST(every_register_survives)
{
	uint32_t features = find_features();

	_Static_assert(offsetof(struct state, rsp) == 112, "as the asm has it");
	_Static_assert(offsetof(struct state, mask) == 120, "as the asm has it");
	_Static_assert(offsetof(struct state, mxcsr) == 184, "as the asm has it");
	_Static_assert(offsetof(struct state, x87) == 192, "as the asm has it");
	_Static_assert(offsetof(struct state, vector) == 256, "as the asm has it");
	XP_TEST_NOTE("vector registers of %u bytes%s", features & 2 ? 64 : features & 1 ? 32 : 16,
		     features & 2 ? ", masks" : "");
	target_of_test = (void *)dump_state; /* NOLINT */
	/* The second time through, the size is not looked up any more. Every part in use, or not. */
	for (unsigned round = 0; round < 2; round++)
		for (uint32_t loaded = 0; loaded < 16; loaded++)
			if (!(loaded & 1 && !(features & 1)) && !(loaded & 10 && !(features & 2)))
				check_survival(features, loaded);
}

/* ---- as compilers call ---- */

struct large {
	long a[5];
};
struct mixed {
	double d;
	long l;
};

extern int call_varargs(int n, ...) __asm__("stub_of_test");
extern struct large call_large(int a, double b) __asm__("stub_of_test");
extern struct mixed call_mixed(struct mixed m, float f) __asm__("stub_of_test");
extern long double call_many(long, long, long, long, long, long, long, double, double, double, double, double, double,
			     double, double, double, long double) __asm__("stub_of_test");

static int varargs(int n, ...)
{
	double sum = 0;
	va_list list;

	va_start(list, n);
	for (int i = 0; i < n; i++)
		sum += i % 2 ? va_arg(list, double) : va_arg(list, int);
	va_end(list);
	return (int)sum;
}

static struct large large(int a, double b)
{
	return (struct large){{a, (long)b, a + 1, a + 2, a + 3}};
}

static struct mixed mixed(struct mixed m, float f)
{
	return (struct mixed){m.d * (double)f, m.l + 1};
}

static long double many(long a, long b, long c, long d, long e, long f, long g, double h, double i, double j, double k,
			double l, double m, double n, double o, double p, long double q)
{
	long integers = a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g;

	return (long double)integers + (long double)(h + i + j + k + l + m + n + o + 2 * p) + q;
}

XP_TEST(calls_of_every_shape)
{
	find_features();
	target_of_test = (void *)varargs; /* NOLINT */
	CHECK_EQ(call_varargs(12, 1, 2.0, 3, 4.0, 5, 6.0, 7, 8.0, 9, 10.0, 11, 12.0), 78);
	target_of_test = (void *)large; /* NOLINT */
	CHECK_EQ(call_large(5, 7.5).a[1], 7);
	CHECK_EQ(call_large(5, 7.5).a[4], 8);
	target_of_test = (void *)mixed; /* NOLINT */
	CHECK(call_mixed((struct mixed){2.5, 41}, 2.0f).d == 5.0);
	CHECK_EQ(call_mixed((struct mixed){2.5, 41}, 2.0f).l, 42);
	target_of_test = (void *)many; /* NOLINT */
	CHECK(call_many(1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0.5L) == 140 + 54 + 0.5L);
}

XP_TEST(a_backtrace_goes_through)
{
	bool seen = false;

#ifndef __GLIBC__
	SKIP("this libc has no backtrace()");
#endif
	find_features();
	target_of_test = (void *)varargs; /* NOLINT */
	CHECK_EQ(call_varargs(0), 0);
	for (int i = 0; i < trace_depth; i++)
		seen = seen || (uintptr_t)trace[i] == return_seen;
	CHECK(seen);
	CHECK(trace_depth > 4); /* this function, the reporter's two, main, libc */
}

XP_TEST_MAIN()
