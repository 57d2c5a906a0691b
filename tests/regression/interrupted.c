// SPDX-License-Identifier: MIT
/*
 * Signal handlers at any instruction of malloc, stdio, pthread_create, dlopen, fork and exit, that call what handlers may call.
 *
 * The thread steps through the operation, instruction by instruction (the trap flag), and the handler of SIGTRAP calls the
 * functions: at some 60 places, others in each run, or with the argument `whole` at every one. Another thread forks and commits
 * meanwhile. No commit here needs a breakpoint, so SIGTRAP is the test's own.
 */
#include "xp_child.h"
#include "xp_subject.h"

#include "port/linux/sys.h"

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { TF = 0x100, PLACES = 60 };

XP_DEFINE_STATIC_KEY_FALSE(key);
XP_DEFINE_STATIC_KEY_FALSE(others_key);
XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(lazy, 1);
XP_DEFINE_IMV(int, value, 0);
XP_DEFINE_STATIC_SWITCH(choice, 3, 0);

static __attribute__((noinline)) int sites(void)
{
	return xp_static_branch_unlikely(&key) + 2 * xp_static_branch_unlikely(&lazy.key) + 4 * xp_imv_read(value) +
	       16 * xp_static_switch(&choice);
}

static __attribute__((noinline, used)) bool others_site(void)
{
	return xp_static_branch_unlikely(&others_key);
}

static unsigned long steps, calls, places;
static unsigned long from, stride; /* 0: only counts */
static int wrong;                  /* line of the first one */
static int stepping;               /* thread id */

static void expect(bool condition, int line)
{
	if (!condition && wrong == 0)
		wrong = line;
}

#define EXPECT(condition) expect(condition, __LINE__)

/* Everything whose contract names signal handlers, or any context. */
static void call_all(void)
{
	struct xp_diag diag = {.error = -XP_E_MISMATCH};
	char line[256];
	int number = (int)(++calls % 3);

	EXPECT(xp_static_branch_enable(&key) == 0 && xp_static_key_enabled(&key) && sites() & 1);
	EXPECT(xp_static_branch_disable(&key) == 0 && !(sites() & 1));
	EXPECT(xp_static_branch_inc(&key) == 0 && xp_static_key_count(&key) == 1);
	EXPECT(xp_static_branch_dec(&key) == 0 && !(sites() & 1));
	EXPECT(xp_imv_set(value, number) == 0 && (sites() >> 2 & 3) == number);
	EXPECT(xp_static_switch_set(&choice, number) == 0 && sites() >> 4 == number);
	EXPECT(xp_static_branch_deferred_inc(&lazy) == 0 && sites() & 2);
	EXPECT(xp_static_branch_slow_dec_deferred(&lazy) == 0);
	EXPECT(xp_static_key_deferred_flush(&lazy) == 0 && !(sites() & 2));
	EXPECT(xp_jump_label_rate_limit(&lazy, 1) == 0);
	EXPECT(xp_diag_format(&diag, line, sizeof(line)) > 0 && xp_strerror(diag.error) != NULL);
	EXPECT(xp_state() == XP_STATE_READY && xp_module_error() == 0);
}

/* libc blocks all signals at times, and a trap would kill then: its set is replaced by one without SIGTRAP. */
static void keep_sigtrap_open(greg_t *gregs)
{
	static __thread uint64_t set;
	const uint8_t *next = (const uint8_t *)gregs[REG_RIP];

	if (next[0] != 0x0f || next[1] != 0x05 || gregs[REG_RAX] != SYS_rt_sigprocmask || gregs[REG_RSI] == 0)
		return;
	memcpy(&set, (const void *)gregs[REG_RSI], sizeof(set));
	if (gregs[REG_RDI] != SIG_UNBLOCK)
		set &= ~xp__sigbit(SIGTRAP);
	gregs[REG_RSI] = (greg_t)&set;
}

static void on_step(int signal, siginfo_t *info, void *context)
{
	greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;
	int error = errno;

	(void)signal;
	(void)info;
	/* A thread, or a child, that the operation made. */
	if (syscall(SYS_gettid) != stepping) {
		gregs[REG_EFL] &= ~TF;
		errno = error;
		return;
	}
	keep_sigtrap_open(gregs);
	if (stride && steps >= from && (steps - from) % stride == 0) {
		places++;
		call_all();
	}
	steps++;
	errno = error;
}

static void set_flag(bool on)
{
	if (on)
		__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq" ::: "memory", "cc");
	else
		__asm__ volatile("pushfq; andl $~0x100, (%%rsp); popfq" ::: "memory", "cc");
}

