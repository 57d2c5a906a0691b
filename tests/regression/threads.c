// SPDX-License-Identifier: MIT
/*
 * Whether a thread blocks SIGTRAP, asked of every thread by each commit with breakpoints: no thread is overlooked, whatever
 * the system refuses and whichever came meanwhile; and none is waited for in vain, or named without cause.
 */
#include "xp_child.h"
#include "xp_subject.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/io_uring.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#ifndef XP_INJECT
#error "this program is linked with a library built with XP_INJECT"
#endif

extern uint32_t xp__threads_patience_ms;

static struct subject subject;

static bool start(void)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	return xp_test_check(subject_make(&subject), "a subject", __FILE__, __LINE__);
}

/* ---- threads that set their mask when they are told to ---- */

enum mask { OPEN, OWN, LIBCS };

struct member {
	pthread_t thread;
	pthread_barrier_t barrier;
	enum mask mask;
	unsigned hold_ms; /* then the mask is open again, unasked */
	int tid;
	bool end;
};

/* As libc does: signals 32 and 33 included, which pthread_sigmask leaves out. */
static void set_mask(enum mask mask)
{
	uint64_t all = ~0ull, none = 0;
	sigset_t set;

	if (mask == LIBCS) {
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
		return;
	}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
	sigfillset(&set);
	if (mask == OWN)
		pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void *obey(void *argument)
{
	struct member *self = argument;
	struct timespec hold;

	self->tid = (int)gettid();
	for (;;) {
		set_mask(self->mask);
		pthread_barrier_wait(&self->barrier);
		hold.tv_sec = self->hold_ms / 1000;
		hold.tv_nsec = self->hold_ms % 1000 * 1000000;
		if (self->hold_ms) {
			nanosleep(&hold, NULL);
			set_mask(OPEN);
		}
		pthread_barrier_wait(&self->barrier);
		if (self->end)
			return NULL;
	}
}

/* Returns when the thread has its mask. */
static bool member_start(struct member *member, enum mask mask, unsigned hold_ms)
{
	memset(member, 0, sizeof(*member));
	member->mask = mask;
	member->hold_ms = hold_ms;
	pthread_barrier_init(&member->barrier, NULL, 2);
	if (!xp_test_check_eq(pthread_create(&member->thread, NULL, obey, member), 0, "a thread", __FILE__, __LINE__))
		return false;
	pthread_barrier_wait(&member->barrier);
	return true;
}

static void member_change(struct member *member, enum mask mask)
{
	member->mask = mask;
	pthread_barrier_wait(&member->barrier);
	pthread_barrier_wait(&member->barrier);
}

static void member_end(struct member *member)
{
	member->end = true;
	pthread_barrier_wait(&member->barrier);
	pthread_join(member->thread, NULL);
}

static void refused(const struct member *member)
{
	struct xp_diag diag;

	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
	CHECK_EQ(xp_text_poke(&subject.on, &diag), -EBUSY);
	CHECK_EQ(diag.tid, member->tid);
}

/* ---- the moment in which libc blocks everything ---- */

/* Longer than a mask of the program's own is waited for; the system does that to a thread when others keep it busy. */
static void libc_takes_long(void)
{
	struct member member;

	if (!start() || !member_start(&member, LIBCS, 400))
		return;
	CHECK(subject_works(&subject));
	member_end(&member);
}

XP_TEST(a_thread_inside_libc_is_waited_for)
{
	xp_child(libc_takes_long);
}

static void libc_takes_for_ever(void)
{
	struct member member;

	xp__threads_patience_ms = 300;
	alarm(5);
	if (!start() || !member_start(&member, LIBCS, 0))
		return;
	refused(&member);
	member_change(&member, OPEN);
	CHECK(subject_works(&subject));
	member_end(&member);
}

XP_TEST(but_not_for_ever)
{
	xp_child(libc_takes_for_ever);
}

/* With patience, longer than the child may live. */
static void own_mask(void)
{
	struct member member;

	alarm(5);
	if (!start() || !member_start(&member, OWN, 0))
		return;
	for (unsigned i = 0; i < 2; i++)
		refused(&member);
	member_end(&member);
	CHECK(subject_works(&subject));
}

XP_TEST(a_mask_of_its_own_is_reported_at_once)
{
	xp_child(own_mask);
}

/* ---- threads change: their mask, or themselves ---- */

static void blocks_later(void)
{
	struct member member;

	if (!start() || !member_start(&member, OPEN, 0))
		return;
	CHECK(subject_works(&subject));
	for (unsigned i = 0; i < 3; i++) {
		member_change(&member, OWN);
		refused(&member);
		member_change(&member, OPEN);
		CHECK(subject_works(&subject));
	}
	member_end(&member);
}

XP_TEST(a_thread_that_blocks_later)
{
	xp_child(blocks_later);
}

/* ---- threads that change their mask in no time, between commits, and execute the site under either ---- */

enum { FLIPPERS = 3, FLIP_MS = 2000 };

static pthread_mutex_t flipping = PTHREAD_MUTEX_INITIALIZER; /* no mask changes during a commit */
static bool flipped_enough;

struct flipper {
	pthread_t thread;
	bool blocks; /* under `flipping` */
};

/* Awake for some microseconds: its mask, a few calls of the site, and asleep again. */
static void *flip(void *argument)
{
	struct flipper *self = argument;
	struct timespec nap = {0, 0};
	unsigned seed = (unsigned)gettid();

	while (!__atomic_load_n(&flipped_enough, __ATOMIC_ACQUIRE)) {
		uint64_t mask;

		pthread_mutex_lock(&flipping);
		self->blocks = rand_r(&seed) % 4 == 0;
		mask = self->blocks ? 1u << (SIGTRAP - 1) : 0;
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
		pthread_mutex_unlock(&flipping);
		for (unsigned i = 0; i < 4; i++)
			CHECK(subject_call(&subject) != 0);
		nap.tv_nsec = rand_r(&seed) % 4 ? 50000 : 0;
		nanosleep(&nap, NULL);
	}
	return NULL;
}

static void flips(void)
{
	static struct flipper flippers[FLIPPERS];
	unsigned refused_nr = 0, done = 0, blocking;
	struct timespec begin, now;
	bool on = false;

	if (!start())
		return;
	for (unsigned i = 0; i < FLIPPERS; i++)
		REQUIRE(pthread_create(&flippers[i].thread, NULL, flip, &flippers[i]) == 0);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		struct xp_diag diag;
		int error;

		pthread_mutex_lock(&flipping);
		blocking = 0;
		for (unsigned i = 0; i < FLIPPERS; i++)
			blocking += flippers[i].blocks;
		error = xp_text_poke(on ? &subject.off : &subject.on, &diag);
		pthread_mutex_unlock(&flipping);
		CHECK_EQ(error, blocking ? -EBUSY : 0);
		on ^= error == 0;
		refused_nr += error == -EBUSY;
		done += error == 0;
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < FLIP_MS);
	__atomic_store_n(&flipped_enough, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < FLIPPERS; i++)
		pthread_join(flippers[i].thread, NULL);
	CHECK(done > 0 && refused_nr > 0);
	XP_TEST_NOTE("%u commits, %u refused", done, refused_nr);
}

