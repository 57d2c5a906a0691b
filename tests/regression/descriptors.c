// SPDX-License-Identifier: MIT
/*
 * The descriptors of the library: none is open between two commits, unless it was asked to keep them. Programs close
 * them, put files of their own under the numbers, fork, and hold files of the same name, in the middle of a commit too.
 * Nothing of theirs is read, written or closed, and patching works on.
 */
#include "xp_child.h"
#include "xp_subject.h"

#include "core/inject.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <ucontext.h>

#ifndef XP_INJECT
#error "this program is linked with a library built with XP_INJECT"
#endif

static struct subject subject;

/* ---- beside a thread that blocks SIGTRAP if it is told to ---- */

static struct {
	pthread_t thread;
	pthread_barrier_t barrier;
	int tid;
} sleeper;

static void *sleep_on(void *unused)
{
	sigset_t set;

	sleeper.tid = (int)gettid();
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	pthread_barrier_wait(&sleeper.barrier);
	pthread_barrier_wait(&sleeper.barrier);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_barrier_wait(&sleeper.barrier);
	pthread_barrier_wait(&sleeper.barrier);
	return unused;
}

static bool start_as(enum xp_descriptors descriptors)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_set_descriptors(descriptors), 0);
	pthread_barrier_init(&sleeper.barrier, NULL, 2);
	CHECK_EQ(pthread_create(&sleeper.thread, NULL, sleep_on, NULL), 0);
	pthread_barrier_wait(&sleeper.barrier);
	return xp_test_check(subject_make(&subject), "a subject", __FILE__, __LINE__) && subject_works(&subject);
}

/* Everything that is ever kept is open when it returns. */
static bool start(void)
{
	return start_as(XP_DESCRIPTORS_KEEP);
}

static void block_sigtrap(void)
{
	pthread_barrier_wait(&sleeper.barrier);
	pthread_barrier_wait(&sleeper.barrier);
}

/* ---- the numbers ---- */

enum { NUMBERS = 8192 }; /* the library takes the first free one from 4000 on */

