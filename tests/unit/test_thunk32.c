// SPDX-License-Identifier: MIT
/*
 * test_thunk.c for 32-bit code: a call through a stub and a thunk keeps the three registers of regparm, those that belong to
 * the caller, the stack, and the x87, MMX and SSE state.
 */
#include "xp_test.h"

#include "arch/x86/thunk.h"

#include <crosspatch/site.h>
#include <execinfo.h>

/* The asm below knows the offsets. gpr: eax ecx edx ebx esi edi ebp. */
struct state {
	uint32_t gpr[7];
	uint32_t esp;
	uint32_t mxcsr;
	uint32_t fpu_control;
	uint8_t mmx[3][8];
	uint8_t vector[8][16];
};

struct state found_by_test __attribute__((visibility("hidden")));
struct state given_by_test __attribute__((visibility("hidden")));
struct xp_object object_of_test __attribute__((visibility("hidden")));
static void *target_of_test;
static struct xp_object *object_seen;
static uintptr_t return_seen;
static unsigned nr_resolved;
static void *trace[16];
static int trace_depth;

void *resolve_of_test(struct xp_object *object, uintptr_t return_address) __attribute__((visibility("hidden")));
void *resolve_of_test(struct xp_object *object, uintptr_t return_address)
{
	object_seen = object;
	return_seen = return_address;
	nr_resolved++;
	CHECK_EQ((uintptr_t)__builtin_frame_address(0) % 16, 8); /* aligned as at any call */
	trace_depth = backtrace(trace, 16);
	__asm__ volatile("fninit\n\tfldpi\n\tfldpi\n\tfldpi" : : : "memory");
	__asm__ volatile(".irp n,0,1,2,3,4,5,6,7\n\tpcmpeqd %%xmm\\n, %%xmm\\n\n\t.endr\n\t"
			 "xorl %%ecx, %%ecx\n\txorl %%edx, %%edx"
			 :
			 :
			 : "ecx", "edx", "memory");
	return target_of_test;
}

XP__THUNK(thunk_of_test, resolve_of_test);
extern uint8_t thunk_of_test[] __attribute__((visibility("hidden")));

/* What the part of a stub does that asks; and a caller with all registers set, then what it finds in them. */
__asm__(".text\n"
	"stub_of_test:\n\t"
	".cfi_startproc\n\t"
	"pushl %eax\n\t"
	".cfi_adjust_cfa_offset 4\n\t"
	"pushl %eax\n\t"
	".cfi_adjust_cfa_offset 4\n\t"
	"call 1f\n"
	"1:\n\t"
	"popl %eax\n\t"
	"leal object_of_test - 1b(%eax), %eax\n\t"
	"jmp thunk_of_test\n\t"
	".cfi_endproc\n"

	".globl call_with_state\n"
	"call_with_state:\n\t"
	".cfi_startproc\n\t"
	"pushal\n\t"
	".cfi_adjust_cfa_offset 32\n\t"
	".cfi_offset %ebx, -20\n\t"
	".cfi_offset %ebp, -28\n\t"
	".cfi_offset %esi, -32\n\t"
	".cfi_offset %edi, -36\n\t"
	"subl $12, %esp\n\t"
	".cfi_adjust_cfa_offset 12\n\t"
	"stmxcsr (%esp)\n\t"
	"fnstcw 4(%esp)\n\t"
	"call 1f\n"
	"1:\n\t"
	"popl %eax\n\t"
	"leal given_by_test - 1b(%eax), %eax\n\t"
	"movl %esp, 28(%eax)\n\t"
	"ldmxcsr 32(%eax)\n\t"
	"fldcw 36(%eax)\n\t"
	".irp n,0,1,2\n\tmovq 40+8*\\n(%eax), %mm\\n\n\t.endr\n\t"
	".irp n,0,1,2,3,4,5,6,7\n\tmovups 64+16*\\n(%eax), %xmm\\n\n\t.endr\n\t"
	"movl 4(%eax), %ecx\n\t"
	"movl 8(%eax), %edx\n\t"
	"movl 12(%eax), %ebx\n\t"
	"movl 16(%eax), %esi\n\t"
	"movl 20(%eax), %edi\n\t"
	"movl 24(%eax), %ebp\n\t"
	"movl (%eax), %eax\n\t"
	"call stub_of_test\n"
	".globl return_of_test\n"
	"return_of_test:\n\t"
	"ldmxcsr (%esp)\n\t"
	"emms\n\t"
	"fldcw 4(%esp)\n\t"
	"addl $12, %esp\n\t"
	".cfi_adjust_cfa_offset -12\n\t"
	"popal\n\t"
	".cfi_adjust_cfa_offset -32\n\t"
	"ret\n\t"
	".cfi_endproc\n"

	".globl dump_state\n"
	"dump_state:\n\t"
	"pushl %eax\n\t"
	"call 1f\n"
	"1:\n\t"
	"popl %eax\n\t"
	"leal found_by_test - 1b(%eax), %eax\n\t"
	"popl (%eax)\n\t"
	"movl %ecx, 4(%eax)\n\t"
	"movl %edx, 8(%eax)\n\t"
	"movl %ebx, 12(%eax)\n\t"
	"movl %esi, 16(%eax)\n\t"
	"movl %edi, 20(%eax)\n\t"
	"movl %ebp, 24(%eax)\n\t"
	"leal 4(%esp), %ecx\n\t"
	"movl %ecx, 28(%eax)\n\t"
	"stmxcsr 32(%eax)\n\t"
	"fnstcw 36(%eax)\n\t"
	".irp n,0,1,2\n\tmovq %mm\\n, 40+8*\\n(%eax)\n\t.endr\n\t"
	".irp n,0,1,2,3,4,5,6,7\n\tmovups %xmm\\n, 64+16*\\n(%eax)\n\t.endr\n\t"
	"ret");

void call_with_state(void);
void dump_state(void);
extern const uint8_t return_of_test[];

XP_TEST(every_register_survives)
{
	_Static_assert(offsetof(struct state, esp) == 28, "as the asm has it");
	_Static_assert(offsetof(struct state, mmx) == 40, "as the asm has it");
	_Static_assert(offsetof(struct state, vector) == 64, "as the asm has it");
	target_of_test = (void *)dump_state; /* NOLINT */
	/* The second time through, the size is not looked up any more. */
	for (int round = 0; round < 2; round++) {
		uint64_t x = xp_test_seed();

		for (size_t i = 0; i < sizeof(given_by_test); i++) {
			x = x * 6364136223846793005u + 1442695040888963407u;
			((uint8_t *)&given_by_test)[i] = (uint8_t)(x >> 33);
		}
		given_by_test.mxcsr = 0x5f80;       /* rounds up */
		given_by_test.fpu_control = 0x0f7f; /* rounds to zero */
		memset(&found_by_test, 0, sizeof(found_by_test));
		nr_resolved = 0;
		call_with_state();
		CHECK_EQ(nr_resolved, 1);
		CHECK(object_seen == &object_of_test);
		CHECK_EQ(return_seen, (uintptr_t)return_of_test);
		CHECK_MEM(&found_by_test, &given_by_test, sizeof(found_by_test));
	}
}

XP_TEST(a_backtrace_goes_through)
{
	bool seen = false;

	target_of_test = (void *)dump_state; /* NOLINT */
	call_with_state();
	for (int i = 0; i < trace_depth; i++)
		seen = seen || (uintptr_t)trace[i] == return_seen;
	CHECK(seen);
	CHECK(trace_depth > 4); /* this function, the reporter's two, main, libc */
}

XP_TEST_MAIN()