/* A thread that is asleep may have been awake since it was asked, whatever its clock says: it is asked again. */
XP_TEST(masks_that_flip_between_commits)
{
	xp_child(flips);
}

enum { CROWD = 5 };

/* As many threads as before, but one is another: the one that blocks. */
static void churn(void)
{
	struct member members[CROWD];

	if (!start())
		return;
	for (unsigned i = 0; i < CROWD; i++)
		if (!member_start(&members[i], OPEN, 0))
			return;
	for (unsigned i = 0; i < CROWD; i++) {
		struct member *member = &members[i % CROWD];

		CHECK(subject_works(&subject));
		member_end(member);
		if (!member_start(member, OWN, 0))
			return;
		refused(member);
		member_change(member, OPEN);
	}
	CHECK(subject_works(&subject));
	for (unsigned i = 0; i < CROWD; i++)
		member_end(&members[i]);
}

XP_TEST(threads_that_come_and_go)
{
	xp_child(churn);
}

/* More than are kept. */
static void crowd(void)
{
	struct member members[24];
	unsigned nr = sizeof(members) / sizeof(members[0]);

	if (!start())
		return;
	for (unsigned i = 0; i < nr; i++)
		if (!member_start(&members[i], OPEN, 0))
			return;
	CHECK(subject_works(&subject));
	member_change(&members[nr - 1], OWN);
	refused(&members[nr - 1]);
	member_change(&members[nr - 1], OPEN);
	for (unsigned i = 0; i < nr; i++)
		member_end(&members[i]);
	CHECK(subject_works(&subject));
}

