// SPDX-License-Identifier: MIT
/* crosspatch doctor says what is so: the tool itself, where the system refuses this or that, and of a process that is so or so. */
#include "xp_child.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

static char said[65536];

/* Runs the tool with up to two arguments, after @before in its process. Its exit status; what it printed is in `said`. */
static int run(void (*before)(void), const char *argument, const char *second)
{
	const char *tool = getenv("XP_TOOL");
	int fds[2], status = -1;
	size_t len = 0;
	ssize_t got;
	pid_t child;

	said[0] = '\0';
	fflush(stdout);
	if (tool == NULL || pipe(fds))
		return -1;
	child = fork();
	if (child == 0) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		setenv("XDG_STATE_HOME", "/nowhere", 1);
		if (before)
			before();
		execl(tool, "crosspatch", "doctor", argument, second, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	while (len < sizeof(said) - 1 && (got = read(fds[0], said + len, sizeof(said) - 1 - len)) > 0)
		len += (size_t)got;
	said[len] = '\0';
	close(fds[0]);
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Whether the check @name was answered so. */
static bool answers(const char *name, const char *answer)
{
	char line[128];

	snprintf(line, sizeof(line), "{\"check\": \"%s\", \"answer\": \"%s\"", name, answer);
	if (strstr(said, line))
		return true;
	printf("# no %s in %s", line, said);
	return false;
}

static void without_windows_and_signals(void)
{
	/* Kernels before 6.3 have no MDWE, which is inherited. */
	(void)prctl(PR_SET_MDWE, 1, 0, 0, 0);
	xp_child_filter(SYS_mprotect, SECCOMP_RET_ERRNO | EACCES, PROT_WRITE | PROT_EXEC);
	xp_child_filter(SYS_rt_tgsigqueueinfo, SECCOMP_RET_KILL_PROCESS, 0);
}

XP_TEST(what_is_refused_is_said)
{
	CHECK_EQ(run(without_windows_and_signals, "--json", NULL), 0);
	CHECK(answers("writer procmem", "ok") && answers("writer mprotect", "no"));
	CHECK(answers("sync membarrier", "ok") && answers("sync signal", "no"));
	CHECK(answers("policy auto", "ok") && answers("policy quiesce", "no"));
	CHECK(strstr(said, "killed: Bad system call") != NULL);
	CHECK(answers("membarrier", "ok") && answers("seccomp", "limited"));
	CHECK(strstr(said, "\"safe\": \"yes\"") != NULL);
}

static void without_writers(void)
{
	xp_child_filter(SYS_pwrite64, SECCOMP_RET_ERRNO | EPERM, 0);
	xp_child_filter(SYS_mprotect, SECCOMP_RET_ERRNO | EACCES, PROT_WRITE | PROT_EXEC);
}

XP_TEST(without_a_writer_nothing_is_safe)
{
	CHECK_EQ(run(without_writers, "--json", NULL), 1);
	CHECK(answers("writer procmem", "no") && answers("writer mprotect", "no") && answers("policy auto", "no"));
	CHECK(strstr(said, "\"safe\": \"no\", \"advice\": \"no writer works") != NULL);
}

/* ---- a process ---- */

static char own_id[16];

static void *block_traps(void *barrier)
{
	sigset_t trap;

	sigemptyset(&trap);
	sigaddset(&trap, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &trap, NULL);
	pthread_barrier_wait(barrier);
	pthread_barrier_wait(barrier);
	return NULL;
}

static void examined(void)
{
	pthread_barrier_t barrier;
	pthread_t thread;

	snprintf(own_id, sizeof(own_id), "%d", getpid());
	CHECK_EQ(run(NULL, "--json", own_id), 3); /* it serves no socket: no answer is to be had */
	CHECK(answers("traps", "ok"));
	CHECK(strstr(said, "\"safe\": \"unknown\"") != NULL);

	REQUIRE_EQ(xp_control_start(NULL), 0);
	CHECK_EQ(run(NULL, "--json", own_id), 0);
	CHECK(answers("traps", "ok") && answers("engine", "ok") && answers("writer", "ok") && answers("policy", "ok"));

	pthread_barrier_init(&barrier, NULL, 2);
	REQUIRE_EQ(pthread_create(&thread, NULL, block_traps, &barrier), 0);
	pthread_barrier_wait(&barrier);
	CHECK_EQ(run(NULL, "--json", own_id), 0);
	CHECK(answers("traps", "no") && strstr(said, "1 of 3 threads block SIGTRAP"));
	CHECK(strstr(said, "\"safe\": \"yes\", \"advice\": \"for keys") != NULL);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(run(NULL, "--json", own_id), 1);
	CHECK(answers("policy", "no"));
	CHECK_EQ(xp_set_policy(XP_POLICY_EARLY), 0);
	CHECK_EQ(run(NULL, "--json", own_id), 1);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	CHECK_EQ(xp_control_stop(), 0);
}

XP_TEST(a_process_is_examined)
{
	xp_child(examined);
}

XP_TEST(arguments)
{
	CHECK_EQ(run(NULL, "--jso", NULL), 2);
	CHECK_EQ(run(NULL, "nobody", NULL), 2);
	CHECK_EQ(run(NULL, "1", "2"), 2);
	CHECK_EQ(run(NULL, "/nowhere/socket", NULL), 3);
	CHECK_EQ(run(NULL, "--help", NULL), 0);
}

XP_CHILD_MAIN()
