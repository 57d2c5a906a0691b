// SPDX-License-Identifier: MIT
/*
 * The text lock beside other locks: libc takes its own inside fork, in an order that is not ours, and a thread that holds one of them
 * may commit meanwhile. In place of malloc's lock stands one that the test takes in a handler of fork, as malloc does.
 */
#include "core/inject.h"
#include "port/linux/function.h"
#include "port/linux/lock.h"
#include "port/linux/sys.h"
#include "xp_child.h"
#include "xp_subject.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#ifndef sigev_notify_thread_id /* glibc before 2.38 */
#define sigev_notify_thread_id _sigev_un._tid
#endif

extern uint32_t xp__lock_patience_ms;

static pthread_mutex_t inner = PTHREAD_MUTEX_INITIALIZER;
static bool inside_fork;         /* a thread is about to take it there */
static void (*in_prepare)(void); /* and does that before */

static void prepare(void)
{
	__atomic_store_n(&inside_fork, true, __ATOMIC_SEQ_CST);
	if (in_prepare)
		in_prepare();
	pthread_mutex_lock(&inner);
}

static void leave(void)
{
	pthread_mutex_unlock(&inner);
	__atomic_store_n(&inside_fork, false, __ATOMIC_SEQ_CST);
}

/* Before the library's own: so these run between its handlers and the system call, as malloc's and stdio's locks are taken. */
static void start(void)
{
	pthread_atfork(prepare, leave, leave);
}

__attribute__((section(".preinit_array"), used)) static void (*before_all)(void) = start;

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct subject subject;

/* In a child: nothing is half done, and it patches its own text. */
static int whole(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!subject_is(&subject, subject.nop) && !subject_is(&subject, subject.jmp))
		return 1;
	if (xp_static_key_enabled(&subject_key) != subject_key_site())
		return 2;
	if (xp_static_key_enabled(&subject_key) && xp_static_branch_disable(&subject_key))
		return 3;
	if (xp_static_branch_enable(&subject_key) || !subject_key_site())
		return 4;
	if (xp_text_poke(subject_is(&subject, subject.nop) ? &subject.on : &subject.off, NULL))
		return 5;
	return 0;
}

static int fork_whole(void)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		alarm(XP_CHILD_SECONDS);
		_exit(whole());
	}
	if (child > 0)
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
	return status;
}

static void *fork_once(void *blocked)
{
	sigset_t set;

	if (blocked) {
		sigfillset(&set);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
	}
	return (void *)(intptr_t)fork_whole();
}

/* Holds the inner lock, lets another thread come to it inside fork, and commits. How long that took. */
static uint64_t commit_beside_fork(int expected, bool blocked)
{
	static char yes;
	pthread_t forking;
	void *status = NULL;
	uint64_t start;

	pthread_mutex_lock(&inner);
	CHECK_EQ(pthread_create(&forking, NULL, fork_once, blocked ? &yes : NULL), 0);
	while (!__atomic_load_n(&inside_fork, __ATOMIC_SEQ_CST))
		sched_yield();
	start = now_ms();
	CHECK_EQ(xp_static_branch_enable(&subject_key), expected);
	CHECK_EQ(xp_text_poke(&subject.on, NULL), expected);
	start = now_ms() - start;
	CHECK_EQ(subject_key_site(), expected == 0);
	pthread_mutex_unlock(&inner);
	pthread_join(forking, &status);
	CHECK_EQ((intptr_t)status, 0);
	return start;
}

static void beside_fork(void)
{
	REQUIRE(subject_make(&subject));
	CHECK(commit_beside_fork(0, false) < 1000);
	CHECK_EQ(xp_static_branch_disable(&subject_key), 0);
	CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
	/* By the rendezvous, to which the forking thread has to come. */
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	CHECK(commit_beside_fork(0, false) < 1000);
	CHECK_EQ(xp_static_branch_disable(&subject_key), 0);
	CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	CHECK(commit_beside_fork(0, false) < 1000);
}

static void beside_blocked_fork(void)
{
	REQUIRE(subject_make(&subject));
	CHECK(commit_beside_fork(-XP_E_HELD, true) < 10000);
	CHECK(subject_works(&subject));
	key_works();
}

XP_TEST(a_commit_of_who_holds_what_fork_waits_for)
{
	xp_child(beside_fork);
}

