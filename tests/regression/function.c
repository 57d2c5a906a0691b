// SPDX-License-Identifier: MIT
/*
 * Traced and redirected functions, in a process: what handlers are told, what survives them, how changes add up, and what is
 * refused. The entries are written by hand; those of compilers are tests/plugin's business.
 */
#include "xp_entries.h"
#include "xp_test.h"

#include <crosspatch/linux.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, used))

/* ---- subjects ---- */

struct many {
	long a, b, c, d;
	double e;
};

int add(int a, int b);
long eight(long a, long b, long c, long d, long e, long f, long g, long h);
double scale(double a, float b);
long double root(long double a, long double b);
struct many gather(int a, double b);
int sum(int nr, ...);
int outer(int a);
int inner(int a);
int leaves(int a);
int fib(int n);

int add_body(int a, int b);
NOINLINE int add_body(int a, int b)
{
	return a + b;
}
XP_ENTRY(add);

long eight_body(long a, long b, long c, long d, long e, long f, long g, long h);
NOINLINE long eight_body(long a, long b, long c, long d, long e, long f, long g, long h)
{
	return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f + 1000000 * g + 10000000 * h;
}
XP_ENTRY(eight);

double scale_body(double a, float b);
NOINLINE double scale_body(double a, float b)
{
	return a * (double)b;
}
XP_ENTRY(scale);

long double root_body(long double a, long double b);
NOINLINE long double root_body(long double a, long double b)
{
	return a / b;
}
XP_ENTRY(root);

struct many gather_body(int a, double b);
NOINLINE struct many gather_body(int a, double b)
{
	return (struct many){a, a + 1, a + 2, a + 3, b};
}
XP_ENTRY(gather);

int sum_body(int nr, ...);
NOINLINE int sum_body(int nr, ...)
{
	double total = 0;
	va_list list;

	va_start(list, nr);
	for (int i = 0; i < nr; i++)
		total += va_arg(list, double);
	va_end(list);
	return (int)total;
}
XP_ENTRY(sum);

int inner_body(int a);
NOINLINE int inner_body(int a)
{
	return a + 1;
}
XP_ENTRY(inner);

/* A tail call. */
__asm__(".pushsection .text\n"
	"outer_body:\n"
	"addl %edi, %edi\n"
	"jmp inner\n"
	".popsection");
int outer_body(int a);
XP_ENTRY(outer);

static jmp_buf back;

int leaves_body(int a);
NOINLINE int leaves_body(int a)
{
	if (a)
		longjmp(back, a);
	return 7;
}
XP_ENTRY(leaves);

int fib_body(int n);
NOINLINE int fib_body(int n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}
XP_ENTRY(fib);

int down(int n);
int down_body(int n);
NOINLINE int down_body(int n)
{
	return n ? 1 + down(n - 1) : 0;
}
XP_ENTRY(down);

/* Goes on to skip by a tail call. */
int hop(int n);
int hop_body(int n);
int skip(int n);
int skip_body(int n);
__asm__(".pushsection .text\n"
	"hop_body: jmp skip\n"
	".popsection");
XP_ENTRY(hop);

NOINLINE int skip_body(int n)
{
	return n ? 1 + hop(n - 1) : 0;
}
XP_ENTRY(skip);

#define NR_FUNCTIONS 19

/* ---- handlers ---- */

static struct seen {
	unsigned entered, left;
	uint64_t word;
	struct xp_function_call call, result;
	uint64_t integer[8], stack[2], results[2];
	double vector[8][2], vectors[2][2];
	long double x87;
	char order[16];
	unsigned nr;
} seen;

static void note(char c)
{
	if (seen.nr < sizeof(seen.order) - 1)
		seen.order[seen.nr++] = c;
}

static void on_entry(const struct xp_function_call *call, void *data)
{
	seen.entered++;
	seen.call = *call;
	memcpy(seen.integer, call->integer, sizeof(seen.integer));
	memcpy(seen.stack, call->stack, sizeof(seen.stack));
	memcpy(seen.vector, call->vector, sizeof(seen.vector));
	if (call->word)
		*call->word += (uintptr_t)data;
	note(data ? *(char *)data : 'e');
}

static void on_leave(const struct xp_function_call *call, void *data)
{
	seen.left++;
	seen.result = *call;
	memcpy(seen.results, call->integer, sizeof(seen.results));
	memcpy(seen.vectors, call->vector, sizeof(seen.vectors));
	memcpy(&seen.x87, call->x87, 10);
	seen.word = *call->word;
	note(data ? *(char *)data : 'l');
}

static const struct xp_function_handler entries = {.entry = on_entry};
static const struct xp_function_handler both = {.entry = on_entry, .leave = on_leave};
static const struct xp_function_handler returns = {.leave = on_leave};

static void forget(void)
{
	memset(&seen, 0, sizeof(seen));
}

/* Leaves nothing as it found it. */
static void clobber(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
	__asm__ volatile(
		"fninit\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfldz\n\tfninit\n\t"
		"pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\tpxor %%xmm2, %%xmm2\n\tpxor %%xmm3, %%xmm3\n\t"
		"pxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\tpxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\t"
		"xorl %%eax, %%eax\n\txorl %%ecx, %%ecx\n\txorl %%edx, %%edx\n\txorl %%esi, %%esi\n\txorl %%edi, %%edi\n\t"
		"xorl %%r8d, %%r8d\n\txorl %%r9d, %%r9d\n\txorl %%r10d, %%r10d\n\txorl %%r11d, %%r11d"
		:
		:
		: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
		  "xmm5", "xmm6", "xmm7", "memory");
	if (__builtin_cpu_supports("avx512f"))
		__asm__ volatile(
			"vpxorq %%zmm0, %%zmm0, %%zmm0\n\tvpxorq %%zmm31, %%zmm31, %%zmm31\n\tkxorw %%k1, %%k1, %%k1"
			:
			:
			: "xmm0");
}

static const struct xp_function_handler clobbers = {.entry = clobber, .leave = clobber};

/* ---- what handlers are told ---- */

XP_TEST(an_entry)
{
	CHECK_EQ(add(1, 2), 3);
	REQUIRE_EQ(xp_function_trace(add, &entries, NULL), 0);
	forget();
	CHECK_EQ(add(40, 2), 42);
	CHECK_EQ(seen.entered, 1);
	CHECK(seen.call.function == (void (*)(void))add);
	CHECK(strcmp(seen.call.name, "add") == 0);
	CHECK((uintptr_t)seen.call.caller - (uintptr_t)xp_test_run_an_entry < 4096);
	CHECK_EQ((int)seen.integer[0], 40);
	CHECK_EQ((int)seen.integer[1], 2);
	CHECK(seen.call.word == NULL);
	CHECK(seen.call.x87 == NULL);
	REQUIRE_EQ(xp_function_untrace(add, &entries, NULL), 0);
	CHECK_EQ(add(40, 3), 43);
	CHECK_EQ(seen.entered, 1);
}

