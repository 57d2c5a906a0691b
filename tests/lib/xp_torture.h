/* SPDX-License-Identifier: MIT */
/*
 * What torture programs share: threads that execute sites while one patches, and the rule by which a result is right.
 *
 * The rule. Around every commit the patcher raises an epoch: odd while the commit runs, even after it. A bystander
 * reads the epoch, executes, reads the epoch again. The same even number twice: no commit ran meanwhile, and the
 * one before is complete, so the result must be exactly that epoch's. Otherwise it may be that of any state from
 * the first reading to the last, and nothing else.
 * (X1) the odd epoch is stored, with a full barrier, before the first byte of text; pairs with (X4)
 * (X2) the even epoch is stored with release after the commit returned; pairs with (X3)
 * (X3) the bystander's first load, acquire: the library promises new code from here on
 * (X4) the bystander's last load: a thread that fetched new text finds at least the odd epoch
 *
 * A run in which no thread executed, nothing was toggled, or none trapped where traps are to be expected, has tested
 * nothing and fails.
 */
#ifndef XP_TORTURE_H
#define XP_TORTURE_H

#include "xp_test.h"

#include <crosspatch/error.h>
#include <crosspatch/linux.h>
#include <crosspatch/text_poke.h>
#include <pthread.h>
#include <sched.h>

#define XP_TORTURE_THREADS_MAX 8
/* Sites that change when they are first executed, in a case: a commit each, and a machine may have its own idea of how many. */
#ifndef XP_TORTURE_FAULTS
#define XP_TORTURE_FAULTS 800
#endif

/* Seconds per case: XP_SECONDS from the environment, or the program's first argument shared out among its cases. */
extern double xp_torture_seconds;

#define XP_TORTURE_MAIN()                                                                                              \
	struct xp_test_state xp_test_state;                                                                            \
	double xp_torture_seconds = 0.5;                                                                               \
	int main(int argc, char **argv)                                                                                \
	{                                                                                                              \
		return xp_torture_main(argc, argv);                                                                    \
	}

