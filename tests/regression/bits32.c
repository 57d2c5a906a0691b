// SPDX-License-Identifier: MIT
/*
 * What is different in 32-bit processes, and only there: system calls that come in two kinds, addresses above 2 GiB,
 * a processor that stores no 8 bytes at once.
 */
#include "arch/x86/cpuid.h"
#include "arch/x86/store.h"
#include "port/linux/sys.h"
#include "port/linux/writer.h"
#include "xp_child.h"
#include "xp_subject.h"

#include <crosspatch/port.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

/* ---- signal frames ---- */

static volatile sig_atomic_t handled;

static void plain(int signal)
{
	handled = signal;
}

static void with_info(int signal, siginfo_t *info, void *context)
{
	handled = info->si_signo + (context == NULL) + (signal != info->si_signo);
}

/* The two kinds of handlers have frames of two kinds, and each its own way back. */
static void return_from_handlers(void)
{
	struct xp__sigaction act = {.handler = (uintptr_t)plain};

	CHECK_EQ(xp__sigaction(SIGUSR1, &act, NULL), 0);
	raise(SIGUSR1);
	CHECK_EQ(handled, SIGUSR1);
	act.handler = (uintptr_t)with_info;
	act.flags = SA_SIGINFO;
	CHECK_EQ(xp__sigaction(SIGUSR2, &act, NULL), 0);
	raise(SIGUSR2);
	CHECK_EQ(handled, SIGUSR2);
}

XP_TEST(handlers_return)
{
	xp_child(return_from_handlers);
}

/* ---- addresses ---- */

static void above_2_gib(void)
{
	static const enum xp_writer writers[] = {XP_WRITER_PROCMEM, XP_WRITER_MPROTECT};
	struct subject s;

	REQUIRE(subject_make(&s));
	CHECK((intptr_t)s.site < 0);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(xp_set_writer(writers[i]), 0);
		CHECK(subject_works(&s));
	}
}

XP_TEST(text_above_2_gib)
{
	xp_child(above_2_gib);
}

/* ---- positions ---- */

XP_TEST(positions)
{
	char name[] = "/tmp/crosspatch-test-XXXXXX", byte;
	int fd = mkstemp(name), mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	const int64_t far = (int64_t)5 << 32 | 3;

	REQUIRE(fd >= 0 && mem >= 0);
	unlink(name);
	CHECK_EQ(xp__pwrite(fd, "x", 1, (uint64_t)far), 1);
	CHECK_EQ(xp__pread(fd, &byte, 1, (uint64_t)far), 1);
	CHECK_EQ(byte, 'x');
	CHECK_EQ(xp__seek(fd, 0, SEEK_END), far + 1);
	CHECK_EQ(xp__seek(fd, far, SEEK_SET), far);
	CHECK_EQ(xp__seek(fd, 0, SEEK_CUR), far);
	CHECK_EQ(xp__seek(fd, -5, SEEK_SET), -EINVAL);
	CHECK_EQ(xp__seek(-1, 0, SEEK_CUR), -EBADF);
	/* Negative ones, which memory files take, and of which the low half is seen. */
	CHECK_EQ(xp__seek(mem, INT64_MIN | 0x12345678, SEEK_SET), INT64_MIN | 0x12345678);
	CHECK_EQ(xp__seek(mem, 0, SEEK_CUR), INT64_MIN | 0x12345678);
	close(fd);
	close(mem);
}

/* ---- times ---- */

static void times(void)
{
	struct xp__time now = xp__monotonic();
	struct timespec libc;
	uint32_t word = 0;

	clock_gettime(CLOCK_MONOTONIC, &libc);
	CHECK(now.seconds > 0 && now.nanoseconds >= 0 && now.nanoseconds < 1000000000);
	CHECK(libc.tv_sec >= now.seconds && libc.tv_sec - now.seconds < 10);
	CHECK_EQ(xp__futex_wait(&word, 0, 1000000), -ETIMEDOUT);
	CHECK_EQ(xp__futex_wait(&word, 1, 0), -EAGAIN);
	/* Longer than 32 bits of seconds can say: cut, not wrapped round to nothing. */
	CHECK_EQ(xp__futex_wait(&word, 1, UINT64_MAX), -EAGAIN);
}

static void times_without_64(void)
{
	CHECK(xp_child_filter(SYS_futex_time64, SECCOMP_RET_ERRNO | ENOSYS, 0));
	CHECK(xp_child_filter(SYS_clock_gettime64, SECCOMP_RET_ERRNO | EPERM, 0));
	times();
}

static void times_without_32(void)
{
	CHECK(xp_child_filter(SYS_futex, SECCOMP_RET_ERRNO | ENOSYS, 0));
	CHECK(xp_child_filter(SYS_clock_gettime, SECCOMP_RET_ERRNO | ENOSYS, 0));
	times();
}

XP_TEST(both_kinds_of_times)
{
	xp_child(times);
	xp_child(times_without_64);
	xp_child(times_without_32);
}

/* ---- a processor without CMPXCHG8B ---- */

static uint64_t syncs_of(const struct xp_poke *poke)
{
	struct xp_stats before, after;

	xp_stats_read(&before);
	CHECK_EQ(xp_text_poke(poke, NULL), 0);
	xp_stats_read(&after);
	return after.syncs - before.syncs;
}

static void without_cmpxchg8b(void)
{
	struct subject s;

	REQUIRE(subject_make_at(&s, 64));
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	CHECK_EQ(syncs_of(&s.on), 1); /* method word */
	CHECK_EQ(xp_text_poke(&s.off, NULL), 0);
	xp__cmpxchg8b = XP__FEATURE_ABSENT;
	CHECK_EQ(xp__writer_mprotect.write(s.site, s.jmp, SUBJECT_LEN, XP_WRITE_SINGLE), -ENOTSUP);
	CHECK(subject_is(&s, s.nop));
	CHECK_EQ(syncs_of(&s.on), 3); /* breakpoint */
	CHECK_EQ(subject_call(&s), SUBJECT_ON);
	CHECK_EQ(syncs_of(&s.off), 3);
	key_works();
}

XP_TEST(a_processor_without_cmpxchg8b)
{
	xp_child(without_cmpxchg8b);
}

XP_TEST_MAIN()
