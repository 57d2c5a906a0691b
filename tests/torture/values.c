// SPDX-License-Identifier: MIT
/*
 * Immediate values of all sizes, read by three threads while one sets them, one by one or all in a commit, under each
 * policy and writer. Sites stand at every offset of a cache line, in fourteen registers (in 32-bit code the four that have low
 * bytes), and where the macros put them. Every value that is read was set; after a commit it is exactly the new one.
 */
#include "xp_torture.h"

#include <crosspatch/imv.h>

#define NR_STATES 7 /* of each value; in two of them no byte is the same */

static uint64_t pattern(unsigned state, unsigned size)
{
	return (0x0101010101010101u * (0x11 + 0x23 * state)) >> (64 - 8 * size);
}

typedef uint64_t *pointer;

/* X(number, type); the first have sites at every offset, PLACED(X) */
#ifdef __x86_64__
#define VALUES(X)                                                                                                      \
	X(0, uint8_t)                                                                                                  \
	X(1, uint16_t)                                                                                                 \
	X(2, uint32_t)                                                                                                 \
	X(3, uint64_t)                                                                                                 \
	X(4, float)                                                                                                    \
	X(5, double)                                                                                                   \
	X(6, pointer)
#define NR_VALUES 7
#define NR_PLACED 4
#define PLACED(X) X(0), X(1), X(2), X(3)
static const unsigned sizes[NR_VALUES] = {1, 2, 4, 8, 4, 8, 8};
#else
#define VALUES(X)                                                                                                      \
	X(0, uint8_t)                                                                                                  \
	X(1, uint16_t)                                                                                                 \
	X(2, uint32_t)                                                                                                 \
	X(3, float)                                                                                                    \
	X(4, pointer)
#define NR_VALUES 5
#define NR_PLACED 3
#define PLACED(X) X(0), X(1), X(2)
static const unsigned sizes[NR_VALUES] = {1, 2, 4, 4, 4};
#endif

/* They start as 0, which is no state: the first commit of a case is not watched. */
#define DEFINE(number, type) XP_DEFINE_IMV(type, value_##number, 0);
VALUES(DEFINE)

/* ---- sites at every offset: the macros' instruction without their padding ---- */