XP_TEST(more_threads_than_are_kept)
{
	xp_child(crowd);
}

/* The kernel gives the next id to the next thread. */
static bool set_last_pid(int pid)
{
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY);
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", pid);
	bool done = fd >= 0 && write(fd, text, (size_t)len) == len;

	if (fd >= 0)
		close(fd);
	return done;
}

static void reuse_id(void)
{
	struct member member;
	int id, tries = 0;

	if (!start() || !member_start(&member, OPEN, 0))
		return;
	CHECK(subject_works(&subject));
	id = member.tid;
	do {
		member_end(&member);
		if (!xp_test_check(set_last_pid(id - 1), "ns_last_pid", __FILE__, __LINE__) ||
		    !member_start(&member, OWN, 0))
			return;
	} while (member.tid != id && tries++ < 1000);
	CHECK_EQ(member.tid, id);
	refused(&member);
	member_end(&member);
}

XP_TEST(an_id_that_is_used_again)
{
	if (geteuid() != 0 || access("/proc/sys/kernel/ns_last_pid", W_OK))
		SKIP("needs root and /proc/sys/kernel/ns_last_pid, to choose a thread's id");
	xp_child(reuse_id);
}

/* ---- a status file that is longer than a buffer: of each group a number ---- */

static void many_groups(void)
{
	struct member member;
	struct xp_diag diag;
	gid_t groups[1000];

	alarm(10);
	for (unsigned i = 0; i < 1000; i++)
		groups[i] = 100000 + i;
	CHECK_EQ(setgroups(1000, groups), 0);
	if (!start() || !member_start(&member, LIBCS, 400))
		return;
	CHECK(subject_works(&subject));
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	for (unsigned i = 0; i < 2; i++) {
		member_end(&member);
		if (!member_start(&member, OWN, 0))
			return;
		subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "rendezvous");
		CHECK_EQ(xp_text_poke(&subject.on, &diag), -EBUSY);
		CHECK_EQ(diag.tid, member.tid);
		CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	}
	member_change(&member, OPEN);
	CHECK(subject_works(&subject));
	member_end(&member);
}

XP_TEST(a_status_that_fills_no_buffer)
{
	if (geteuid() != 0)
		SKIP("needs root, for supplementary groups");
	xp_child(many_groups);
}

/* ---- what the system refuses is no answer ---- */

/* A few descriptors more may be opened, for memory, mappings and the listing; none for what it lists. */
static void no_descriptors(void)
{
	struct rlimit limit;
	struct member member;
	int first;

	if (!start())
		return;
	CHECK(subject_works(&subject));
	if (!member_start(&member, OWN, 0))
		return;
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	first = open("/", O_RDONLY | O_CLOEXEC);
	close(first);
	for (unsigned more = 0; more < 8; more++) {
		struct rlimit low = {(rlim_t)first + more, limit.rlim_max};

		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
		CHECK(xp_text_poke(&subject.on, NULL) < 0);
		CHECK(subject_is(&subject, subject.nop));
	}
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	refused(&member);
	member_end(&member);
	CHECK(subject_works(&subject));
}

XP_TEST(no_descriptor_is_left)
{
	xp_child(no_descriptors);
}

static char jail[] = "/tmp/crosspatch-test-XXXXXX";

static bool leave_proc(void)
{
	return chroot(jail) == 0 && chdir("/") == 0 && access("/proc/self", F_OK) != 0;
}

/* Before the first commit that asks: then it cannot. */
static void no_proc(void)
{
	struct xp_diag diag;
	struct member member;

	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	REQUIRE(leave_proc());
	if (!member_start(&member, OWN, 0))
		return;
	CHECK(xp_static_branch_enable(&subject_key) < 0);
	CHECK(!subject_key_site());
	REQUIRE(subject_make(&subject));
	CHECK(xp_text_poke(&subject.on, &diag) < 0);
	CHECK(subject_is(&subject, subject.nop));
	CHECK(diag.detail != NULL);
	member_end(&member);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	/* What takes no trap asks nothing of the thread, and the program headers say where text is. */
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	for (unsigned i = 0; i < 3; i++) {
		key_works();
		CHECK_EQ(xp_set_writer(i == 1 ? XP_WRITER_AUTO : XP_WRITER_MPROTECT), 0);
	}
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), -ENOENT);
}