/* ---- what is interrupted ---- */

static void allocate(void)
{
	void *volatile some[8];

	for (unsigned i = 0; i < 8; i++)
		some[i] = malloc(40u << (2 * i));
	for (unsigned i = 0; i < 8; i++)
		free(some[i]);
}

static void print(void)
{
	FILE *null = fopen("/dev/null", "w");

	fprintf(null, "%d %s\n", 1, "two");
	fclose(null);
}

static void *nothing(void *unused)
{
	return unused;
}

static void create(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, nothing, NULL) == 0)
		pthread_join(thread, NULL);
}

static void load(void)
{
	void *object = dlopen("libm.so.6", RTLD_NOW);

	if (object)
		dlclose(object);
}

static void copy(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
}

static void (*operation)(void);
static bool whole, stop;

/* In the child of a test: once to count, then to interrupt. */
static void step_through(void)
{
	struct sigaction act = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO | SA_NODEFER};
	unsigned long all;

	/* Meson's MALLOC_PERTURB_ has malloc fill what it gives, which takes too many steps. */
#ifdef M_PERTURB
	mallopt(M_PERTURB, 0);
#endif
	stepping = (int)syscall(SYS_gettid);
	REQUIRE_EQ(sigaction(SIGTRAP, &act, NULL), 0);
	operation(); /* binds what is bound lazily */
	set_flag(true);
	operation();
	set_flag(false);
	all = steps;
	CHECK(all > 100);
	stride = whole ? 1 : all / PLACES + 1;
	from = (unsigned long)getpid() * 7919 % stride;
	steps = 0;
	set_flag(true);
	operation();
	set_flag(false);
	XP_TEST_NOTE("%lu instructions, interrupted at %lu of them, %lu apart from %lu on", all, places, stride, from);
	CHECK(places > PLACES / 2);
	CHECK_EQ(wrong, 0);
	CHECK_EQ(xp_static_key_count(&key), 0);
}

/* The other thread forks and commits. */
static void *disturb(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		pid_t child = fork();

		if (child == 0)
			_exit(xp_static_branch_enable(&others_key) != 0 || !others_site());
		if (child > 0) {
			int status = -1;

			while (waitpid(child, &status, 0) < 0 && errno == EINTR)
				;
			expect(status == 0, __LINE__);
		}
		expect(xp_static_branch_enable(&others_key) == 0, __LINE__);
		expect(xp_static_branch_disable(&others_key) == 0, __LINE__);
		usleep(200);
	}
	return NULL;
}

static void step_beside_another(void)
{
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, disturb, NULL), 0);
	step_through();
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK_EQ(wrong, 0);
}

/* What a process that exits leaves behind. */
static struct {
	unsigned long steps, places;
	int wrong;
} * left;

static void note_left(void)
{
	left->steps = steps;
	left->places = places;
	left->wrong = wrong;
}

static void on_last_step(int signal, siginfo_t *info, void *context)
{
	on_step(signal, info, context);
	note_left();
}

static void leave(void)
{
	struct sigaction act = {.sa_sigaction = on_last_step, .sa_flags = SA_SIGINFO | SA_NODEFER};

	stepping = (int)syscall(SYS_gettid);
	sigaction(SIGTRAP, &act, NULL);
	set_flag(true);
	exit(0);
}

XP_TEST(exit_interrupted)
{
	left = mmap(NULL, sizeof(*left), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(left != MAP_FAILED);
	stride = 0;
	CHECK_EQ(xp_child_status(leave), 0);
	CHECK(left->steps > 100);
	stride = whole ? 1 : left->steps / PLACES + 1;
	from = (unsigned long)getpid() * 7919 % stride;
	CHECK_EQ(xp_child_status(leave), 0);
	XP_TEST_NOTE("%lu instructions, interrupted at %lu of them", left->steps, left->places);
	CHECK(left->places > PLACES / 2);
	CHECK_EQ(left->wrong, 0);
	munmap(left, sizeof(*left));
}

#define INTERRUPTED(name)                                                                                              \
	XP_TEST(name##_interrupted)                                                                                    \
	{                                                                                                              \
		operation = name;                                                                                      \
		xp_child(step_through);                                                                                \
		xp_child(step_beside_another);                                                                         \
	}

INTERRUPTED(allocate)
INTERRUPTED(print)
INTERRUPTED(create)
INTERRUPTED(load)
INTERRUPTED(copy)

struct xp_test_state xp_test_state;

int main(int argc, char **argv)
{
	whole = argc > 1 && strcmp(argv[1], "whole") == 0;
	return xp_test_main(argc - whole, argv + whole);
}