XP_TEST(arguments_everywhere)
{
	double vector[2];

	REQUIRE_EQ(xp_function_trace(eight, &entries, NULL), 0);
	REQUIRE_EQ(xp_function_trace(scale, &entries, NULL), 0);
	REQUIRE_EQ(xp_function_trace(sum, &entries, NULL), 0);
	forget();
	CHECK_EQ(eight(1, 2, 3, 4, 5, 6, 7, 8), 87654321);
	for (int i = 0; i < 6; i++)
		CHECK_EQ(seen.integer[i], (uint64_t)i + 1);
	CHECK_EQ(seen.stack[0], 7);
	CHECK_EQ(seen.stack[1], 8);
	CHECK(scale(2.5, 4.0f) == 10);
	memcpy(vector, seen.vector[0], sizeof(vector));
	CHECK(vector[0] == 2.5);
	CHECK_EQ(sum(3, 1.0, 2.0, 4.0), 7);
	CHECK_EQ(seen.integer[6] & 0xff, 3);
	CHECK_EQ(sum(10, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0), 10);
	CHECK_EQ(seen.entered, 4);
	REQUIRE_EQ(xp_function_untrace(eight, &entries, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(scale, &entries, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(sum, &entries, NULL), 0);
}

XP_TEST(results)
{
	static char word[] = "w";
	struct many many;

	REQUIRE_EQ(xp_function_trace(add, &both, word), 0);
	REQUIRE_EQ(xp_function_trace(scale, &returns, NULL), 0);
	REQUIRE_EQ(xp_function_trace(root, &both, NULL), 0);
	REQUIRE_EQ(xp_function_trace(gather, &both, NULL), 0);
	REQUIRE_EQ(xp_function_trace(sum, &both, NULL), 0);
	forget();
	CHECK_EQ(add(40, 2), 42);
	CHECK_EQ(seen.entered, 1);
	CHECK_EQ(seen.left, 1);
	CHECK_EQ((int)seen.results[0], 42);
	CHECK_EQ(seen.word, (uintptr_t)word);
	CHECK((uintptr_t)seen.result.caller - (uintptr_t)xp_test_run_results < 4096);
	CHECK(seen.result.caller == seen.call.caller);
	CHECK(scale(2.5, 4.0f) == 10);
	CHECK(seen.vectors[0][0] == 10);
	CHECK(root(10, 4) == 2.5L);
	CHECK(seen.x87 == 2.5L);
	many = gather(5, 1.5);
	CHECK_EQ(many.a, 5);
	CHECK_EQ(many.d, 8);
	CHECK(many.e == 1.5);
	CHECK_EQ(seen.results[0], (uintptr_t)seen.integer[0]);
	CHECK_EQ(sum(2, 20.0, 22.0), 42);
	CHECK_EQ(seen.left, 5);
	REQUIRE_EQ(xp_function_untrace(add, &both, word), 0);
	REQUIRE_EQ(xp_function_untrace(scale, &returns, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(root, &both, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(gather, &both, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(sum, &both, NULL), 0);
}

/* ---- what survives ---- */

XP_TEST(arguments_and_results_survive)
{
	REQUIRE_EQ(xp_function_trace_matching("*", &clobbers, NULL, NULL), NR_FUNCTIONS);
	CHECK_EQ(add(40, 2), 42);
	CHECK_EQ(eight(1, 2, 3, 4, 5, 6, 7, 8), 87654321);
	CHECK(scale(2.5, 4.0f) == 10);
	CHECK(root(10, 4) == 2.5L);
	CHECK(gather(5, 1.5).e == 1.5);
	CHECK_EQ(sum(3, 1.0, 2.0, 4.0), 7);
	CHECK_EQ(outer(3), 7);
	CHECK_EQ(fib(15), 610);
	REQUIRE_EQ(xp_function_untrace_matching("*", &clobbers, NULL, NULL), NR_FUNCTIONS);
}

/* Every register that a call may not change, or that holds an argument, from the entry's caller to its body. */
__asm__(".pushsection .text\n"
	"wide_body:\n"
	"vaddps %zmm1, %zmm0, %zmm0\n"
	"vmovups %zmm0, (%rdi)\n"
	"vmovups %zmm31, 64(%rdi)\n"
	"kmovw %k1, 128(%rdi)\n"
	"ret\n"
	"call_wide:\n"
	"subq $8, %rsp\n"
	"vmovups (%rdi), %zmm0\n"
	"vmovups (%rdi), %zmm1\n"
	"vmovups (%rdi), %zmm31\n"
	"movl $0x5a5a, %eax\n"
	"kmovw %eax, %k1\n"
	"call wide\n"
	"addq $8, %rsp\n"
	"ret\n"
	".popsection");
void wide(float *in_and_out);
void call_wide(float *in_and_out);
XP_ENTRY(wide);

XP_TEST(avx512_survives)
{
	float memory[48] = {0};
	uint16_t mask;

	if (!__builtin_cpu_supports("avx512f"))
		SKIP("no AVX-512 here");
	REQUIRE_EQ(xp_function_trace(wide, &clobbers, NULL), 0);
	for (int i = 0; i < 16; i++)
		memory[i] = (float)i + 1;
	call_wide(memory);
	for (int i = 0; i < 16; i++) {
		CHECK(memory[i] == 2 * ((float)i + 1));
		CHECK(memory[16 + i] == (float)i + 1);
	}
	memcpy(&mask, &memory[32], sizeof(mask));
	CHECK_EQ(mask, 0x5a5a);
	REQUIRE_EQ(xp_function_untrace(wide, &clobbers, NULL), 0);
}

/* ---- several handlers, calls within calls ---- */

XP_TEST(several_handlers)
{
	static char a[] = "a", b[] = "b", c[] = "c", d[] = "d", e[] = "e";

	REQUIRE_EQ(xp_function_trace(add, &both, a), 0);
	REQUIRE_EQ(xp_function_trace(add, &both, b), 0);
	REQUIRE_EQ(xp_function_trace(add, &both, c), 0);
	CHECK_EQ(xp_function_trace(add, &both, b), -XP_E_TRACED);
	forget();
	CHECK_EQ(add(1, 1), 2);
	CHECK_EQ(strcmp(seen.order, "abccba"), 0);
	REQUIRE_EQ(xp_function_untrace(add, &both, a), 0);
	CHECK_EQ(xp_function_untrace(add, &both, a), -XP_E_NOT_TRACED);
	REQUIRE_EQ(xp_function_trace(add, &both, d), 0);
	REQUIRE_EQ(xp_function_trace(add, &both, e), 0);
	CHECK_EQ(xp_function_trace(add, &both, a), -XP_E_LEAVES);
	REQUIRE_EQ(xp_function_trace(add, &entries, a), 0);
	forget();
	CHECK_EQ(add(1, 1), 2);
	CHECK_EQ(strcmp(seen.order, "bcdeaedcb"), 0);
	for (char *const *at = (char *const[]){b, c, d, e, NULL}; *at; at++)
		CHECK_EQ(xp_function_untrace(add, &both, *at), 0);
	CHECK_EQ(xp_function_untrace(add, &entries, a), 0);
	forget();
	CHECK_EQ(add(1, 1), 2);
	CHECK_EQ(seen.nr, 0);
}

XP_TEST(tail_calls_return_twice)
{
	REQUIRE_EQ(xp_function_trace(outer, &both, NULL), 0);
	REQUIRE_EQ(xp_function_trace(inner, &both, NULL), 0);
	forget();
	CHECK_EQ(outer(20), 41);
	CHECK_EQ(strcmp(seen.order, "eell"), 0);
	CHECK((uintptr_t)seen.result.caller - (uintptr_t)xp_test_run_tail_calls_return_twice < 4096);
	REQUIRE_EQ(xp_function_untrace(outer, &both, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(inner, &both, NULL), 0);
}

static int add_in_the_handler;

static void calls_traced(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
	seen.entered++;
	add_in_the_handler = add(20, 22);
}

XP_TEST(handlers_call_traced_functions)
{
	static const struct xp_function_handler handler = {.entry = calls_traced, .leave = calls_traced};
	struct xp_function_stats before, after;

	REQUIRE_EQ(xp_function_trace(add, &handler, NULL), 0);
	xp_function_stats_read(&before);
	forget();
	CHECK_EQ(add(1, 2), 3);
	CHECK_EQ(seen.entered, 2);
	CHECK_EQ(add_in_the_handler, 42);
	xp_function_stats_read(&after);
	CHECK_EQ(after.calls - before.calls, 3);
	CHECK_EQ(after.returns - before.returns, 1);
	CHECK_EQ(after.missed_calls - before.missed_calls, 2);
	REQUIRE_EQ(xp_function_untrace(add, &handler, NULL), 0);
}

static void takes_itself_away(const struct xp_function_call *call, void *data)
{
	(void)call;
	seen.entered++;
	CHECK_EQ(xp_function_untrace(add, (const struct xp_function_handler *)data, data), 0);
	CHECK_EQ(xp_function_synchronize(), -XP_E_REENTRANT);
}

XP_TEST(a_handler_takes_itself_away)
{
	static struct xp_function_handler handler = {.entry = takes_itself_away};

	REQUIRE_EQ(xp_function_trace(add, &handler, &handler), 0);
	forget();
	CHECK_EQ(add(1, 2), 3);
	CHECK_EQ(add(1, 2), 3);
	CHECK_EQ(seen.entered, 1);
	CHECK_EQ(xp_function_synchronize(), 0);
}

static void adds_another(const struct xp_function_call *call, void *data)
{
	(void)call;
	CHECK_EQ(xp_function_trace(add, &both, data), 0);
}

/* Added while the call runs: its return is not awaited. */
XP_TEST(no_leave_without_an_entry)
{
	static char a[] = "a";
	static const struct xp_function_handler adds = {.entry = adds_another, .leave = on_leave};

	REQUIRE_EQ(xp_function_trace(add, &adds, a), 0);
	forget();
	CHECK_EQ(add(1, 2), 3);
	CHECK_EQ(strcmp(seen.order, "a"), 0);
	CHECK_EQ(xp_function_untrace(add, &adds, a), 0);
	forget();
	CHECK_EQ(add(1, 2), 3);
	CHECK_EQ(strcmp(seen.order, "aa"), 0);
	CHECK_EQ(xp_function_untrace(add, &both, a), 0);
}

XP_TEST(a_counter)
{
	static struct xp_function_counter counter;

	REQUIRE_EQ(xp_function_trace(fib, xp_function_counting(), &counter), 0);
	CHECK_EQ(fib(10), 55);
	CHECK_EQ(xp_function_counted(&counter), 177);
	REQUIRE_EQ(xp_function_untrace(fib, xp_function_counting(), &counter), 0);
}

enum { NR_COUNTING = 40, NR_COUNTED = 3000000 };

static pthread_barrier_t together;

/* Runs on the first processor that we may run on, or the second, if there are two. */
static void run_on(int nth)
{
	cpu_set_t all, one;
	int cpu = -1;

	if (sched_getaffinity(0, sizeof(all), &all) || CPU_COUNT(&all) < 2)
		return;
	while (nth > 0) {
		cpu++;
		nth -= CPU_ISSET(cpu, &all) != 0;
	}
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
}

/* The first and the last of nine that have no shard for themselves meet in one of eight, at the same time. */
static void *counts(void *number)
{
	uintptr_t i = (uintptr_t)number;
	bool often = i == NR_COUNTING - 9 || i == NR_COUNTING - 1;
	int nr = often ? NR_COUNTED : 1;

	if (often)
		run_on(i == NR_COUNTING - 1 ? 2 : 1);
	pthread_barrier_wait(&together);
	for (int k = 0; k < nr; k++)
		(void)add(k, k);
	return NULL;
}

/* A thread has its number from its first traced call. */
static void *counts_in_turn(void *number)
{
	(void)add(1, 1);
	return counts(number);
}

/* More threads than there are shards: some have one to themselves, some do not. */
XP_TEST(a_counter_of_many_threads)
{
	static struct xp_function_counter counter;
	struct xp_function_stats before, after;
	pthread_t threads[NR_COUNTING];
	unsigned long expected = 2 * NR_COUNTED + NR_COUNTING - 2 + NR_COUNTING, seen_by_now;
	unsigned shards = 0;

	REQUIRE_EQ(xp_function_trace(add, xp_function_counting(), &counter), 0);
	REQUIRE_EQ(pthread_barrier_init(&together, NULL, NR_COUNTING), 0);
	xp_function_stats_read(&before);
	for (uintptr_t i = 0; i < NR_COUNTING; i++) {
		REQUIRE_EQ(pthread_create(&threads[i], NULL, counts_in_turn, (void *)i), 0);
		do {
			sched_yield();
			seen_by_now = xp_function_counted(&counter);
		} while (seen_by_now < i + 1 && i < NR_COUNTING - 1);
	}
	for (int i = 0; i < NR_COUNTING; i++)
		pthread_join(threads[i], NULL);
	xp_function_stats_read(&after);
	CHECK_EQ(xp_function_counted(&counter), expected);
	CHECK_EQ(after.calls - before.calls, expected);
	for (unsigned i = 0; i < 32; i++)
		shards += counter.shard[i].nr != 0;
	CHECK(shards > 24); /* main has one, and does not count */
	REQUIRE_EQ(xp_function_untrace(add, xp_function_counting(), &counter), 0);
	pthread_barrier_destroy(&together);
}

/* Two frames for each place on the stack, while abandoned ones are looked for. */
XP_TEST(tail_calls_keep_their_frames)
{
	struct xp_function_stats before, after;

	REQUIRE_EQ(xp_function_trace(hop, &both, NULL), 0);
	REQUIRE_EQ(xp_function_trace(skip, &both, NULL), 0);
	xp_function_stats_read(&before);
	forget();
	CHECK_EQ(hop(500), 500);
	xp_function_stats_read(&after);
	CHECK_EQ(after.abandoned, before.abandoned);
	CHECK_EQ(seen.entered, 1002);
	CHECK_EQ(seen.left, 1002);
	REQUIRE_EQ(xp_function_untrace(hop, &both, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(skip, &both, NULL), 0);
}

/* ---- calls that never return ---- */

/* Where the stack of the calling thread is; the main thread's may still grow. */
static char *stack_low(void)
{
	static __thread char *low;
	pthread_attr_t attr;
	void *start;
	size_t size;

	if (low == NULL && pthread_getattr_np(pthread_self(), &attr) == 0) {
		if (pthread_attr_getstack(&attr, &start, &size) == 0)
			low = start;
		pthread_attr_destroy(&attr);
	}
	return low;
}

static void leave_by_longjmp(int nr, bool vouch)
{
	volatile int back_again = 0;

	for (volatile int i = 0; i < nr; i++) {
		if (setjmp(back) == 0)
			leaves(1);
		else
			back_again = back_again + 1;
		if (vouch)
			CHECK_EQ(xp_function_stack_gone(stack_low(), __builtin_frame_address(0)), 1);
	}
	CHECK_EQ(back_again, nr);
}

/* Such a call may lie on a stack that comes back: its return is awaited until the program says that there is none. */
XP_TEST(longjmp_out_of_traced_functions)
{
	enum { NR = 100000, ROOM = 8192 };
	struct xp_function_stats before, after;

	REQUIRE_EQ(xp_function_trace(leaves, &both, NULL), 0);
	xp_function_stats_read(&before);
	forget();
	leave_by_longjmp(NR, false);
	CHECK_EQ(seen.entered, NR);
	CHECK_EQ(leaves(0), 7);
	CHECK_EQ(seen.left, 0);
	xp_function_stats_read(&after);
	CHECK_EQ(after.missed_returns - before.missed_returns, NR - ROOM + 1);
	CHECK_EQ(after.abandoned, before.abandoned);
	CHECK_EQ(after.awaited, ROOM);
	CHECK_EQ(xp_function_stack_gone(stack_low(), stack_low()), 0);
	CHECK_EQ(xp_function_stack_gone(stack_low(), __builtin_frame_address(0)), ROOM);
	xp_function_stats_read(&before);
	CHECK_EQ(before.abandoned - after.abandoned, ROOM);
	CHECK_EQ(before.awaited, 0);
	leave_by_longjmp(NR / 10, true);
	CHECK_EQ(leaves(0), 7);
	CHECK_EQ(seen.left, 1);
	xp_function_stats_read(&after);
	CHECK_EQ(after.missed_returns, before.missed_returns);
	REQUIRE_EQ(xp_function_untrace(leaves, &both, NULL), 0);
}

static void *leave_by_exit(void *unused)
{
	(void)unused;
	if (setjmp(back) == 0)
		leaves(1);
	pthread_exit(NULL);
}

XP_TEST(threads_end_with_calls_under_way)
{
	struct xp_function_stats before, after;
	pthread_t thread;

	REQUIRE_EQ(xp_function_trace(leaves, &both, NULL), 0);
	xp_function_stats_read(&before);
	for (int i = 0; i < 200; i++) {
		REQUIRE_EQ(pthread_create(&thread, NULL, leave_by_exit, NULL), 0);
		pthread_join(thread, NULL);
	}
	xp_function_stats_read(&after);
	CHECK_EQ(after.missed_returns, before.missed_returns);
	CHECK_EQ(after.abandoned - before.abandoned, 200);
	CHECK_EQ(after.awaited, 0);
	REQUIRE_EQ(xp_function_untrace(leaves, &both, NULL), 0);
}

/* More calls under way than there is room for: they run, and their handlers do, but for some `leave`. */
XP_TEST(too_many_returns)
{
	enum { NR = 10000, ROOM = 8192 };
	struct xp_function_stats before, after;

	REQUIRE_EQ(xp_function_trace(down, &both, NULL), 0);
	xp_function_stats_read(&before);
	forget();
	CHECK_EQ(down(NR - 1), NR - 1);
	xp_function_stats_read(&after);
	CHECK_EQ(seen.entered, NR);
	CHECK_EQ(after.returns - before.returns, seen.left);
	CHECK_EQ(after.missed_returns - before.missed_returns + seen.left, NR);
	CHECK(seen.left > ROOM - 200 && seen.left <= ROOM);
	CHECK_EQ(down(1000), 1000);
	xp_function_stats_read(&before);
	CHECK_EQ(before.missed_returns, after.missed_returns);
	REQUIRE_EQ(xp_function_untrace(down, &both, NULL), 0);
}

/* ---- handlers that a signal handler leaves ---- */

static sigjmp_buf out;
static volatile sig_atomic_t raise_in_entry, raise_in_leave, traced_calls;

static void jump_out(int signal)
{
	(void)signal;
	siglongjmp(out, 1);
}

static void raising_entry(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
	traced_calls = traced_calls + 1;
	if (raise_in_entry)
		raise(SIGUSR1);
}

static void raising_leave(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
	if (raise_in_leave)
		raise(SIGUSR1);
}

static const struct xp_function_handler raising = {.entry = raising_entry, .leave = raising_leave};

static int on_signal(int signal, void (*function)(int), int flags)
{
	struct sigaction act = {.sa_handler = function, .sa_flags = flags};

	return sigaction(signal, &act, NULL);
}

/* Calls add from @depth KiB further down. */
NOINLINE static int add_below(int depth)
{
	char room[1024];

	memset(room, 1, sizeof(room));
	__asm__ volatile("" : : "r"(room) : "memory");
	return depth ? add_below(depth - 1) + room[0] - 1 : add(20, 22);
}

static volatile int synchronized;

static void *synchronize(void *unused)
{
	(void)unused;
	synchronized = xp_function_synchronize();
	return NULL;
}

static void check_synchronized(int expected)
{
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, synchronize, NULL), 0);
	pthread_join(thread, NULL);
	CHECK_EQ(synchronized, expected);
}

/* In an entry and in a return; the next call is made from there, from further up and from further down. */
static void *leave_by_siglongjmp(void *unused)
{
	for (volatile int round = 0; round < 12; round = round + 1) {
		struct xp_function_stats before, after;
		volatile int depth = round % 3 * 8, next = (round + round / 3) % 3 * 8;

		xp_function_stats_read(&before);
		raise_in_entry = round % 2;
		raise_in_leave = !raise_in_entry;
		if (sigsetjmp(out, 1) == 0) {
			(void)add_below(depth);
			CHECK(!"reached");
		}
		raise_in_entry = raise_in_leave = 0;
		if (next > depth) {
			/* Below what was left, it is not looked at every time. */
			for (int i = 0; i < 20; i++)
				CHECK_EQ(add_below(next), 42);
		}
		traced_calls = 0;
		CHECK_EQ(add_below(next), 42);
		CHECK_EQ(traced_calls, 1);
		xp_function_stats_read(&after);
		CHECK_EQ(after.left_behind - before.left_behind, 1);
		check_synchronized(0);
	}
	return unused;
}

static void leave_handlers(bool alternate, bool thread)
{
	static char room[65536];
	stack_t stack = {.ss_sp = room, .ss_size = sizeof(room)}, none = {.ss_flags = SS_DISABLE};
	pthread_t other;

	REQUIRE_EQ(xp_function_trace(add, &raising, NULL), 0);
	REQUIRE_EQ(sigaltstack(alternate ? &stack : &none, NULL), 0);
	REQUIRE_EQ(on_signal(SIGUSR1, jump_out, alternate ? SA_ONSTACK : 0), 0);
	if (thread) {
		REQUIRE_EQ(pthread_create(&other, NULL, leave_by_siglongjmp, NULL), 0);
		pthread_join(other, NULL);
	} else {
		leave_by_siglongjmp(NULL);
	}
	REQUIRE_EQ(sigaltstack(&none, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(add, &raising, NULL), 0);
	CHECK_EQ(xp_function_synchronize(), 0);
}

static void *add_once(void *unused)
{
	(void)add(1, 2);
	return unused;
}

XP_TEST(handlers_left_by_siglongjmp)
{
	REQUIRE_EQ(xp_function_trace(add, &entries, NULL), 0);
	leave_handlers(false, false);
	leave_handlers(true, false);
	leave_handlers(false, true);
	/* More threads than counters: the next one shares its own. */
	for (int i = 0; i < 200; i++) {
		pthread_t thread;

		REQUIRE_EQ(pthread_create(&thread, NULL, add_once, NULL), 0);
		pthread_join(thread, NULL);
	}
	leave_handlers(false, true);
	leave_handlers(true, true);
	REQUIRE_EQ(xp_function_untrace(add, &entries, NULL), 0);
}

static void call_add(int signal)
{
	(void)signal;
	(void)add(1, 2);
}

/* The handler itself runs on the alternate stack, lower or higher than the other. */
XP_TEST(handlers_left_on_the_alternate_stack)
{
	char *memory = mmap(NULL, 4 * 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static char room[65536];

	REQUIRE(memory != MAP_FAILED);
	REQUIRE_EQ(on_signal(SIGUSR1, jump_out, SA_ONSTACK), 0);
	REQUIRE_EQ(on_signal(SIGUSR2, call_add, SA_ONSTACK), 0);
	REQUIRE_EQ(xp_function_trace(add, &raising, NULL), 0);
	for (volatile int round = 0; round < 4; round = round + 1) {
		stack_t stack = {.ss_sp = round % 2 ? room : memory, .ss_size = 65536}, none = {.ss_flags = SS_DISABLE};

		REQUIRE_EQ(sigaltstack(&stack, NULL), 0);
		raise_in_entry = 1;
		if (sigsetjmp(out, 1) == 0) {
			raise(SIGUSR2);
			CHECK(!"reached");
		}
		raise_in_entry = 0;
		traced_calls = 0;
		for (int i = 0; i < 20; i++)
			(void)add(1, 2);
		CHECK(traced_calls >= 4);
		check_synchronized(0);
		REQUIRE_EQ(sigaltstack(&none, NULL), 0);
	}
	REQUIRE_EQ(xp_function_untrace(add, &raising, NULL), 0);
	munmap(memory, 4 * 65536);
}

static void raise_usr2(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
	traced_calls = traced_calls + 1;
	if (traced_calls == 1)
		for (int i = 0; i < 40; i++)
			raise(SIGUSR2);
}

static char *stacks; /* of the thread, and right above it that of its signals */
enum { STACK = 256 << 10 };

static void interrupt_handlers(void)
{
	static const struct xp_function_handler handler = {.entry = raise_usr2};
	static char room[65536];

	REQUIRE_EQ(xp_function_trace(add, &handler, NULL), 0);
	for (int round = 0; round < 2; round++) {
		stack_t stack = {.ss_sp = round ? room : stacks + STACK, .ss_size = sizeof(room)};
		stack_t none = {.ss_flags = SS_DISABLE};
		struct xp_function_stats before, after;

		REQUIRE_EQ(sigaltstack(&stack, NULL), 0);
		xp_function_stats_read(&before);
		traced_calls = 0;
		CHECK_EQ(add(1, 2), 3);
		CHECK_EQ(traced_calls, 1);
		xp_function_stats_read(&after);
		CHECK_EQ(after.left_behind, before.left_behind);
		CHECK_EQ(after.missed_calls - before.missed_calls, 40);
		REQUIRE_EQ(sigaltstack(&none, NULL), 0);
	}
	REQUIRE_EQ(xp_function_untrace(add, &handler, NULL), 0);
}

static void *run_interrupt_handlers(void *unused)
{
	interrupt_handlers();
	return unused;
}

/* A handler that was interrupted, and not left, be the signal's stack above it or below. */
XP_TEST(handlers_interrupted_on_the_alternate_stack)
{
	pthread_attr_t attr;
	pthread_t thread;

	stacks = mmap(NULL, STACK + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(stacks != MAP_FAILED);
	REQUIRE_EQ(on_signal(SIGUSR2, call_add, SA_ONSTACK), 0);
	REQUIRE_EQ(pthread_attr_init(&attr), 0);
	REQUIRE_EQ(pthread_attr_setstack(&attr, stacks, STACK), 0);
	REQUIRE_EQ(pthread_create(&thread, &attr, run_interrupt_handlers, NULL), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
	check_synchronized(0);
	munmap(stacks, STACK + 65536);
}

/* Left on a stack of its own: that it was left can be told once the stack is gone, and till then nothing is claimed. */
static ucontext_t main_context, coroutine;

static void raise_in_coroutine(void)
{
	raise_in_entry = 1;
	(void)add(1, 2);
}

XP_TEST(handlers_left_on_another_stack)
{
	enum { SIZE = 65536 };
	char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(memory != MAP_FAILED);
	REQUIRE_EQ(mprotect(memory, 4096, PROT_NONE), 0);
	REQUIRE_EQ(mprotect(memory + SIZE - 4096, 4096, PROT_NONE), 0);
	REQUIRE_EQ(on_signal(SIGUSR1, jump_out, 0), 0);
	REQUIRE_EQ(xp_function_trace(add, &raising, NULL), 0);
	REQUIRE_EQ(getcontext(&coroutine), 0);
	coroutine.uc_stack.ss_sp = memory;
	coroutine.uc_stack.ss_size = SIZE - 4096;
	makecontext(&coroutine, raise_in_coroutine, 0);
	if (sigsetjmp(out, 1) == 0) {
		swapcontext(&main_context, &coroutine);
		CHECK(!"reached");
	}
	raise_in_entry = 0;
	CHECK_EQ(add(1, 2), 3);
	check_synchronized(-EBUSY);
	CHECK_EQ(xp_function_synchronize(), -XP_E_REENTRANT);
	munmap(memory, SIZE);
	CHECK_EQ(xp_function_synchronize(), 0);
	traced_calls = 0;
	CHECK_EQ(add(1, 2), 3);
	CHECK_EQ(traced_calls, 1);
	check_synchronized(0);
	REQUIRE_EQ(xp_function_untrace(add, &raising, NULL), 0);
}

/* Signals come at any instruction of the thunk; the thread has a counter of its own. */
XP_TEST(thunks_left_at_any_instruction)
{
	enum { NR = 3000 };
	const struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
	static struct xp_function_counter counter;
	struct xp_function_stats before, after;
	unsigned long counted;
	volatile int jumps = 0;

	REQUIRE_EQ(xp_function_trace(add, xp_function_counting(), &counter), 0);
	REQUIRE_EQ(xp_function_trace(add, &raising, NULL), 0);
	REQUIRE_EQ(on_signal(SIGALRM, jump_out, 0), 0);
	xp_function_stats_read(&before);
	if (sigsetjmp(out, 1))
		jumps = jumps + 1;
	if (jumps == 0)
		REQUIRE_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
	while (jumps < NR)
		(void)add(1, 2);
	REQUIRE_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
	REQUIRE_EQ(on_signal(SIGALRM, SIG_IGN, 0), 0);
	for (int i = 0; i < 20; i++)
		(void)add(1, 2);
	counted = xp_function_counted(&counter);
	CHECK_EQ(add(20, 22), 42);
	CHECK_EQ(xp_function_counted(&counter), counted + 1);
	xp_function_stats_read(&after);
	XP_TEST_NOTE("%d jumps, %llu out of thunks", jumps,
		     (unsigned long long)(after.left_behind - before.left_behind));
	CHECK(after.left_behind > before.left_behind);
	check_synchronized(0);
	REQUIRE_EQ(xp_function_untrace(add, &raising, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(add, xp_function_counting(), &counter), 0);
	/* The functions, too, were left. */
	(void)xp_function_stack_gone(stack_low(), __builtin_frame_address(0));
}

/* ---- calls that return unexpectedly ---- */

enum { REGION = 256 << 10 };
static ucontext_t resting_in, resumed_from;
static int returned_with;

/* Waits on its stack until a thread comes back to it. */
int pauses(int a);
int pauses_body(int a);
NOINLINE int pauses_body(int a)
{
	swapcontext(&resting_in, &resumed_from);
	return a + 1;
}
XP_ENTRY(pauses);

static void run_pauses(void)
{
	returned_with = pauses(41);
	swapcontext(&resting_in, &resumed_from);
}

static void begin_pausing(char *stack, size_t size)
{
	returned_with = 0;
	REQUIRE_EQ(getcontext(&resting_in), 0);
	resting_in.uc_stack.ss_sp = stack;
	resting_in.uc_stack.ss_size = size;
	/* Where one that went astray ends. */
	resting_in.uc_link = &resumed_from;
	makecontext(&resting_in, run_pauses, 0);
	swapcontext(&resumed_from, &resting_in);
}

/* Takes every frame that there is, in this thread, and gives them back. */
static void take_all_frames(void)
{
	CHECK_EQ(down(9000), 9000);
	leave_by_longjmp(20000, false);
	CHECK(xp_function_stack_gone(stack_low(), __builtin_frame_address(0)) > 8000);
	CHECK_EQ(down(9000), 9000);
}

static void resume_pausing(void)
{
	unsigned left = seen.left;

	swapcontext(&resumed_from, &resting_in);
	CHECK_EQ(returned_with, 42);
	CHECK_EQ(seen.left, left + 1);
}

static void trace_pauses(bool on)
{
	static int (*const functions[])(int) = {pauses, down, leaves};

	for (int i = 0; i < 3; i++)
		REQUIRE_EQ(on ? xp_function_trace(functions[i], &both, NULL)
			      : xp_function_untrace(functions[i], &both, NULL),
			   0);
	forget();
}

static void *pause_beside_the_stack(void *region)
{
	begin_pausing((char *)region + REGION, REGION);
	return NULL;
}

/* A coroutine's stack in the same mapping as that of the thread that it began in, and that ended: below and above. */
XP_TEST(coroutines_outlive_their_threads)
{
	char *region = mmap(NULL, 3 * REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct xp_function_stats stats;
	pthread_attr_t attr;
	pthread_t thread;

	REQUIRE(region != MAP_FAILED);
	trace_pauses(true);
	for (int above = 0; above < 2; above++) {
		REQUIRE_EQ(pthread_attr_init(&attr), 0);
		REQUIRE_EQ(pthread_attr_setstack(&attr, region + (above ? 0 : 2 * REGION), REGION), 0);
		REQUIRE_EQ(pthread_create(&thread, &attr, pause_beside_the_stack, region), 0);
		pthread_join(thread, NULL);
		pthread_attr_destroy(&attr);
		xp_function_stats_read(&stats);
		CHECK_EQ(stats.awaited, 1);
		take_all_frames();
		resume_pausing();
		xp_function_stats_read(&stats);
		CHECK_EQ(stats.awaited, 0);
	}
	trace_pauses(false);
	munmap(region, 3 * REGION);
}

/* The stack is another thread's meanwhile, or cannot be read, or is not there. */
XP_TEST(stacks_go_and_come_back)
{
	static char copy[REGION];
	char *region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(region != MAP_FAILED);
	trace_pauses(true);
	for (int way = 0; way < 3; way++) {
		begin_pausing(region, REGION);
		memcpy(copy, region, REGION);
		if (way == 0)
			memset(region, 0xa5, REGION);
		else if (way == 1)
			REQUIRE_EQ(mprotect(region, REGION, PROT_NONE), 0);
		else
			REQUIRE_EQ(munmap(region, REGION), 0);
		take_all_frames();
		if (way == 2)
			REQUIRE(mmap(region, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				     -1, 0) == region);
		else
			REQUIRE_EQ(mprotect(region, REGION, PROT_READ | PROT_WRITE), 0);
		memcpy(region, copy, REGION);
		resume_pausing();
	}
	/* And one that does not come back. */
	begin_pausing(region, REGION);
	CHECK_EQ(xp_function_stack_gone(region, region + REGION), 1);
	CHECK_EQ(xp_function_stack_gone(region, region + REGION), 0);
	munmap(region, REGION);
	trace_pauses(false);
}

/* ---- frames of threads that do nothing ---- */

enum { NR_IDLE = 600 };
static unsigned idle;
static pthread_mutex_t idle_ends = PTHREAD_MUTEX_INITIALIZER;

static void be_idle(void)
{
	__atomic_add_fetch(&idle, 1, __ATOMIC_RELEASE);
	pthread_mutex_lock(&idle_ends);
	pthread_mutex_unlock(&idle_ends);
}

static void *idle_after_depth(void *unused)
{
	(void)down(100);
	be_idle();
	return unused;
}

static void idle_in_the_handler(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
	be_idle();
}

static void *idle_inside(void *unused)
{
	(void)add(1, 2);
	return unused;
}

static void begin_idling(pthread_t *threads, int nr, void *(*body)(void *))
{
	pthread_attr_t attr;

	idle = 0;
	pthread_mutex_lock(&idle_ends);
	REQUIRE_EQ(pthread_attr_init(&attr), 0);
	REQUIRE_EQ(pthread_attr_setstacksize(&attr, 128 << 10), 0);
	for (int i = 0; i < nr; i++) {
		REQUIRE_EQ(pthread_create(&threads[i], &attr, body, NULL), 0);
		while (__atomic_load_n(&idle, __ATOMIC_ACQUIRE) <= (unsigned)i)
			sched_yield();
	}
	pthread_attr_destroy(&attr);
}

static void end_idling(const pthread_t *threads, int nr)
{
	pthread_mutex_unlock(&idle_ends);
	for (int i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
}

static unsigned long long missed_down(int depth)
{
	struct xp_function_stats before, after;

	xp_function_stats_read(&before);
	CHECK_EQ(down(depth), depth);
	xp_function_stats_read(&after);
	return after.missed_returns - before.missed_returns;
}

XP_TEST(idle_threads_keep_no_frames)
{
	static pthread_t threads[NR_IDLE];
	int status = -1;
	pid_t child;

	REQUIRE_EQ(xp_function_trace(down, &both, NULL), 0);
	begin_idling(threads, NR_IDLE, idle_after_depth);
	CHECK_EQ(missed_down(8191), 0);
	CHECK_EQ(missed_down(8191), 0);
	child = fork();
	if (child == 0)
		_exit(missed_down(8191) != 0);
	REQUIRE(child > 0);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	end_idling(threads, NR_IDLE);
	REQUIRE_EQ(xp_function_untrace(down, &both, NULL), 0);
}

/* What they had in their hands belongs to none in the child. */
XP_TEST(a_child_has_the_frames_of_threads_that_are_not_there)
{
	static const struct xp_function_handler idles = {.entry = idle_in_the_handler, .leave = on_leave};
	enum { NR = 50 };
	pthread_t threads[NR];
	int status = -1;
	pid_t child;

	REQUIRE_EQ(xp_function_trace(down, &both, NULL), 0);
	REQUIRE_EQ(xp_function_trace(add, &idles, NULL), 0);
	begin_idling(threads, NR, idle_inside);
	CHECK_EQ(missed_down(8191), NR);
	child = fork();
	if (child == 0)
		_exit(missed_down(8191) != 0);
	REQUIRE(child > 0);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	end_idling(threads, NR);
	REQUIRE_EQ(xp_function_untrace(add, &idles, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(down, &both, NULL), 0);
}

/* What a thunk had in its hands when it was left is given back. */
XP_TEST(left_handlers_keep_no_frames)
{
	struct xp_function_stats stats;

	REQUIRE_EQ(on_signal(SIGUSR1, jump_out, 0), 0);
	REQUIRE_EQ(xp_function_trace(add, &raising, NULL), 0);
	REQUIRE_EQ(xp_function_trace(down, &both, NULL), 0);
	for (volatile int i = 0; i < 1000; i = i + 1) {
		raise_in_entry = i % 2;
		raise_in_leave = !raise_in_entry;
		if (sigsetjmp(out, 1) == 0)
			(void)add(1, 2);
	}
	raise_in_entry = raise_in_leave = 0;
	xp_function_stats_read(&stats);
	CHECK(stats.awaited <= 1);
	CHECK_EQ(missed_down(8191), 0);
	REQUIRE_EQ(xp_function_untrace(add, &raising, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(down, &both, NULL), 0);
}

/* ---- redirecting ---- */

static int subtract(int a, int b)
{
	return a - b;
}

static int through(int a, int b)
{
	return 2 * xp_function_original(add)(a, b);
}

XP_TEST(redirect_and_restore)
{
	REQUIRE_EQ(xp_function_redirect(add, subtract), 0);
	CHECK_EQ(add(44, 2), 42);
	CHECK_EQ(xp_function_original(add)(44, 2), 46);
	REQUIRE_EQ(xp_function_redirect(add, through), 0);
	CHECK_EQ(add(20, 1), 42);
	REQUIRE_EQ(xp_function_restore(add), 0);
	CHECK_EQ(add(20, 22), 42);
	REQUIRE_EQ(xp_function_restore(add), 0);
	CHECK(xp_function_original(subtract) == NULL);
}

XP_TEST(redirected_and_traced)
{
	for (int order = 0; order < 2; order++) {
		if (order == 0)
			REQUIRE_EQ(xp_function_trace(add, &both, NULL), 0);
		REQUIRE_EQ(xp_function_redirect(add, subtract), 0);
		if (order == 1)
			REQUIRE_EQ(xp_function_trace(add, &both, NULL), 0);
		forget();
		CHECK_EQ(add(44, 2), 42);
		CHECK_EQ(seen.entered, 1);
		CHECK_EQ((int)seen.results[0], 42);
		CHECK_EQ(xp_function_original(add)(44, 2), 46);
		CHECK_EQ(seen.entered, 1);
		if (order == 0)
			REQUIRE_EQ(xp_function_untrace(add, &both, NULL), 0);
		else
			REQUIRE_EQ(xp_function_restore(add), 0);
		CHECK_EQ(add(44, 2), order ? 46 : 42);
		CHECK_EQ(seen.entered, order + 1);
		if (order == 0)
			REQUIRE_EQ(xp_function_restore(add), 0);
		else
			REQUIRE_EQ(xp_function_untrace(add, &both, NULL), 0);
		CHECK_EQ(add(44, 2), 46);
	}
}

/* Beyond ±2 GiB: a copy of subtract in memory that is far from any text. */
XP_TEST(redirect_far_away)
{
	static const uint8_t code[] = {0x8d, 0x47, 0x64, 0xc3}; /* lea 100(%rdi), %eax; ret */
	uint8_t *far = mmap((void *)0x200000000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(far != MAP_FAILED);
	memcpy(far, code, sizeof(code));
	REQUIRE_EQ(mprotect(far, 4096, PROT_READ | PROT_EXEC), 0);
	REQUIRE_EQ(xp_function_redirect(inner, (int (*)(int))(uintptr_t)far), 0);
	CHECK_EQ(inner(1), 101);
	CHECK_EQ(inner(2), 102);
	REQUIRE_EQ(xp_function_restore(inner), 0);
	CHECK_EQ(inner(1), 2);
	munmap(far, 4096);
}

/* ---- replacements get what the original would have ---- */

static struct many gather_more(int a, double b)
{
	return (struct many){a + 1, a + 2, a + 3, a + 4, b + 1};
}

static int sum_and_one(int nr, ...)
{
	double total = 1;
	va_list list;

	va_start(list, nr);
	for (int i = 0; i < nr; i++)
		total += va_arg(list, double);
	va_end(list);
	return (int)total;
}

static long double root_and_one(long double a, long double b)
{
	return a / b + 1;
}

static long eight_and_one(long a, long b, long c, long d, long e, long f, long g, long h)
{
	return eight_body(a, b, c, d, e, f, g, h) + 1;
}

static int leaves_more(int a)
{
	longjmp(back, a + 1);
}

void wide_twice(float *out);
__asm__(".pushsection .text\n"
	"wide_twice:\n"
	"vaddps %zmm1, %zmm0, %zmm0\n"
	"vaddps %zmm1, %zmm0, %zmm0\n"
	"vmovups %zmm0, (%rdi)\n"
	"vmovups %zmm31, 64(%rdi)\n"
	"kmovw %k1, 128(%rdi)\n"
	"ret\n"
	".popsection");

static const struct {
	void (*function)(void), (*replacement)(void);
} replaced[] = {
	{(void (*)(void))gather, (void (*)(void))gather_more}, {(void (*)(void))sum, (void (*)(void))sum_and_one},
	{(void (*)(void))root, (void (*)(void))root_and_one},  {(void (*)(void))eight, (void (*)(void))eight_and_one},
	{(void (*)(void))leaves, (void (*)(void))leaves_more}, {(void (*)(void))wide, (void (*)(void))wide_twice},
};

enum { NR_REPLACED = sizeof(replaced) / sizeof(replaced[0]) };

static void call_replaced(void)
{
	float memory[48] = {0};
	struct many many = gather(5, 1.5);
	volatile int jumped = 0;
	uint16_t mask;

	CHECK_EQ(many.a, 6);
	CHECK_EQ(many.d, 9);
	CHECK(many.e == 2.5);
	CHECK_EQ(sum(10, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0), 11);
	CHECK(root(10, 4) == 3.5L);
	CHECK_EQ(eight(1, 2, 3, 4, 5, 6, 7, 8), 87654322);
	jumped = setjmp(back);
	if (jumped == 0)
		leaves(1);
	CHECK_EQ(jumped, 2);
	if (!__builtin_cpu_supports("avx512f"))
		return;
	for (int i = 0; i < 16; i++)
		memory[i] = (float)i + 1;
	call_wide(memory);
	for (int i = 0; i < 16; i++) {
		CHECK(memory[i] == 3 * ((float)i + 1));
		CHECK(memory[16 + i] == (float)i + 1);
	}
	memcpy(&mask, &memory[32], sizeof(mask));
	CHECK_EQ(mask, 0x5a5a);
}

XP_TEST(replacements_get_every_argument)
{
	/* jmp *0(%rip), and where: through the library, since it is out of reach. */
	static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0};
	uint8_t *far = mmap((void *)0x200000010000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(far != MAP_FAILED);
	for (int i = 0; i < NR_REPLACED; i++) {
		memcpy(far + 16 * i, jump, sizeof(jump));
		memcpy(far + 16 * i + sizeof(jump), &replaced[i].replacement, 8);
	}
	REQUIRE_EQ(mprotect(far, 4096, PROT_READ | PROT_EXEC), 0);
	for (int is_far = 0; is_far < 2; is_far++)
		for (int traced = 0; traced < 2; traced++) {
			for (int i = 0; i < NR_REPLACED; i++) {
				void (*to)(void) =
					is_far ? (void (*)(void))(uintptr_t)(far + 16 * i) : replaced[i].replacement;

				REQUIRE_EQ(xp_function_redirect(replaced[i].function, to), 0);
				if (traced)
					REQUIRE_EQ(xp_function_trace(replaced[i].function, &clobbers, NULL), 0);
			}
			call_replaced();
			for (int i = 0; i < NR_REPLACED; i++) {
				REQUIRE_EQ(xp_function_restore(replaced[i].function), 0);
				if (traced)
					REQUIRE_EQ(xp_function_untrace(replaced[i].function, &clobbers, NULL), 0);
			}
		}
	CHECK_EQ(sum(2, 20.0, 22.0), 42);
	munmap(far, 4096);
}

/* A live patch: all functions, or none. */
XP_TEST(a_batch_of_functions)
{
	struct xp_batch *batch = xp_batch_new();
	struct xp_poke impossible = {
		.addr = (void *)(uintptr_t)add_body, .expect = "\1\2\3\4\5", .replace = "\5\4\3\2\1", .len = 5};
	struct xp_diag diag;

	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_redirect(batch, add, subtract), 0);
	CHECK_EQ(xp_batch_add_redirect(batch, inner, outer_body), 0);
	CHECK_EQ(xp_batch_add_trace(batch, add, &both, NULL), 0);
	CHECK_EQ(xp_batch_add_trace(batch, add, &entries, NULL), 0);
	CHECK_EQ(xp_batch_add_poke(batch, &impossible), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_MISMATCH);
	forget();
	CHECK_EQ(add(40, 2), 42);
	CHECK_EQ(seen.entered, 0);
	xp_batch_free(batch);
	batch = xp_batch_new();
	CHECK_EQ(xp_batch_add_redirect(batch, add, through), 0);
	CHECK_EQ(xp_batch_add_trace(batch, add, &both, NULL), 0);
	CHECK_EQ(xp_batch_add_trace(batch, add, &entries, NULL), 0);
	CHECK_EQ(xp_batch_add_redirect(batch, add, subtract), 0);
	CHECK_EQ(xp_batch_add_untrace(batch, add, &both, NULL), 0);
	CHECK_EQ(xp_batch_add_trace(batch, inner, &entries, NULL), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	CHECK_EQ(add(44, 2), 42);
	CHECK_EQ(inner(1), 2);
	CHECK_EQ(seen.entered, 2);
	CHECK_EQ(seen.left, 0);
	CHECK_EQ(xp_batch_add_restore(batch, add), 0);
	CHECK_EQ(xp_batch_add_untrace(batch, add, &entries, NULL), 0);
	CHECK_EQ(xp_batch_add_untrace(batch, inner, &entries, NULL), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	CHECK_EQ(add(40, 2), 42);
	CHECK_EQ(seen.entered, 2);
	xp_batch_free(batch);
}

/* ---- threads that are still inside ---- */

/* Goes on to rested_in by a tail call. */
void in_turn(void);
void in_turn_body(void);
__asm__(".pushsection .text\n"
	"in_turn_body: jmp rested_in\n"
	".popsection");
XP_ENTRY(in_turn);

/* Calls in_turn; all of it lies between its entry and its end. */
__asm__(".pushsection .text\n"
	".balign 16\n"
	"rests:\n"
	".cfi_startproc\n"
	".byte 0x0f, 0x1f, 0x00\n"
	".Lentry_rests:\n"
	".byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"subq $8, %rsp\n"
	".cfi_def_cfa_offset 16\n"
	"call in_turn\n"
	"addq $8, %rsp\n"
	".cfi_def_cfa_offset 8\n"
	"ret\n"
	".Lend_rests:\n"
	".cfi_endproc\n" XP_ENTRY_RECORD(rests) ".popsection");
void rests(void);
void rested_in(void);
void rested_in_body(void);
static unsigned resting, let_go;

NOINLINE void rested_in_body(void)
{
	__atomic_store_n(&resting, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&let_go, __ATOMIC_ACQUIRE))
		sched_yield();
}
XP_ENTRY(rested_in);

static void does_not_rest(void) {}

static void *run_rests(void *unused)
{
	(void)unused;
	rests();
	return NULL;
}

static void quiesce_while_one_rests(void)
{
	void (*const functions[])(void) = {rests};
	struct xp_diag diag;
	pthread_t thread;

	resting = let_go = 0;
	REQUIRE_EQ(pthread_create(&thread, NULL, run_rests, NULL), 0);
	while (!__atomic_load_n(&resting, __ATOMIC_ACQUIRE))
		sched_yield();
	CHECK_EQ(xp_function_redirect(rests, does_not_rest), 0);
	rests();
	CHECK_EQ(xp_function_quiesce(functions, 1, &diag), -XP_E_IN_RANGE);
	__atomic_store_n(&let_go, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	CHECK_EQ(xp_function_quiesce(functions, 1, &diag), 0);
	CHECK_EQ(xp_function_restore(rests), 0);
}

XP_TEST(quiesce_looks_at_stacks)
{
	quiesce_while_one_rests();
}

/* The address to which rested_in returns is not on the stack. */
XP_TEST(quiesce_looks_at_returns)
{
	REQUIRE_EQ(xp_function_trace(rested_in, &returns, NULL), 0);
	quiesce_while_one_rests();
	REQUIRE_EQ(xp_function_untrace(rested_in, &returns, NULL), 0);
}

/* On the stack is where rested_in returns to, and that is where in_turn returns to. */
XP_TEST(quiesce_looks_at_returns_of_tail_calls)
{
	REQUIRE_EQ(xp_function_trace(in_turn, &returns, NULL), 0);
	REQUIRE_EQ(xp_function_trace(rested_in, &returns, NULL), 0);
	quiesce_while_one_rests();
	REQUIRE_EQ(xp_function_untrace(rested_in, &returns, NULL), 0);
	REQUIRE_EQ(xp_function_untrace(in_turn, &returns, NULL), 0);
}

/* The caller itself is inside. */
void calls_quiesce(void);
__asm__(".pushsection .text\n"
	".balign 16\n"
	"calls_quiesce:\n"
	".Lentry_calls_quiesce:\n"
	".byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"subq $8, %rsp\n"
	"call asks_quiesce\n"
	"addq $8, %rsp\n"
	"ret\n"
	".Lend_calls_quiesce:\n" XP_ENTRY_RECORD(calls_quiesce) ".popsection");
void asks_quiesce(void);
static int answer;

NOINLINE void asks_quiesce(void)
{
	answer = xp_function_quiesce((void (*const[])(void)){calls_quiesce}, 1, NULL);
}

XP_TEST(quiesce_looks_at_the_caller)
{
	calls_quiesce();
	CHECK_EQ(answer, -XP_E_IN_RANGE);
	asks_quiesce();
	CHECK_EQ(answer, 0);
}

/* ---- patterns ---- */

XP_TEST(patterns)
{
	static const struct {
		const char *pattern;
		int nr;
	} cases[] = {
		{"add", 1},           {"a*", 1},    {"*e*", 11}, {"?um", 1},    {"[a-e]*", 4}, {"[!a-e]*", 15},
		{"*[rd]", 4},         {"o*t*r", 1}, {"", 0},     {"ad", 0},     {"adds", 0},   {"*", NR_FUNCTIONS},
		{"**", NR_FUNCTIONS}, {"[", 0},     {"*d*d", 1}, {"[]a]dd", 1},
	};
	struct xp_function_stats stats;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int nr = xp_function_trace_matching(cases[i].pattern, &entries, NULL, NULL);

		CHECK_EQ(nr, cases[i].nr);
		xp_function_stats_read(&stats);
		CHECK_EQ(stats.traced, cases[i].nr);
		CHECK_EQ(xp_function_untrace_matching("*", &entries, NULL, NULL), cases[i].nr);
	}
	CHECK_EQ(stats.entries, NR_FUNCTIONS);
	CHECK(xp_function_find("add") == (void (*)(void))add);
	CHECK(xp_function_find("no_such") == NULL);
	CHECK_EQ(strcmp(xp_function_name(add), "add"), 0);
	CHECK(xp_function_name(subtract) == NULL);
}

/* ---- refusals ---- */

static void no_entry_at(uint8_t *at)
{
	void (*fn)(void) = (void (*)(void))(uintptr_t)at;
	struct xp_diag diag;

	CHECK_EQ(xp__function_trace(fn, &entries, NULL), -XP_E_NO_ENTRY);
	CHECK_EQ(xp__function_redirect(fn, (void (*)(void))(uintptr_t)add), -XP_E_NO_ENTRY);
	CHECK_EQ(xp_function_quiesce(&fn, 1, &diag), -XP_E_NO_ENTRY);
	CHECK(xp__function_name(fn) == NULL && xp__function_original(fn) == NULL);
}

/* A jump through a word is looked for at the pointer: not behind the end of the text, nor where nothing can be read. */
XP_TEST(pointers_at_the_end_of_text)
{
	/* jmp *-9(%rip): three bytes before it */
	static const uint8_t through[6] = {0xff, 0x25, 0xf7, 0xff, 0xff, 0xff};
	uint8_t *map = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(map != MAP_FAILED && munmap(map + 8192, 4096) == 0);
	memset(map, 0xc3, 8192);
	for (unsigned before = 1; before <= 20; before++)
		no_entry_at(map + 8192 - before);
	no_entry_at(map + 8192);
	memcpy(map + 8192 - 6, through, sizeof(through));
	no_entry_at(map + 8192 - 6);
	/* A word across the end of what can be read. */
	memcpy(map, (const uint8_t[]){0xff, 0x25, 0xf6, 0x1f, 0, 0}, 6);
	no_entry_at(map);
	REQUIRE_EQ(mprotect(map, 8192, PROT_NONE), 0);
	no_entry_at(map);
	munmap(map, 8192);
}

XP_TEST(refusals)
{
	static const struct xp_function_handler nothing = {0};
	struct xp_diag diag;

	CHECK_EQ(xp_function_trace(subtract, &entries, NULL), -XP_E_NO_ENTRY);
	CHECK_EQ(xp_function_trace(NULL, &entries, NULL), -EINVAL);
	CHECK_EQ(xp_function_trace(add, NULL, NULL), -EINVAL);
	CHECK_EQ(xp_function_trace(add, &nothing, NULL), -EINVAL);
	CHECK_EQ(xp_function_untrace(add, &entries, NULL), -XP_E_NOT_TRACED);
	CHECK_EQ(xp_function_redirect(add, NULL), -EINVAL);
	CHECK_EQ(xp_function_redirect(add, add), -EINVAL);
	CHECK_EQ(xp_function_redirect(subtract, add), -XP_E_NO_ENTRY);
	CHECK_EQ(xp_function_trace_matching(NULL, &entries, NULL, &diag), -EINVAL);
	CHECK_EQ(xp_function_quiesce((void (*const[])(void)){(void (*)(void))subtract}, 1, &diag), -XP_E_NO_ENTRY);
}

XP_TEST_MAIN()
