// SPDX-License-Identifier: MIT
/* Text that is not what it should be: the precise error, in words that say where, and nothing changed. */
#include "xp_child.h"
#include "xp_subject.h"

#include "core/commit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

/* As a debugger writes: past the protection of the page. */
static bool force(const void *addr, const void *bytes, size_t len)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	bool done = fd >= 0 && pwrite(fd, bytes, len, (off_t)(uintptr_t)addr) == (ssize_t)len;

	close(fd);
	return done;
}

static const uint8_t int3 = 0xcc;

XP_TEST(foreign_breakpoint_at_a_raw_site)
{
	struct subject s;
	struct xp_diag diag;

	REQUIRE(subject_make(&s));
	REQUIRE(force(s.site, &int3, 1));
	subject_refused(&s, &s.on, -EBUSY, XP_PHASE_VALIDATE, "breakpoint");
	CHECK_EQ(xp_text_poke(&s.on, &diag), -EBUSY);
	CHECK(diag.site == s.site);
	CHECK_EQ(diag.len, SUBJECT_LEN);
	CHECK_EQ(diag.found[0], 0xcc);
	CHECK_MEM(diag.expected, s.nop, SUBJECT_LEN);
	REQUIRE(force(s.site, s.nop, 1));
	CHECK(subject_works(&s));
	xp_text_free(&s.text);
}

XP_TEST(foreign_breakpoint_at_a_key)
{
	const struct xp_branch_site *site = __start_xp_branch_sites;
	uint8_t *code = (uint8_t *)((uintptr_t)&site->code + (uintptr_t)(intptr_t)site->code), first = *code;
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;
	struct subject s;

	CHECK_EQ(__stop_xp_branch_sites - __start_xp_branch_sites, 1);
	REQUIRE(subject_make(&s));
	REQUIRE(force(code, &int3, 1));
	CHECK_EQ(xp_static_branch_enable(&subject_key), -EBUSY);
	CHECK_EQ(xp_static_branch_inc(&subject_key), -EBUSY);
	CHECK_EQ(xp_static_key_count(&subject_key), 0);
	/* With a good poke in the same batch: all or nothing, and it may be committed again. */
	CHECK_EQ(xp_batch_add_poke(batch, &s.on), 0);
	CHECK_EQ(xp_batch_add_key(batch, &subject_key.key, true), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -EBUSY);
	CHECK(diag.site == code);
	CHECK_STR(diag.key, "subject_key");
	CHECK(subject_is(&s, s.nop));
	REQUIRE(force(code, &first, 1));
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	CHECK_EQ(subject_call(&s), SUBJECT_ON);
	CHECK(subject_key_site());
	CHECK_EQ(xp_static_branch_disable(&subject_key), 0);
	xp_batch_free(batch);
	key_works();
	xp_text_free(&s.text);
}

XP_TEST(other_bytes)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	subject_refused(&s, &s.off, -XP_E_MISMATCH, XP_PHASE_VALIDATE, "expected");
	CHECK(subject_works(&s));
	xp_text_free(&s.text);
}

XP_TEST(nothing_mapped)
{
	struct subject s;
	struct xp_poke poke;

	REQUIRE(subject_make(&s));
	poke = s.on;
	poke.addr = s.text.base + s.text.size; /* the page behind */
	subject_refused(&s, &poke, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "executable");
	poke.addr = s.text.base + s.text.size - 2; /* its last three bytes */
	subject_refused(&s, &poke, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "executable");
	poke.addr = (void *)1;
	subject_refused(&s, &poke, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "0x1");
	poke.addr = (void *)(UINTPTR_MAX - 2); /* wraps around */
	subject_refused(&s, &poke, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "executable");
	poke.addr = NULL;
	subject_refused(&s, &poke, -EINVAL, XP_PHASE_VALIDATE, "invalid");
	xp_text_free(&s.text);
}

XP_TEST(not_executable)
{
	static uint8_t data[2 * SUBJECT_LEN];
	struct subject s;
	struct xp_poke poke;

	REQUIRE(subject_make(&s));
	poke = s.on;
	poke.addr = data;
	memcpy(data, s.nop, SUBJECT_LEN);
	subject_refused(&s, &poke, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "executable");
	CHECK_MEM(data, s.nop, SUBJECT_LEN);
	xp_text_free(&s.text);
}

