// SPDX-License-Identifier: MIT
/* What a commit asks the system about many sites: once, and again when the answer may have changed (maps.c). */
#include "xp_child.h"
#include "xp_count_calls.h"
#include "xp_test.h"
#include "xp_text.h"

#include "core/state.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <crosspatch/port.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FEW = 10, MANY = 1000, LEN = 5, SERVES = 1024 };

static const uint8_t nop[LEN] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static const uint8_t jump[LEN] = {0xe9, 0x00, 0x00, 0x00, 0x00};
static struct xp_text text;
static size_t nr_sites;

static bool make(size_t nr)
{
	if (!xp_text_alloc(&text, nr * LEN))
		return false;
	for (size_t i = 0; i < nr; i++)
		memcpy(text.base + i * LEN, nop, LEN);
	return xp_text_seal(&text);
}

static void add(struct xp_batch *batch, size_t i, const uint8_t *from, const uint8_t *to)
{
	const struct xp_poke poke = {.addr = text.base + i * LEN, .len = LEN, .expect = from, .replace = to};

	CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
}

/* ---- how often ---- */

static XP_DEFINE_STATIC_KEY_FALSE(first_key);

static __attribute__((noinline)) int first_site(void)
{
	return xp_static_branch_unlikely(&first_key) ? 2 : 1;
}

static void switch_once(void)
{
	syscall(SYS_getppid);
	CHECK_EQ(xp_static_branch_enable(&first_key), 0);
	syscall(SYS_getppid);
	CHECK_EQ(first_site(), 2);
}

extern char __libc_single_threaded __attribute__((weak));

/* Before any other case, or it is not the first: the writer is chosen, and shown to have an effect, once. */
XP_TEST(calls_of_the_first_switch)
{
	long nr = xp_count_calls(switch_once);

	XP_TEST_NOTE("%ld calls", nr);
	/* Three more for a high number where libc does not tell that there is one thread. */
	CHECK(nr < 0 || nr <= (&__libc_single_threaded ? 16 : 19));
}

static void commit_sites(void)
{
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;

	REQUIRE(batch && make(nr_sites));
	add(batch, 0, nop, jump);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	add(batch, 0, jump, nop);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	for (size_t i = 0; i < nr_sites; i++)
		add(batch, i, nop, jump);
	syscall(SYS_getppid);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	syscall(SYS_getppid);
	for (size_t i = 0; i < nr_sites; i++)
		CHECK(memcmp(text.base + i * LEN, jump, LEN) == 0);
}

XP_TEST(calls_do_not_depend_on_the_number_of_raw_sites)
{
	long few, many;

	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	nr_sites = FEW;
	few = xp_count_calls(commit_sites);
	nr_sites = MANY;
	many = xp_count_calls(commit_sites);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	XP_TEST_NOTE("%ld calls for %d sites, %ld for %d", few, FEW, many, MANY);
	if (few < 0) {
		XP_TEST_NOTE("no process may be traced here");
		return;
	}
	CHECK(few > 0 && many > 0);
	/* Larger blocks of memory come from the system, and the text has two pages. */
	CHECK(many <= few + 12);
}

/* Of equal changes some are one store, some need a breakpoint, as they lie in their quadwords. */
static void all_places_of_a_quadword(void)
{
	enum { PLACES = 16 };
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;

	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	REQUIRE(batch && make(PLACES));
	for (int back = 0; back < 2; back++) {
		for (size_t i = 0; i < PLACES; i++)
			add(batch, i, back ? jump : nop, back ? nop : jump);
		CHECK_EQ(xp_batch_commit(batch, &diag), 0);
		for (size_t i = 0; i < PLACES; i++)
			CHECK(memcmp(text.base + i * LEN, back ? nop : jump, LEN) == 0);
	}
	xp_batch_free(batch);
}

XP_TEST(equal_changes_at_all_places_of_a_quadword)
{
	xp_child(all_places_of_a_quadword);
}