/* The next descriptor from @fd on that is open on a file of /proc whose name ends with @suffix; -1: none. */
static int find(int fd, const char *suffix)
{
	for (; fd < NUMBERS; fd++) {
		char path[64], target[128];
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		len = readlink(path, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = '\0';
		if (!strncmp(target, "/proc/", 6) && (size_t)len >= strlen(suffix) &&
		    !strcmp(target + len - strlen(suffix), suffix))
			return fd;
	}
	return -1;
}

static unsigned count(void)
{
	unsigned nr = 0;

	for (int fd = find(3, ""); fd >= 0; fd = find(fd + 1, ""))
		nr++;
	return nr;
}

static int canary(const char *text)
{
	char name[] = "/tmp/crosspatch-test-XXXXXX";
	int fd = mkstemp(name);

	unlink(name);
	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? fd : -1;
}

/* Still open, on the same file, where it was left, and as it was. */
static bool untouched(int fd, int file, const char *text)
{
	struct stat a, b;
	char found[256];

	return fstat(fd, &a) == 0 && fstat(file, &b) == 0 && a.st_ino == b.st_ino && a.st_size == (off_t)strlen(text) &&
	       pread(fd, found, sizeof(found), 0) == (ssize_t)strlen(text) && !memcmp(found, text, strlen(text)) &&
	       lseek(fd, 0, SEEK_CUR) == (off_t)strlen(text);
}

/* ---- closed ---- */

static void closed(void)
{
	unsigned before;

	if (!start())
		return;
	before = count();
	CHECK(find(3, "/mem") >= 0 && find(3, "/maps") >= 0 && find(3, "/task") >= 0);
	CHECK_EQ(before, 3);
	CHECK(find(3, "") >= 1000); /* programs expect the low numbers, one after the other */
	for (unsigned i = 0; i < 3; i++) {
		syscall(SYS_close_range, 3, ~0u, 0);
		CHECK_EQ(count(), 0);
		CHECK(subject_works(&subject));
		CHECK_EQ(count(), before);
	}
	/* And not one more with each commit. */
	for (unsigned i = 0; i < 20; i++)
		CHECK(subject_works(&subject));
	CHECK_EQ(count(), before);
}

XP_TEST(closed_by_the_program)
{
	xp_child(closed);
}

/* ---- the program's files under the numbers ---- */

static void check_child(void)
{
	CHECK(subject_works(&subject));
	key_works();
	xp_child(key_works);
}

static void number_reused(const char *suffix)
{
	static const char text[] = "the program's own";
	int number, file;

	if (!start())
		return;
	file = canary(text);
	number = find(3, suffix);
	REQUIRE(number >= 0 && file >= 0);
	REQUIRE_EQ(dup2(file, number), number);
	CHECK(subject_works(&subject));
	CHECK(untouched(number, file, text));
	/* The children of a fork close what was the parent's. */
	xp_child(check_child);
	CHECK(subject_works(&subject));
	CHECK(untouched(number, file, text));
	block_sigtrap();
	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
	CHECK(untouched(number, file, text));
}

static void number_of_mem(void)
{
	number_reused("/mem");
}

static void number_of_maps(void)
{
	number_reused("/maps");
}

static void number_of_task(void)
{
	number_reused("/task");
}

XP_TEST(numbers_used_by_the_program)
{
	xp_child(number_of_mem);
	xp_child(number_of_maps);
	xp_child(number_of_task);
}

/* A file that reads like the mappings, and says that all is text. */
static void forged(void)
{
	static const char text[] = "00000000-ffffffffffff r-xp 00000000 00:00 0 and so on\n";
	static uint8_t data[2 * SUBJECT_LEN];
	struct xp_poke poke;
	int file, number;

	if (!start())
		return;
	file = canary(text);
	number = find(3, "/maps");
	REQUIRE(file >= 0 && number >= 0);
	REQUIRE_EQ(dup2(file, number), number);
	poke = subject.on;
	poke.addr = data;
	memcpy(data, subject.nop, SUBJECT_LEN);
	subject_refused(&subject, &poke, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "executable");
	CHECK_MEM(data, subject.nop, SUBJECT_LEN);
}

/* Another process' mappings, which has as text what is data here. */
static void of_another_process(void)
{
	static uint8_t data[2 * 4096] __attribute__((aligned(4096)));
	struct xp_poke poke;
	char path[64];
	int file, number, ready[2];
	pid_t other;

	if (!start())
		return;
	REQUIRE_EQ(pipe(ready), 0);
	other = _Fork();
	if (other == 0) {
		if (mprotect(data, sizeof(data), PROT_READ | PROT_EXEC) == 0)
			(void)!write(ready[1], "", 1);
		close(ready[1]);
		alarm(XP_CHILD_SECONDS); /* should the test end before it is killed */
		pause();
	}
	close(ready[1]);
	CHECK_EQ(read(ready[0], path, 1), 1);
	number = find(3, "/maps");
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)other);
	file = open(path, O_RDONLY);
	REQUIRE(file >= 0 && number >= 0);
	REQUIRE_EQ(dup2(file, number), number);
	poke = subject.on;
	poke.addr = data + 61;
	memcpy(data + 61, subject.nop, SUBJECT_LEN);
	subject_refused(&subject, &poke, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "executable");
	CHECK_MEM(data + 61, subject.nop, SUBJECT_LEN);
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
}

XP_TEST(a_forged_file_is_not_read)
{
	xp_child(forged);
	xp_child(of_another_process);
}

/* Files of the same names, which the program opened for itself: ours is told from them, in a child too. */
static int own[3];

static void check_own(void)
{
	CHECK(subject_works(&subject));
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(fcntl(own[i], F_GETFD), 0); /* ours has FD_CLOEXEC */
}

