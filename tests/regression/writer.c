// SPDX-License-Identifier: MIT
/*
 * Ways into program text that are closed, or closed later: another one serves, or an error says so and text is as
 * it was.
 */
#include "xp_child.h"
#include "xp_gregs.h"
#include "xp_subject.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

/* No page of this process is writable and executable. */
static bool is_write_xor_execute(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	bool is = maps != NULL;

	while (is && fgets(line, sizeof(line), maps)) {
		const char *rights = strchr(line, ' ');

		is = rights && !(rights[2] == 'w' && rights[3] == 'x');
	}
	if (maps)
		fclose(maps);
	return is;
}

static void check_works(void)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	CHECK(subject_works(&s));
	key_works();
	CHECK_EQ(xp_state(), XP_STATE_READY);
	CHECK(is_write_xor_execute());
	xp_text_free(&s.text);
}

/* ---- /proc/self/mem cannot be written to ---- */

static void refuse_pwrite(void)
{
	xp_child_filter(SYS_pwrite64, SECCOMP_RET_ERRNO | EPERM, 0);
}

XP_CHILD_PROGRAM(without_procmem)
{
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), -XP_E_NO_WRITER);
	check_works();
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	check_works();
}

XP_TEST(without_procmem_mprotect_serves)
{
	xp_child_program("without_procmem", refuse_pwrite);
}

/* Nor opened. Nothing but memory files is opened for both by this program, or by what loads it. */
static void refuse_open(unsigned action)
{
	xp_child_filter(SYS_openat, action, O_RDWR | O_CLOEXEC);
}

static void refuse_open_eperm(void)
{
	refuse_open(SECCOMP_RET_ERRNO | EPERM);
}

static void refuse_open_enosys(void)
{
	refuse_open(SECCOMP_RET_ERRNO | ENOSYS);
}

/* Kills a process without a handler for SIGSYS, and this program has none. */
static void refuse_open_sigsys(void)
{
	refuse_open(SECCOMP_RET_TRAP);
}

XP_TEST(procmem_not_opened_mprotect_serves)
{
	xp_child_program("without_procmem", refuse_open_eperm);
	xp_child_program("without_procmem", refuse_open_enosys);
	xp_child_program("without_procmem", refuse_open_sigsys);
}

/* ---- nor may a page be writable and executable ---- */

static void refuse_both(void)
{
	refuse_pwrite();
	xp_child_filter(SYS_mprotect, SECCOMP_RET_ERRNO | EACCES, PROT_WRITE | PROT_EXEC);
}

XP_CHILD_PROGRAM(without_both)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), -XP_E_NO_WRITER);
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), -XP_E_NO_WRITER);
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), -XP_E_NO_WRITER);
	subject_refused(&s, &s.on, -XP_E_NO_WRITER, XP_PHASE_PREPARE, "mprotect");
	CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_NO_WRITER);
	CHECK(!subject_key_site());
}

XP_TEST(without_both_an_error)
{
	xp_child_program("without_both", refuse_both);
}

/* ---- closed after the library has tried it: the failure comes in mid-commit, and text is still as it was ---- */

static void refuse_pwrite_later(void)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	CHECK(subject_works(&s));
	refuse_pwrite();
	subject_refused(&s, &s.on, -EPERM, XP_PHASE_STORE, "(errno 1); everything was undone");
	CHECK_EQ(subject_call(&s), SUBJECT_OFF);
	/* Found out: from then on it is refused in time, or another writer serves. */
	subject_refused(&s, &s.on, -XP_E_NO_WRITER, XP_PHASE_PREPARE, "mprotect");
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	CHECK(subject_works(&s));
}

static void refuse_mprotect_later(void)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	CHECK(subject_works(&s));
	xp_child_filter(SYS_mprotect, SECCOMP_RET_ERRNO | EACCES, PROT_WRITE | PROT_EXEC);
	subject_refused(&s, &s.on, -EACCES, XP_PHASE_STORE, "(errno 13); everything was undone");
	CHECK_EQ(subject_call(&s), SUBJECT_OFF);
	subject_refused(&s, &s.on, -XP_E_NO_WRITER, XP_PHASE_PREPARE, "mprotect");
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	CHECK(subject_works(&s));
}

