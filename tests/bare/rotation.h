/* SPDX-License-Identifier: MIT */
/*
 * Torture in which every processor executes and the patcher's part goes round: the one that has the turn makes a few commits and
 * hands it on. Sites, raw sites and the rule by which a result is right are the hosted suites' (tests/lib). Beside
 * them a call, values and a key may change together.
 *
 * It runs for its time (xp_torture_seconds) and then until everything has happened that the case is about (@enough),
 * which no case may do without: a limit ends it, and the case fails.
 */
#ifndef ROTATION_H
#define ROTATION_H

#define XP_SITES_KEY sites_key
#include "xp_pokes.h"
#include "xp_sites.h"

#include <crosspatch/crosspatch.h>

enum { COMMITS_PER_TURN = 1, LIMIT_SECONDS = 80 };

struct rotation {
	bool (*enough)(void);
	bool mixed; /* the call, values and key that change together, too */
	bool gates; /* and a gate that has no provider, one, another */
	void (*each_pass)(unsigned cpu); /* on each processor without the turn; may be NULL */
};

static const struct rotation *rotation;
static struct xp_text poke_text;
static struct poke_site pokes[NR_POKES];
static unsigned turn;
static bool rotation_stop;
static unsigned pokes_wrong;
static struct {
	uint64_t executions, commits;
} __attribute__((aligned(64))) rotated[MACHINE_CPUS_MAX];

/* A commit of the key is under way. */
static inline bool committing(void)
{
	return __atomic_load_n(&xp_sites_epoch, __ATOMIC_RELAXED) % 2;
}

static inline bool has_turn(unsigned cpu)
{
	return __atomic_load_n(&turn, __ATOMIC_ACQUIRE) == cpu;
}

static inline void check_commit(int error, const struct xp_diag *diag)
{
	CHECK_EQ(error, 0);
	if (error)
		xp_torture_note_diag(error, diag);
}

/*
 * Whether to commit once more. Stop-machine is refused as long as a stack holds an address inside a site, and one may be left
 * there from when that processor had the turn itself: in the frames, say, of its wait for the lock, to bind a gate. It
 * gets the lock when this commit has been refused, and some time.
 */
static inline bool refused(int error, unsigned *tries)
{
	if (error != -XP_E_IN_RANGE || ++*tries > 50)
		return false;
	for (unsigned i = 0; i < 20000 * *tries; i++)
		__builtin_ia32_pause();
	return true;
}

static inline void commit_key(uint64_t *random)
{
	struct xp_diag diag = {0};
	unsigned tries = 0;
	int error;

	do
		error = xp_sites_toggle(NULL, random, &diag);
	while (refused(error, &tries));
	check_commit(error, &diag);
}

static inline void commit_poke(uint64_t *random)
{
	struct poke_site *site = &pokes[xp_test_random(random) % NR_POKES];
	struct xp_poke poke = poke_site_step(site, xp_epoch_state(*site->epoch));
	struct xp_diag diag = {0};
	unsigned tries = 0;
	int error;

	xp_epoch_begin(site->epoch);
	do
		error = xp_text_poke(&poke, &diag);
	while (refused(error, &tries));
	if (!error)
		xp_epoch_end(site->epoch);
	check_commit(error, &diag);
}

/* ---- a call, values and a key that change in one commit ---- */

static inline unsigned target_0(unsigned x)
{
	return x;
}

static inline unsigned target_1(unsigned x)
{
	return x + 1;
}

XP_DEFINE_STATIC_CALL(mixed_call, target_0);
XP_DEFINE_STATIC_KEY_FALSE(mixed_key);
XP_DEFINE_IMV(uint8_t, mixed_byte, 0x55);
XP_DEFINE_IMV(uint64_t, mixed_quad, 0x5555555555555555);

static struct xp_batch *mixed_batch;
static uint32_t mixed_epoch;