/* After it: what is open stays so, and leads to threads that are born later. */
static void proc_lost(void)
{
	struct member member;

	if (!start())
		return;
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), 0);
	CHECK(subject_works(&subject));
	REQUIRE(leave_proc());
	CHECK(subject_works(&subject));
	if (!member_start(&member, OPEN, 0))
		return;
	CHECK(subject_works(&subject));
	member_change(&member, OWN);
	refused(&member);
	member_end(&member);
	CHECK(subject_works(&subject));
}

XP_TEST(without_proc)
{
	if (geteuid() != 0)
		SKIP("needs root, for chroot");
	REQUIRE(mkdtemp(jail) != NULL);
	xp_child(no_proc);
	xp_child(proc_lost);
	rmdir(jail);
}

/* ---- a thread that blocks SIGTRAP for life: what single stores can do needs no breakpoint ---- */

XP_DEFINE_IMV_STATIC(int, value, 0);

static int one(int x)
{
	return x + 1;
}

/* Far away: several bytes of the displacement differ. */
static __attribute__((aligned(4096))) int two(int x)
{
	return x + 2;
}

XP_DEFINE_STATIC_CALL(call, one);

static __attribute__((noinline)) int read_value(void)
{
	return xp_imv_read(value);
}

static __attribute__((noinline)) int do_call(int x)
{
	return xp_static_call(call)(x);
}

static void *load(char *path, size_t size)
{
	ssize_t len = readlink("/proc/self/exe", path, size - 32);

	if (len <= 0)
		return NULL;
	path[len] = '\0';
	strcpy(strrchr(path, '/'), "/regression_caller.so");
	return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void values_change(bool traps)
{
	struct xp_stats before, after;

	xp_stats_read(&before);
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(xp_imv_set(value, 0x11223344), 0);
		CHECK_EQ(read_value(), 0x11223344);
		CHECK_EQ(xp_imv_set(value, 0x55667788), 0);
		CHECK_EQ(read_value(), 0x55667788);
		CHECK_EQ(xp_static_call_update(call, two), 0);
		CHECK_EQ(do_call(1), 3);
		CHECK_EQ(xp_static_call_update(call, one), 0);
		CHECK_EQ(do_call(1), 2);
	}
	xp_stats_read(&after);
	/* Three syncs behind a breakpoint, one for a single store. */
	if (traps)
		CHECK(after.syncs - before.syncs >= 80);
	else
		CHECK_EQ(after.syncs - before.syncs, 40);
}

static void beside(void)
{
	char path[PATH_MAX];
	struct subject across, even;
	struct xp_batch *batch;
	struct xp_diag diag;
	int (*own_value)(void);
	void *handle;

	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	values_change(false);
	/* A module that comes. */
	handle = load(path, sizeof(path));
	if (handle) {
		CHECK_EQ(xp_module_error(), 0);
		own_value = (int (*)(void))(uintptr_t)dlsym(handle, "caller_value");
		CHECK(own_value && own_value() == 0x12345678);
		dlclose(handle);
	} else {
		CHECK(access(path, F_OK) != 0);
		XP_TEST_NOTE("%s: not built", path);
	}
	/* Across two quadwords, at an even address, a nop becomes a call in three steps: as entries behind an endbr64 do. */
	REQUIRE(subject_make_at(&even, 62));
	CHECK_EQ(xp_text_gen_insn(even.jmp, 0xe8, even.site, even.site + SUBJECT_LEN + 6), 0);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(xp_text_poke(&even.on, NULL), 0);
		CHECK(subject_is(&even, even.jmp));
		CHECK_EQ(subject_call(&even), SUBJECT_OFF); /* the call returned, and what follows ran */
		CHECK_EQ(xp_text_poke(&even.off, NULL), 0);
		CHECK(subject_is(&even, even.nop));
	}
	/* At an odd one it does need a breakpoint, and takes the others of its batch with it. */
	REQUIRE(subject_make_at(&across, 63));
	subject_refused(&across, &across.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
	batch = xp_batch_new();
	CHECK_EQ(xp_batch_add_imv(batch, value, 7), 0);
	CHECK_EQ(xp_batch_add_poke(batch, &across.on), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -EBUSY);
	CHECK(diag.tid > 0);
	CHECK_EQ(read_value(), 0x55667788);
	xp_batch_free(batch);
	/* A program that asked for breakpoints, or forbade the writer, is told. */
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_imv_set(value, 7), -EBUSY);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	CHECK_EQ(xp_imv_set(value, 7), -EBUSY);
	CHECK_EQ(read_value(), 0x55667788);
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	values_change(false);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