XP_TEST(procmem_taken_away_later)
{
	xp_child(refuse_pwrite_later);
}

XP_TEST(mprotect_taken_away_later)
{
	xp_child(refuse_mprotect_later);
}

/* ---- a window that the system does not let us close ---- */

static unsigned closings, refusals; /* that go through; then as many that do not */

/* Answers for the kernel when a page is made read-only and executable: pkey_mprotect without a key is mprotect. */
static void close_or_refuse(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	int before = errno;
	long failed;

	(void)signal;
	(void)info;
	if (closings == 0 && refusals > 0) {
		refusals--;
		regs[XP_GREG_AX] = -EACCES;
		return;
	}
	closings -= closings > 0;
	failed = syscall(SYS_pkey_mprotect, regs[XP_GREG_ARG1], regs[XP_GREG_ARG2], regs[XP_GREG_ARG3], -1);
	regs[XP_GREG_AX] = failed ? -errno : 0;
	errno = before;
}

static bool trap_closing(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROT_READ | PROT_EXEC, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
	struct sigaction act = {.sa_sigaction = close_or_refuse, .sa_flags = SA_SIGINFO};

	return sigaction(SIGSYS, &act, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

enum { FOR_GOOD = 1000000 };

static void closing_refused_once(void)
{
	struct subject s;

	REQUIRE(subject_make(&s) && trap_closing());
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	refusals = 2;
	CHECK(subject_works(&s));
	CHECK_EQ(refusals, 0);
	CHECK(is_write_xor_execute());
}

/* Said in each commit until it is closed, whichever writer serves; and everything is as it was. */
static void closing_refused(enum xp_policy policy, unsigned after, size_t offset)
{
	struct subject s;

	REQUIRE(subject_make_at(&s, offset));
	CHECK_EQ(xp_set_policy(policy), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	CHECK(subject_works(&s));
	closings = after;
	refusals = FOR_GOOD;
	subject_refused(&s, &s.on, -EACCES, XP_PHASE_STORE, "read-only again (errno 13)");
	CHECK_EQ(subject_call(&s), SUBJECT_OFF);
	CHECK(!is_write_xor_execute());
	subject_refused(&s, &s.on, -EACCES, XP_PHASE_PREPARE, "read-only again (errno 13)");
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	subject_refused(&s, &s.on, -EACCES, XP_PHASE_PREPARE, "read-only again (errno 13)");
	CHECK(refusals < FOR_GOOD);
	refusals = 0;
	CHECK(subject_works(&s));
	CHECK(is_write_xor_execute());
	xp_text_free(&s.text);
}

static void closing_refused_for_good(void)
{
	REQUIRE(trap_closing());
	closing_refused(XP_POLICY_AUTO, 0, 64);
	closing_refused(XP_POLICY_AUTO, 0, 4093);
	for (unsigned after = 0; after < 3; after++)
		closing_refused(XP_POLICY_BREAKPOINT, after, 61);
	closing_refused(XP_POLICY_QUIESCE, 0, 61);
	closing_refused(XP_POLICY_EARLY, 0, 61);
}

/* To undo the first one takes a window too, which does not close either: what counts is that the old bytes are back. */
static void closing_refused_in_mid_batch(void)
{
	struct xp_batch *batch = xp_batch_new();
	struct subject low, high;
	struct xp_diag diag;

	REQUIRE(subject_make_at(&low, 64) && subject_make_at(&high, 64) && trap_closing());
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	CHECK_EQ(xp_batch_add_poke(batch, &low.on), 0);
	CHECK_EQ(xp_batch_add_poke(batch, &high.on), 0);
	CHECK(subject_works(&low));
	closings = 1;
	refusals = FOR_GOOD;
	CHECK_EQ(xp_batch_commit(batch, &diag), -EACCES);
	CHECK_EQ(diag.phase, XP_PHASE_STORE);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	CHECK(subject_is(&low, low.nop) && subject_is(&high, high.nop));
	refusals = 0;
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	CHECK(subject_call(&low) == SUBJECT_ON && subject_call(&high) == SUBJECT_ON);
	CHECK(is_write_xor_execute());
	xp_batch_free(batch);
}

/* What is not there any more is nothing to refuse a commit for. */
static void unmapped_while_open(void)
{
	struct subject s;

	REQUIRE(subject_make(&s) && trap_closing());
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	refusals = FOR_GOOD;
	CHECK_EQ(xp_text_poke(&s.on, NULL), -EACCES);
	xp_text_free(&s.text);
	CHECK(is_write_xor_execute());
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	key_works();
}

XP_TEST(window_that_closes_late)
{
	xp_child(closing_refused_once);
}

XP_TEST(window_that_does_not_close)
{
	xp_child(closing_refused_for_good);
	xp_child(closing_refused_in_mid_batch);
	xp_child(unmapped_while_open);
}

/* ---- memory-deny-write-execute ---- */

static bool mdwe(void)
{
	return prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0;
}

static void under_mdwe(void)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	REQUIRE(mdwe());
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), -XP_E_NO_WRITER);
	CHECK(subject_works(&s));
	key_works();
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	CHECK(subject_works(&s));
}