XP_TEST(a_fork_that_cannot_be_asked_is_told_of)
{
	xp_child(beside_blocked_fork);
}

/* ---- inside fork ---- */

static int inside_error;

static void commit_inside(void)
{
	inside_error = xp_static_key_enabled(&subject_key) ? xp_static_branch_disable(&subject_key)
							   : xp_static_branch_enable(&subject_key);
	/* And a fork inside the fork. */
	in_prepare = NULL;
	pthread_mutex_lock(&inner);
	pthread_mutex_unlock(&inner);
	inside_error = inside_error ? inside_error : fork_whole();
	__atomic_store_n(&inside_fork, true, __ATOMIC_SEQ_CST);
	inside_error = inside_error ? inside_error : xp_text_poke(&subject.on, NULL);
	/* No child is made while another thread commits. */
	inside_error = inside_error ? inside_error : !xp__text_lock_forking();
}

static void from_inside(void)
{
	REQUIRE(subject_make(&subject));
	for (int i = 0; i < 2; i++) {
		inside_error = 1;
		in_prepare = commit_inside;
		CHECK_EQ(fork_whole(), 0);
		CHECK_EQ(inside_error, 0);
		CHECK_EQ(subject_key_site(), i == 0);
		CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
	}
	in_prepare = commit_inside;
	CHECK(commit_beside_fork(0, false) < 1000);
}

XP_TEST(a_handler_of_fork_commits)
{
	xp_child(from_inside);
}

/* ---- many children of a process that patches ---- */

static bool stop;

static void *fork_on(void *unused)
{
	intptr_t status = 0;

	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED) && status == 0)
		status = fork_whole();
	return (void *)status;
}

static void *patch_on(void *unused)
{
	intptr_t error = 0;

	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED) && error == 0) {
		error = xp_text_poke(&subject.on, NULL);
		error = error ? error : xp_text_poke(&subject.off, NULL);
	}
	return (void *)error;
}

/* Holds the inner lock most of the time, and commits meanwhile. */
static void many_children(void)
{
	pthread_t threads[3];
	uint64_t end = now_ms() + 1000, longest = 0;

	REQUIRE(subject_make(&subject));
	for (int i = 0; i < 3; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, i == 0 ? patch_on : fork_on, NULL), 0);
	while (now_ms() < end) {
		uint64_t start;

		pthread_mutex_lock(&inner);
		start = now_ms();
		key_works();
		if (now_ms() - start > longest)
			longest = now_ms() - start;
		pthread_mutex_unlock(&inner);
		sched_yield();
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++) {
		void *result = NULL;

		pthread_join(threads[i], &result);
		CHECK_EQ((intptr_t)result, 0);
	}
	XP_TEST_NOTE("two commits took at most %llu ms", (unsigned long long)longest);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

XP_TEST(children_of_a_process_that_patches_are_whole)
{
	xp_child(many_children);
}

/* ---- what handlers interrupt ---- */

static unsigned handled, refused;

static void toggle_in_handler(int signal)
{
	int error = xp_static_branch_enable(&subject_key);

	(void)signal;
	error = error ? error : xp_static_branch_disable(&subject_key);
	handled++;
	refused += error != 0;
}

/* A timer's signals come inside malloc and stdio as often as elsewhere; threads fork meanwhile. */
static void interrupting(void)
{
	struct sigaction act = {.sa_handler = toggle_in_handler, .sa_flags = SA_RESTART};
	struct itimerspec often = {{0, 300000}, {0, 300000}};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
	uint64_t end = now_ms() + 1000;
	FILE *null = fopen("/dev/null", "w");
	pthread_t threads[2];
	timer_t timer;

	REQUIRE(null != NULL && subject_make(&subject));
	REQUIRE_EQ(sigaction(SIGUSR1, &act, NULL), 0);
	for (int i = 0; i < 2; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, fork_on, NULL), 0);
	event.sigev_notify_thread_id = (int)syscall(SYS_gettid);
	REQUIRE_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	REQUIRE_EQ(timer_settime(timer, 0, &often, NULL), 0);
	while (now_ms() < end) {
		void *volatile some = malloc(100000);

		free(some);
		fprintf(null, "%p\n", some);
		fflush(null);
	}
	timer_delete(timer);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++) {
		void *result = NULL;

		pthread_join(threads[i], &result);
		CHECK_EQ((intptr_t)result, 0);
	}
	XP_TEST_NOTE("%u handlers", handled);
	CHECK(handled > 10);
	CHECK_EQ(refused, 0);
}