static void on_time(union sigval value_)
{
	(void)value_;
}

static void with_timer(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_time};
	timer_t timer;

	if (!start())
		return;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	values_change(true);
	CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	beside();
}

static void with_masked(void)
{
	struct member member;

	if (!start() || !member_start(&member, OWN, 0))
		return;
	beside();
	member_change(&member, OPEN);
	values_change(true);
	member_end(&member);
}

XP_TEST(single_stores_beside_a_thread_that_blocks)
{
	if (xp_set_writer(XP_WRITER_MPROTECT) || xp_set_writer(XP_WRITER_AUTO))
		SKIP("mprotect may not write text here");
	xp_child(with_masked);
	xp_child(with_timer);
}

/* ---- among many threads a value changes by a single store: no thread is asked, and none traps ---- */

static bool crowd_stop;

static void *crowd_run(void *unused)
{
	while (!__atomic_load_n(&crowd_stop, __ATOMIC_RELAXED)) {
		int seen = read_value();

		CHECK(seen == 0 || seen == 7 || seen == 0x11223344 || seen == 0x55667788);
	}
	return unused;
}

static void many_threads(void)
{
	enum { MANY = 100 };
	pthread_t threads[MANY];
	struct timespec from, to;
	double longest = 0, took;

	CHECK_EQ(xp_imv_set(value, 0x55667788), 0);
	for (unsigned i = 0; i < MANY; i++)
		REQUIRE_EQ(pthread_create(&threads[i], NULL, crowd_run, NULL), 0);
	for (unsigned i = 0; i < 1; i++) {
		clock_gettime(CLOCK_MONOTONIC, &from);
		values_change(false);
		clock_gettime(CLOCK_MONOTONIC, &to);
		took = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
		longest = took > longest ? took : longest;
	}
	XP_TEST_NOTE("40 commits: %.3f s", longest);
	__atomic_store_n(&crowd_stop, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < MANY; i++)
		pthread_join(threads[i], NULL);
	/* Few again. */
	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(xp_imv_set(value, (int)i), 0);
	values_change(true);
}

XP_TEST(values_among_many_threads)
{
	if (xp_set_writer(XP_WRITER_MPROTECT) || xp_set_writer(XP_WRITER_AUTO))
		SKIP("mprotect may not write text here");
	xp_child(many_threads);
}

/* ---- a tracer may lose a SIGTRAP when it leaves: while there is one, no thread traps ---- */

static void trace_parent(int ready)
{
	pid_t traced = getppid();
	int status;
	char yes = ptrace(PTRACE_SEIZE, traced, NULL, NULL) == 0;

	if (write(ready, &yes, 1) != 1)
		_exit(1);
	while (waitpid(traced, &status, __WALL) == traced && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, traced, NULL, status >> 16 ? 0 : WSTOPSIG(status)); /* NOLINT: a number */
	_exit(0);
}

static void under_a_tracer(void)
{
	struct timespec later = {0, 400000000};
	pthread_t thread;
	int ends[2];
	char traced = 0;
	pid_t tracer;

	alarm(20);
	REQUIRE_EQ(pipe(ends), 0);
	REQUIRE(start());
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_imv_set(value, 0x55667788), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, crowd_run, NULL), 0);
	values_change(true);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	tracer = fork();
	if (tracer == 0)
		trace_parent(ends[1]);
	REQUIRE(tracer > 0 && read(ends[0], &traced, 1) == 1);
	nanosleep(&later, NULL);
	if (traced)
		values_change(false);
	else
		XP_TEST_NOTE("no process may trace another here");
	kill(tracer, SIGKILL);
	REQUIRE(waitpid(tracer, NULL, 0) == tracer);
	nanosleep(&later, NULL);
	values_change(true);
	__atomic_store_n(&crowd_stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

XP_TEST(values_under_a_tracer)
{
	if (xp_set_writer(XP_WRITER_MPROTECT) || xp_set_writer(XP_WRITER_AUTO))
		SKIP("mprotect may not write text here");
	xp_child(under_a_tracer);
}

/* ---- threads of the kernel's own block everything, for ever, and never execute a site ---- */

static void with_io_uring(void)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 1000};
	int ring = (int)syscall(SYS_io_uring_setup, 4, &params);

	alarm(10);
	REQUIRE(ring >= 0);
	if (!start())
		return;
	for (unsigned i = 0; i < 3; i++)
		CHECK(subject_works(&subject));
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK(subject_works(&subject));
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	CHECK(subject_works(&subject));
	close(ring);
}

