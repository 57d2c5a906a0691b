// SPDX-License-Identifier: MIT
/* Codes have each their own number and sentence; a diagnostic becomes one line, whatever the room for it. */
#include "xp_test.h"

#include <crosspatch/error.h>
#include <ctype.h>
#include <errno.h>

static const struct {
	int number;
	const char *name;
} codes[] = {
#define CODE(name, number, text) {number, #name},
	XP_ERRORS(CODE)
#undef CODE
};

#define NR_CODES (sizeof(codes) / sizeof(codes[0]))

XP_TEST(every_code_has_its_own_number_and_sentence)
{
	for (size_t i = 0; i < NR_CODES; i++) {
		const char *text = xp_strerror(codes[i].number);

		CHECK(codes[i].number > 4200); /* above every errno */
		CHECK(strlen(text) > 10);
		CHECK_STR(text, xp_strerror(-codes[i].number));
		CHECK(strcmp(text, xp_strerror(99999)) != 0);
		for (size_t k = 0; k < i; k++) {
			CHECK(codes[i].number != codes[k].number);
			CHECK(strcmp(text, xp_strerror(codes[k].number)) != 0);
		}
	}
}

XP_TEST(sentences_fit_into_a_line)
{
	for (size_t i = 0; i < NR_CODES; i++)
		for (const char *at = xp_strerror(codes[i].number); *at; at++)
			CHECK(isprint((unsigned char)*at));
}

XP_TEST(other_numbers)
{
	CHECK_STR(xp_strerror(0), "success");
	CHECK_STR(xp_strerror(-ENOMEM), "out of memory");
	CHECK_STR(xp_strerror(EINVAL), "invalid argument");
	CHECK(strcmp(xp_strerror(-EBUSY), xp_strerror(-ENOMEM)) != 0);
	CHECK_STR(xp_strerror(-EXDEV), "the system refused");
	CHECK_STR(xp_strerror(-4200), "the system refused");
	CHECK_STR(xp_strerror(4200 + (int)NR_CODES + 1), "the system refused");
}

/* Of the system's, those that users meet have words of their own. */
XP_TEST(the_systems_numbers)
{
	static const int numbers[] = {EPERM,  EACCES, EROFS,  EADDRINUSE, EEXIST, ENOENT,   EMFILE,
				      ENFILE, ENOSPC, EAGAIN, ENOSYS,     EINTR,  ENOTCONN, ENAMETOOLONG};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		CHECK(strcmp(xp_strerror(-numbers[i]), xp_strerror(99999)) != 0);
		for (size_t k = 0; k < i; k++)
			CHECK(strcmp(xp_strerror(numbers[i]), xp_strerror(numbers[k])) != 0);
	}
	CHECK(strstr(xp_strerror(-EROFS), "read-only") && strstr(xp_strerror(EADDRINUSE), "another process"));
}

static const char *advice_for(int error)
{
	static char line[256];
	struct xp_diag diag = {.error = error, .phase = XP_PHASE_STORE};

	xp_diag_format(&diag, line, sizeof(line));
	return line;
}

XP_TEST(again_is_for_what_passes)
{
	CHECK(strstr(advice_for(-EMFILE), "undone, try again") && strstr(advice_for(-EAGAIN), "undone, try again"));
	CHECK(strstr(advice_for(-EPERM), "fails again") && strstr(advice_for(-XP_E_NOT_TEXT), "fails again"));
}

static struct xp_diag everything(void)
{
	return (struct xp_diag){
		.error = -XP_E_MISMATCH,
		.system = 13,
		.phase = XP_PHASE_VALIDATE,
		.tid = 4711,
		.site = (const void *)0xdeadbeef,
		.key = "tracing",
		.detail = "a detail",
		.len = 3,
		.expected = {0x0f, 0x1f, 0x00},
		.found = {0xcc, 0x01, 0xff},
	};
}

static const char whole[] = "the text at the site is not what was expected at 0xdeadbeef of key tracing: "
			    "expected 0f 1f 00, found cc 01 ff: thread 4711: a detail (errno 13); nothing was changed";

XP_TEST(a_diagnostic_says_all_it_has)
{
	struct xp_diag diag = everything();
	char line[400];

	CHECK_EQ(xp_diag_format(&diag, line, sizeof(line)), strlen(whole));
	CHECK_STR(line, whole);
}

XP_TEST(what_is_not_known_is_not_said)
{
	struct xp_diag diag = {.error = -XP_E_NO_SYNC, .phase = XP_PHASE_PREPARE};
	char line[400];

	xp_diag_format(&diag, line, sizeof(line));
	CHECK_STR(line, "no way to synchronize the other processors is available; nothing was changed");
	diag = (struct xp_diag){.error = 0};
	xp_diag_format(&diag, line, sizeof(line));
	CHECK_STR(line, "success");
}

XP_TEST(the_phase_says_what_to_do)
{
	static const struct {
		enum xp_phase phase;
		const char *end;
	} ends[] = {
		{XP_PHASE_VALIDATE, "; nothing was changed"},
		{XP_PHASE_PREPARE, "; nothing was changed"},
		{XP_PHASE_STORE, "; everything was undone; it fails again until the cause is gone"},
		{XP_PHASE_SYNC, "; everything was undone; it fails again until the cause is gone"},
		{XP_PHASE_ROLLBACK, "; undoing it failed too, patching is disabled until the process restarts"},
	};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct xp_diag diag = everything();
		char line[400];
		size_t len;

		diag.phase = ends[i].phase;
		len = xp_diag_format(&diag, line, sizeof(line));
		REQUIRE(len < sizeof(line));
		CHECK_STR(line + len - strlen(ends[i].end), ends[i].end);
	}
}

/* As snprintf: cut, terminated, nothing beyond, and always the length of the whole. */
XP_TEST(any_room_will_do)
{
	struct xp_diag diag = everything();
	char line[400];

	for (size_t size = 0; size < sizeof(whole) + 5; size++) {
		memset(line, '#', sizeof(line));
		CHECK_EQ(xp_diag_format(&diag, line, size), strlen(whole));
		CHECK_EQ(line[size], '#');
		if (size == 0)
			continue;
		CHECK_EQ(strlen(line), size <= strlen(whole) ? size - 1 : strlen(whole));
		CHECK(strncmp(line, whole, strlen(line)) == 0);
	}
	CHECK_EQ(xp_diag_format(&diag, NULL, 0), strlen(whole));
}

XP_TEST(the_longest_diagnostic)
{
	struct xp_diag diag = everything();
	char line[400];

	diag.len = XP_MAX_LEN;
	diag.tid = -2147483647 - 1;
	diag.site = (const void *)UINTPTR_MAX;
	memset(diag.found, 0xab, sizeof(diag.found));
	CHECK(xp_diag_format(&diag, line, sizeof(line)) < sizeof(line));
	CHECK(strstr(line, sizeof(void *) == 8 ? "at 0xffffffffffffffff" : "at 0xffffffff") != NULL);
	CHECK(strstr(line, "thread -2147483648") != NULL);
	CHECK(strstr(line, "ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab:") != NULL);
}

XP_TEST_MAIN()
