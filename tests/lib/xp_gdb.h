/* SPDX-License-Identifier: MIT */
/*
 * gdb, run on this program: with XP_CHILD in its environment (xp_child.h) it is its own debuggee. What gdb printed is
 * then searched:
 *
 *	if (!xp_gdb_is_there())
 *		SKIP("no gdb");
 *	CHECK(xp_gdb_run("set environment XP_CHILD=debuggee\nbreak stop\nrun\n…", 40));
 *	CHECK(xp_gdb_says("stepped", " 1"));
 *	xp_gdb_tell();                  // all of it, if something failed
 */
#ifndef XP_GDB_H
#define XP_GDB_H

#include "xp_test.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

/* What every script begins with. */
#define XP_GDB_QUIETLY "set pagination off\nset confirm off\nset debuginfod enabled off\n"

static char xp_gdb_said[262144];

static inline bool xp_gdb_is_there(void)
{
	return WEXITSTATUS(system("command -v gdb >/dev/null 2>&1")) == 0;
}

/* For @seconds at most. */
static inline bool xp_gdb_run(const char *commands, unsigned seconds)
{
	char self[PATH_MAX], name[] = "/tmp/crosspatch-test-XXXXXX";
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int pipe_[2], file = mkstemp(name), status;
	size_t filled = 0;
	pid_t child;

	self[len > 0 ? len : 0] = '\0';
	if (file < 0 || write(file, commands, strlen(commands)) < 0 || pipe(pipe_))
		return false;
	fflush(stdout);
	child = fork();
	if (child == 0) {
		dup2(pipe_[1], 1);
		dup2(pipe_[1], 2);
		close(pipe_[0]);
		alarm(seconds);
		execlp("gdb", "gdb", "-nx", "-batch", "-x", name, self, (char *)NULL);
		_exit(127);
	}
	close(pipe_[1]);
	memset(xp_gdb_said, 0, sizeof(xp_gdb_said));
	while ((len = read(pipe_[0], xp_gdb_said + filled, sizeof(xp_gdb_said) - 1 - filled)) > 0)
		filled += (size_t)len;
	close(pipe_[0]);
	close(file);
	waitpid(child, &status, 0);
	unlink(name);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The line that begins with @label says @what. */
static inline bool xp_gdb_says(const char *label, const char *what)
{
	const char *at = strstr(xp_gdb_said, label), *end;

	if (at == NULL)
		return false;
	end = strchr(at, '\n');
	at = strstr(at, what);
	return at && end && at < end;
}

static inline void xp_gdb_tell(void)
{
	if (xp_test_state.failures)
		for (char *line = strtok(xp_gdb_said, "\n"); line; line = strtok(NULL, "\n"))
			XP_TEST_NOTE("gdb: %s", line);
}

#endif