/* Asked before each commit, though it worked before: the window is not tried, and so cannot go wrong half-way. */
static void under_mdwe_later(void)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	CHECK(subject_works(&s));
	REQUIRE(mdwe());
	subject_refused(&s, &s.on, -XP_E_NO_WRITER, XP_PHASE_PREPARE, "mprotect");
	CHECK_EQ(subject_call(&s), SUBJECT_OFF);
	CHECK(is_write_xor_execute());
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	CHECK(subject_works(&s));
}

static bool has_mdwe(void)
{
	return prctl(66 /* PR_GET_MDWE */, 0, 0, 0, 0) >= 0;
}

XP_TEST(mdwe)
{
	if (!has_mdwe())
		SKIP("this kernel has no PR_SET_MDWE (6.3 or later)");
	xp_child(under_mdwe);
	xp_child(under_mdwe_later);
}

/* ---- sealed text ---- */

static void under_seal(void)
{
	struct subject s;
	struct xp_diag diag;

	REQUIRE(subject_make(&s));
	REQUIRE_EQ(syscall(SYS_mseal, s.text.base, s.text.size, 0), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	CHECK(subject_works(&s));
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	CHECK_EQ(xp_text_poke(&s.on, &diag), -EPERM);
	CHECK_EQ(diag.phase, XP_PHASE_STORE);
	CHECK(diag.site == s.site);
	CHECK(subject_is(&s, s.nop));
	CHECK_EQ(subject_call(&s), SUBJECT_OFF);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	CHECK(is_write_xor_execute());
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	CHECK(subject_works(&s));
}

XP_TEST(mseal)
{
	if (syscall(SYS_mseal, NULL, 0, 0) && errno == ENOSYS)
		SKIP("this kernel has no mseal (6.10 or later)");
	xp_child(under_seal);
}

/* ---- the descriptor of /proc/self/mem ---- */

static int find_descriptor(void)
{
	for (int fd = 3; fd < 65536; fd++) {
		char path[64], target[64] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof(target) - 1) < 0)
			continue;
		if (!strncmp(target, "/proc/", 6) && strstr(target, "/mem"))
			return fd;
	}
	return -1;
}

static void close_from_three(void)
{
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	check_works();
	CHECK(find_descriptor() >= 0);
	syscall(SYS_close_range, 3, ~0u, 0);
	CHECK_EQ(find_descriptor(), -1);
	check_works();
	CHECK(find_descriptor() >= 0);
}

/* The program closes it, and a file of the program's gets the number: text offsets must not be written to it. */
static void reuse_the_number(void)
{
	char name[] = "/tmp/crosspatch-test-XXXXXX";
	struct stat st;
	int number, file;

	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	check_works();
	number = find_descriptor();
	file = mkstemp(name);
	REQUIRE(number >= 0 && file >= 0);
	unlink(name);
	REQUIRE_EQ(dup2(file, number), number);
	check_works();
	CHECK_EQ(fstat(number, &st), 0);
	CHECK_EQ(st.st_size, 0);
	CHECK_EQ(fstat(file, &st), 0);
	CHECK_EQ(st.st_size, 0);
	CHECK(find_descriptor() >= 0 && find_descriptor() != number);
}