XP_TEST(execute_only)
{
	struct subject s;
	struct xp_diag diag;

	REQUIRE(subject_make(&s));
	REQUIRE(mprotect(s.text.base, s.text.size, PROT_EXEC) == 0);
	/* Not read either: with protection keys that would be a fault. */
	CHECK_EQ(xp_text_poke(&s.on, &diag), -XP_E_NOT_TEXT);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK_EQ(subject_call(&s), SUBJECT_OFF);
	REQUIRE(xp_text_seal(&s.text));
	CHECK(subject_works(&s));
	xp_text_free(&s.text);
}

XP_TEST(overlap)
{
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;
	struct subject s;
	struct xp_poke second;

	REQUIRE(subject_make(&s));
	second = s.on;
	/* Twice the same, and one that begins in the middle of the other. */
	for (unsigned by = 0; by < 2; by++) {
		second.addr = s.site + by * 4;
		second.expect = s.site + by * 4;
		CHECK_EQ(xp_batch_add_poke(batch, &s.on), 0);
		CHECK_EQ(xp_batch_add_poke(batch, &second), 0);
		/* The second half is no instruction of its own, but overlap may be found first or that. */
		CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_OVERLAP);
		CHECK(subject_is(&s, s.nop));
		xp_batch_free(batch);
		batch = xp_batch_new();
	}
	CHECK(subject_works(&s));
	xp_batch_free(batch);
	xp_text_free(&s.text);
}

/* ---- the first byte of a mapping: the trap path must not look before it (as it once did, for rseq) ---- */

