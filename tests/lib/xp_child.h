/* SPDX-License-Identifier: MIT */
/*
 * Child processes for what would spoil the test itself: settings that cannot be taken back, filters, death.
 * A child reports with CHECK like any case; its failures become its exit status, and that a failure of the case.
 */
#ifndef XP_CHILD_H
#define XP_CHILD_H

#include "xp_test.h"

#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { XP_CHILD_SECONDS = 20 }; /* then it hangs, and is killed */

/* Runs @body in a fork. Returns the status as of waitpid(): 0 if nothing failed. */
static inline int xp_child_status(void (*body)(void))
{
	int status = -1;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		alarm(XP_CHILD_SECONDS);
		xp_test_state.failures = 0;
		body();
		fflush(stdout);
		_exit(xp_test_state.failures != 0);
	}
	if (child > 0)
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
	return status;
}

static inline void xp_child(void (*body)(void))
{
	CHECK_EQ(xp_child_status(body), 0);
}

/*
 * The same in a new program: this one, executed with XP_CHILD=@name in the environment, after @before (may be NULL)
 * ran in the child. For what must be there before the library starts.
 */
struct xp_child_program {
	const char *name;
	void (*body)(void);
	struct xp_child_program *next;
};

static struct xp_child_program *xp_child_programs __attribute__((unused));

#define XP_CHILD_PROGRAM(child_name)                                                                                   \
	static void xp_child_##child_name(void);                                                                       \
	__attribute__((constructor)) static void xp_child_add_##child_name(void)                                       \
	{                                                                                                              \
		static struct xp_child_program self = {#child_name, xp_child_##child_name, NULL};                      \
		self.next = xp_child_programs;                                                                         \
		xp_child_programs = &self;                                                                             \
	}                                                                                                              \
	static void xp_child_##child_name(void)

static inline int xp_child_execute(const char *file, const char *name, void (*before)(void))
{
	int status = -1;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		setenv("XP_CHILD", name, 1);
		if (before)
			before();
		execl(file, file, (char *)NULL);
		_exit(127);
	}
	if (child > 0)
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
	return status;
}

static inline void xp_child_program(const char *name, void (*before)(void))
{
	CHECK_EQ(xp_child_execute("/proc/self/exe", name, before), 0);
}

/* Instead of XP_TEST_MAIN() in a program that has child programs. */
#define XP_CHILD_MAIN()                                                                                                \
	struct xp_test_state xp_test_state;                                                                            \
	int main(int argc, char **argv)                                                                                \
	{                                                                                                              \
		const char *name = getenv("XP_CHILD");                                                                 \
		for (struct xp_child_program *child = xp_child_programs; name && child; child = child->next) {         \
			if (strcmp(child->name, name) != 0)                                                            \
				continue;                                                                              \
			alarm(XP_CHILD_SECONDS);                                                                       \
			setvbuf(stdout, NULL, _IOLBF, 0);                                                              \
			child->body();                                                                                 \
			return xp_test_state.failures != 0;                                                            \
		}                                                                                                      \
		return name ? 2 : xp_test_main(argc, argv);                                                            \
	}

/*
 * From now on the call @number is answered by @action (SECCOMP_RET_), if the bits of its third argument in @mask are
 * @bits. Lasts for the process and what it executes.
 */
static inline bool xp_child_filter_equal(unsigned number, unsigned action, unsigned mask, unsigned bits)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, bits, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

/* The same, if they are all set. */
static inline bool xp_child_filter(unsigned number, unsigned action, unsigned mask)
{
	return xp_child_filter_equal(number, action, mask, mask);
}

#endif