/* Not inherited by programs that are executed. */
static void executed(void)
{
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), 0);
	CHECK(fcntl(find_descriptor(), F_GETFD) & FD_CLOEXEC);
}

XP_TEST(descriptor_closed)
{
	xp_child(close_from_three);
}

XP_TEST(descriptor_number_reused)
{
	xp_child(reuse_the_number);
}

XP_TEST(descriptor_is_closed_on_exec)
{
	xp_child(executed);
}

/*
 * ---- a process that is not dumpable owns nothing in /proc: what is open stays open if that is wanted, and mprotect serves
 * where it is not ----
 */

static void as_nobody(void)
{
	if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
		_exit(99);
}

XP_CHILD_PROGRAM(not_dumpable)
{
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), 0);
	check_works();
	CHECK_EQ(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
	check_works();
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	xp_child(check_works);
	check_works();
	syscall(SYS_close_range, 3, ~0u, 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), -XP_E_NO_WRITER);
	check_works();
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), -EACCES);
}

XP_CHILD_PROGRAM(not_dumpable_and_closed)
{
	check_works();
	CHECK_EQ(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
	check_works();
	xp_child(check_works);
	check_works();
	CHECK_EQ(find_descriptor(), -1);
}

XP_TEST(process_that_is_not_dumpable)
{
	xp_child_program("not_dumpable", geteuid() == 0 ? as_nobody : NULL);
	xp_child_program("not_dumpable_and_closed", geteuid() == 0 ? as_nobody : NULL);
}

/* ---- after setuid /proc/self/mem can no longer be opened: it was, before; else, and in a child, mprotect serves ---- */

static void give_root_up(void)
{
	REQUIRE_EQ(setresuid(65534, 65534, 65534), 0);
	check_works();
	xp_child(check_works);
	check_works();
}

static void give_root_up_and_keep(void)
{
	CHECK_EQ(xp_set_descriptors(XP_DESCRIPTORS_KEEP), 0);
	CHECK(find_descriptor() >= 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	REQUIRE_EQ(setresuid(65534, 65534, 65534), 0);
	check_works();
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	xp_child(check_works);
	check_works();
}

XP_TEST(after_setuid)
{
	if (geteuid() != 0)
		SKIP("needs root, to give it up");
	xp_child(give_root_up);
	xp_child(give_root_up_and_keep);
}

/* ---- a program that runs under a translator: what is written is executed, or the change is refused ---- */

/* Each writer in turn: the site was executed before, and what is said of it is true. */
static void key_is_as_said(enum xp_writer writer)
{
	int error = xp_set_writer(writer);

	CHECK(error == 0 || error == -XP_E_TRANSLATED || error == -XP_E_NO_WRITER);
	for (int round = 0; round < 3; round++) {
		CHECK(!subject_key_site());
		error = xp_static_branch_enable(&subject_key);
		CHECK(error == 0 || error == -XP_E_TRANSLATED || error == -XP_E_NO_WRITER);
		CHECK_EQ(subject_key_site(), error == 0);
		CHECK_EQ(xp_static_key_enabled(&subject_key), error == 0);
		CHECK_EQ(xp_static_branch_disable(&subject_key), 0);
	}
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

XP_CHILD_PROGRAM(translated)
{
	key_is_as_said(XP_WRITER_PROCMEM);
	key_is_as_said(XP_WRITER_MPROTECT);
	key_is_as_said(XP_WRITER_AUTO);
}

XP_DECLARE_GATE_UD2(int, faulting, (void));

static int provider(void)
{
	return 7;
}

/* valgrind looks after no text of files, and says how it can be made to. */
XP_CHILD_PROGRAM(refused_by_words)
{
	struct xp_diag diag;
	struct subject s;
	char line[512];

	CHECK(!subject_key_site());
	CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_TRANSLATED);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), -XP_E_TRANSLATED);
	CHECK_EQ(xp_set_writer(XP_WRITER_MPROTECT), -XP_E_TRANSLATED);
	CHECK(!subject_key_site());
	REQUIRE(subject_make(&s));
	CHECK_EQ(xp_text_poke(&s.on, &diag), -XP_E_TRANSLATED);
	xp_diag_format(&diag, line, sizeof(line));
	CHECK(strstr(line, "--smc-check=all") != NULL);
	CHECK(subject_is(&s, s.nop));
	/* What an UD2 asks for is done in its handler, each time. */
	CHECK_EQ(xp_module_error(), 0);
	CHECK_EQ(xp_gate(faulting)(), 0);
	CHECK_EQ(xp_gate_provide("faulting", provider), 0);
	CHECK_EQ(xp_gate(faulting)(), 7);
	CHECK_EQ(xp_gate(faulting)(), 7);
}