static void late_at_the_first_byte(void)
{
	struct subject_runner runner = {0};
	struct xp_stats before, stats;
	struct timespec start, now;
	pthread_t thread;
	struct subject s;

	REQUIRE(subject_make_at(&s, 0));
	runner.subject = &s;
	REQUIRE_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, subject_run, &runner), 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	xp_stats_read(&before);
	do {
		for (unsigned i = 0; i < 10; i++) {
			CHECK_EQ(xp_text_poke(&s.on, NULL), 0);
			CHECK_EQ(xp_text_poke(&s.off, NULL), 0);
		}
		xp_stats_read(&stats);
		stats.traps -= before.traps;
		stats.late_traps -= before.late_traps;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (stats.late_traps < 5 && now.tv_sec - start.tv_sec < 10);
	__atomic_store_n(&runner.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	XP_TEST_NOTE("traps %llu, late %llu", (unsigned long long)stats.traps, (unsigned long long)stats.late_traps);
	CHECK(stats.traps > 0 && stats.late_traps > 0 && runner.calls > 0);
	CHECK_EQ(runner.wrong, 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	xp_text_free(&s.text);
}

XP_TEST(first_byte_of_a_mapping)
{
	late_at_the_first_byte();
}

/* Where a filter kills for process_vm_readv, as those of service managers do: a late trap looks at text without it. */
static void without_vm_readv(void)
{
	REQUIRE(xp_child_filter(SYS_process_vm_readv, SECCOMP_RET_KILL_PROCESS, 0));
	late_at_the_first_byte();
}

XP_TEST(late_traps_where_a_filter_kills)
{
	xp_child(without_vm_readv);
}

/* ---- text that can be executed and not read: a protection key ---- */

XP_DEFINE_IMV(int, execute_only_value, 1);
XP_DEFINE_STATIC_SWITCH(execute_only_switch, 3, 0);

static __attribute__((noinline)) int value_site(void)
{
	return xp_imv_read(execute_only_value);
}

static __attribute__((noinline)) int switch_site(void)
{
	switch (xp_static_switch(&execute_only_switch)) {
	case 1:
		return 11;
	case 2:
		return 22;
	}
	return 0;
}

extern const char etext[];

static void all_execute_only(void)
{
	const uint8_t *code = (const uint8_t *)(uintptr_t)subject_key_site;
	uint8_t *start = (uint8_t *)((uintptr_t)code & ~(uintptr_t)4095),
		*end = (uint8_t *)(((uintptr_t)etext + 4095) & ~(uintptr_t)4095);
	struct xp_diag diag;
	struct subject s;
	int out[2];

	REQUIRE(subject_make(&s) && pipe(out) == 0);
	/* From the page of the first site: what is before may be no text. */
	if ((uintptr_t)value_site < (uintptr_t)start)
		start = (uint8_t *)((uintptr_t)value_site & ~(uintptr_t)4095);
	if ((uintptr_t)switch_site < (uintptr_t)start)
		start = (uint8_t *)((uintptr_t)switch_site & ~(uintptr_t)4095);
	REQUIRE_EQ(mprotect(start, (size_t)(end - start), PROT_EXEC), 0);
	if (write(out[1], code, 1) == 1) {
		XP_TEST_NOTE("no protection keys: what may be executed can be read");
		return;
	}
	for (int policy = XP_POLICY_AUTO; policy <= XP_POLICY_EARLY; policy++) {
		struct xp_batch *batch = xp_batch_new();

		CHECK_EQ(xp_set_policy((enum xp_policy)policy), 0);
		CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_NOT_TEXT);
		CHECK_EQ(xp_imv_set(execute_only_value, 2), -XP_E_NOT_TEXT);
		CHECK_EQ(xp_static_switch_set(&execute_only_switch, 2), -XP_E_NOT_TEXT);
		/* Nor to see whether it is what it should be. */
		CHECK_EQ(xp_imv_set(execute_only_value, 1), -XP_E_NOT_TEXT);
		CHECK_EQ(xp_static_switch_set(&execute_only_switch, 0), -XP_E_NOT_TEXT);
		CHECK_EQ(xp_repair(NULL), -XP_E_NOT_TEXT);
		/* All or nothing. */
		CHECK_EQ(xp_batch_add_poke(batch, &s.on), 0);
		CHECK_EQ(xp_batch_add_key(batch, &subject_key.key, true), 0);
		CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_NOT_TEXT);
		CHECK_STR(diag.key, "subject_key");
		CHECK(diag.detail && strstr(diag.detail, "cannot be read"));
		CHECK(subject_is(&s, s.nop));
		xp_batch_free(batch);
	}
	CHECK(!subject_key_site() && value_site() == 1 && switch_site() == 0);
	REQUIRE_EQ(mprotect(start, (size_t)(end - start), PROT_READ | PROT_EXEC), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	key_works();
	CHECK_EQ(xp_imv_set(execute_only_value, 2), 0);
	CHECK_EQ(xp_static_switch_set(&execute_only_switch, 2), 0);
	CHECK(value_site() == 2 && switch_site() == 22);
	CHECK(subject_works(&s));
}

XP_TEST(execute_only_sites)
{
	xp_child(all_execute_only);
}

/* What a commit remembers of pages that it was told can be read, in fewer places than there are pages. */
XP_TEST(pages_are_told_apart)
{
	enum { PLACES = 8, NR = 4 * PLACES };
	uintptr_t places[PLACES] = {0};
	struct xp__commit commit = {.pages = places, .nr_pages = PLACES};
	uint8_t *pages = mmap(NULL, NR * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(pages != MAP_FAILED);
	/* Of those that have the same place, every second is not there. */
	for (unsigned i = 0; i < NR; i++)
		if (i / PLACES % 2)
			CHECK_EQ(munmap(pages + i * 4096, 4096), 0);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned place = 0; place < PLACES; place++)
			for (unsigned i = place; i < NR; i += PLACES)
				CHECK_EQ(xp__commit_readable(&commit, (uintptr_t)pages + i * 4096 + 100, 5),
					 i / PLACES % 2 == 0);
	/* Across two pages. */
	CHECK(xp__commit_readable(&commit, (uintptr_t)pages + 4096 - 2, 5));
	CHECK(!xp__commit_readable(&commit, (uintptr_t)pages + PLACES * 4096 - 2, 5));
	CHECK(xp__commit_readable(&commit, (uintptr_t)pages + PLACES * 4096 - 5, 5));
}

/* ---- text that other processes execute, too; and pages that one of the writers cannot write ---- */

/* A nop of five bytes that changes by one. */
static const uint8_t one_byte[SUBJECT_LEN] = {0x0f, 0x1f, 0x44, 0x00, 0x01};

static bool map_again(struct subject *s, int flags, int fd)
{
	size_t size = s->text.size;
	uint8_t copy[4096];

	memcpy(copy, s->text.base, sizeof(copy));
	if (mmap(s->text.base, size, PROT_READ | PROT_WRITE, MAP_FIXED | flags, fd, 0) == MAP_FAILED)
		return false;
	memcpy(s->text.base, copy, sizeof(copy));
	return true;
}

static bool is_writable(const struct subject *s)
{
	int in[2];
	bool writable;

	/* The kernel says so. */
	if (pipe(in) || write(in[1], s->text.base, 1) != 1)
		return true;
	writable = read(in[0], s->text.base, 1) == 1;
	close(in[0]);
	close(in[1]);
	return writable;
}

static void one_store_works(const struct subject *s)
{
	struct xp_poke there = s->on, back = s->off;

	there.replace = back.expect = one_byte;
	CHECK_EQ(xp_text_poke(&there, NULL), 0);
	CHECK(subject_is(s, one_byte));
	CHECK_EQ(xp_text_poke(&back, NULL), 0);
	CHECK(subject_is(s, s->nop));
	CHECK(!is_writable(s));
}

static void shared_is_refused(int extra)
{
	struct xp_batch *batch = xp_batch_new();
	struct subject s, private;
	struct xp_poke flips[2];
	struct xp_diag diag;

	REQUIRE(subject_make(&s) && subject_make(&private));
	REQUIRE(map_again(&s, MAP_SHARED | MAP_ANONYMOUS, -1));
	REQUIRE_EQ(mprotect(s.text.base, s.text.size, PROT_READ | PROT_EXEC | extra), 0);
	for (int policy = XP_POLICY_AUTO; policy <= XP_POLICY_QUIESCE; policy++) {
		CHECK_EQ(xp_set_policy((enum xp_policy)policy), 0);
		subject_refused(&s, &s.on, -XP_E_NO_METHOD, XP_PHASE_PREPARE, "shared");
		/* Beside one that could be: nothing changes. */
		CHECK_EQ(xp_batch_add_poke(batch, &private.on), 0);
		CHECK_EQ(xp_batch_add_poke(batch, &s.on), 0);
		CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_NO_METHOD);
		CHECK(diag.site == s.site);
		CHECK(subject_is(&private, private.nop));
		xp_batch_free(batch);
		batch = xp_batch_new();
	}
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	if (extra == 0) {
		one_store_works(&s);
		/* Each mapping of one commit by the writer that can. */
		flips[0] = s.on;
		flips[1] = private.on;
		flips[0].replace = flips[1].replace = one_byte;
		for (unsigned i = 0; i < 2; i++)
			CHECK_EQ(xp_batch_add_poke(batch, &flips[i]), 0);
		CHECK_EQ(xp_batch_commit(batch, &diag), 0);
		CHECK(subject_is(&s, one_byte) && subject_is(&private, one_byte));
		CHECK(!is_writable(&s) && !is_writable(&private));
	}
	xp_batch_free(batch);
}