#define SITE(number, row, column, name)                                                                                \
	static __attribute__((noinline)) uint64_t site_##number##_##row##_##column(void)                               \
	{                                                                                                              \
		register uintptr_t bits __asm__(name);                                                                 \
		uint64_t value = 0;                                                                                    \
                                                                                                                       \
		__asm__ __volatile__("jmp 771f\n\t"                                                                    \
				     ".balign 64\n\t"                                                                  \
				     ".skip 64 + 8 * " #row " + " #column "\n"                                         \
				     "771:\n" XP__IMV_INSN                                                             \
				     : [xp__bits] "=r"(bits)                                                           \
				     : [xp__imv] XP__ADDRESS(&value_##number), [xp__size] "i"(sizeof(xp__imv_type_of_value_##number))); \
		memcpy(&value, &(uintptr_t){bits}, sizeof(xp__imv_type_of_value_##number));                            \
		return value;                                                                                          \
	}

#ifdef __x86_64__
/* rsp and rbp are the function's own. */
#define ROW_EVEN(X, number, row)                                                                                       \
	X(number, row, 0, "rax")                                                                                       \
	X(number, row, 1, "rcx")                                                                                       \
	X(number, row, 2, "rdx")                                                                                       \
	X(number, row, 3, "rbx")                                                                                       \
	X(number, row, 4, "rsi")                                                                                       \
	X(number, row, 5, "rdi")                                                                                       \
	X(number, row, 6, "r8")                                                                                        \
	X(number, row, 7, "r9")
#define ROW_ODD(X, number, row)                                                                                        \
	X(number, row, 0, "r10")                                                                                       \
	X(number, row, 1, "r11")                                                                                       \
	X(number, row, 2, "r12")                                                                                       \
	X(number, row, 3, "r13")                                                                                       \
	X(number, row, 4, "r14")                                                                                       \
	X(number, row, 5, "r15")                                                                                       \
	X(number, row, 6, "rax")                                                                                       \
	X(number, row, 7, "rdi")
#else
#define ROW_EVEN(X, number, row)                                                                                       \
	X(number, row, 0, "eax")                                                                                       \
	X(number, row, 1, "ecx")                                                                                       \
	X(number, row, 2, "edx")                                                                                       \
	X(number, row, 3, "ebx")                                                                                       \
	X(number, row, 4, "eax")                                                                                       \
	X(number, row, 5, "ecx")                                                                                       \
	X(number, row, 6, "edx")                                                                                       \
	X(number, row, 7, "ebx")
#define ROW_ODD ROW_EVEN
#endif
#define ROWS(X, number)                                                                                                \
	ROW_EVEN(X, number, 0)                                                                                         \
	ROW_ODD(X, number, 1)                                                                                          \
	ROW_EVEN(X, number, 2)                                                                                         \
	ROW_ODD(X, number, 3)                                                                                          \
	ROW_EVEN(X, number, 4)                                                                                         \
	ROW_ODD(X, number, 5)                                                                                          \
	ROW_EVEN(X, number, 6)                                                                                         \
	ROW_ODD(X, number, 7)
ROWS(SITE, 0)
ROWS(SITE, 1)
ROWS(SITE, 2)
#if NR_PLACED == 4
ROWS(SITE, 3)
#endif

#define NAME(number, row, column, name) site_##number##_##row##_##column,
#define NAMES(number) {ROWS(NAME, number)}
static uint64_t (*const placed[NR_PLACED][64])(void) = {PLACED(NAMES)};

/* ---- sites as the macros emit them ---- */

#define EMITTED(number, type)                                                                                          \
	static __attribute__((noinline)) uint64_t emitted_##number(void)                                               \
	{                                                                                                              \
		type value = xp_imv_read(value_##number);                                                              \
		uint64_t bits = 0;                                                                                     \
                                                                                                                       \
		memcpy(&bits, &value, sizeof(value));                                                                  \
		return bits;                                                                                           \
	}
VALUES(EMITTED)

#define EMITTED_NAME(number, type) emitted_##number,
static uint64_t (*const emitted[NR_VALUES])(void) = {VALUES(EMITTED_NAME)};

/* ---- the run ---- */

static uint32_t epoch[NR_VALUES];
static unsigned nr_wrong;

static void check(unsigned value, uint64_t (*read)(void))
{
	uint32_t before = xp_epoch_read(&epoch[value]);
	uint64_t found = read();
	uint32_t after = xp_epoch_read(&epoch[value]);
	unsigned state = 0;

	while (state < NR_STATES && pattern(state, sizes[value]) != found)
		state++;
	if (state == NR_STATES || !xp_epoch_allows(before, after, NR_STATES, state))
		__atomic_add_fetch(&nr_wrong, 1, __ATOMIC_RELAXED);
}

static uint64_t execute(void *context, uint64_t *random)
{
	(void)context;
	(void)random;
	for (unsigned v = 0; v < NR_VALUES; v++) {
		check(v, emitted[v]);
		for (unsigned i = 0; v < NR_PLACED && i < 64; i++)
			check(v, placed[v][i]);
	}
	return NR_VALUES + NR_PLACED * 64;
}

static struct xp_batch *batch;

/* Sets @value to @bits, at once or with the batch. */
static int set(unsigned value, uint64_t bits, bool batched)
{
	switch (value) {
#define SET(number, type)                                                                                              \
	case number: {                                                                                                 \
		type typed;                                                                                            \
                                                                                                                       \
		memcpy(&typed, &bits, sizeof(typed));                                                                  \
		return batched ? xp_batch_add_imv(batch, value_##number, typed) : xp_imv_set(value_##number, typed);   \
	}
		VALUES(SET)
	}
	return -1;
}

static uint64_t next(unsigned value)
{
	return pattern((xp_epoch_state(epoch[value]) + 1) % NR_STATES, sizes[value]);
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	unsigned one = (unsigned)(xp_test_random(random) % (2 * NR_VALUES));
	int error = 0;

	(void)context;
	if (one < NR_VALUES) {
		uint64_t bits = next(one);

		xp_epoch_begin(&epoch[one]);
		error = set(one, bits, false);
		if (!error)
			xp_epoch_end(&epoch[one]);
		return error;
	}
	for (unsigned v = 0; v < NR_VALUES && !error; v++)
		error = set(v, next(v), true);
	for (unsigned v = 0; v < NR_VALUES; v++)
		xp_epoch_begin(&epoch[v]);
	error = error ? error : xp_batch_commit(batch, diag);
	for (unsigned v = 0; v < NR_VALUES && !error; v++)
		xp_epoch_end(&epoch[v]);
	return error;
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync, enum xp_torture_traps traps)
{
	struct xp_torture torture = {
		.execute = execute,
		.patch = patch,
		.nr_threads = sync == XP_SYNC_SIGNAL ? 1 : 3,
		.traps = traps,
	};

	if (!xp_torture_set(policy, writer, sync))
		return;
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	for (unsigned v = 0; v < NR_VALUES; v++) {
		epoch[v] = 0;
		CHECK_EQ(set(v, pattern(0, sizes[v]), false), 0);
	}
	xp_torture_run(&torture);
	CHECK_EQ(__atomic_load_n(&nr_wrong, __ATOMIC_RELAXED), 0);
	xp_batch_free(batch);
}

/* From the records: sites whose operand crosses a quadword, a cache line. */
XP_TEST(sites)
{
	unsigned nr = 0, inside = 0, crossing_line = 0;

	CHECK_EQ(xp_module_error(), 0);
	for (const struct xp_imv_site *site = __start_xp_imv_sites; site < __stop_xp_imv_sites; site++) {
		uintptr_t code = (uintptr_t)&site->code + (uintptr_t)(intptr_t)site->code;
		uintptr_t first = code + site->len - site->size, last = code + site->len - 1u;

		nr++;
		inside += first / 8 == last / 8;
		crossing_line += first / 64 != last / 64;
	}
	CHECK(nr >= NR_PLACED * 64 + NR_VALUES);
	CHECK(inside > 64 && inside < nr);
	CHECK(crossing_line > 0);
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER, XP_TRAPS_SOME)
XP_TORTURE_CASE(auto_mprotect, AUTO, MPROTECT, MEMBARRIER, XP_TRAPS_SOME)
XP_TORTURE_CASE(breakpoint_procmem, BREAKPOINT, PROCMEM, MEMBARRIER, XP_TRAPS_SOME)
XP_TORTURE_CASE(breakpoint_mprotect_signal, BREAKPOINT, MPROTECT, SIGNAL, XP_TRAPS_SOME)
XP_TORTURE_CASE(quiesce, QUIESCE, PROCMEM, SIGNAL, XP_TRAPS_NONE)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER, XP_TRAPS_SOME)

XP_TORTURE_MAIN()