static void same_file(void)
{
	static const char *const names[] = {"/mem", "/maps", "/task"};
	char path[64];

	if (!start())
		return;
	for (unsigned i = 0; i < 3; i++) {
		int number = find(3, names[i]), fd;

		REQUIRE(number >= 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", number);
		fd = open(path, i ? O_RDONLY : O_RDWR);
		REQUIRE(fd >= 0);
		CHECK_EQ(dup2(fd, number), number);
		close(fd);
		own[i] = number;
	}
	check_own();
	xp_child(check_own);
	check_own();
}

XP_TEST(the_same_files_of_the_program)
{
	xp_child(same_file);
}

/* ---- forks: a child neither asks the parent's threads nor writes to its text ---- */

static void grandchild(void)
{
	CHECK_EQ(subject_call(&subject), SUBJECT_OFF);
	CHECK_EQ(xp_text_poke(&subject.on, NULL), 0);
	CHECK_EQ(subject_call(&subject), SUBJECT_ON);
}

static void child(void)
{
	struct subject other;

	/* The parent has a thread that blocks SIGTRAP, and no such text; the child has none, and has it. */
	CHECK(subject_works(&subject));
	REQUIRE(subject_make(&other));
	CHECK(subject_works(&other));
	syscall(SYS_close_range, 3, ~0u, 0);
	xp_child(grandchild);
	CHECK(subject_works(&subject));
	CHECK_EQ(xp_text_poke(&subject.on, NULL), 0);
	xp_child(key_works);
	CHECK_EQ(subject_call(&subject), SUBJECT_ON);
}

static void forks(void)
{
	if (!start())
		return;
	block_sigtrap();
	for (unsigned i = 0; i < 3; i++) {
		xp_child(child);
		CHECK(subject_is(&subject, subject.nop));
		subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
	}
}

XP_TEST(children_and_their_children)
{
	xp_child(forks);
}

/* ---- nothing is open between two commits ---- */

static void check_nothing(void)
{
	CHECK_EQ(count(), 0);
}

/* A child that shares nothing, made without libc. */
static void raw_clone(void)
{
	int status = -1;
	pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (child == 0)
		_exit(count() != 0);
	CHECK(child > 0 && waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

static void without_handlers(void)
{
	int status = -1;
	pid_t child = _Fork();

	if (child == 0)
		_exit(count() != 0);
	CHECK(child > 0 && waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

static void check_children(void)
{
	check_nothing();
	xp_child(check_nothing);
	raw_clone();
	without_handlers();
}

static void closed_by_the_library(void)
{
	if (!start_as(XP_DESCRIPTORS_CLOSE))
		return;
	check_children();
	CHECK(subject_works(&subject));
	key_works();
	check_children();
	for (int policy = XP_POLICY_AUTO; policy <= XP_POLICY_QUIESCE; policy++) {
		CHECK_EQ(xp_set_policy((enum xp_policy)policy), 0);
		CHECK(subject_works(&subject));
		check_nothing();
	}
	for (int writer = XP_WRITER_MPROTECT; writer >= XP_WRITER_AUTO; writer--) {
		CHECK_EQ(xp_set_writer((enum xp_writer)writer), 0);
		check_nothing();
		CHECK(subject_works(&subject));
		check_nothing();
	}
	block_sigtrap();
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
	subject_refused(&subject, &subject.off, -XP_E_MISMATCH, XP_PHASE_VALIDATE, "expected");
	check_children();
	/* Kept, and no more. */
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), 0);
	CHECK_EQ(count(), 3);
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_CLOSE), 0);
	check_children();
	CHECK_EQ(xp_set_descriptors((enum xp_descriptors)2), -EINVAL);
}

XP_TEST(nothing_is_open_between_commits)
{
	xp_child(closed_by_the_library);
}

/* ---- what is kept goes to no child that the library knows of, and to others until they ask it for anything ---- */

/* All that is open on /proc is this process' own. */
static bool all_own(void)
{
	char path[64], target[128], mine[32];
	bool own_files = true;

	snprintf(mine, sizeof(mine), "/proc/%d/", (int)getpid());
	for (int fd = find(3, ""); fd >= 0; fd = find(fd + 1, "")) {
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		len = readlink(path, target, sizeof(target) - 1);
		target[len > 0 ? len : 0] = '\0';
		own_files = own_files && !strncmp(target, mine, strlen(mine));
	}
	return own_files;
}

static void check_all_own(void)
{
	CHECK(all_own());
}

static void kept_and_forked(void)
{
	int status = -1;
	pid_t forked;

	if (!start())
		return;
	CHECK(all_own() && count() == 3);
	xp_child(check_all_own);
	forked = _Fork();
	if (forked == 0)
		_exit(!subject_works(&subject) || !all_own());
	CHECK(forked > 0 && waitpid(forked, &status, 0) == forked);
	CHECK_EQ(status, 0);
}

static pthread_barrier_t half_way;

static void wait_half_way(enum xp__point point)
{
	if (point == XP__POINT_PUBLISHED) {
		pthread_barrier_wait(&half_way);
		pthread_barrier_wait(&half_way);
	}
}

static void *commit(void *unused)
{
	CHECK_EQ(xp_text_poke(&subject.on, NULL), 0);
	return unused;
}

/* While another thread commits: such a child cannot patch, and closes what it has when it asks. */
static void forked_beside_a_commit(void)
{
	pthread_t thread;
	int status = -1;
	pid_t forked;

	if (!start_as(XP_DESCRIPTORS_CLOSE))
		return;
	pthread_barrier_init(&half_way, NULL, 2);
	xp__inject = wait_half_way;
	REQUIRE_EQ(pthread_create(&thread, NULL, commit, NULL), 0);
	pthread_barrier_wait(&half_way);
	forked = _Fork();
	if (forked == 0)
		_exit(xp_text_poke(&subject.off, NULL) != -XP_E_WEDGED || count() != 0);
	CHECK(forked > 0 && waitpid(forked, &status, 0) == forked);
	CHECK_EQ(status, 0);
	pthread_barrier_wait(&half_way);
	pthread_join(thread, NULL);
	xp__inject = NULL;
	CHECK_EQ(subject_call(&subject), SUBJECT_ON);
}

/* In the middle of its own commit, which the child then finishes, in its own memory. */
static struct {
	unsigned moment, passed;
	pid_t child;
	bool parent_as_before;
} fork_at;

static void fork_half_way(enum xp__point point)
{
	uint8_t before[SUBJECT_LEN];
	int status = -1;

	if (point > XP__POINT_RETIRED || fork_at.passed++ != fork_at.moment)
		return;
	memcpy(before, subject.site, SUBJECT_LEN);
	fork_at.child = _Fork();
	if (fork_at.child == 0)
		return;
	fork_at.parent_as_before =
		waitpid(fork_at.child, &status, 0) == fork_at.child && status == 0 && subject_is(&subject, before);
}

static void forked_in_mid_commit(void)
{
	if (!start())
		return;
	for (unsigned descriptors = 0; descriptors < 2; descriptors++) {
		CHECK_EQ(xp_set_descriptors((enum xp_descriptors)descriptors), 0);
		for (unsigned moment = 0; moment < 8; moment++) {
			fork_at.moment = moment;
			fork_at.passed = 0;
			fork_at.child = -1;
			xp__inject = fork_half_way;
			CHECK_EQ(xp_text_poke(&subject.on, NULL), 0);
			xp__inject = NULL;
			if (fork_at.child == 0)
				_exit(subject_call(&subject) != SUBJECT_ON ||
				      (descriptors == XP_DESCRIPTORS_CLOSE && !all_own()));
			CHECK(fork_at.parent_as_before);
			CHECK_EQ(subject_call(&subject), SUBJECT_ON);
			CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
		}
	}
}

XP_TEST(children_hold_nothing_of_the_parent)
{
	xp_child(kept_and_forked);
	xp_child(forked_beside_a_commit);
	xp_child(forked_in_mid_commit);
}

/* Nothing is ever open without being closed by exec: a thread of the program may call it at any moment. */
static void closed_by_exec(void)
{
	unsigned nr = 0;

	/* Others are not to be had any more. */
	REQUIRE(xp_child_filter_equal(SYS_openat, SECCOMP_RET_ERRNO | EPERM, O_CLOEXEC, 0));
	CHECK_EQ(open("/dev/null", O_RDONLY), -1);
	CHECK_EQ(errno, EPERM);
	if (!start())
		return;
	for (int fd = find(3, ""); fd >= 0; fd = find(fd + 1, "")) {
		CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
		nr++;
	}
	CHECK_EQ(nr, 3);
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_CLOSE), 0);
	/* Without another writer that would do it. */
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	for (int policy = XP_POLICY_AUTO; policy <= XP_POLICY_QUIESCE; policy++) {
		CHECK_EQ(xp_set_policy((enum xp_policy)policy), 0);
		CHECK(subject_works(&subject));
		key_works();
	}
}

