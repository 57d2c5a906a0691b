// SPDX-License-Identifier: MIT
/*
 * What port.h asks of a port, function by function, of the port that is in force. Portable: a new port runs it first
 * (doc/porting.md), with as much of a C library and of pthread as tests/bare/include has, and then torture/keys.c and
 * torture/pokes.c, which show what holds only while others execute.
 */
#include "xp_test.h"
#include "xp_text.h"

#include "core/state.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/port.h>
#include <pthread.h>
#include <sched.h>

enum { ALL_NEEDS = XP_NEED_SYNC | XP_NEED_TRAP | XP_NEED_SINGLE | XP_NEED_PARK | XP_NEED_ALONE | XP_NEED_CALL };

static const struct xp_port *port(void)
{
	return xp__port;
}

XP_TEST(table)
{
	REQUIRE(port() != NULL);
	CHECK_EQ(port()->abi, XP_PORT_ABI);
	CHECK(port()->name && port()->name[0]);
	CHECK(port()->lock && port()->unlock && port()->alloc && port()->release && port()->can && port()->prepare);
	CHECK(port()->text_check && port()->text_read && port()->text_write && port()->sync_core);
	CHECK_EQ(port()->park == NULL, port()->unpark == NULL);
	CHECK(port()->defer == NULL || port()->clock_ms != NULL);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

XP_TEST(lock_refuses_its_holder)
{
	for (int again = 0; again < 3; again++) {
		CHECK_EQ(port()->lock(), 0);
		CHECK_EQ(port()->lock(), -XP_E_REENTRANT);
		port()->unlock();
	}
}

enum { TURNS = 100 };

static unsigned under_lock, together;
static bool asks[2]; /* each: before it asks for the lock until it has it, and when it wants it no more */

static void ask(unsigned self, bool yes)
{
	__atomic_store_n(&asks[self], yes, __ATOMIC_SEQ_CST);
}

/* Holds the lock until the other one asks for it, and some time more. */
static void *take_lock(void *number)
{
	unsigned self = number != NULL;

	for (unsigned i = 0; i < TURNS; i++) {
		ask(self, true);
		if (port()->lock())
			continue;
		together += __atomic_fetch_add(&under_lock, 1, __ATOMIC_SEQ_CST) != 0;
		ask(self, false);
		/* Two in here would wait for each other. */
		while (!__atomic_load_n(&asks[!self], __ATOMIC_SEQ_CST) &&
		       __atomic_load_n(&under_lock, __ATOMIC_SEQ_CST) == 1)
			sched_yield();
		for (unsigned j = 0; j < 5000; j++)
			__asm__ volatile("" : : : "memory");
		together += __atomic_fetch_sub(&under_lock, 1, __ATOMIC_SEQ_CST) != 1;
		port()->unlock();
	}
	ask(self, true);
	return NULL;
}

XP_TEST(lock_has_one_holder)
{
	pthread_t other;

	CHECK_EQ(pthread_create(&other, NULL, take_lock, &together), 0);
	take_lock(NULL);
	pthread_join(other, NULL);
	CHECK_EQ(together, 0);
}

static bool is_zero(const uint8_t *memory, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (memory[i])
			return false;
	return true;
}

XP_TEST(memory_is_zeroed_and_aligned)
{
	static const size_t sizes[] = {1, 64, 100, 4096, 5000, 65536};
	enum { NR = sizeof(sizes) / sizeof(sizes[0]) };
	uint8_t *memory[NR];

	REQUIRE_EQ(port()->lock(), 0);
	for (int again = 0; again < 3; again++) {
		for (int i = 0; i < NR; i++) {
			memory[i] = port()->alloc(sizes[i]);
			CHECK(memory[i] != NULL);
			if (memory[i] == NULL)
				continue;
			CHECK_EQ((uintptr_t)memory[i] % 64, 0);
			CHECK(is_zero(memory[i], sizes[i]));
			memset(memory[i], 0xa5, sizes[i]);
		}
		for (int i = 0; i < NR; i++)
			if (memory[i])
				port()->release(memory[i], sizes[i]);
	}
	CHECK(port()->alloc(SIZE_MAX - 2 * 4096) == NULL);
	port()->unlock();
}

XP_TEST(can_is_asked_for_less)
{
	unsigned all = port()->can(ALL_NEEDS);

	CHECK_EQ(port()->can(0), 0);
	CHECK_EQ(all & ~(unsigned)ALL_NEEDS, 0);
	/* Without XP_NEED_TRAP: with any writer, and so perhaps more. */
	for (unsigned need = 1; need <= ALL_NEEDS; need <<= 1) {
		CHECK_EQ(port()->can(need | XP_NEED_TRAP), all & (need | XP_NEED_TRAP));
		CHECK_EQ(port()->can(need) & ~need, 0);
		if (need != XP_NEED_SINGLE && need != XP_NEED_TRAP)
			CHECK_EQ(port()->can(need), all & need);
		else if (need == XP_NEED_SINGLE)
			CHECK_EQ(all & need & ~port()->can(need), 0);
	}
	CHECK(all & XP_NEED_SYNC);
}

/* Two pages of text; what is not written is nops. */
static bool make_text(struct xp_text *text)
{
	if (!xp_text_alloc(text, 2 * XP_TEXT_PAGE))
		return false;
	memset(text->base, 0x90, 2 * XP_TEXT_PAGE);
	return xp_text_seal(text);
}

XP_TEST(text_is_told_from_data)
{
	static uint8_t data[16];
	struct xp_text text;

	REQUIRE(make_text(&text));
	CHECK_EQ(port()->text_check(text.base, 1), 0);
	CHECK_EQ(port()->text_check(text.base, 2 * XP_TEXT_PAGE), 0);
	CHECK_EQ(port()->text_check((const void *)(uintptr_t)make_text, 16), 0);
	CHECK_EQ(port()->text_check(data, 1), -XP_E_NOT_TEXT);
	CHECK_EQ(port()->text_check(&text, 1), -XP_E_NOT_TEXT);
	CHECK_EQ(port()->text_check((const void *)16, 1), -XP_E_NOT_TEXT);
	CHECK_EQ(port()->text_check((const void *)(UINTPTR_MAX - 4), 16), -XP_E_NOT_TEXT);
	xp_text_free(&text);
}

/* One write of @len bytes at @offset, by the rules: exactly these bytes change. */
static void write_text(const struct xp_text *text, size_t offset, size_t len, unsigned flags)
{
	static uint8_t bytes[2 * XP_TEXT_PAGE], expected[2 * XP_TEXT_PAGE], found[2 * XP_TEXT_PAGE];

	memcpy(expected, text->base, text->size);
	for (size_t i = 0; i < len; i++)
		expected[offset + i] = bytes[i] = (uint8_t)(0x40 + (offset + i * 7 + len) % 64);
	CHECK_EQ(port()->text_write(text->base + offset, bytes, len, flags), 0);
	CHECK_EQ(port()->text_read(found, text->base, text->size), 0);
	CHECK_MEM(found, expected, text->size);
	CHECK_MEM(text->base, expected, text->size);
}

XP_TEST(text_is_written)
{
	struct xp_diag diag = {0};
	struct xp_text text;

	REQUIRE(make_text(&text));
	REQUIRE_EQ(port()->lock(), 0);
	CHECK_EQ(port()->prepare(XP_NEED_SYNC, &diag), 0);
	for (size_t offset = 0; offset < 24; offset++)
		for (size_t len = 1; len <= 24; len++)
			write_text(&text, offset, len, 0);
	for (size_t len = 2; len < 40; len++) /* into the next page */
		write_text(&text, XP_TEXT_PAGE - len / 2, len, 0);
	write_text(&text, 0, 2 * XP_TEXT_PAGE, 0);
	write_text(&text, 5, 2 * XP_TEXT_PAGE - 9, 0);
	CHECK_EQ(port()->sync_core(), 0);
	port()->unlock();
	xp_text_free(&text);
}

/* That it is one store is what no test shows; that it is these bytes, this one. */
XP_TEST(single_stores)
{
	struct xp_diag diag = {0};
	struct xp_text text;

	if (!(port()->can(XP_NEED_SINGLE) & XP_NEED_SINGLE))
		SKIP("the writer in force has single stores of one byte only");
	REQUIRE(make_text(&text));
	REQUIRE_EQ(port()->lock(), 0);
	CHECK_EQ(port()->prepare(XP_NEED_SYNC | XP_NEED_SINGLE, &diag), 0);
	for (size_t offset = 0; offset < 8; offset++)
		for (size_t len = 1; len <= 8 - offset; len++) {
			write_text(&text, 64 + offset, len, XP_WRITE_SINGLE);
			write_text(&text, XP_TEXT_PAGE - 8 + offset, len, XP_WRITE_SINGLE);
		}
	CHECK_EQ(port()->sync_core(), 0);
	port()->unlock();
	xp_text_free(&text);
}

/* ---- all others ---- */

static uint64_t counter;
static bool stop;

static void *count(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		__atomic_store_n(&counter, counter + 1, __ATOMIC_RELEASE);
	return NULL;
}

static uint64_t counted(void)
{
	return __atomic_load_n(&counter, __ATOMIC_ACQUIRE);
}

static void await_counter(void)
{
	uint64_t before = counted();

	while (counted() == before)
		sched_yield();
}

static bool start_counting(pthread_t *thread)
{
	stop = false;
	if (pthread_create(thread, NULL, count, NULL))
		return false;
	await_counter();
	return true;
}

static void stop_counting(pthread_t thread)
{
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
}

XP_TEST(sync_returns_and_others_go_on)
{
	struct xp_diag diag = {0};
	pthread_t other;

	REQUIRE(start_counting(&other));
	CHECK_EQ(port()->lock(), 0);
	CHECK_EQ(port()->prepare(XP_NEED_SYNC, &diag), 0);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(port()->sync_core(), 0);
	port()->unlock();
	await_counter();
	stop_counting(other);
}

XP_TEST(parked_is_parked)
{
	static struct xp_range range; /* on no stack: an address in the range there may be a return address */
	struct xp_diag diag = {0};
	struct xp_text text;
	pthread_t other;

	if (!(port()->can(XP_NEED_PARK) & XP_NEED_PARK))
		SKIP("the port does not park");
	REQUIRE(make_text(&text));
	range.start = (uintptr_t)text.base + 1;
	range.end = (uintptr_t)text.base + 16;
	REQUIRE(start_counting(&other));
	CHECK_EQ(port()->lock(), 0);
	CHECK_EQ(port()->prepare(XP_NEED_PARK, &diag), 0);
	for (int i = 0; i < 5; i++) {
		uint64_t before;
		bool moved = false;

		CHECK_EQ(port()->park(i % 2 ? &range : NULL, i % 2, &diag), 0);
		before = counted();
		for (int j = 0; j < 20000; j++)
			moved = moved || counted() != before;
		CHECK(!moved);
		port()->unpark();
		await_counter();
	}
	port()->unlock();
	stop_counting(other);
	xp_text_free(&text);
}

/* Code with an argument in a register. A loop until the byte there is set, which counts in the next; a call of what is there. */
#ifdef __x86_64__
typedef void code_of(void *);
static const uint8_t rest[] = {0x90, 0xfe, 0x47, 0x01, 0x80, 0x3f, 0x00, 0x74, 0xf8, 0xc3};
static const uint8_t away[] = {0x57, 0xff, 0xd7, 0x5f, 0xc3};
#else
typedef __attribute__((regparm(1))) void code_of(void *);
static const uint8_t rest[] = {0x90, 0xfe, 0x40, 0x01, 0x80, 0x38, 0x00, 0x74, 0xf8, 0xc3};
static const uint8_t away[] = {0x50, 0xff, 0xd0, 0x58, 0xc3};
#endif
static uint8_t leave[2]; /* set by us; not 0 when he is there, or was */

static void wait_for_leave(void)
{
	__atomic_store_n(&leave[1], 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&leave[0], __ATOMIC_ACQUIRE))
		;
}