static void shared(void)
{
	shared_is_refused(0);
}

static void shared_and_writable(void)
{
	shared_is_refused(PROT_WRITE);
}

/* Of a file that was opened to be read: nothing may write there. */
static void shared_and_read_only(void)
{
	char name[] = "/tmp/crosspatch-test-XXXXXX";
	int file = mkstemp(name), again = open(name, O_RDONLY);
	struct xp_poke there;
	struct xp_diag diag;
	struct subject s;

	unlink(name);
	REQUIRE(file >= 0 && again >= 0 && subject_make(&s));
	REQUIRE(write(file, s.text.base, s.text.size) == (ssize_t)s.text.size);
	if (mmap(s.text.base, s.text.size, PROT_READ | PROT_EXEC, MAP_FIXED | MAP_SHARED, again, 0) == MAP_FAILED) {
		XP_TEST_NOTE("/tmp is mounted noexec");
		return;
	}
	there = s.on;
	there.replace = one_byte;
	CHECK(xp_text_poke(&there, &diag) < 0);
	CHECK(subject_is(&s, s.nop));
	CHECK_EQ(xp_state(), XP_STATE_READY);
	key_works();
}

/* Sites of a module: nothing asked about their mapping before. */
static void key_in_shared_text(void)
{
	uint8_t *page = (uint8_t *)((uintptr_t)subject_key_site & ~(uintptr_t)4095);
	const size_t size = 2 * 4096; /* the function may reach into the next page */
	int file = memfd_create("text", 0);
	uint8_t copy[2 * 4096];

	memcpy(copy, page, size);
	REQUIRE(file >= 0 && write(file, copy, size) == (ssize_t)size);
	REQUIRE(mmap(page, size, PROT_READ | PROT_EXEC, MAP_FIXED | MAP_SHARED, file, 0) != MAP_FAILED);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_NO_METHOD);
	CHECK(!subject_key_site());
	CHECK_MEM(page, copy, size);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	key_works();
}

