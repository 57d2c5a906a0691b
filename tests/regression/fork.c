// SPDX-License-Identifier: MIT
/* Children of fork, however made: each patches its own text and no other. */
#include "xp_child.h"
#include "xp_subject.h"

static struct subject subject;

static void patch_as_child(void)
{
	CHECK_EQ(subject_call(&subject), SUBJECT_OFF);
	CHECK_EQ(xp_text_poke(&subject.on, NULL), 0);
	CHECK_EQ(subject_call(&subject), SUBJECT_ON);
	CHECK_EQ(xp_static_branch_enable(&subject_key), 0);
	CHECK(subject_key_site());
}

static void patch_as_parent_of_one(void)
{
	xp_child(patch_as_child);
	CHECK(subject_works(&subject));
	key_works();
}

/* Without the handlers that fork runs: the library notices by itself. */
static void patch_as_raw_child(void)
{
	int status = -1;
	pid_t child;

	fflush(stdout);
	child = _Fork();
	if (child == 0) {
		alarm(XP_CHILD_SECONDS);
		patch_as_child();
		fflush(stdout);
		_exit(xp_test_state.failures != 0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void check_fork(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	CHECK_EQ(xp_set_policy(policy), 0);
	CHECK_EQ(xp_set_writer(writer), 0);
	CHECK_EQ(xp_set_sync(sync), 0);
	REQUIRE(subject_make(&subject));
	CHECK(subject_works(&subject));
	xp_child(patch_as_child);
	CHECK(subject_is(&subject, subject.nop));
	CHECK(!subject_key_site());
	xp_child(patch_as_parent_of_one);
	CHECK(subject_is(&subject, subject.nop));
	patch_as_raw_child();
	CHECK(subject_is(&subject, subject.nop));
	CHECK(!subject_key_site());
	CHECK(subject_works(&subject));
	key_works();
	xp_text_free(&subject.text);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	CHECK_EQ(xp_set_sync(XP_SYNC_AUTO), 0);
}

XP_TEST(child_patches_itself)
{
	check_fork(XP_POLICY_AUTO, XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER);
	check_fork(XP_POLICY_BREAKPOINT, XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER);
	check_fork(XP_POLICY_BREAKPOINT, XP_WRITER_MPROTECT, XP_SYNC_SIGNAL);
	check_fork(XP_POLICY_QUIESCE, XP_WRITER_PROCMEM, XP_SYNC_AUTO);
}

XP_TEST_MAIN()