/* ---- for how long ---- */

static int check(size_t i)
{
	return xp__port->text_check(text.base + i * LEN, LEN);
}

/* The mapping goes while a commit that asked about it is prepared. @now: what takes its place. */
static int prepare_after(void (*now)(void), unsigned questions, struct xp_diag *diag)
{
	int error;

	memset(diag, 0, sizeof(*diag));
	CHECK_EQ(xp__port->lock(), 0);
	for (unsigned i = 0; i < questions; i++)
		CHECK_EQ(check(i), 0);
	now();
	error = xp__port->prepare(XP_NEED_SYNC, diag);
	xp__port->unlock();
	return error;
}

static void gone(void)
{
	CHECK_EQ(munmap(text.base, text.size), 0);
}

static void not_text(void)
{
	CHECK_EQ(mprotect(text.base, text.size, PROT_READ), 0);
}

/* The same text, and more behind it that the system joins with it. */
static void longer(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	CHECK(mmap(text.base + text.size, XP_TEXT_PAGE, PROT_READ | PROT_EXEC, flags, -1, 0) != MAP_FAILED);
}

static int files[2];

static void map_file(int nr, off_t offset)
{
	CHECK(mmap(text.base, text.size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, files[nr], offset) ==
	      (void *)text.base);
}

static void another_file(void)
{
	map_file(1, 0);
}

static void another_place(void)
{
	map_file(0, XP_TEXT_PAGE);
}

static void same_file(void)
{
	map_file(0, 0);
}

static bool make_files(void)
{
	for (int i = 0; i < 2; i++) {
		files[i] = memfd_create("text", 0);
		if (files[i] < 0 || ftruncate(files[i], 2 * XP_TEXT_PAGE))
			return false;
		for (size_t at = 0; at + LEN <= 2 * XP_TEXT_PAGE; at += LEN)
			if (pwrite(files[i], nop, LEN, (off_t)at) != LEN)
				return false;
	}
	return true;
}

XP_TEST(what_changes_while_a_commit_is_prepared)
{
	struct xp_diag diag;

	REQUIRE(make(FEW));
	CHECK_EQ(prepare_after(longer, 2, &diag), 0);
	CHECK_EQ(prepare_after(not_text, 2, &diag), -XP_E_NOT_TEXT);
	CHECK(diag.site == text.base && diag.detail && strstr(diag.detail, "changed while"));
	CHECK(xp_text_seal(&text));
	CHECK_EQ(prepare_after(gone, 2, &diag), -XP_E_NOT_TEXT);
	CHECK(diag.site == text.base);
	text.base = NULL;
	/* Nothing is left of what was found before. */
	CHECK_EQ(xp__port->lock(), 0);
	CHECK_EQ(xp__port->prepare(XP_NEED_SYNC, &diag), 0);
	xp__port->unlock();
}

static void replaced(void)
{
	struct xp_diag diag;

	REQUIRE(make(FEW) && make_files());
	map_file(0, 0);
	CHECK_EQ(prepare_after(same_file, 2, &diag), 0);
	CHECK_EQ(prepare_after(another_place, 2, &diag), -XP_E_NOT_TEXT);
	map_file(0, 0);
	CHECK_EQ(prepare_after(another_file, 2, &diag), -XP_E_NOT_TEXT);
	CHECK(diag.site == text.base);
	close(files[0]);
	close(files[1]);
	xp_text_free(&text);
}

/* Before Linux 6.11 no system call asks for one mapping: the file of all is read. */
static void replaced_by_the_text_of_maps(void)
{
	REQUIRE(xp_child_filter(SYS_ioctl, SECCOMP_RET_ERRNO | ENOTTY, 0));
	replaced();
}

XP_TEST(another_file_in_the_place)
{
	xp_child(replaced);
	xp_child(replaced_by_the_text_of_maps);
}