XP_TEST(beside_threads_of_io_uring)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SQPOLL};
	int ring = (int)syscall(SYS_io_uring_setup, 4, &params);

	if (ring < 0)
		SKIP("io_uring is not allowed here");
	close(ring);
	xp_child(with_io_uring);
}

/* ---- /proc of an outer namespace of processes: its numbers are not those that signals are sent by ---- */

static void numbers_of_others(void)
{
	struct member member;
	struct xp_diag diag;

	if (!start() || !member_start(&member, OPEN, 0))
		return;
	CHECK(subject_works(&subject));
	/* Whether a thread blocks SIGTRAP the files tell, whatever they are called. */
	member_change(&member, OWN);
	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
	member_change(&member, OPEN);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	subject_refused(&subject, &subject.on, -EXDEV, XP_PHASE_PREPARE, "another namespace of processes");
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	CHECK_EQ(xp_text_poke(&subject.on, &diag), -EXDEV);
	CHECK_EQ(xp_set_sync(XP_SYNC_AUTO), 0);
	CHECK(subject_works(&subject));
	member_end(&member);
	/* No thread is there to be asked. */
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	CHECK_EQ(xp_text_poke(&subject.on, NULL), 0);
}

static void in_another_namespace(void)
{
	REQUIRE_EQ(unshare(CLONE_NEWPID), 0);
	xp_child(numbers_of_others);
}

static bool can_unshare(void)
{
	return geteuid() == 0 && access("/proc/sys/kernel/ns_last_pid", W_OK) == 0;
}

XP_TEST(the_numbers_of_an_outer_namespace)
{
	if (!can_unshare())
		SKIP("only root makes a namespace of processes, and chooses numbers there");
	xp_child(in_another_namespace);
}

/* The number that the kernel gave last, of this namespace; with @next >= 0 it is set. */
static long last_number(long next)
{
	int fd = open("/proc/sys/kernel/ns_last_pid", next < 0 ? O_RDONLY : O_WRONLY);
	char text[16] = "";
	ssize_t n = next < 0 ? read(fd, text, sizeof(text) - 1)
			     : write(fd, text, (size_t)snprintf(text, sizeof(text), "%ld", next));

	close(fd);
	return n <= 0 ? -1 : atol(text);
}

static bool collides; /* shared memory */
static bool *collided = &collides;

/* The other thread has a number outside that is the caller's inside. */
static void a_number_twice(void)
{
	char path[64];
	struct member member;

	snprintf(path, sizeof(path), "/proc/self/task/%d", (int)gettid());
	if (!start() || !member_start(&member, OWN, 0))
		return;
	*collided = access(path, F_OK) == 0;
	if (*collided)
		for (unsigned i = 0; i < 2; i++)
			subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
	member_end(&member);
}

static void aim(void)
{
	long last = last_number(-1);
	pid_t first;

	REQUIRE_EQ(unshare(CLONE_NEWPID), 0);
	/* The first process keeps the namespace; it makes the one that is tried, so that its number can be chosen. */
	first = fork();
	if (first == 0) {
		/* Outside: this is last + 1, the child last + 2, its thread last + 3. */
		if (last_number(last + 2) > 0)
			xp_child(a_number_twice);
		_exit(xp_test_state.failures != 0);
	}
	for (int status = 0; waitpid(first, &status, 0) == first;)
		CHECK_EQ(status, 0);
}

