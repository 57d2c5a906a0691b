// SPDX-License-Identifier: MIT
/* Settings, from the environment and by call; the early policy's promise; errno. */
#include "xp_child.h"
#include "xp_subject.h"

#include <crosspatch/gate.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* ---- the environment ---- */

/* The number of syncs that a poke across a quadword takes tells the policy. */
static unsigned syncs_of_a_poke(void)
{
	struct xp_stats before, after;
	struct subject s;

	if (!xp_test_check(subject_make(&s), "a subject", __FILE__, __LINE__))
		return 0;
	xp_stats_read(&before);
	CHECK_EQ(xp_text_poke(&s.on, NULL), 0);
	xp_stats_read(&after);
	CHECK_EQ(xp_text_poke(&s.off, NULL), 0);
	xp_text_free(&s.text);
	return (unsigned)(after.syncs - before.syncs);
}

XP_CHILD_PROGRAM(has_breakpoint)
{
	CHECK_EQ(xp_policy(), XP_POLICY_BREAKPOINT);
	CHECK_EQ(syncs_of_a_poke(), 3);
}

XP_CHILD_PROGRAM(has_quiesce)
{
	CHECK_EQ(xp_policy(), XP_POLICY_QUIESCE);
	CHECK_EQ(syncs_of_a_poke(), 1);
}

XP_CHILD_PROGRAM(has_early)
{
	CHECK_EQ(xp_policy(), XP_POLICY_EARLY);
	CHECK_EQ(syncs_of_a_poke(), 0);
}

XP_CHILD_PROGRAM(has_auto)
{
	CHECK_EQ(xp_policy(), XP_POLICY_AUTO);
	key_works();
}

/* What stays open, of the files that the library opens. */
static unsigned nr_kept(void)
{
	unsigned nr = 0;

	for (int fd = 3; fd < 8192; fd++) {
		char path[64], target[64] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		nr += readlink(path, target, sizeof(target) - 1) > 0 && !strncmp(target, "/proc/", 6);
	}
	return nr;
}

XP_CHILD_PROGRAM(keeps)
{
	CHECK_EQ(nr_kept(), 3);
	key_works();
	CHECK_EQ(nr_kept(), 3);
}

XP_CHILD_PROGRAM(closes)
{
	CHECK_EQ(nr_kept(), 0);
	key_works();
	CHECK_EQ(nr_kept(), 0);
}

static void want_keep(void)
{
	setenv("CROSSPATCH_DESCRIPTORS", "keep", 1);
}

static void want_close(void)
{
	setenv("CROSSPATCH_DESCRIPTORS", "close", 1);
}

XP_TEST(descriptors_from_the_environment)
{
	xp_child_program("keeps", want_keep);
	xp_child_program("closes", want_close);
	xp_child_program("closes", NULL);
}

static void want_breakpoint(void)
{
	setenv("CROSSPATCH_POLICY", "breakpoint", 1);
}

static void want_quiesce(void)
{
	setenv("CROSSPATCH_POLICY", "quiesce", 1);
}

static void want_early(void)
{
	setenv("CROSSPATCH_POLICY", "early", 1);
}

static void want_nonsense(void)
{
	setenv("CROSSPATCH_POLICY", "bold", 1);
	setenv("CROSSPATCH_WRITER", "", 1);
	setenv("CROSSPATCH_SYNC", "hope", 1);
}

XP_TEST(policy_from_the_environment)
{
	xp_child_program("has_breakpoint", want_breakpoint);
	xp_child_program("has_quiesce", want_quiesce);
	xp_child_program("has_early", want_early);
	xp_child_program("has_auto", NULL);
	xp_child_program("has_auto", want_nonsense);
}

/* mprotect can store a word: a poke inside one quadword needs one sync; procmem cannot: three. */
static unsigned syncs_inside_a_quadword(void)
{
	struct xp_stats before, after;
	struct subject s;

	if (!xp_test_check(subject_make_at(&s, 64), "a subject", __FILE__, __LINE__))
		return 0;
	xp_stats_read(&before);
	CHECK_EQ(xp_text_poke(&s.on, NULL), 0);
	xp_stats_read(&after);
	xp_text_free(&s.text);
	return (unsigned)(after.syncs - before.syncs);
}

XP_CHILD_PROGRAM(has_mprotect)
{
	CHECK_EQ(syncs_inside_a_quadword(), 1);
}

XP_CHILD_PROGRAM(has_procmem)
{
	CHECK_EQ(syncs_inside_a_quadword(), 3);
}

static void want_mprotect(void)
{
	setenv("CROSSPATCH_WRITER", "mprotect", 1);
}

static void want_procmem(void)
{
	setenv("CROSSPATCH_WRITER", "procmem", 1);
}

/* Where membarrier would kill, a commit that works used signals. */
XP_CHILD_PROGRAM(has_signal)
{
	CHECK(xp_child_filter(SYS_membarrier, SECCOMP_RET_KILL_PROCESS, 0));
	key_works();
}

static void want_signal(void)
{
	setenv("CROSSPATCH_SYNC", "signal", 1);
}