XP_TEST(an_answer_does_not_serve_for_ever)
{
	int error = 0, nr = 0;

	REQUIRE(make(FEW));
	CHECK_EQ(xp__port->lock(), 0);
	CHECK_EQ(check(0), 0);
	CHECK_EQ(check(1), 0);
	CHECK_EQ(xp__port->text_check(text.base + text.size - 1, 1), 0);
	CHECK_EQ(xp__port->text_check(text.base + text.size - 1, 2), -XP_E_NOT_TEXT);
	CHECK_EQ(xp__port->text_check(text.base - 1, 2), -XP_E_NOT_TEXT);
	not_text();
	while (error == 0 && nr <= SERVES) {
		error = check(2);
		nr++;
	}
	xp__port->unlock();
	CHECK_EQ(error, -XP_E_NOT_TEXT);
	xp_text_free(&text);
}

/* Refused before the port is asked to prepare: what was found goes with the lock. */
static void unmapped_between_commits(void)
{
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;

	REQUIRE(batch && make(FEW));
	for (size_t i = 0; i < FEW; i++)
		add(batch, i, i == FEW - 1 ? jump : nop, i == FEW - 1 ? nop : jump);
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_MISMATCH);
	gone();
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_NOT_TEXT);
	CHECK(diag.site == text.base);
	xp_batch_free(batch);
	/* Between the adding and the commit. */
	batch = xp_batch_new();
	REQUIRE(batch && make(FEW));
	for (size_t i = 0; i < FEW; i++)
		add(batch, i, nop, jump);
	gone();
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_NOT_TEXT);
	xp_batch_free(batch);
}

XP_TEST(unmapped_text_is_not_touched)
{
	xp_child(unmapped_between_commits);
}

/* Of sites that are asked about together, one is other processes' too. */
static void shared_behind_private(void)
{
	enum { FIRST = XP_TEXT_PAGE / LEN + 1 };
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;

	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	REQUIRE(batch && make(2 * FIRST) && make_files());
	CHECK(mmap(text.base + XP_TEXT_PAGE, XP_TEXT_PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, files[0],
		   XP_TEXT_PAGE) != MAP_FAILED);
	for (size_t i = 0; i < 10; i++)
		add(batch, i, nop, jump);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	for (size_t i = 0; i < 10; i++)
		add(batch, i, jump, nop);
	/* The file has its nops from its first byte on. */
	for (size_t at = 2 * XP_TEXT_PAGE / LEN * LEN - 4 * LEN; at < 2 * XP_TEXT_PAGE - LEN; at += LEN) {
		const struct xp_poke poke = {.addr = text.base + at, .len = LEN, .expect = nop, .replace = jump};

		CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	}
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_NO_METHOD);
	CHECK((const uint8_t *)diag.site >= text.base + XP_TEXT_PAGE);
	CHECK(memcmp(text.base, jump, LEN) == 0);
	xp_batch_free(batch);
}

XP_TEST(shared_text_behind_private)
{
	xp_child(shared_behind_private);
}

/* More mappings than are remembered, in turn. */
XP_TEST(many_mappings)
{
	enum { MAPPINGS = 11 };
	struct xp_text texts[MAPPINGS];
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;

	REQUIRE(batch != NULL);
	for (int i = 0; i < MAPPINGS; i++) {
		REQUIRE(make(FEW));
		texts[i] = text;
	}
	for (size_t site = 0; site < FEW; site++)
		for (int i = 0; i < MAPPINGS; i++) {
			text = texts[i];
			add(batch, site, nop, jump);
		}
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	for (int i = 0; i < MAPPINGS; i++) {
		for (size_t site = 0; site < FEW; site++)
			CHECK(memcmp(texts[i].base + site * LEN, jump, LEN) == 0);
		xp_text_free(&texts[i]);
	}
	xp_batch_free(batch);
}

XP_TEST_MAIN()