XP_TEST(the_number_of_another_thread_there)
{
	if (!can_unshare())
		SKIP("only root makes a namespace of processes, and chooses numbers there");
	collided = mmap(NULL, sizeof(*collided), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(collided != MAP_FAILED);
	for (unsigned i = 0; i < 200 && !*collided; i++)
		xp_child(aim);
	if (!*collided)
		SKIP("others make processes all the time: no number was hit");
}

/* ---- the first thread ends, and the others run on: /proc/self says nothing of memory any more ---- */

static unsigned nr_descriptors(void)
{
	unsigned nr = 0;

	for (int fd = 0; fd < 8192; fd++)
		nr += fcntl(fd, F_GETFD) >= 0;
	return nr;
}

static void *change_all_ways(void *unused)
{
	static const enum xp_policy policies[] = {XP_POLICY_AUTO, XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE};

	for (int writer = XP_WRITER_AUTO; writer <= XP_WRITER_MPROTECT; writer++)
		for (int sync = XP_SYNC_MEMBARRIER; sync <= XP_SYNC_SIGNAL; sync++)
			for (unsigned i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
				CHECK_EQ(xp_set_writer((enum xp_writer)writer), 0);
				CHECK_EQ(xp_set_sync((enum xp_sync)sync), 0);
				CHECK_EQ(xp_set_policy(policies[i]), 0);
				CHECK(subject_works(&subject));
				key_works();
			}
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	CHECK_EQ(xp_set_sync(XP_SYNC_AUTO), 0);
	return unused;
}

static void *keep_descriptors(void *unused)
{
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), 0);
	CHECK(subject_works(&subject));
	return unused;
}

static void in_a_thread(void *(*body)(void *))
{
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, body, NULL), 0);
	pthread_join(thread, NULL);
}

static enum xp_writer only_writer; /* not auto: what that one alone asks of /proc has to do */

static void *outlive(void *first)
{
	unsigned nr;

	pthread_join(*(pthread_t *)first, NULL);
	nr = nr_descriptors();
	/* What no program header tells of needs the mappings. */
	if (only_writer == XP_WRITER_MPROTECT)
		CHECK(subject_works(&subject));
	else
		key_works();
	CHECK_EQ(nr_descriptors(), nr);
	if (only_writer == XP_WRITER_AUTO) {
		change_all_ways(NULL);
		CHECK_EQ(nr_descriptors(), nr);
		/* A file of a thread that has ended is no use, and is not left open. */
		in_a_thread(keep_descriptors);
		change_all_ways(NULL);
		nr = nr_descriptors();
		for (unsigned i = 0; i < 3; i++)
			in_a_thread(change_all_ways);
		CHECK_EQ(nr_descriptors(), nr);
	}
	fflush(stdout);
	_exit(xp_test_state.failures != 0);
}

static void end_first(void)
{
	static pthread_t self;
	pthread_t thread;

	if (!start())
		return;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_set_writer(only_writer), 0);
	self = pthread_self();
	REQUIRE_EQ(pthread_create(&thread, NULL, outlive, &self), 0);
	pthread_exit(NULL);
}

XP_TEST(the_first_thread_has_ended)
{
	for (int writer = XP_WRITER_AUTO; writer <= XP_WRITER_MPROTECT; writer++) {
		only_writer = (enum xp_writer)writer;
		xp_child(end_first);
	}
	only_writer = XP_WRITER_AUTO;
}

/* Before Linux 6.11 the file of mappings is read, and one of a thread that has ended refuses that. */
static void end_first_without_queries(void)
{
	REQUIRE(xp_child_filter(SYS_ioctl, SECCOMP_RET_ERRNO | ENOTTY, 0));
	end_first();
}

XP_TEST(the_first_thread_has_ended_where_mappings_are_read)
{
	xp_child(end_first_without_queries);
}

/* ---- errno is the program's ---- */

static void no_thread_to_be_had(void)
{
	REQUIRE(xp_child_filter(SYS_clone3, SECCOMP_RET_ERRNO | EPERM, 0));
	REQUIRE(xp_child_filter(SYS_clone, SECCOMP_RET_ERRNO | EPERM, 0));
	errno = 4711;
	CHECK(xp_control_start("/tmp/crosspatch-no-thread") < 0);
	CHECK_EQ(errno, 4711);
}

XP_TEST(errno_is_not_touched_where_no_thread_is_to_be_had)
{
	xp_child(no_thread_to_be_had);
}

XP_TEST_MAIN()