XP_TEST(writer_and_sync_from_the_environment)
{
	xp_child_program("has_mprotect", want_mprotect);
	xp_child_program("has_procmem", want_procmem);
	xp_child_program("has_signal", want_signal);
}

#ifdef __x86_64__
XP_DECLARE_GATE(int, gate, (void));

static int provider(void)
{
	return 1;
}

/* Eagerly, the stub leads to the provider as soon as there is one; lazily to the resolver. */
static bool binds_eagerly(void)
{
	CHECK_EQ(xp_gate_provide("gate", provider), 0);
	CHECK(xp_gate_gate.slot != xp_gate_gate.fallback);
	return xp_gate_gate.slot == (xp__gate_func *)provider;
}

XP_CHILD_PROGRAM(has_eager_gates)
{
	CHECK(binds_eagerly());
	CHECK_EQ(xp_gate(gate)(), 1);
}

XP_CHILD_PROGRAM(has_lazy_gates)
{
	CHECK(!binds_eagerly());
	CHECK_EQ(xp_gate(gate)(), 1);
}

static void want_eager(void)
{
	setenv("CROSSPATCH_BIND", "now", 1);
}

static void want_lazy(void)
{
	setenv("CROSSPATCH_BIND", "lazy", 1);
}

XP_TEST(binding_from_the_environment)
{
	xp_child_program("has_eager_gates", want_eager);
	xp_child_program("has_lazy_gates", want_lazy);
	xp_child_program("has_lazy_gates", NULL);
}
#endif

/* ---- a program that runs with more rights than its user has does not listen to the user's environment ---- */

XP_CHILD_PROGRAM(ignores_environment)
{
	char path[108];

	CHECK(getauxval(AT_SECURE) != 0);
	CHECK_EQ(xp_policy(), XP_POLICY_AUTO);
	CHECK_EQ(xp_control_path(path, sizeof(path)), -ENOTCONN);
	CHECK_EQ(nr_kept(), 0);
#ifdef __x86_64__
	CHECK(!binds_eagerly());
#endif
}

static void want_all(void)
{
	want_breakpoint();
	setenv("CROSSPATCH_BIND", "now", 1);
	setenv("CROSSPATCH_CONTROL", "auto", 1);
	want_keep();
}

static bool copy_file(const char *from, const char *to, mode_t mode)
{
	char buffer[65536];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0700);
	bool ok = in >= 0 && out >= 0;
	ssize_t n;

	while (ok && (n = read(in, buffer, sizeof(buffer))) > 0)
		ok = write(out, buffer, (size_t)n) == n;
	ok = ok && fchown(out, 65534, 65534) == 0 && fchmod(out, mode) == 0;
	close(in);
	close(out);
	return ok;
}

XP_TEST(environment_ignored_in_set_uid_programs)
{
	char directory[] = "/tmp/crosspatch-test-XXXXXX", path[sizeof(directory) + 8];
	int status;

	if (geteuid() != 0)
		SKIP("needs root, to make a set-uid program");
	REQUIRE(mkdtemp(directory) != NULL);
	snprintf(path, sizeof(path), "%s/program", directory);
	CHECK_EQ(chmod(directory, 0755), 0);
	CHECK(copy_file("/proc/self/exe", path, 04755));
	status = xp_child_execute(path, "ignores_environment", want_all);
	unlink(path);
	rmdir(directory);
	CHECK_EQ(status, 0);
}

/* ---- what a setting rules out is not tried: a filter may kill for it, before main even ---- */

XP_CHILD_PROGRAM(spared)
{
	struct subject s;

	key_works();
	REQUIRE(subject_make(&s));
	CHECK(subject_works(&s));
}

static void kill_membarrier(void)
{
	setenv("CROSSPATCH_SYNC", "signal", 1);
	xp_child_filter(SYS_membarrier, SECCOMP_RET_KILL_PROCESS, 0);
}

/* Nothing but memory files is opened for both. */
static void kill_opening(void)
{
	setenv("CROSSPATCH_WRITER", "mprotect", 1);
	xp_child_filter(SYS_openat, SECCOMP_RET_KILL_PROCESS, O_RDWR | O_CLOEXEC);
}

static void kill_windows(void)
{
	setenv("CROSSPATCH_WRITER", "procmem", 1);
	xp_child_filter(SYS_mprotect, SECCOMP_RET_KILL_PROCESS, PROT_READ | PROT_WRITE | PROT_EXEC);
}

XP_TEST(filters_that_kill)
{
	xp_child_program("spared", kill_membarrier);
	xp_child_program("spared", kill_opening);
	xp_child_program("spared", kill_windows);
}

/* ---- early ---- */

static void *wait_at(void *barrier)
{
	pthread_barrier_wait(barrier);
	return NULL;
}

static void early(void)
{
	pthread_barrier_t barrier;
	pthread_t thread;
	struct subject s;

	REQUIRE(subject_make(&s));
	CHECK_EQ(xp_set_policy(XP_POLICY_EARLY), 0);
	CHECK(subject_works(&s));
	pthread_barrier_init(&barrier, NULL, 2);
	REQUIRE_EQ(pthread_create(&thread, NULL, wait_at, &barrier), 0);
	subject_refused(&s, &s.on, -XP_E_NOT_EARLY, XP_PHASE_PREPARE, "threads");
	CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_NOT_EARLY);
	CHECK(!xp_static_key_enabled(&subject_key) && !subject_key_site());
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	key_works();
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
}

