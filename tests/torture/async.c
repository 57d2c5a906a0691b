// SPDX-License-Identifier: MIT
/*
 * A key at every offset of a cache line, toggled by asynchronous commits: several, one upon the other, and the ticket of the
 * last. As long as it is not done a site is on or off; a thread that sees it done executes the last state. Who makes it done is
 * left to chance: the thread that toggles, a second one that waits for the same tickets, a third one's commits: of another
 * key, of a number that must not be mixed of two, of the same number asynchronously.
 */
#define XP_SITES_KEY sites_key
#include "xp_sites.h"

#include <crosspatch/imv.h>

/* Each byte of the two differs, and so no mixture is either. */
#define EVEN 0x11223344
#define ODD 0x55667788

XP_DEFINE_STATIC_KEY_FALSE(other_key);
XP_DEFINE_IMV(int, number, EVEN);

static struct xp_ticket shared; /* the last one; written in an odd epoch, before it is announced */
static uint32_t announced, waited, others;
static bool stop;
static unsigned mixed;

static __attribute__((noinline)) bool other_site(void)
{
	return xp_static_branch_unlikely(&other_key);
}

static __attribute__((noinline)) int number_site(void)
{
	return xp_imv_read(number);
}

static uint64_t execute(void *context, uint64_t *random)
{
	int found = number_site();

	if (found != EVEN && found != ODD && found != (EVEN ^ 0xff) && found != (EVEN ^ 0xff00ff))
		__atomic_add_fetch(&mixed, 1, __ATOMIC_RELAXED);
	return 1 + xp_sites_execute(context, random);
}

/* An odd number of toggles is one state further. */
static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	bool on = xp_epoch_state(xp_sites_epoch) % 2 == 0;
	unsigned toggles = 1 + 2 * ((unsigned)xp_test_random(random) % 2);
	unsigned how = (unsigned)xp_test_random(random) % 3;
	struct xp_ticket ticket;
	int error = 0, done;

	(void)context;
	xp_epoch_begin(&xp_sites_epoch);
	for (; toggles > 0 && !error; toggles--) {
		error = on ? xp_static_branch_enable_async(&sites_key, &ticket)
			   : xp_static_branch_disable_async(&sites_key, &ticket);
		on = !on;
	}
	on = !on;
	if (error)
		return error;
	CHECK(!on || !xp_static_key_enabled(&sites_key) || xp_ticket_poll(&ticket) == 1);
	__atomic_store_n(&shared.sync, ticket.sync, __ATOMIC_RELAXED);
	__atomic_add_fetch(&announced, 1, __ATOMIC_RELEASE);
	if (how == 0)
		error = xp_ticket_wait(&ticket, diag);
	else if (how == 1)
		error = on ? xp_static_branch_enable(&sites_key) : xp_static_branch_disable(&sites_key);
	else
		while ((done = xp_ticket_poll(&ticket)) == 0)
			sched_yield();
	if (!error)
		CHECK_EQ(xp_ticket_poll(&ticket), 1);
	CHECK_EQ(xp_static_key_enabled(&sites_key), on);
	if (!error)
		xp_epoch_end(&xp_sites_epoch);
	return error;
}

/* Waits for whatever ticket was announced last. */
static void *wait_for_tickets(void *unused)
{
	uint32_t seen = 0;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		uint32_t now = __atomic_load_n(&announced, __ATOMIC_ACQUIRE);
		struct xp_ticket ticket = {__atomic_load_n(&shared.sync, __ATOMIC_RELAXED)};

		if (now == seen) {
			sched_yield();
			continue;
		}
		seen = now;
		CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
		waited++;
	}
	return unused;
}

static void *commit_others(void *unused)
{
	static const int numbers[] = {EVEN ^ 0xff, EVEN ^ 0xff00ff, ODD, EVEN};
	struct xp_batch *batch = xp_batch_new();
	uint64_t random = xp_test_seed() + 1;
	int now = xp_imv_read(number);

	while (batch && !__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		bool on = xp_test_random(&random) & 1;
		int next = numbers[xp_test_random(&random) % 4];
		struct xp_ticket ticket;

		if (xp_test_random(&random) & 1) {
			CHECK_EQ(on ? xp_static_branch_enable(&other_key) : xp_static_branch_disable(&other_key), 0);
			CHECK_EQ(other_site(), on);
		} else if (now != ODD && next != ODD) {
			/* One byte, then perhaps another one: by flips. */
			CHECK_EQ(xp_batch_add_imv(batch, number, next), 0);
			if (xp_batch_commit_async(batch, &ticket, NULL))
				CHECK_EQ(xp_batch_commit(batch, NULL), 0);
			now = next;
		} else {
			CHECK_EQ(xp_imv_set(number, next), 0);
			CHECK_EQ(number_site(), next);
			now = next;
		}
		others++;
		sched_yield();
	}
	xp_batch_free(batch);
	return unused;
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	struct xp_torture torture = {.execute = execute, .patch = patch, .nr_threads = 2};
	pthread_t waits, commits;

	if (!xp_torture_set(policy, writer, sync))
		return;
	stop = false;
	waited = others = 0;
	CHECK_EQ(pthread_create(&waits, NULL, wait_for_tickets, NULL), 0);
	CHECK_EQ(pthread_create(&commits, NULL, commit_others, NULL), 0);
	xp_torture_run(&torture);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(waits, NULL);
	pthread_join(commits, NULL);
	XP_TEST_NOTE("%u tickets waited for elsewhere, %u other commits", waited, others);
	CHECK(waited > 0 && others > 0);
	CHECK_EQ(__atomic_load_n(&mixed, __ATOMIC_RELAXED), 0);
	xp_sites_check_right();
}

XP_TORTURE_CASE(procmem_membarrier, AUTO, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(procmem_signal, AUTO, PROCMEM, SIGNAL)
XP_TORTURE_CASE(mprotect_membarrier, AUTO, MPROTECT, MEMBARRIER)

XP_TORTURE_MAIN()
