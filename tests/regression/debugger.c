// SPDX-License-Identifier: MIT
/*
 * Under gdb (S15): patched and unpatched sites are stepped over and disassembled, the next instruction is found
 * where it is; a breakpoint of the debugger's at a site is noticed and left alone, and patching works once it is
 * gone.
 *
 * This program is its own debuggee: gdb runs the child program below and prints what the test reads.
 */
#include "xp_child.h"
#include "xp_subject.h"
#ifdef __i386__
#include "xp_far.h"
#endif

#include <fcntl.h>

/* gdb stops in these; their arguments are what it prints. */
extern volatile uintptr_t debuggee_site, debuggee_next, debuggee_target, debuggee_key;
extern volatile int debuggee_error;
volatile uintptr_t debuggee_site, debuggee_next, debuggee_target, debuggee_key;
volatile int debuggee_error;

__attribute__((noinline, used)) void debuggee_stop(void);
void debuggee_stop(void)
{
	__asm__ volatile("" ::: "memory");
}

XP_CHILD_PROGRAM(debuggee)
{
	const struct xp_branch_site *site = __start_xp_branch_sites;
	struct subject s;

	REQUIRE(subject_make(&s));
	debuggee_key = (uintptr_t)&site->code + (uintptr_t)(intptr_t)site->code;
	debuggee_site = (uintptr_t)s.site;
	debuggee_next = (uintptr_t)s.site + SUBJECT_LEN;
	debuggee_target = (uintptr_t)s.site + SUBJECT_LEN + 6;
	(void)subject_key_site();
	debuggee_stop(); /* 1: unpatched */
	(void)subject_call(&s);
	CHECK_EQ(xp_text_poke(&s.on, NULL), 0);
	debuggee_stop(); /* 2: patched */
	(void)subject_call(&s);
	CHECK_EQ(xp_text_poke(&s.off, NULL), 0);
	debuggee_stop(); /* 3: gdb puts a breakpoint there */
	debuggee_error = xp_text_poke(&s.on, NULL);
	debuggee_stop(); /* 4: and takes it away */
	debuggee_error = xp_text_poke(&s.on, NULL);
	debuggee_stop(); /* 5 */
	CHECK_EQ(subject_call(&s), SUBJECT_ON);
	/* The library's own handler, with a debugger attached. */
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_text_poke(&s.off, NULL), 0);
	CHECK_EQ(subject_call(&s), SUBJECT_OFF);
	debuggee_stop(); /* 6 */
}

/*
 * Stepping one instruction from a temporary breakpoint at the site; then, at the next stop, two instructions
 * listed.
 */
static const char script[] = "set pagination off\n"
			     "set confirm off\n"
			     "set debuginfod enabled off\n"
			     "set environment XP_CHILD=debuggee\n"
			     "break debuggee_stop\n"
			     "run\n"
			     "set $site = debuggee_site\n"
			     "set $next = debuggee_next\n"
			     "set $target = debuggee_target\n"
			     "printf \"listed-unpatched \"\n"
			     "x/2i $site\n"
			     "tbreak *$site\n"
			     "continue\n"
			     "stepi\n"
			     "printf \"stepped-unpatched %d\\n\", $pc == $next\n"
			     "continue\n"
			     "printf \"listed-patched \"\n"
			     "x/2i $site\n"
			     "tbreak *$site\n"
			     "continue\n"
			     "stepi\n"
			     "printf \"stepped-patched %d\\n\", $pc == $target\n"
			     "continue\n"
			     "set breakpoint always-inserted on\n"
			     "break *$site\n"
			     "continue\n"
			     "printf \"with-breakpoint %d\\n\", debuggee_error\n"
			     "delete 4\n"
			     "continue\n"
			     "printf \"without-breakpoint %d\\n\", debuggee_error\n"
			     "continue\n"
			     "printf \"listed-key \"\n"
			     "x/2i debuggee_key\n"
			     "continue\n"
			     "printf \"exit-status %d\\n\", $_exitcode\n";

static char said[65536];

/* What gdb printed, all of it. */
static bool run_gdb(const char *commands)
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
		alarm(40);
		execlp("gdb", "gdb", "-nx", "-batch", "-x", name, self, (char *)NULL);
		_exit(127);
	}
	close(pipe_[1]);
	while ((len = read(pipe_[0], said + filled, sizeof(said) - 1 - filled)) > 0)
		filled += (size_t)len;
	close(pipe_[0]);
	close(file);
	waitpid(child, &status, 0);
	unlink(name);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The line that begins with @label says @what. */
static bool says(const char *label, const char *what)
{
	const char *at = strstr(said, label), *end;

	if (at == NULL)
		return false;
	end = strchr(at, '\n');
	at = strstr(at, what);
	return at && end && at < end;
}

/* The second of two listed instructions stands at site + 5. */
static bool lists_two(const char *label, const char *first)
{
	const char *at = strstr(said, label), *line;
	uintptr_t site, next;

	if (at == NULL)
		return false;
	at += strlen(label);
	site = strtoull(at, NULL, 16);
	line = strchr(at, '\n');
	if (line == NULL || strstr(at, first) == NULL || strstr(at, first) > line)
		return false;
	next = strtoull(line + 1 + strspn(line + 1, " =>"), NULL, 16);
	return site != 0 && next == site + SUBJECT_LEN;
}

static bool gdb_is_there(void)
{
	return WEXITSTATUS(system("command -v gdb >/dev/null 2>&1")) == 0;
}