XP_TEST(early_with_threads)
{
	xp_child(early);
}

/* ---- errno ---- */

XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(lazy_key, 1);

enum { ERRNO = 12345 };

#define KEEPS_ERRNO(call)                                                                                              \
	do {                                                                                                           \
		errno = ERRNO;                                                                                         \
		(void)(call);                                                                                          \
		CHECK_EQ(errno, ERRNO);                                                                                \
	} while (0)

static void keep_errno(void)
{
	struct xp_batch *batch = NULL;
	struct xp_poke unmapped;
	struct xp_stats stats;
	struct xp_diag diag;
	struct subject s;
	char line[256];

	REQUIRE(subject_make(&s));
	unmapped = s.on;
	unmapped.addr = s.text.base + s.text.size;
	for (int policy = XP_POLICY_AUTO; policy <= XP_POLICY_QUIESCE; policy++) {
		KEEPS_ERRNO(xp_set_policy((enum xp_policy)policy));
		KEEPS_ERRNO(xp_text_poke(&s.on, &diag));
		KEEPS_ERRNO(xp_text_poke(&s.on, &diag)); /* -XP_E_MISMATCH */
		KEEPS_ERRNO(xp_text_poke(&unmapped, &diag));
		KEEPS_ERRNO(xp_diag_format(&diag, line, sizeof(line)));
		KEEPS_ERRNO(xp_text_poke(&s.off, NULL));
		KEEPS_ERRNO(xp_static_branch_enable(&subject_key));
		KEEPS_ERRNO(xp_static_branch_disable(&subject_key));
		KEEPS_ERRNO(xp_static_branch_inc(&subject_key));
		KEEPS_ERRNO(xp_static_branch_dec(&subject_key));
		KEEPS_ERRNO(xp_static_branch_dec(&subject_key)); /* -XP_E_UNDERFLOW */
		KEEPS_ERRNO(batch = xp_batch_new());
		KEEPS_ERRNO(xp_batch_add_poke(batch, &s.on));
		KEEPS_ERRNO(xp_batch_add_key(batch, &subject_key.key, true));
		KEEPS_ERRNO(xp_batch_commit(batch, &diag));
		KEEPS_ERRNO(xp_batch_free(batch));
		KEEPS_ERRNO(xp_text_poke(&s.off, NULL));
		KEEPS_ERRNO(xp_static_branch_disable(&subject_key));
		KEEPS_ERRNO(xp_static_branch_deferred_inc(&lazy_key));
		KEEPS_ERRNO(xp_static_branch_slow_dec_deferred(&lazy_key));
		KEEPS_ERRNO(xp_static_key_deferred_flush(&lazy_key));
		KEEPS_ERRNO(xp_set_writer(XP_WRITER_MPROTECT));
		KEEPS_ERRNO(xp_text_poke(&s.on, &diag));
		KEEPS_ERRNO(xp_text_poke(&s.off, &diag));
		KEEPS_ERRNO(xp_set_writer(XP_WRITER_PROCMEM));
		KEEPS_ERRNO(xp_set_sync(XP_SYNC_SIGNAL));
		KEEPS_ERRNO(xp_static_branch_enable(&subject_key));
		KEEPS_ERRNO(xp_static_branch_disable(&subject_key));
		KEEPS_ERRNO(xp_set_sync(XP_SYNC_AUTO));
	}
	KEEPS_ERRNO(xp_control_start("/proc/self/none/socket"));
	KEEPS_ERRNO(xp_control_start(NULL));
	KEEPS_ERRNO(xp_control_path(line, 1)); /* -ERANGE */
	KEEPS_ERRNO(xp_control_stop());
	KEEPS_ERRNO(xp_stats_read(&stats));
	KEEPS_ERRNO(xp_strerror(-4201));
	KEEPS_ERRNO(xp_set_policy((enum xp_policy)77));
	/* What the system refuses: descriptors have run out, membarrier and both writers are gone. */
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK(xp_child_filter(SYS_membarrier, SECCOMP_RET_ERRNO | EPERM, 0));
	KEEPS_ERRNO(xp_text_poke(&s.on, &diag));
	KEEPS_ERRNO(xp_text_poke(&s.off, &diag));
	CHECK(xp_child_filter(SYS_pwrite64, SECCOMP_RET_ERRNO | EPERM, 0));
	KEEPS_ERRNO(xp_text_poke(&s.on, &diag));
	KEEPS_ERRNO(xp_text_poke(&s.on, &diag));
	CHECK(xp_child_filter(SYS_openat, SECCOMP_RET_ERRNO | EMFILE, 0));
	KEEPS_ERRNO(xp_text_poke(&s.on, &diag));
	CHECK(diag.error < 0);
}

XP_TEST(errno_is_never_changed)
{
	xp_child(keep_errno);
}

XP_CHILD_MAIN()