XP_TEST(programs_that_are_executed_get_nothing)
{
	xp_child(closed_by_exec);
}

/* ---- threads come and go ---- */

static void *nothing(void *barrier)
{
	pthread_barrier_wait(barrier);
	pthread_barrier_wait(barrier);
	return NULL;
}

static void come_and_go(enum xp_descriptors descriptors)
{
	struct rlimit few = {48, 48};
	pthread_barrier_t barrier;

	if (!start_as(descriptors))
		return;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
	pthread_barrier_init(&barrier, NULL, 2);
	for (unsigned i = 0; i < 100; i++) {
		pthread_t thread;

		REQUIRE_EQ(pthread_create(&thread, NULL, nothing, &barrier), 0);
		pthread_barrier_wait(&barrier);
		REQUIRE(subject_works(&subject));
		pthread_barrier_wait(&barrier);
		pthread_join(thread, NULL);
		REQUIRE(subject_works(&subject));
	}
	CHECK_EQ(count(), descriptors == XP_DESCRIPTORS_KEEP ? 3 : 0);
}

static void come_and_go_kept(void)
{
	come_and_go(XP_DESCRIPTORS_KEEP);
}

static void come_and_go_closed(void)
{
	come_and_go(XP_DESCRIPTORS_CLOSE);
}