static void *rest_there(void *code)
{
	((code_of *)(uintptr_t)code)(leave);
	return NULL;
}

static void *return_there(void *code)
{
	((code_of *)(uintptr_t)code)((void *)(uintptr_t)wait_for_leave);
	return NULL;
}

/* Some tries to park later. */
static void *let_go(void *asked)
{
	while (!__atomic_load_n((bool *)asked, __ATOMIC_ACQUIRE))
		sched_yield();
	for (unsigned i = 0; i < 8000; i++)
		__builtin_ia32_pause();
	__atomic_store_n(&leave[0], 1, __ATOMIC_RELEASE);
	return NULL;
}

static void park_around(const uint8_t *code, size_t size, void *(*execute)(void *))
{
	static struct xp_range range;
	static bool asked;
	pthread_t inside, outside;
	struct xp_diag diag = {0};
	struct xp_text text;
	int error;

	REQUIRE(xp_text_make(&text, code, size));
	range.start = (uintptr_t)text.base + 1;
	range.end = (uintptr_t)text.base + size;
	memset(leave, 0, sizeof(leave));
	asked = false;
	REQUIRE_EQ(pthread_create(&inside, NULL, execute, text.base), 0);
	REQUIRE_EQ(pthread_create(&outside, NULL, let_go, &asked), 0);
	while (!__atomic_load_n(&leave[1], __ATOMIC_ACQUIRE))
		sched_yield();
	REQUIRE_EQ(port()->lock(), 0);
	CHECK_EQ(port()->prepare(XP_NEED_PARK, &diag), 0);
	__atomic_store_n(&asked, true, __ATOMIC_RELEASE);
	do
		error = port()->park(&range, 1, &diag);
	while (error == -XP_E_IN_RANGE);
	CHECK_EQ(error, 0);
	CHECK(__atomic_load_n(&leave[0], __ATOMIC_ACQUIRE)); /* not before he may leave */
	if (!error)
		port()->unpark();
	port()->unlock();
	pthread_join(inside, NULL);
	pthread_join(outside, NULL);
	xp_text_free(&text);
}