/* Other threads run into breakpoints meanwhile. */
XP_CHILD_PROGRAM(works)
{
	struct subject s;
	struct subject_runner runner = {.subject = &s};
	struct xp_stats stats;
	pthread_t thread;

	REQUIRE(subject_make(&s));
	REQUIRE_EQ(pthread_create(&thread, NULL, subject_run, &runner), 0);
	for (int i = 0; i < 2000; i++) {
		CHECK_EQ(xp_text_poke(i % 2 ? &s.off : &s.on, NULL), 0);
		xp_stats_read(&stats);
		if (i % 2 && stats.traps > 0)
			break;
	}
	XP_TEST_NOTE("%lu traps", (unsigned long)stats.traps);
	CHECK(stats.traps > 0);
	__atomic_store_n(&runner.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK_EQ(runner.wrong, 0);
	for (int writer = XP_WRITER_PROCMEM; writer <= XP_WRITER_MPROTECT; writer++) {
		CHECK_EQ(xp_set_writer((enum xp_writer)writer), 0);
		CHECK(subject_works(&s));
		key_works();
	}
}

/*
 * What valgrind printed, with -q what it warns of: nothing, but that it does not know how the port asks whether memory can be
 * read (xp__can_read()), nor DW_OP_dup, by which unwinders find the return address of a traced call (thunk_trace.c).
 * Written without that the expression makes valgrind 3.19 itself fail.
 */
static void check_log(int log)
{
	char line[256];
	FILE *file = fdopen(log, "r");

	REQUIRE(file);
	rewind(file);
	while (fgets(line, sizeof(line), file))
		if (strstr(line, "DWARF2 CFI reader: unhandled DW_OP_ opcode 0x12") == NULL &&
		    strstr(line, "sigprocmask: unknown 'how' field -1") == NULL) {
			CHECK_STR(line, "");
			break;
		}
	fclose(file);
}

/* The case @name as a program of the translator's. False: there is no translator. */
static bool translated(const char *translator, const char *option, const char *name)
{
	char self[PATH_MAX], command[64], to_log[32];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int status, log = memfd_create("log", 0);
	pid_t child;

	snprintf(command, sizeof(command), "command -v %s >/dev/null 2>&1", translator);
	if (len < 0 || system(command) != 0)
		return false;
	self[len] = '\0';
	snprintf(to_log, sizeof(to_log), "--log-fd=%d", log);
	fflush(stdout);
	child = fork();
	if (child == 0) {
		setenv("XP_CHILD", name, 1);
		/* Or a thread that runs into a breakpoint again and again keeps the patcher from its turn. */
		setenv("VALGRIND_OPTS", "--fair-sched=try", 1);
		if (option)
			execlp(translator, translator, "-q", "--tool=none", to_log, option, self, (char *)NULL);
		else
			execlp(translator, translator, self, (char *)NULL);
		_exit(127);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	check_log(log);
	return true;
}

XP_TEST(under_qemu)
{
	if (!translated(sizeof(long) == 8 ? "qemu-x86_64" : "qemu-i386", NULL, "translated"))
		SKIP("no qemu-user");
}

XP_TEST(under_valgrind)
{
	if (!translated("valgrind", "--smc-check=none", "translated"))
		SKIP("no valgrind");
	translated("valgrind", "--smc-check=all-non-file", "translated");
	translated("valgrind", "--smc-check=all-non-file", "refused_by_words");
	translated("valgrind", "--smc-check=all", "works");
}

XP_CHILD_MAIN()