static inline void commit_mixed(void)
{
	unsigned next = (xp_epoch_state(mixed_epoch) + 1) % 2;
	struct xp_diag diag = {0};
	unsigned tries = 0;
	int error = xp_batch_add_call(mixed_batch, mixed_call, next ? target_1 : target_0);

	error = error ? error : xp_batch_add_key(mixed_batch, &mixed_key.key, next);
	error = error ? error : xp_batch_add_imv(mixed_batch, mixed_byte, (uint8_t)(next ? 0xaa : 0x55));
	error = error ? error : xp_batch_add_imv(mixed_batch, mixed_quad, 0x5555555555555555u << next);
	xp_epoch_begin(&mixed_epoch);
	if (!error)
		do
			error = xp_batch_commit(mixed_batch, &diag);
		while (refused(error, &tries));
	if (!error)
		xp_epoch_end(&mixed_epoch);
	check_commit(error, &diag);
}

/* The state that one of its sites is in; 2: in none that there is. */
static inline unsigned mixed_state(unsigned which)
{
	uint64_t quad;

	switch (which) {
	case 0:
		return xp_static_call(mixed_call)(7) - 7;
	case 1:
		return xp_static_branch_unlikely(&mixed_key);
	case 2:
		quad = xp_imv_read(mixed_byte) * 0x0101010101010101u;
		break;
	default:
		quad = xp_imv_read(mixed_quad);
		break;
	}
	return quad == 0x5555555555555555 ? 0 : quad == 0xaaaaaaaaaaaaaaaa ? 1 : 2;
}

/* Executes all of them; the number of wrong results. Context: any. */
static inline unsigned mixed_execute(void)
{
	unsigned wrong = 0;

	for (unsigned i = 0; i < 4; i++) {
		uint32_t before = xp_epoch_read(&mixed_epoch);
		unsigned state = mixed_state(i);

		wrong += state > 1 || !xp_epoch_allows(before, xp_epoch_read(&mixed_epoch), 2, state);
	}
	return wrong;
}

/* ---- a gate, called by the compiler and from sites that fault the first time ---- */

#ifndef ROTATION_FAULTS
#define ROTATION_FAULTS 32 /* sites of a case */
#endif
#define ROTATION_CASES 3

enum { GATE_STATES = 3, NR_FAULTS = ROTATION_FAULTS, MAX_CASES = ROTATION_CASES };

static unsigned gate_none(unsigned x)
{
	return x;
}

static unsigned gate_first(unsigned x)
{
	return x + 1;
}

static unsigned gate_second(unsigned x)
{
	return x + 2;
}

XP_DECLARE_GATE_FALLBACK(unsigned, rotated_gate, (unsigned x), gate_none);

__asm__(".pushsection .text\n"
	".balign 32\n"
	"gate_callers:\n"
	".rept " XP__STRING(ROTATION_FAULTS) " * " XP__STRING(ROTATION_CASES) "\n"
	".balign 32\n"
	"subq $8, %rsp\n"
	".balign 8\n"
	"661: .byte 0x0f, 0x0b, 0x2e, 0xe8, 0, 0, 0, 0\n"
	"addq $8, %rsp\n"
	"ret\n"
	".pushsection xp_gate_sites,\"a\",@progbits\n"
	".balign 4\n"
	".long 661b - .\n"
	".long xp_gate_rotated_gate + 1 - .\n"
	".popsection\n"
	".endr\n"
	".popsection");
extern uint8_t gate_callers[];

static uint32_t gate_epoch;
static unsigned first_fault, next_fault;

static inline void commit_gate(void)
{
	unsigned next = (xp_epoch_state(gate_epoch) + 1) % GATE_STATES;
	unsigned tries = 0;
	int error;

	xp_epoch_begin(&gate_epoch);
	do
		error = next == 0   ? xp_gate_withdraw("rotated_gate")
			: next == 1 ? xp_gate_provide("rotated_gate", gate_first)
				    : xp_gate_replace("rotated_gate", gate_second);
	while (refused(error, &tries));
	if (!error)
		xp_epoch_end(&gate_epoch);
	check_commit(error, &(struct xp_diag){0});
}

/* Calls it from site @site, or if that is negative from the compiler's; the number of wrong results. Context: any. */
static inline unsigned gate_call(int site)
{
	typedef unsigned function(unsigned);
	uint32_t before = xp_epoch_read(&gate_epoch);
	unsigned state = site < 0 ? xp_gate(rotated_gate)(7) : ((function *)(uintptr_t)(gate_callers + 32 * site))(7);

	return !xp_epoch_allows(before, xp_epoch_read(&gate_epoch), GATE_STATES, state - 7);
}

