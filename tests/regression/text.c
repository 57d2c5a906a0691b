// SPDX-License-Identifier: MIT
/* Text that is not what it should be: the precise error, in words that say where, and nothing changed. */
#include "xp_subject.h"

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

XP_TEST(first_byte_of_a_mapping)
{
	struct subject_runner runner = {0};
	struct xp_stats stats;
	struct timespec start, now;
	pthread_t thread;
	struct subject s;

	REQUIRE(subject_make_at(&s, 0));
	runner.subject = &s;
	REQUIRE_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, subject_run, &runner), 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		for (unsigned i = 0; i < 10; i++) {
			CHECK_EQ(xp_text_poke(&s.on, NULL), 0);
			CHECK_EQ(xp_text_poke(&s.off, NULL), 0);
		}
		xp_stats_read(&stats);
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

XP_TEST_MAIN()