/* A case that is the program's run(policy, writer, sync), or with more arguments, under one setting. */
#define XP_TORTURE_CASE(name, policy, writer, sync, ...)                                                               \
	XP_TEST(name)                                                                                                  \
	{                                                                                                              \
		run(XP_POLICY_##policy, XP_WRITER_##writer, XP_SYNC_##sync, ##__VA_ARGS__);                            \
	}

static inline int xp_torture_main(int argc, char **argv)
{
	const char *given = getenv("XP_SECONDS");
	unsigned nr = 0;

	if (argc > 1 && argv[1][0] >= '0' && argv[1][0] <= '9') {
		for (const struct xp_test_case *test = xp_test_state.first; test; test = test->next)
			nr += xp_test_selected(test, argc - 1, argv + 1);
		xp_torture_seconds = strtod(argv[1], NULL) / (nr ? nr : 1);
		argv[1] = argv[0];
		argv++;
		argc--;
	}
	if (given)
		xp_torture_seconds = strtod(given, NULL);
	return xp_test_main(argc, argv);
}

static inline uint64_t xp_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Lets time pass: for threads that run until they are told to stop. */
static inline void xp_torture_pass(double seconds)
{
	struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

	while (nanosleep(&time, &time))
		;
}

/* ---- the epoch ---- */

static inline void xp_epoch_begin(uint32_t *epoch)
{
	/* (X1) */
	__atomic_store_n(epoch, *epoch | 1, __ATOMIC_SEQ_CST);
}

static inline void xp_epoch_end(uint32_t *epoch)
{
	/* (X2) */
	__atomic_store_n(epoch, (*epoch | 1) + 1, __ATOMIC_RELEASE);
}

static inline uint32_t xp_epoch_read(const uint32_t *epoch)
{
	/* (X3), (X4) */
	return __atomic_load_n(epoch, __ATOMIC_ACQUIRE);
}

/* The number of states complete at an epoch; modulo the number of states, the state. */
static inline uint32_t xp_epoch_state(uint32_t epoch)
{
	return epoch / 2;
}

/* Whether @state, of @nr that follow each other in a cycle, may be seen between two readings. */
static inline bool xp_epoch_allows(uint32_t before, uint32_t after, unsigned nr, unsigned state)
{
	uint32_t last = (after + 1) / 2;

	for (uint32_t n = before / 2; n <= last && n < before / 2 + nr; n++)
		if (n % nr == state)
			return true;
	return false;
}

/* ---- the run ---- */

enum xp_torture_traps { XP_TRAPS_ANY, XP_TRAPS_NONE, XP_TRAPS_SOME };

struct xp_torture {
	/* Executes some sites and checks; returns how many. Called again and again by each thread. */
	uint64_t (*execute)(void *context, uint64_t *random);
	/* One commit. */
	int (*patch)(void *context, uint64_t *random, struct xp_diag *diag);
	void *context;
	unsigned nr_threads;
	enum xp_torture_traps traps;
	bool (*enough)(void); /* whether all has occurred that the case is about; NULL: traps is all it asks */
	double seconds; /* 0: xp_torture_seconds */
};

struct xp_torture_thread {
	const struct xp_torture *torture;
	pthread_t thread;
	uint64_t random;
	uint64_t executions; /* written by the thread alone */
	bool *stop;
};

static inline void *xp_torture_bystander(void *argument)
{
	struct xp_torture_thread *self = (struct xp_torture_thread *)argument;

	while (!__atomic_load_n(self->stop, __ATOMIC_RELAXED)) {
		uint64_t nr = self->torture->execute(self->torture->context, &self->random);

		__atomic_store_n(&self->executions, self->executions + nr, __ATOMIC_RELAXED);
	}
	return NULL;
}

static inline void xp_torture_note_diag(int error, const struct xp_diag *diag)
{
	char text[512];

	if (diag->error)
		xp_diag_format(diag, text, sizeof(text));
	XP_TEST_NOTE("%d: %s", error, diag->error ? text : xp_strerror(error));
}

/* The difference of two readings of the counters, printed. */
static inline struct xp_stats xp_torture_report(const struct xp_stats *before, uint64_t toggles)
{
	struct xp_stats now;

	xp_stats_read(&now);
	now.commits -= before->commits;
	now.rollbacks -= before->rollbacks;
	now.syncs -= before->syncs;
	now.writes -= before->writes;
	now.sites -= before->sites;
	now.traps -= before->traps;
	now.late_traps -= before->late_traps;
	XP_TEST_NOTE("toggles %llu, traps %llu, late traps %llu", (unsigned long long)toggles,
		     (unsigned long long)now.traps, (unsigned long long)now.late_traps);
	return now;
}

static inline bool xp_torture_trapped(const struct xp_stats *before)
{
	struct xp_stats now;

	xp_stats_read(&now);
	return now.traps > before->traps;
}

static inline bool xp_torture_enough(const struct xp_torture *torture, const struct xp_stats *before)
{
	return (torture->traps != XP_TRAPS_SOME || xp_torture_trapped(before)) &&
	       (torture->enough == NULL || torture->enough());
}

/*
 * Runs it for its time; on a busy machine up to ten times as long, until a thread trapped where that must occur, and there is
 * enough of all else. Returns the number of commits.
 */
static inline uint64_t xp_torture_run(const struct xp_torture *torture)
{
	struct xp_torture_thread threads[XP_TORTURE_THREADS_MAX];
	uint64_t random = xp_test_seed(), toggles = 0, end;
	double seconds = torture->seconds > 0 ? torture->seconds : xp_torture_seconds;
	struct xp_stats before, now;
	bool stop = false;

	xp_stats_read(&before);
	memset(threads, 0, sizeof(threads));
	for (unsigned i = 0; i < torture->nr_threads; i++) {
		threads[i].torture = torture;
		threads[i].random = xp_test_random(&random);
		threads[i].stop = &stop;
		CHECK_EQ(pthread_create(&threads[i].thread, NULL, xp_torture_bystander, &threads[i]), 0);
	}
	for (unsigned i = 0; i < torture->nr_threads; i++)
		while (__atomic_load_n(&threads[i].executions, __ATOMIC_RELAXED) == 0)
			sched_yield();
	end = xp_now_ns() + (uint64_t)(seconds * 1e9);
	do {
		struct xp_diag diag = {0};
		int error = torture->patch(torture->context, &random, &diag);

		CHECK_EQ(error, 0);
		if (error) {
			xp_torture_note_diag(error, &diag);
			break;
		}
		toggles++;
	} while (xp_now_ns() < end ||
		 (!xp_torture_enough(torture, &before) && xp_now_ns() < end + (uint64_t)(seconds * 9e9)));
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < torture->nr_threads; i++) {
		pthread_join(threads[i].thread, NULL);
		XP_TEST_NOTE("thread %u: %llu executions", i, (unsigned long long)threads[i].executions);
		CHECK(threads[i].executions > 0);
	}
	now = xp_torture_report(&before, toggles);
	CHECK(toggles > 0);
	if (torture->traps == XP_TRAPS_SOME)
		CHECK(now.traps > 0);
	if (torture->traps == XP_TRAPS_NONE)
		CHECK_EQ(now.traps, 0);
	CHECK_EQ(now.rollbacks, 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	return toggles;
}

/*
 * Settings of a case. A forced choice that does not work here fails the case: CI must not pass by testing less. But not every
 * processor has protection keys, which regression/pkey asks for by itself.
 */
static inline bool xp_torture_set(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	bool ok = true;

	if (writer == XP_WRITER_PKEY && xp_set_writer(writer) == -XP_E_NO_WRITER) {
		xp_test_state.skip_reason = "no protection key is to be had here";
		return false;
	}
	ok = xp_test_check_eq(xp_set_policy(policy), 0, "xp_set_policy", __FILE__, __LINE__) && ok;
	ok = xp_test_check_eq(xp_set_writer(writer), 0, "xp_set_writer", __FILE__, __LINE__) && ok;
	ok = xp_test_check_eq(xp_set_sync(sync), 0, "xp_set_sync", __FILE__, __LINE__) && ok;
	return ok;
}

#endif