/*
 * Calls it from both; the number of wrong results. Context: any. Now and then only: a processor that finds a site unbound commits,
 * and the others come to nothing else.
 */
static inline unsigned gate_execute(void)
{
	enum { PASSES = 16 };
	static unsigned passes;

	if (__atomic_fetch_add(&passes, 1, __ATOMIC_RELAXED) % PASSES)
		return 0;
	/* Two processors at least come to each. */
	return gate_call(-1) +
	       gate_call((int)(first_fault + __atomic_fetch_add(&next_fault, 1, __ATOMIC_RELAXED) / 4 % NR_FAULTS));
}

static inline void rotation_execute(uint64_t *random)
{
	unsigned wrong;

	xp_sites_execute(NULL, random);
	wrong = poke_sites_execute(pokes, random) + (rotation->mixed ? mixed_execute() : 0) +
		(rotation->gates ? gate_execute() : 0);
	if (wrong)
		__atomic_add_fetch(&pokes_wrong, wrong, __ATOMIC_RELAXED);
}

static void rotation_member(void *number)
{
	unsigned self = (unsigned)(uintptr_t)number;
	uint64_t random = self + 1, end = xp_now_ns() + (uint64_t)(xp_torture_seconds * 1e9),
		 limit = xp_now_ns() + LIMIT_SECONDS * 1000000000ull;

	while (!__atomic_load_n(&rotation_stop, __ATOMIC_ACQUIRE)) {
		if (has_turn(self)) {
			for (unsigned i = 0; i < COMMITS_PER_TURN; i++) {
				commit_key(&random);
				commit_poke(&random);
				if (rotation->mixed)
					commit_mixed();
				if (rotation->gates)
					commit_gate();
			}
			rotated[self].commits += 2 * COMMITS_PER_TURN;
			__atomic_store_n(&turn, (self + 1) % machine_nr_cpus(), __ATOMIC_RELEASE);
		} else {
			rotation_execute(&random);
			rotated[self].executions += XP_NR_SITES + NR_POKES + 4;
			if (rotation->each_pass)
				rotation->each_pass(self);
		}
		if (self == 0 && xp_now_ns() > end && (rotation->enough() || xp_now_ns() > limit))
			__atomic_store_n(&rotation_stop, true, __ATOMIC_RELEASE);
	}
}

static inline bool everybody_patched(void)
{
	for (unsigned i = 0; i < machine_nr_cpus(); i++)
		if (!__atomic_load_n(&rotated[i].commits, __ATOMIC_RELAXED) ||
		    !__atomic_load_n(&rotated[i].executions, __ATOMIC_RELAXED))
			return false;
	return true;
}

static inline void rotation_run(const struct rotation *what, enum xp_policy policy)
{
	struct xp_stats before, stats;
	uint64_t random = 0, toggles = xp_epoch_state(xp_sites_epoch);

	if (poke_text.base == NULL)
		CHECK(poke_sites_make(&poke_text, pokes, NULL));
	if (mixed_batch == NULL)
		mixed_batch = xp_batch_new();
	REQUIRE(mixed_batch != NULL);
	CHECK_EQ(xp_set_policy(policy), 0);
	xp_stats_read(&before);
	memset(rotated, 0, sizeof(rotated));
	rotation = what;
	rotation_stop = false;
	turn = 0;
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		machine_run(i, rotation_member, (void *)(uintptr_t)i);
	rotation_member(NULL);
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		machine_wait(i);
	rotation_execute(&random);
	first_fault = (first_fault + NR_FAULTS) % (NR_FAULTS * MAX_CASES);
	next_fault = 0;
	for (unsigned i = 0; i < machine_nr_cpus(); i++)
		XP_TEST_NOTE("cpu %u: %llu executions, %llu commits", i, (unsigned long long)rotated[i].executions,
			     (unsigned long long)rotated[i].commits);
	stats = xp_torture_report(&before, xp_epoch_state(xp_sites_epoch) - toggles);
	CHECK(everybody_patched());
	CHECK(what->enough());
	CHECK_EQ(xp_sites_wrong, 0);
	CHECK_EQ(pokes_wrong, 0);
	CHECK_EQ(stats.rollbacks, 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

#endif
