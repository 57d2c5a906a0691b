/* SPDX-License-Identifier: MIT */
/* How many system calls a piece of code makes, counted by a tracer: what does not depend on how fast the machine is. */
#ifndef XP_COUNT_CALLS_H
#define XP_COUNT_CALLS_H

#include "xp_test.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static inline void xp_count_calls_child(void (*body)(void), int out)
{
	int failures;

	alarm(60);
	xp_test_state.failures = 0;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(77);
	raise(SIGSTOP);
	body();
	syscall(SYS_getppid);
	failures = xp_test_state.failures;
	_exit(write(out, &failures, sizeof(failures)) != (ssize_t)sizeof(failures));
}

/*
 * Runs @body in a child, traced, and counts the calls that its first thread makes between the first two calls of getppid(), of
 * which the second one may be left out. -1: the child may not be traced here. What the child finds wrong is a failure of the case.
 */
static inline long xp_count_calls(void (*body)(void))
{
	int pipes[2], status, signal = 0, failures = 1;
	bool entering = false;
	long nr = 0, marks = 0;
	pid_t child;

	fflush(stdout);
	if (pipe(pipes))
		return -1;
	child = fork();
	if (child == 0)
		xp_count_calls_child(body, pipes[1]);
	close(pipes[1]);
	while (child > 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
		struct __ptrace_syscall_info info;

		if (WSTOPSIG(status) == SIGSTOP)
			ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
		entering = WSTOPSIG(status) == (SIGTRAP | 0x80) && !entering;
		if (entering && ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info) > 0) {
			marks += info.entry.nr == SYS_getppid;
			nr += marks == 1 && info.entry.nr != SYS_getppid;
		}
		signal = WSTOPSIG(status) == SIGSTOP || WSTOPSIG(status) & 0x80 ? 0 : WSTOPSIG(status);
		ptrace(PTRACE_SYSCALL, child, NULL, signal);
	}
	if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 77)
		nr = -1;
	else
		CHECK(read(pipes[0], &failures, sizeof(failures)) == (ssize_t)sizeof(failures) && failures == 0);
	close(pipes[0]);
	return nr;
}

#endif
