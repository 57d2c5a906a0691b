// SPDX-License-Identifier: MIT
/* stop-machine: ranges of several instructions, and a processor that rests in one, or returns there, must first leave. */
#include "xp_test.h"
#include "xp_text.h"

#include "port/bare/port.h"

#include <crosspatch/crosspatch.h>

/*
 * The range, at 0: a loop that counts at 1(%rdi) and ends when the byte at (%rdi) is set.
 *	0: nop; 1: incb 1(%rdi); cmpb $0, (%rdi); je 1
 * Not from 0: a processor that rests before the first byte executes what is there then, and is not in the way.
 * What takes its place: mov $2, %eax; ret; nop3. And behind it: mov $1, %eax; ret.
 */
static const uint8_t loop[] = {0x90, 0xfe, 0x47, 0x01, 0x80, 0x3f, 0x00, 0x74, 0xf8};
static const uint8_t straight[] = {0xb8, 2, 0, 0, 0, 0xc3, 0x0f, 0x1f, 0x00};
static const uint8_t tail[] = {0xb8, 1, 0, 0, 0, 0xc3};

/*
 * The second: call *%rdi; xor %eax, %eax; nop5 - the return address lies in it. In its place: nop4; mov $2, %eax.
 * And behind both: ret.
 */
static const uint8_t caller[] = {0xff, 0xd7, 0x31, 0xc0, 0x0f, 0x1f, 0x44, 0x00, 0x00};
static const uint8_t changed[] = {0x0f, 0x1f, 0x40, 0x00, 0xb8, 2, 0, 0, 0};

enum { LEN = 9 };

static struct xp_text text;
static bool inside, done;
static uint8_t signals[2]; /* leave; counts as long as a processor is in the loop */
static unsigned result;

