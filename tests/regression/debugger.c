// SPDX-License-Identifier: MIT
/*
 * Under gdb (S15): patched and unpatched sites are stepped over and disassembled, the next instruction is found
 * where it is; a breakpoint of the debugger's at a site is noticed and left alone, and patching works once it is
 * gone.
 *
 * This program is its own debuggee: gdb runs the child program below and prints what the test reads.
 */
#include "xp_child.h"
#include "xp_gdb.h"
#include "xp_subject.h"

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
static const char script[] = XP_GDB_QUIETLY
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

/* The second of two listed instructions stands at site + 5. */
static bool lists_two(const char *label, const char *first)
{
	const char *at = strstr(xp_gdb_said, label), *line;
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

XP_TEST(gdb_steps_lists_and_breaks)
{
	bool ran;

	if (!xp_gdb_is_there())
		SKIP("no gdb");
	ran = xp_gdb_run(script, 40);
	CHECK(ran);
	CHECK(lists_two("listed-unpatched ", "nop"));
	CHECK(xp_gdb_says("stepped-unpatched", " 1"));
	CHECK(lists_two("listed-patched ", "jmp"));
	CHECK(xp_gdb_says("stepped-patched", " 1"));
	CHECK(xp_gdb_says("with-breakpoint", " -16"));
	CHECK(xp_gdb_says("without-breakpoint", " 0"));
	CHECK(lists_two("listed-key ", "test"));
	CHECK(strstr(xp_gdb_said, "(bad)") == NULL);
	CHECK(xp_gdb_says("exit-status", " 0"));
	xp_gdb_tell();
}

XP_CHILD_MAIN()