XP_TEST(handlers_that_interrupt_malloc_and_stdio)
{
	xp_child(interrupting);
}

/* ---- memory ---- */

static unsigned allocations;

void *calloc(size_t nr, size_t size)
{
	void *(*volatile allocate)(size_t) = malloc; /* the compiler would call calloc() for malloc() and memset() */
	void *memory = allocate(nr * size);

	allocations++;
	return memory ? memset(memory, 0, nr * size) : NULL;
}

/* A function that is traced may be malloc itself. The first return that is kept for a thread asks for its key. */
static void many_keys(void)
{
	pthread_key_t keys[64];

	for (unsigned i = 0; i < 64; i++)
		REQUIRE_EQ(pthread_key_create(&keys[i], NULL), 0);
	allocations = 0;
	CHECK_EQ(xp__function_hook_exit(xp__function_thread()), 0);
	CHECK_EQ(allocations, 0);
	/* glibc takes memory for the later keys. */
	CHECK_EQ(pthread_setspecific(keys[63], keys), 0);
	XP_TEST_NOTE("%u allocations for a late key", allocations);
}

XP_TEST(what_a_thread_keeps_needs_no_memory)
{
	xp_child(many_keys);
}

/* ---- waits that end ---- */

static void (*in_commit)(void);
static int committing; /* thread id */

static void on_point(enum xp__point point)
{
	if (point == XP__POINT_STORED && in_commit && committing == (int)syscall(SYS_gettid))
		in_commit();
}

static uint32_t resting = 1;

static void rest(void)
{
	while (__atomic_load_n(&resting, __ATOMIC_SEQ_CST))
		xp__futex_wait(&resting, 1, 0);
}

static void end_thread(void)
{
	syscall(SYS_exit, 0);
}

static void *commit_once(void *unused)
{
	(void)unused;
	committing = (int)syscall(SYS_gettid);
	return (void *)(intptr_t)xp_static_branch_enable(&subject_key);
}

static pthread_t commit_and(void (*then)(void))
{
	pthread_t thread;

	in_commit = then;
	xp__inject = on_point;
	pthread_create(&thread, NULL, commit_once, NULL);
	while (!subject_key_site())
		sched_yield();
	return thread;
}

static void owner_rests(void)
{
	pthread_t thread;
	void *result;

	REQUIRE(subject_make(&subject));
	xp__lock_patience_ms = 200;
	thread = commit_and(rest);
	CHECK_EQ(xp_text_poke(&subject.on, NULL), -XP_E_HELD);
	CHECK(subject_is(&subject, subject.nop));
	/* A child is not left with half a commit, and does not wait either. */
	in_commit = NULL;
	CHECK_EQ(xp_state(), XP_STATE_READY);
	__atomic_store_n(&resting, 0, __ATOMIC_SEQ_CST);
	xp__futex_wake(&resting, 1);
	pthread_join(thread, &result);
	CHECK_EQ((intptr_t)result, 0);
	CHECK(subject_works(&subject));
}

static void owner_ends(void)
{
	REQUIRE(subject_make(&subject));
	(void)commit_and(end_thread);
	CHECK_EQ(xp_text_poke(&subject.on, NULL), -XP_E_WEDGED);
	CHECK_EQ(xp_state(), XP_STATE_WEDGED);
}

/* Of two threads that wait one gets the lock, and makes the change of the other one with its own; it rests in the middle. */
static uint32_t doors[2] = {1, 1};
static unsigned door;

static void at_the_door(enum xp__point point)
{
	unsigned n = point == XP__POINT_STORED ? __atomic_fetch_add(&door, 1, __ATOMIC_SEQ_CST) : 2;

	while (n < 2 && __atomic_load_n(&doors[n], __ATOMIC_SEQ_CST))
		xp__futex_wait(&doors[n], 1, 0);
}

static void open_door(unsigned n)
{
	__atomic_store_n(&doors[n], 0, __ATOMIC_SEQ_CST);
	xp__futex_wake(&doors[n], 1);
}