XP_TEST(nobody_is_parked_inside)
{
	if (!(port()->can(XP_NEED_PARK) & XP_NEED_PARK))
		SKIP("the port does not park");
	park_around(rest, sizeof(rest), rest_there);
	park_around(away, sizeof(away), return_there);
}

/* ---- through the front door ---- */

XP_DEFINE_STATIC_KEY_FALSE(key);

static __attribute__((noinline)) bool site(void)
{
	return xp_static_branch_unlikely(&key);
}

static uint64_t wrong;

static void *execute(void *state)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		/* 0: certainly off, 1: certainly on, 2: either */
		int before = __atomic_load_n((int *)state, __ATOMIC_ACQUIRE);
		bool on = site();
		int after = __atomic_load_n((int *)state, __ATOMIC_ACQUIRE);

		if (before == after && before < 2 && on != before)
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
		__atomic_store_n(&counter, counter + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* Each policy, while another thread executes; by breakpoints until it has met one. */
static void switch_under(enum xp_policy policy)
{
	static int state;
	struct xp_stats before, now;
	pthread_t other;
	int rounds = 0;

	state = 0;
	stop = false;
	wrong = 0;
	CHECK_EQ(xp_set_policy(policy), 0);
	xp_stats_read(&before);
	REQUIRE_EQ(pthread_create(&other, NULL, execute, &state), 0);
	await_counter();
	do {
		for (int on = 1; on >= 0; on--) {
			__atomic_store_n(&state, 2, __ATOMIC_SEQ_CST);
			CHECK_EQ(on ? xp_static_branch_enable(&key) : xp_static_branch_disable(&key), 0);
			__atomic_store_n(&state, on, __ATOMIC_RELEASE);
			await_counter();
		}
		xp_stats_read(&now);
	} while (++rounds < 10 || (policy == XP_POLICY_BREAKPOINT && now.traps == before.traps && rounds < 20000));
	stop_counting(other);
	CHECK_EQ(wrong, 0);
	if (policy == XP_POLICY_BREAKPOINT)
		CHECK(now.traps > before.traps);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
}

XP_TEST(key_under_auto)
{
	switch_under(XP_POLICY_AUTO);
}

XP_TEST(key_under_breakpoint)
{
	if (!(port()->can(XP_NEED_TRAP) & XP_NEED_TRAP))
		SKIP("the port has no trap handler");
	switch_under(XP_POLICY_BREAKPOINT);
}

XP_TEST(key_under_quiesce)
{
	if (!(port()->can(XP_NEED_PARK) & XP_NEED_PARK))
		SKIP("the port does not park");
	switch_under(XP_POLICY_QUIESCE);
}

XP_TEST(early_needs_to_be_alone)
{
	struct xp_diag diag = {0};
	pthread_t other;

	REQUIRE(start_counting(&other));
	CHECK_EQ(port()->lock(), 0);
	CHECK_EQ(port()->prepare(XP_NEED_ALONE, &diag), -XP_E_NOT_EARLY);
	port()->unlock();
	stop_counting(other);
}

XP_TEST_MAIN()