XP_TEST(threads_leave_no_descriptor)
{
	xp_child(come_and_go_kept);
	xp_child(come_and_go_closed);
}

/* ---- in the middle of a commit ---- */

static const char own_text[] = "the program's own";

static struct {
	const char *suffix;
	bool close;      /* the program does nothing but that */
	unsigned moment; /* of the points that a commit passes, when */
	unsigned passed;
	int file, number;
} midst;

static void in_mid_commit(enum xp__point point)
{
	if (point > XP__POINT_RETIRED || midst.passed++ != midst.moment)
		return;
	midst.number = find(3, midst.suffix);
	if (midst.number < 0)
		return;
	if (midst.close)
		close(midst.number);
	else
		dup2(midst.file, midst.number);
}

static void taken_at(unsigned moment, const char *suffix, bool close_it, const struct xp_poke *poke, unsigned result)
{
	midst.suffix = suffix;
	midst.close = close_it;
	midst.moment = moment;
	midst.passed = 0;
	midst.number = -1;
	midst.file = canary(own_text);
	REQUIRE(midst.file >= 0);
	xp__inject = in_mid_commit;
	CHECK_EQ(xp_text_poke(poke, NULL), 0);
	xp__inject = NULL;
	CHECK_EQ(subject_call(&subject), result);
	CHECK(untouched(midst.file, midst.file, own_text));
	if (midst.number >= 0 && !close_it) {
		CHECK(untouched(midst.number, midst.file, own_text));
		close(midst.number);
	}
	close(midst.file);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

/* A commit by breakpoint passes eight points. */
static void taken(enum xp_descriptors descriptors)
{
	unsigned found = 0;

	if (!start_as(descriptors))
		return;
	for (unsigned close_it = 0; close_it < 2; close_it++)
		for (unsigned moment = 0; moment < 8; moment++) {
			taken_at(moment, "/mem", close_it, &subject.on, SUBJECT_ON);
			found += midst.number >= 0;
			taken_at(moment, "/maps", close_it, &subject.off, SUBJECT_OFF);
			taken_at(moment, "/task", close_it, &subject.on, SUBJECT_ON);
			taken_at(moment, "", close_it, &subject.off, SUBJECT_OFF);
		}
	/* Else it is open from the first store to the last. */
	CHECK(found >= (descriptors == XP_DESCRIPTORS_KEEP ? 14 : 8));
	/* Without another writer that would do it. */
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	for (unsigned moment = 0; moment < 8; moment++) {
		taken_at(moment, "/mem", false, &subject.on, SUBJECT_ON);
		taken_at(moment, "/mem", true, &subject.off, SUBJECT_OFF);
	}
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	for (unsigned moment = 0; moment < 8; moment++) {
		taken_at(moment, "/maps", false, &subject.on, SUBJECT_ON);
		taken_at(moment, "/maps", true, &subject.off, SUBJECT_OFF);
	}
	CHECK(count() <= (descriptors == XP_DESCRIPTORS_KEEP ? 3u : 0u));
}

static void taken_kept(void)
{
	taken(XP_DESCRIPTORS_KEEP);
}

static void taken_closed(void)
{
	taken(XP_DESCRIPTORS_CLOSE);
}

XP_TEST(taken_in_mid_commit)
{
	xp_child(taken_kept);
	xp_child(taken_closed);
}

/* ---- closed by another thread, at any moment ---- */

static volatile bool enough;

static void *close_all(void *unused)
{
	while (!enough)
		syscall(SYS_close_range, 3, ~0u, 0);
	return unused;
}

static void closed_at_any_moment(void)
{
	pthread_t thread;
	unsigned failed = 0;

	if (!start_as(XP_DESCRIPTORS_CLOSE))
		return;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, close_all, NULL), 0);
	for (unsigned i = 0; i < 20000; i++) {
		bool on = i % 2 == 0;
		int error = on ? xp_static_branch_enable(&subject_key) : xp_static_branch_disable(&subject_key);

		failed += error != 0;
		if (error)
			i++; /* once more the same way */
		CHECK(error == 0 || error == -EBADF || error == -XP_E_NO_WRITER);
		CHECK_EQ(xp_static_key_enabled(&subject_key), subject_key_site());
		REQUIRE_EQ(xp_state(), XP_STATE_READY);
	}
	enough = true;
	pthread_join(thread, NULL);
	XP_TEST_NOTE("%u of 20000 refused", failed);
	CHECK(failed < 2000);
	CHECK_EQ(count(), 0);
}