static bool flag(const bool *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static void set(bool *at)
{
	__atomic_store_n(at, true, __ATOMIC_RELEASE);
}

static void await(const bool *at)
{
	while (!flag(at))
		__builtin_ia32_pause();
}

static void await_leave(void)
{
	while (!__atomic_load_n(&signals[0], __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
}

static void await_loop(void)
{
	while (!__atomic_load_n(&signals[1], __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
}

static unsigned call(const void *code, const void *argument)
{
	unsigned value;

	__asm__ volatile("call *%[code]" : "=a"(value) : [code] "r"(code), "D"(argument) : "memory", "cc");
	return value;
}

static bool make(const uint8_t *range, const uint8_t *behind, size_t size)
{
	inside = done = false;
	memset(signals, 0, sizeof(signals));
	if (!xp_text_alloc(&text, 64))
		return false;
	memcpy(text.base, range, LEN);
	memcpy(text.base + LEN, behind, size);
	return xp_text_seal(&text);
}

static int replace(const uint8_t *from, const uint8_t *to, struct xp_diag *diag)
{
	const struct xp_poke poke = {.addr = text.base, .expect = from, .replace = to, .len = LEN};

	return xp_text_poke(&poke, diag);
}

/* Lets go the processor that is inside once the writer has found it there. */
static void watch(void *unused)
{
	struct xp_bare_stats before, now;

	(void)unused;
	xp_bare_stats_read(&before);
	do {
		__builtin_ia32_pause();
		xp_bare_stats_read(&now);
	} while (now.retries < before.retries + 3 && !flag(&done));
	__atomic_store_n(&signals[0], 1, __ATOMIC_RELEASE);
}

static void run_loop(void *unused)
{
	(void)unused;
	result = call(text.base, signals);
}

static uint64_t retries(void)
{
	struct xp_bare_stats stats;

	xp_bare_stats_read(&stats);
	return stats.retries;
}

XP_TEST(program_counter_inside)
{
	uint64_t before = retries();
	struct xp_diag diag = {0};

	REQUIRE(make(loop, tail, sizeof(tail)));
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	result = 0;
	machine_run(1, run_loop, NULL);
	await_loop();
	machine_run(2, watch, NULL);
	CHECK_EQ(replace(loop, straight, &diag), 0);
	set(&done);
	/* A processor that is still in it, with the text changed under him, leaves. */
	__atomic_store_n(&signals[0], 1, __ATOMIC_RELEASE);
	machine_wait(1);
	machine_wait(2);
	CHECK(retries() > before);
	CHECK_EQ(result, 1); /* he went the old way to its end */
	CHECK_EQ(call(text.base, signals), 2);
	xp_text_free(&text);
}

XP_TEST(nobody_lets_go)
{
	uint64_t before = retries();
	struct xp_diag diag = {0};

	REQUIRE(make(loop, tail, sizeof(tail)));
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	machine_run(1, run_loop, NULL);
	await_loop();
	CHECK_EQ(replace(loop, straight, &diag), -XP_E_IN_RANGE);
	CHECK_EQ(diag.phase, XP_PHASE_PREPARE);
	CHECK_MEM(text.base, loop, sizeof(loop));
	CHECK(!xp_bare_parked());
	CHECK(retries() > before);
	__atomic_store_n(&signals[0], 1, __ATOMIC_RELEASE);
	machine_wait(1);
	CHECK_EQ(result, 1);
	xp_text_free(&text);
}

static void linger(void)
{
	set(&inside);
	await_leave();
}

static void run_caller(void *unused)
{
	(void)unused;
	result = call(text.base, (const void *)(uintptr_t)linger);
}

XP_TEST(return_address_inside)
{
	static const uint8_t ret[] = {0xc3};
	uint64_t before = retries();

	REQUIRE(make(caller, ret, sizeof(ret)));
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	result = 99;
	machine_run(1, run_caller, NULL);
	await(&inside);
	machine_run(2, watch, NULL);
	CHECK_EQ(replace(caller, changed, NULL), 0);
	set(&done);
	__atomic_store_n(&signals[0], 1, __ATOMIC_RELEASE);
	machine_wait(1);
	machine_wait(2);
	CHECK(retries() > before);
	CHECK_EQ(result, 0);
	CHECK_EQ(call(text.base, NULL), 2);
	xp_text_free(&text);
}

static int own_error;
static struct xp_diag own_diag;

static void replace_caller(void)
{
	own_error = replace(caller, changed, &own_diag);
}

XP_TEST(writers_own_return_address)
{
	static const uint8_t ret[] = {0xc3};

	REQUIRE(make(caller, ret, sizeof(ret)));
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	CHECK_EQ(call(text.base, (const void *)(uintptr_t)replace_caller), 0);
	CHECK_EQ(own_error, -XP_E_IN_RANGE);
	CHECK_EQ(own_diag.phase, XP_PHASE_PREPARE);
	CHECK(own_diag.detail != NULL);
	CHECK_MEM(text.base, caller, sizeof(caller));
	CHECK(!xp_bare_parked()); /* all were let go */
	CHECK_EQ(replace(caller, changed, NULL), 0);
	xp_text_free(&text);
}

static unsigned asleep, interruptible;
static struct xp_range asked;

static bool sleepers(const struct xp_range *ranges, size_t nr)
{
	uint64_t flags;

	/* A handler that came now could wait for a processor that is parked. */
	__asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
	interruptible += (flags & 0x200) != 0;
	asked = ranges[0];
	return nr == 1 && asleep > 0 && asleep-- > 0;
}

XP_TEST(sleeper_inside)
{
	static const uint8_t ret[] = {0xc3};
	uint64_t before = retries(), flags;
	struct xp_diag diag;

	REQUIRE(make(caller, ret, sizeof(ret)));
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	asleep = 3;
	machine_bare.sleepers = sleepers;
	for (unsigned i = 0; i < 3; i++) { /* at once: he does not run before the commit is over */
		CHECK_EQ(replace(caller, changed, &diag), -XP_E_IN_RANGE);
		CHECK_STR(diag.detail, "a thread that no processor runs rests inside the range");
		CHECK(!xp_bare_parked());
	}
	CHECK_MEM(text.base, caller, sizeof(caller));
	CHECK_EQ(replace(caller, changed, &diag), 0);
	machine_bare.sleepers = NULL;
	CHECK_EQ(retries() - before, 3);
	CHECK_EQ(interruptible, 0);
	__asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
	CHECK(flags & 0x200); /* and are on again, once for each time they were off */
	CHECK_EQ(asked.start, (uintptr_t)text.base + 1);
	CHECK_EQ(asked.end, (uintptr_t)text.base + LEN);
	xp_text_free(&text);
}

/* ---- parked is parked: none moves while text is stored, each serializes before it goes on ---- */

static uint64_t moved[MACHINE_CPUS_MAX];

static void move(void *number)
{
	uint64_t *mine = &moved[(uintptr_t)number];

	while (!__atomic_load_n(&signals[0], __ATOMIC_ACQUIRE))
		__atomic_store_n(mine, *mine + 1, __ATOMIC_RELAXED);
}

static unsigned moving, open;

static uint64_t physical_when_parked(const void *at)
{
	uint64_t seen[MACHINE_CPUS_MAX];

	open++;
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		seen[i] = __atomic_load_n(&moved[i], __ATOMIC_RELAXED);
	for (unsigned i = 0; i < 40000; i++)
		__builtin_ia32_pause();
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		moving += seen[i] != __atomic_load_n(&moved[i], __ATOMIC_RELAXED);
	moving += !xp_bare_parked();
	return (uintptr_t)at - 0xffffffff80000000;
}

XP_TEST(nobody_moves)
{
	static const uint8_t ret[] = {0xc3};
	uint64_t (*physical)(const void *) = machine_bare.physical;
	uint64_t before[MACHINE_CPUS_MAX];

	REQUIRE(make(caller, ret, sizeof(ret)));
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		machine_run(i, move, (void *)(uintptr_t)i);
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		while (__atomic_load_n(&moved[i], __ATOMIC_RELAXED) == 0)
			__builtin_ia32_pause();
	for (unsigned i = 0; i < machine_nr_cpus(); i++)
		before[i] = machine_counts[i].serialized;
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		machine_slowness[i] = 5000;
	moving = open = 0;
	machine_bare.physical = physical_when_parked;
	CHECK_EQ(replace(caller, changed, NULL), 0);
	machine_bare.physical = physical;
	for (unsigned i = 0; i < machine_nr_cpus(); i++) /* on coming, and on leaving, before the commit returned */
		CHECK(__atomic_load_n(&machine_counts[i].serialized, __ATOMIC_RELAXED) >= before[i] + 2);
	memset(machine_slowness, 0, sizeof(machine_slowness));
	CHECK_EQ(moving, 0);
	CHECK_EQ(open, 1);
	CHECK(!xp_bare_parked());
	__atomic_store_n(&signals[0], 1, __ATOMIC_RELEASE);
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		machine_wait(i);
	xp_text_free(&text);
}

struct xp_test_state xp_test_state;
int main(int argc, char **argv)
{
	return xp_test_main(argc, argv);
}