XP_TEST(shared_text)
{
	xp_child(shared);
	xp_child(shared_and_writable);
	xp_child(shared_and_read_only);
	xp_child(key_in_shared_text);
}

static bool huge_page(struct subject *s)
{
	size_t size = 2u << 20;
	uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (map == MAP_FAILED)
		return false;
	memcpy(map + 8192, s->text.base, 4096);
	s->site = map + 8192 + (s->site - s->text.base);
	s->text.base = map;
	s->text.size = size;
	s->on.addr = s->off.addr = s->site;
	return xp_text_seal(&s->text);
}

static void on_a_huge_page(void)
{
	struct subject s;

	REQUIRE(subject_make(&s) && huge_page(&s));
	for (int writer = XP_WRITER_AUTO; writer <= XP_WRITER_MPROTECT; writer += XP_WRITER_MPROTECT) {
		CHECK_EQ(xp_set_writer((enum xp_writer)writer), 0);
		CHECK(subject_works(&s));
		one_store_works(&s);
	}
}

/* Reserves so many huge pages more; returns how many there were before, or -1. */
static int reserve_huge_pages(int more)
{
	FILE *file = fopen("/proc/sys/vm/nr_hugepages", "r+");
	int before = -1;

	if (file == NULL)
		return -1;
	if (fscanf(file, "%d", &before) == 1) {
		rewind(file);
		fprintf(file, "%d\n", before + more);
	}
	fclose(file);
	return before;
}

XP_TEST(huge_pages)
{
	bool reserved = reserve_huge_pages(2) >= 0, free_page;
	struct subject s;

	free_page = subject_make(&s) && huge_page(&s);
	if (free_page) {
		munmap(s.text.base, s.text.size);
		xp_child(on_a_huge_page);
	}
	if (reserved)
		reserve_huge_pages(-2);
	if (!free_page)
		SKIP("no huge page is free, nor to be had (/proc/sys/vm/nr_hugepages)");
}

/* ---- text with a protection key: threads may read it, handlers may not; or it may not be written, window or not ---- */

static bool give_key(const struct subject *s, unsigned long rights)
{
	long key = syscall(SYS_pkey_alloc, 0, rights);

	return key > 0 && syscall(SYS_pkey_mprotect, s->text.base, s->text.size, PROT_READ | PROT_EXEC, key) == 0;
}

static bool have_keys(void)
{
	long key = syscall(SYS_pkey_alloc, 0, 0);

	return key > 0 && syscall(SYS_pkey_free, key) == 0;
}

static void unreadable_for_handlers(void)
{
	struct subject s;

	REQUIRE(subject_make(&s) && give_key(&s, 0));
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	subject_refused(&s, &s.on, -XP_E_NOT_TEXT, XP_PHASE_PREPARE, "protection keys");
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	for (int writer = XP_WRITER_AUTO; writer <= XP_WRITER_MPROTECT; writer++) {
		CHECK_EQ(xp_set_writer((enum xp_writer)writer), 0);
		one_store_works(&s);
	}
	/* Whatever the thread itself may: what it may not is as before. */
	REQUIRE_EQ(syscall(SYS_pkey_mprotect, s.text.base, s.text.size, PROT_READ | PROT_EXEC, 0), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK(subject_works(&s));
}

XP_TEST(text_that_handlers_cannot_read)
{
	if (!have_keys())
		SKIP("the processor or the system has no protection keys");
	xp_child(unreadable_for_handlers);
}

static void window_that_lets_nothing_in(void)
{
	const unsigned long no_writing = 2; /* PKEY_DISABLE_WRITE */
	struct subject s;
	struct xp_poke poke;

	REQUIRE(subject_make(&s) && give_key(&s, no_writing));
	poke = s.on;
	poke.replace = one_byte;
	one_store_works(&s); /* by the other writer */
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	subject_refused(&s, &poke, -EACCES, XP_PHASE_STORE, "");
	CHECK(!is_writable(&s));
	REQUIRE_EQ(syscall(SYS_pkey_mprotect, s.text.base, s.text.size, PROT_READ | PROT_EXEC, 0), 0);
	CHECK(!is_writable(&s) && subject_works(&s));
}

XP_TEST(text_that_a_key_forbids_to_write)
{
	if (!have_keys())
		SKIP("the processor or the system has no protection keys");
	xp_child(window_that_lets_nothing_in);
}

XP_TEST_MAIN()