XP_TEST(closed_by_another_thread)
{
	xp_child(closed_at_any_moment);
}

/* The next number is always another file's: a write there may succeed, and has not changed the text. */
static void *take_all(void *unused)
{
	int own_file = open("/dev/null", O_RDWR | O_CLOEXEC), number = dup(own_file);

	while (!enough) {
		close(number);
		dup2(own_file, number);
	}
	return unused;
}

static void taken_at_any_moment(void)
{
	unsigned done = 0;
	pthread_t thread;

	if (!start_as(XP_DESCRIPTORS_CLOSE))
		return;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, take_all, NULL), 0);
	for (unsigned i = 0; i < 20000; i++) {
		bool on = !xp_static_key_enabled(&subject_key);
		int error = on ? xp_static_branch_enable(&subject_key) : xp_static_branch_disable(&subject_key);

		done += error == 0;
		CHECK(error == 0 || error == -EBADF || error == -XP_E_NO_WRITER);
		REQUIRE_EQ(subject_key_site(), error ? !on : on);
		REQUIRE_EQ(xp_state(), XP_STATE_READY);
	}
	enough = true;
	pthread_join(thread, NULL);
	XP_TEST_NOTE("%u of 20000 done", done);
	CHECK(done > 0);
}

XP_TEST(taken_by_another_thread)
{
	xp_child(taken_at_any_moment);
}

