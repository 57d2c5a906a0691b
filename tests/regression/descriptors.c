// SPDX-License-Identifier: MIT
/*
 * The descriptors that the library keeps open: programs close them, put files of their own under the numbers, fork,
 * and hold files of the same name. Nothing of theirs is read, written or closed, and patching works on.
 */
#include "xp_child.h"
#include "xp_subject.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

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

/* Everything that is ever kept is open when it returns. */
static bool start(void)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	pthread_barrier_init(&sleeper.barrier, NULL, 2);
	CHECK_EQ(pthread_create(&sleeper.thread, NULL, sleep_on, NULL), 0);
	pthread_barrier_wait(&sleeper.barrier);
	return xp_test_check(subject_make(&subject), "a subject", __FILE__, __LINE__) && subject_works(&subject);
}

static void block_sigtrap(void)
{
	pthread_barrier_wait(&sleeper.barrier);
	pthread_barrier_wait(&sleeper.barrier);
}

/* ---- the numbers ---- */

enum { NUMBERS = 65536 };

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

	return fstat(fd, &a) == 0 && fstat(file, &b) == 0 && a.st_ino == b.st_ino &&
	       a.st_size == (off_t)strlen(text) &&
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
	CHECK(find(3, "/mem") >= 0 && find(3, "/maps") >= 0 && find(3, "/task") >= 0 && find(3, "/stat") >= 0);
	for (unsigned i = 0; i < 3; i++) {
		closefrom(3);
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

static void number_of_stat(void)
{
	number_reused("/stat");
}

XP_TEST(numbers_used_by_the_program)
{
	xp_child(number_of_mem);
	xp_child(number_of_maps);
	xp_child(number_of_task);
	xp_child(number_of_stat);
}

/* A file that reads like the thread's, and says that it blocks nothing. */
static void forged(void)
{
	char text[256];
	int file, number;

	if (!start())
		return;
	snprintf(text, sizeof(text),
		 "%d (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0\n",
		 sleeper.tid);
	file = canary(text);
	REQUIRE(file >= 0);
	for (number = find(3, "/stat"); number >= 0; number = find(number + 1, "/stat"))
		CHECK_EQ(dup2(file, number), number);
	block_sigtrap();
	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
}

XP_TEST(a_forged_file_is_not_read)
{
	xp_child(forged);
}

/* Files of the same names, which the program opened for itself: ours is told from them, in a child too. */
static int own[4];

static void check_own(void)
{
	CHECK(subject_works(&subject));
	for (unsigned i = 0; i < 4; i++)
		CHECK(fcntl(own[i], F_GETFD) >= 0);
}

static void same_file(void)
{
	static const char *const names[] = {"/mem", "/maps", "/task", "/stat"};
	char path[64];

	if (!start())
		return;
	for (unsigned i = 0; i < 4; i++) {
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

/* ---- forks: nobody asks the parent's threads, or writes to its text ---- */

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
	closefrom(3);
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

XP_TEST_MAIN()