XP_TEST(gdb_steps_lists_and_breaks)
{
	bool ran;

	if (!gdb_is_there())
		SKIP("no gdb");
	ran = run_gdb(script);
	CHECK(ran);
	CHECK(lists_two("listed-unpatched ", "nop"));
	CHECK(says("stepped-unpatched", " 1"));
	CHECK(lists_two("listed-patched ", "jmp"));
	CHECK(says("stepped-patched", " 1"));
	CHECK(says("with-breakpoint", " -16"));
	CHECK(says("without-breakpoint", " 0"));
	CHECK(lists_two("listed-key ", "test"));
	CHECK(strstr(said, "(bad)") == NULL);
	CHECK(says("exit-status", " 0"));
	if (xp_test_state.failures) {
		for (char *line = strtok(said, "\n"); line; line = strtok(NULL, "\n"))
			XP_TEST_NOTE("gdb: %s", line);
	}
}

#ifdef __i386__

/* ---- far gates: unbound, bound, withdrawn ---- */

extern volatile uintptr_t debuggee_far[XP_NR_FAR_CASES];
volatile uintptr_t debuggee_far[XP_NR_FAR_CASES];

static void call_each(void)
{
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++) {
		uint32_t value = 0;

		(void)xp_far_call(&xp_far_cases[n], 0, &value);
	}
}

XP_CHILD_PROGRAM(far_debuggee)
{
	debuggee_error = xp_far_start();
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		debuggee_far[n] = (uintptr_t)xp_far_site(&xp_far_cases[n], 0);
	for (unsigned n = 0; n < XP_NR_FAR_CASES && !debuggee_error; n++)
		debuggee_error = xp_gate_far_provide(xp_far_cases[n].gate, xp_far_selector(&xp_far_cases[n], 0),
						     xp_far_offset(&xp_far_cases[n], 0));
	debuggee_stop(); /* 1 */
	REQUIRE(debuggee_error == 0);
	call_each();
	debuggee_stop(); /* 2 */
	call_each();
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		CHECK_EQ(xp_gate_far_withdraw(xp_far_cases[n].gate), 0);
	debuggee_stop(); /* 3 */
	call_each();
}

/* The site is listed, and an instruction where it ends. */
static bool lists_far(unsigned state, unsigned n)
{
	uintptr_t site = 0, end = 0;
	bool found = false;
	char label[32];
	const char *at;

	snprintf(label, sizeof(label), "listed %u %u:", state, n);
	at = strstr(said, label);
	for (unsigned i = 0; at && i < 4; i++) {
		uintptr_t here;

		at = strchr(at, '\n');
		at = at ? at + 1 : NULL;
		here = at ? strtoull(at + strspn(at, " =>"), NULL, 16) : 0;
		if (i == 0) {
			site = here;
			end = site + xp_far_cases[n].len;
		}
		found = found || (i > 0 && here == end);
	}
	return found;
}

/*
 * Gdb knows no bases: it steps where offsets are addresses, in the flat segment, the last case. It lists no 16-bit code in
 * a 32-bit process either: of that it takes a copy, for objdump, which has the same disassembler.
 */
XP_TEST(gdb_finds_what_comes_behind_far_sites)
{
	static char text[16384];
	char copy[] = "/tmp/crosspatch-test-XXXXXX";
	int file = mkstemp(copy);
	const unsigned flat = XP_NR_FAR_CASES - 1;
	size_t at = 0;
	bool ran;

	if (!gdb_is_there())
		SKIP("no gdb");
#define SAY(...) (at += (size_t)snprintf(text + at, sizeof(text) - at, __VA_ARGS__))
	SAY("set pagination off\nset confirm off\nset debuginfod enabled off\nset environment XP_CHILD=far_debuggee\n"
	    "handle SIGSEGV nostop noprint pass\nbreak debuggee_stop\nrun\nprintf \"segments %%d\\n\", debuggee_error\n");
	for (unsigned state = 0; state < 3; state++) {
		for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
			if (xp_far_cases[n].segment == &xp_far_code16)
				SAY("printf \"listed %u %u:\\n\"\ndump binary memory %s debuggee_far[%u] debuggee_far[%u]+16\n"
				    "shell objdump -D -b binary -m i386 -M i8086 %s | grep '^ *[0-9a-f]*:'\n",
				    state, n, copy, n, n, copy);
			else
				SAY("printf \"listed %u %u:\\n\"\nx/4i debuggee_far[%u]\n", state, n, n);
		SAY("tbreak *debuggee_far[%u]\ncontinue\ntbreak *(debuggee_far[%u] + %u)\ncontinue\n"
		    "printf \"stepped %u %%d\\n\", $pc == debuggee_far[%u] + %u\ncontinue\n",
		    flat, flat, xp_far_cases[flat].len, state, flat, xp_far_cases[flat].len);
	}
	SAY("printf \"exit-status %%d\\n\", $_exitcode\n");
	memset(said, 0, sizeof(said));
	ran = file >= 0 && run_gdb(text);
	close(file);
	unlink(copy);
	if (says("segments", " 1"))
		SKIP("this system gives no descriptors (modify_ldt)");
	CHECK(ran);
	for (unsigned state = 0; state < 3; state++) {
		char label[32];

		for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
			CHECK(lists_far(state, n));
		snprintf(label, sizeof(label), "stepped %u", state);
		CHECK(says(label, " 1"));
	}
	CHECK(strstr(said, "(bad)") == NULL);
	CHECK(says("exit-status", " 0"));
	if (xp_test_state.failures) {
		for (char *line = strtok(said, "\n"); line; line = strtok(NULL, "\n"))
			XP_TEST_NOTE("gdb: %s", line);
	}
}

#endif

XP_CHILD_MAIN()