/* The same, at the moment that shows it: what was written went into another file, as if the number was taken before. */
static void write_goes_elsewhere(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signal;
	(void)info;
#ifdef __x86_64__
	uc->uc_mcontext.gregs[REG_RAX] = uc->uc_mcontext.gregs[REG_RDX];
#else
	uc->uc_mcontext.gregs[REG_EAX] = uc->uc_mcontext.gregs[REG_EDX];
#endif
}

static void taken_before_each_write(void)
{
	struct sigaction act = {.sa_sigaction = write_goes_elsewhere, .sa_flags = SA_SIGINFO};

	if (!start_as(XP_DESCRIPTORS_CLOSE))
		return;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	REQUIRE_EQ(sigaction(SIGSYS, &act, NULL), 0);
	REQUIRE(xp_child_filter(SYS_pwrite64, SECCOMP_RET_TRAP, 0));
	CHECK(xp_static_branch_enable(&subject_key) < 0);
	CHECK_EQ(subject_key_site(), false);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

XP_TEST(taken_before_a_write)
{
	xp_child(taken_before_each_write);
}

/* ---- none to be had, for a while in mid-commit ---- */

static struct rlimit limit;

static void *give_back(void *unused)
{
	struct timespec while_ = {0, 30000000};

	nanosleep(&while_, NULL);
	setrlimit(RLIMIT_NOFILE, &limit);
	return unused;
}

static void exhaust(enum xp__point point)
{
	struct rlimit none = limit;
	pthread_t thread;

	if (point > XP__POINT_RETIRED || midst.passed++ != midst.moment)
		return;
	none.rlim_cur = 3;
	syscall(SYS_close_range, 3, ~0u, 0);
	setrlimit(RLIMIT_NOFILE, &none);
	pthread_create(&thread, NULL, give_back, NULL);
	pthread_detach(thread);
}

static void exhausted(enum xp_writer writer, enum xp_descriptors descriptors)
{
	unsigned failed = 0;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (!start_as(descriptors))
		return;
	CHECK_EQ(xp_set_writer(writer), 0);
	for (midst.moment = 0; midst.moment < 8; midst.moment++) {
		struct timespec later = {0, 50000000};
		struct xp_diag diag;
		int error;

		midst.passed = 0;
		xp__inject = exhaust;
		error = xp_text_poke(&subject.on, &diag);
		xp__inject = NULL;
		CHECK_EQ(xp_state(), XP_STATE_READY);
		CHECK(subject_is(&subject, error ? subject.nop : subject.jmp));
		CHECK(error == 0 || error == -EMFILE);
		CHECK(error == 0 || diag.phase == XP_PHASE_STORE);
		failed += error != 0;
		nanosleep(&later, NULL);
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
		if (error == 0)
			CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
		CHECK(subject_works(&subject));
	}
	CHECK(failed > 0);
	/* Text of a module is known without /proc, and mprotect needs no descriptor. */
	if (writer != XP_WRITER_AUTO)
		return;
	for (midst.moment = 0; midst.moment < 6; midst.moment++) {
		struct timespec later = {0, 50000000};

		midst.passed = 0;
		xp__inject = exhaust;
		CHECK_EQ(xp_static_branch_enable(&subject_key), 0);
		xp__inject = NULL;
		nanosleep(&later, NULL);
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
		CHECK_EQ(xp_static_branch_disable(&subject_key), 0);
	}
}

static void exhausted_auto(void)
{
	exhausted(XP_WRITER_AUTO, XP_DESCRIPTORS_CLOSE);
}

static void exhausted_kept(void)
{
	exhausted(XP_WRITER_AUTO, XP_DESCRIPTORS_KEEP);
}

static void exhausted_procmem(void)
{
	exhausted(XP_WRITER_PROCMEM, XP_DESCRIPTORS_CLOSE);
}

static void exhausted_mprotect(void)
{
	exhausted(XP_WRITER_MPROTECT, XP_DESCRIPTORS_CLOSE);
}

XP_TEST(no_descriptors_in_mid_commit)
{
	xp_child(exhausted_auto);
	xp_child(exhausted_kept);
	xp_child(exhausted_procmem);
	xp_child(exhausted_mprotect);
}

/* ---- none to be had before a commit among threads: no thread can be asked for its mask; single stores serve ---- */

XP_DEFINE_IMV(int, descriptors_value, 0);

static __attribute__((noinline)) int read_value(void)
{
	return xp_imv_read(descriptors_value);
}

static void fill_up(bool limit_them)
{
	struct rlimit few = {limit_them ? 0 : 64, limit_them ? 0 : 64};

	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (!limit_them && dup(1) >= 0)
		continue;
}

static void none_before(bool limit_them, enum xp_descriptors descriptors)
{
	if (!start_as(descriptors))
		return;
	fill_up(limit_them);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(xp_imv_set(descriptors_value, 0x11223344), 0);
		CHECK_EQ(read_value(), 0x11223344);
		key_works();
		CHECK_EQ(xp_imv_set(descriptors_value, 0), 0);
		CHECK_EQ(read_value(), 0);
	}
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_imv_set(descriptors_value, 7), -EMFILE);
	CHECK_EQ(read_value(), 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

static void none_before_closed(void)
{
	none_before(true, XP_DESCRIPTORS_CLOSE);
}

static void none_before_kept(void)
{
	none_before(true, XP_DESCRIPTORS_KEEP);
}

static void full_before_closed(void)
{
	none_before(false, XP_DESCRIPTORS_CLOSE);
}

static void full_before_kept(void)
{
	none_before(false, XP_DESCRIPTORS_KEEP);
}

XP_TEST(no_descriptors_before_a_commit)
{
	if (xp_set_writer(XP_WRITER_MPROTECT) || xp_set_writer(XP_WRITER_AUTO))
		SKIP("mprotect may not write text here");
	xp_child(none_before_closed);
	xp_child(none_before_kept);
	xp_child(full_before_closed);
	xp_child(full_before_kept);
}

/* For good: nothing that is left can undo it. What executes the breakpoint is none the worse, and every call says so. */
static void exhaust_for_good(enum xp__point point)
{
	struct rlimit none = {3, 3};

	if (point != XP__POINT_STORED || midst.passed++ != midst.moment)
		return;
	syscall(SYS_close_range, 3, ~0u, 0);
	setrlimit(RLIMIT_NOFILE, &none);
}

static void wedged(void)
{
	struct xp_diag diag;

	if (!start_as(XP_DESCRIPTORS_CLOSE))
		return;
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	midst.moment = 0;
	midst.passed = 0;
	xp__inject = exhaust_for_good;
	CHECK_EQ(xp_text_poke(&subject.on, &diag), -EMFILE);
	xp__inject = NULL;
	CHECK_EQ(diag.phase, XP_PHASE_ROLLBACK);
	CHECK_EQ(xp_state(), XP_STATE_WEDGED);
	CHECK(subject_call(&subject) == SUBJECT_ON);
	CHECK_EQ(xp_text_poke(&subject.on, NULL), -XP_E_WEDGED);
	CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_WEDGED);
	CHECK(!subject_key_site());
}

XP_TEST(none_for_good)
{
	xp_child(wedged);
}

XP_TEST_MAIN()