static int shared_results[2];
static uint32_t ended;

static void *share_key(void *unused)
{
	shared_results[0] = xp_static_branch_disable(&subject_key);
	__atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
	return unused;
}

static void *share_poke(void *unused)
{
	shared_results[1] = xp_text_poke(&subject.on, NULL);
	__atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
	return unused;
}

static void leader_rests(void)
{
	pthread_t threads[3];
	bool first;

	REQUIRE(subject_make(&subject));
	xp__lock_patience_ms = 300;
	xp__inject = at_the_door;
	pthread_create(&threads[0], NULL, commit_once, NULL);
	while (__atomic_load_n(&door, __ATOMIC_SEQ_CST) == 0)
		sched_yield();
	pthread_create(&threads[1], NULL, share_key, NULL);
	pthread_create(&threads[2], NULL, share_poke, NULL);
	usleep(100000);
	open_door(0);
	while (__atomic_load_n(&ended, __ATOMIC_SEQ_CST) == 0)
		usleep(1000);
	CHECK_EQ(__atomic_load_n(&door, __ATOMIC_SEQ_CST), 2); /* one commit for both */
	first = shared_results[0] != 0;
	CHECK_EQ(shared_results[!first], -XP_E_BEGUN);
	open_door(1);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(shared_results[first], 0);
	/* It was made all the same. */
	CHECK(!subject_key_site());
	CHECK(subject_is(&subject, subject.jmp));
	for (int i = 0; i < 200; i++)
		CHECK_EQ(i % 2 ? xp_static_branch_disable(&subject_key) : xp_static_branch_enable(&subject_key), 0);
}

XP_TEST(a_shared_commit_that_does_not_end_is_told_of)
{
	xp_child(leader_rests);
}

XP_TEST(a_commit_that_does_not_end_is_told_of)
{
	xp_child(owner_rests);
}

XP_TEST(a_thread_that_ends_in_its_commit_wedges)
{
	xp_child(owner_ends);
}

/* ---- whose turn it is ---- */

static unsigned commits;

static void take_time(void)
{
	usleep(5000);
}

/*
 * Commits again and again, each time long enough for others to go to sleep, and takes the lock again at once. On one processor,
 * where the waiter (SCHED_BATCH) does not run at once when it is woken.
 */
static void *commit_on(void *unused)
{
	(void)unused;
	committing = (int)syscall(SYS_gettid);
	sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED) && commits < 100) {
		(void)xp_text_poke(commits % 2 ? &subject.off : &subject.on, NULL);
		__atomic_add_fetch(&commits, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static int by_count(bool on)
{
	return on ? xp_static_branch_inc(&subject_key) : xp_static_branch_dec(&subject_key);
}

/* The patcher makes this change, in its next commit. */
static int by_share(bool on)
{
	return on ? xp_static_branch_enable(&subject_key) : xp_static_branch_disable(&subject_key);
}

static void beside_a_busy_patcher(int (*change)(bool on), unsigned takes)
{
	enum { NR = 6 };
	unsigned most = 0;
	pthread_t patcher;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((unsigned)sched_getcpu(), &one);
	CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
	CHECK_EQ(sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}), 0);
	REQUIRE(subject_make(&subject));
	in_commit = take_time;
	xp__inject = on_point;
	REQUIRE_EQ(pthread_create(&patcher, NULL, commit_on, NULL), 0);
	while (__atomic_load_n(&commits, __ATOMIC_RELAXED) == 0)
		sched_yield();
	for (int i = 0; i < NR; i++) {
		unsigned before = __atomic_load_n(&commits, __ATOMIC_RELAXED), passed;

		CHECK_EQ(change(i % 2 == 0), 0);
		passed = __atomic_load_n(&commits, __ATOMIC_RELAXED) - before;
		most = passed > most ? passed : most;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(patcher, NULL);
	XP_TEST_NOTE("%u commits of the other while one waited", most);
	CHECK(most <= takes);
}

static void count_beside_it(void)
{
	beside_a_busy_patcher(by_count, 5);
}

static void share_with_it(void)
{
	beside_a_busy_patcher(by_share, 5);
}

XP_TEST(a_busy_patcher_lets_others_in)
{
	xp_child(count_beside_it);
	xp_child(share_with_it);
}

XP_TEST_MAIN()
