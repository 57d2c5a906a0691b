// SPDX-License-Identifier: MIT
/*
 * Instructions that cannot be emulated, changed behind a breakpoint while three threads execute them: a locked one, an
 * SSE one and one whose operand is relative to itself, inside a line and across two. A timer's signal interrupts all
 * threads anywhere, in the copies out of line and in the commit too, and its handler executes the same sites.
 */
#include "xp_text.h"
#include "xp_torture.h"

#include <signal.h>
#include <sys/time.h>

enum { STRIDE = 128, WORDS = 3584, VALUE = 1 };

struct form {
	uint8_t len, nr_before, nr_behind;
	uint8_t before[4], behind[6];
	uint8_t variants[2][8];
	uint32_t result[2];
};

static const struct form forms[] = {
	/* push; lock add, lock sub; pop; ret */
	{8,
	 1,
	 2,
	 {0x50},
	 {0x58, 0xc3},
	 {{0xf0, 0x81, 0x04, 0x24, 0x04, 0x03, 0x02, 0x01}, {0xf0, 0x81, 0x2c, 0x24, 0x08, 0x07, 0x06, 0x05}},
	 {VALUE + 0x01020304u, VALUE - 0x05060708u}},
	/* movd; paddd, pcmpeqd; movd; ret */
	{4,
	 4,
	 5,
	 {0x66, 0x0f, 0x6e, 0xc0},
	 {0x66, 0x0f, 0x7e, 0xc0, 0xc3},
	 {{0x66, 0x0f, 0xfe, 0xc0}, {0x66, 0x0f, 0x76, 0xc0}},
	 {2 * VALUE, 0xffffffffu}},
#ifdef __x86_64__
	/* mov word(%rip), %eax; ret: the displacement is filled in */
	{6, 0, 1, {0}, {0xc3}, {{0x8b, 0x05}, {0x8b, 0x05}}, {0x11111111u, 0x22222222u}},
#endif
};
#define NR_FORMS (sizeof(forms) / sizeof(forms[0]))

static const unsigned offsets[] = {0, 57, 62, 63};
#define NR_OFFSETS (sizeof(offsets) / sizeof(offsets[0]))
#define NR (NR_FORMS * NR_OFFSETS)

struct site {
	const struct form *form;
	uint8_t *function, *addr;
	uint8_t variants[2][8];
};

static struct xp_text text;
static struct site sites[NR];
static uint32_t epoch;
static unsigned wrong, handled;

static bool make(void)
{
	if (!xp_text_alloc(&text, 4096))
		return false;
	for (unsigned i = 0; i < NR; i++) {
		struct site *site = &sites[i];
		const struct form *form = &forms[i / NR_OFFSETS];

		site->form = form;
		site->addr = text.base + 64 + STRIDE * i + offsets[i % NR_OFFSETS];
		site->function = site->addr - form->nr_before;
		memcpy(site->variants, form->variants, sizeof(site->variants));
		for (unsigned v = 0; v < 2 && form->variants[0][0] == 0x8b; v++) {
			uint8_t *word = text.base + WORDS + (i + v * NR) * sizeof(uint32_t);
			int32_t distance = (int32_t)(word - site->addr - form->len);

			memcpy(word, &form->result[v], sizeof(uint32_t));
			memcpy(site->variants[v] + 2, &distance, sizeof(distance));
		}
		memcpy(site->function, form->before, form->nr_before);
		memcpy(site->addr, site->variants[0], form->len);
		memcpy(site->addr + form->len, form->behind, form->nr_behind);
	}
	return xp_text_seal(&text);
}

static uint32_t call(const struct site *site)
{
	uint32_t value = VALUE;

#ifdef __x86_64__
	/* The red zone is this function's own. */
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
			 "call *%[function]\n\t"
			 "lea 128(%%rsp), %%rsp"
			 : "+a"(value)
			 : [function] "r"(site->function)
			 : "memory", "cc", "xmm0");
#else
	__asm__ volatile("call *%[function]" : "+a"(value) : [function] "r"(site->function) : "memory", "cc");
#endif
	return value;
}

/* Context: any, signal handlers included. */
static unsigned look(void)
{
	for (unsigned i = 0; i < NR; i++) {
		uint32_t before = xp_epoch_read(&epoch), result = call(&sites[i]), after = xp_epoch_read(&epoch);
		unsigned state = result == sites[i].form->result[1];

		if (result != sites[i].form->result[state] || !xp_epoch_allows(before, after, 2, state))
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	}
	return NR;
}

static void handle(int number)
{
	(void)number;
	(void)look();
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
}

static uint64_t execute(void *context, uint64_t *random)
{
	(void)context;
	(void)random;
	return look();
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	unsigned state = xp_epoch_state(epoch) % 2;
	struct xp_batch *batch = xp_batch_new();
	int error = batch ? 0 : -XP_E_WEDGED;

	(void)context;
	(void)random;
	for (unsigned i = 0; i < NR && !error; i++) {
		struct xp_poke poke = {
			.addr = sites[i].addr,
			.expect = sites[i].variants[state],
			.replace = sites[i].variants[!state],
			.len = sites[i].form->len,
			.resume = XP_RESUME_BYPASS,
		};

		error = xp_batch_add_poke(batch, &poke);
	}
	xp_epoch_begin(&epoch);
	error = error ? error : xp_batch_commit(batch, diag);
	if (!error)
		xp_epoch_end(&epoch);
	xp_batch_free(batch);
	return error;
}

static void run(enum xp_writer writer, enum xp_sync sync, bool signals)
{
	struct xp_torture torture = {.execute = execute, .patch = patch, .nr_threads = 3, .traps = XP_TRAPS_SOME};
	struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART}, before;
	struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};

	if (!xp_torture_set(XP_POLICY_BREAKPOINT, writer, sync))
		return;
	REQUIRE(make());
	epoch = 0;
	handled = 0;
	sigemptyset(&action.sa_mask); /* SIGTRAP comes through */
	REQUIRE_EQ(sigaction(SIGALRM, &action, &before), 0);
	if (signals)
		REQUIRE_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
	xp_torture_run(&torture);
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK_EQ(sigaction(SIGALRM, &before, NULL), 0);
	CHECK_EQ(__atomic_load_n(&handled, __ATOMIC_RELAXED) > 0, signals);
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	xp_text_free(&text);
}

XP_TEST(procmem)
{
	run(XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER, false);
}

XP_TEST(procmem_under_signals)
{
	run(XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER, true);
}

XP_TEST(mprotect_under_signals)
{
	run(XP_WRITER_MPROTECT, XP_SYNC_MEMBARRIER, true);
}

/* Without signals: one of the sites reads a word beside it, which has the key then, and a handler could not. */
XP_TEST(pkey)
{
	run(XP_WRITER_PKEY, XP_SYNC_MEMBARRIER, false);
}

XP_TORTURE_MAIN()
