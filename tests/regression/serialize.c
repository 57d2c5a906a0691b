// SPDX-License-Identifier: MIT
/*
 * Where no sync follows the stores, the thread that made them serializes itself before the commit returns: it wrote by
 * another linear address. No execution shows whether it did, so it is watched instruction by instruction.
 */
#include "xp_child.h"
#include "xp_gregs.h"
#include "xp_subject.h"

#include <signal.h>
#include <sys/ptrace.h>

static struct subject subject;
static enum xp_policy policy;
static enum xp_writer writer;

/* Between its two calls of getpgrp one poke is watched. */
static void be_watched(void)
{
	bool ready = xp_set_policy(policy) == 0 && xp_set_writer(writer) == 0 && subject_works(&subject) &&
		     ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0;

	if (!ready)
		_exit(2);
	raise(SIGSTOP);
	(void)getpgrp();
	if (xp_text_poke(&subject.on, NULL))
		_exit(3);
	(void)getpgrp();
	_exit(0);
}

static bool is_insn(const uint8_t *text, const char *insn, size_t len)
{
	return memcmp(text, insn, len) == 0;
}

/* SERIALIZE, IRETQ or IRETD, CPUID: the Intel SDM's serializing instructions of user level. */
static bool serializes(const uint8_t *text)
{
	bool iret = sizeof(long) == 8 ? is_insn(text, "\x48\xcf", 2) : is_insn(text, "\xcf", 1);

	return iret || is_insn(text, "\x0f\x01\xe8", 3) || is_insn(text, "\x0f\xa2", 2);
}

/* SYSCALL, SYSENTER, INT 80: the latter two in the vDSO of 32-bit processes. */
static bool calls_system(const uint8_t *text)
{
	return is_insn(text, "\x0f\x05", 2) || is_insn(text, "\x0f\x34", 2) || is_insn(text, "\xcd\x80", 2);
}

struct watched {
	unsigned writes;     /* of the site */
	unsigned serialized; /* after the last one */
	unsigned long steps;
	bool complete;
};

/* The site's bytes as the child has them tell that it was written to, whatever by. */
static struct watched watch(pid_t child)
{
	struct watched seen = {0};
	struct user_regs_struct regs;
	unsigned marks = 0;
	long site = 0;
	int status;

	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status) && seen.steps < 1000000) {
		long word, now;

		CHECK_EQ(ptrace(PTRACE_GETREGS, child, NULL, &regs), 0);
		word = ptrace(PTRACE_PEEKTEXT, child, (void *)XP_USER_IP(regs), NULL);
		if (calls_system((const uint8_t *)&word) && XP_USER_AX(regs) == SYS_getpgrp && ++marks == 2) {
			seen.complete = true;
			break;
		}
		now = ptrace(PTRACE_PEEKTEXT, child, subject.site, NULL);
		if (marks == 1 && now != site) {
			seen.writes++;
			seen.serialized = 0;
		}
		site = now;
		seen.serialized += marks == 1 && serializes((const uint8_t *)&word);
		seen.steps++;
		if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL))
			break;
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	return seen;
}

static void check_watched(enum xp_policy with_policy, enum xp_writer with_writer)
{
	struct watched seen;
	pid_t child;

	policy = with_policy;
	writer = with_writer;
	fflush(stdout);
	child = fork();
	if (child == 0) {
		alarm(XP_CHILD_SECONDS);
		be_watched();
	}
	seen = watch(child);
	XP_TEST_NOTE("%lu instructions", seen.steps);
	CHECK(seen.complete);
	CHECK(seen.writes > 0);
	CHECK(seen.serialized > 0);
}

XP_TEST(early)
{
	REQUIRE(subject_make(&subject));
	check_watched(XP_POLICY_EARLY, XP_WRITER_PROCMEM);
	check_watched(XP_POLICY_EARLY, XP_WRITER_MPROTECT);
}

XP_TEST(quiesce)
{
	REQUIRE(subject_make(&subject));
	check_watched(XP_POLICY_QUIESCE, XP_WRITER_PROCMEM);
	check_watched(XP_POLICY_QUIESCE, XP_WRITER_MPROTECT);
}

XP_TEST_MAIN()
