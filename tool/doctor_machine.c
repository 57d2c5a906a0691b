// SPDX-License-Identifier: MIT
/*
 * Whether this machine, and what this process was started with (filters, limits, environment), lets code be changed. By
 * trying: a list of permissions would be believed, and be incomplete. Each trial is a child process that changes a key and two
 * raw sites of its own copy of the tool's text while another thread of it executes them, and ends. A trial that is killed, or
 * hangs, is a "no" that says so.
 */
#include "doctor.h"

#include "litmus/litmus.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_GET_MDWE
#define PR_GET_MDWE 66
#endif

static XP_DEFINE_STATIC_KEY_FALSE(doctor_key);

enum { OFF = 1, ON = 2, SITE_LEN = 5 };

/* Both return OFF, or ON when their nop is a jump: one inside an aligned quadword, one across two, at an odd address. */
int doctor_inside(void);
int doctor_across(void);
extern uint8_t doctor_inside_site[], doctor_across_site[];
__asm__(".pushsection .text\n"
	".balign 64\n"
	"doctor_inside:\n"
	"doctor_inside_site:\n\t"
	".byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n\t"
	"movl $1, %eax\n\t"
	"ret\n\t"
	"movl $2, %eax\n\t"
	"ret\n"
	".balign 64\n\t"
	".fill 61, 1, 0xcc\n"
	"doctor_across:\n"
	"doctor_across_site:\n\t"
	".byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n\t"
	"movl $1, %eax\n\t"
	"ret\n\t"
	"movl $2, %eax\n\t"
	"ret\n"
	".popsection");
enum { ON_AWAY = SITE_LEN + 6 }; /* from the site to where it jumps */

static __attribute__((noinline)) int key_site(void)
{
	return xp_static_branch_unlikely(&doctor_key) ? ON : OFF;
}

/* ---- in the child ---- */

struct trial {
	int policy, writer, sync; /* enum xp_policy, xp_writer, xp_sync */
	bool raw;                 /* the raw sites, too */
	bool traps;               /* go on until one was taken, within reason */
};

struct outcome {
	int error;
	unsigned changes;                               /* of each */
	unsigned key_syncs, inside_syncs, across_syncs; /* of one change */
	uint64_t traps;
	bool passed_on; /* a foreign trap reached its handler */
	char text[256];
};

static bool stop;
static unsigned long executed, wrong; /* relaxed atomics */

static bool is_right(int value)
{
	return value == OFF || value == ON;
}

static void *execute(void *nothing)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		if (!is_right(key_site()) || !is_right(doctor_inside()) || !is_right(doctor_across()))
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&executed, 1, __ATOMIC_RELAXED);
	}
	return nothing;
}

static int poke(uint8_t *site, bool on, struct xp_diag *diag)
{
	static const uint8_t nop[SITE_LEN] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
	uint8_t jmp[SITE_LEN];
	struct xp_poke change = {.addr = site, .expect = on ? nop : jmp, .replace = on ? jmp : nop, .len = SITE_LEN};

	xp_text_gen_insn(jmp, 0xe9, site, site + ON_AWAY);
	return xp_text_poke(&change, diag);
}

static unsigned syncs_since(uint64_t *before)
{
	struct xp_stats stats;
	unsigned nr;

	xp_stats_read(&stats);
	nr = (unsigned)(stats.syncs - *before);
	*before = stats.syncs;
	return nr;
}

static int change(const struct trial *trial, bool on, struct outcome *outcome, struct xp_diag *diag)
{
	uint64_t syncs = 0;
	int error;

	syncs_since(&syncs);
	memset(diag, 0, sizeof(*diag));
	/* As a batch, which tells why. */
	struct xp_batch *batch = xp_batch_new();

	error = batch ? xp_batch_add_key(batch, &doctor_key.key, on) : -ENOMEM;
	if (!error)
		error = xp_batch_commit(batch, diag);
	xp_batch_free(batch);
	outcome->key_syncs = syncs_since(&syncs);
	if (!error && trial->raw)
		error = poke(doctor_inside_site, on, diag);
	outcome->inside_syncs = syncs_since(&syncs);
	if (!error && trial->raw)
		error = poke(doctor_across_site, on, diag);
	outcome->across_syncs = syncs_since(&syncs);
	if (!error && (key_site() != (on ? ON : OFF) || (trial->raw && doctor_across() != (on ? ON : OFF)) ||
		       (trial->raw && doctor_inside() != (on ? ON : OFF)))) {
		snprintf(outcome->text, sizeof(outcome->text), "the old instruction was executed after the change");
		return -EIO;
	}
	outcome->changes++;
	return error;
}

static volatile sig_atomic_t foreign_traps;

static void on_foreign_trap(int signal)
{
	(void)signal;
	foreign_traps++;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void try_it(const struct trial *trial, struct outcome *outcome)
{
	enum { CHANGES = 20, PATIENCE_MS = 1500 };
	int64_t deadline = now_ms() + PATIENCE_MS;
	struct sigaction foreign = {.sa_handler = on_foreign_trap};
	struct xp_stats stats = {0};
	struct xp_diag diag;
	pthread_t thread;
	int error = xp_set_policy((enum xp_policy)trial->policy);

	if (trial->traps)
		sigaction(SIGTRAP, &foreign, NULL);
	memset(&diag, 0, sizeof(diag));
	if (!error)
		error = xp_set_writer((enum xp_writer)trial->writer);
	if (!error)
		error = xp_set_sync((enum xp_sync)trial->sync);
	if (!error)
		error = -pthread_create(&thread, NULL, execute, NULL);
	while (!error && __atomic_load_n(&executed, __ATOMIC_RELAXED) == 0)
		sched_yield();
	for (unsigned i = 0; !error && (i < CHANGES || (trial->traps && stats.traps == 0 && now_ms() < deadline));
	     i++) {
		error = change(trial, i % 2 == 0, outcome, &diag);
		xp_stats_read(&stats);
	}
	if (!error && trial->traps) {
		__asm__ volatile("int3");
		outcome->passed_on = foreign_traps == 1;
	}
	if (!error && __atomic_load_n(&wrong, __ATOMIC_RELAXED)) {
		snprintf(outcome->text, sizeof(outcome->text),
			 "something else was executed than the old or the new instruction");
		error = -EIO;
	}
	outcome->traps = stats.traps;
	outcome->error = error;
	if (error && outcome->text[0] == '\0') {
		diag.error = error;
		xp_diag_format(&diag, outcome->text, sizeof(outcome->text));
	}
}

/* ---- in the parent ---- */

static struct outcome run(const struct trial *trial)
{
	struct outcome outcome;
	int fds[2], status = 0;
	pid_t child;

	memset(&outcome, 0, sizeof(outcome));
	outcome.error = -EAGAIN;
	snprintf(outcome.text, sizeof(outcome.text), "no process could be made to try it");
	if (pipe(fds))
		return outcome;
	fflush(stdout);
	child = fork();
	if (child == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGALRM, SIG_DFL);
		alarm(20);
		memset(&outcome, 0, sizeof(outcome));
		try_it(trial, &outcome);
		_exit(write(fds[1], &outcome, sizeof(outcome)) != sizeof(outcome));
	}
	close(fds[1]);
	if (child > 0) {
		ssize_t got = read(fds[0], &outcome, sizeof(outcome));

		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
		if (got != sizeof(outcome)) {
			outcome.error = -EIO;
			if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
				snprintf(outcome.text, sizeof(outcome.text), "it did not end within 20 seconds");
			else if (WIFSIGNALED(status))
				snprintf(outcome.text, sizeof(outcome.text), "the process that tried it was killed: %s",
					 strsignal(WTERMSIG(status)));
			else
				snprintf(outcome.text, sizeof(outcome.text),
					 "the process that tried it ended without a word");
		}
	}
	close(fds[0]);
	return outcome;
}

static bool tried(struct doctor_report *report, const char *name, const struct trial *trial, const char *works,
		  struct outcome *outcome)
{
	*outcome = run(trial);
	if (outcome->error == -EAGAIN)
		doctor_add(report, name, DOCTOR_UNKNOWN, "%s", outcome->text);
	else if (outcome->error)
		doctor_add(report, name, DOCTOR_NO, "%s (%d)", outcome->text, outcome->error);
	else
		doctor_add(report, name, DOCTOR_OK, "%s", works);
	return outcome->error == 0;
}

/* A processor of which the vendor has published that code changed without synchronization may execute as something else. */
static bool has_erratum(const struct litmus_machine *m)
{
	static const unsigned models[] = {7, 8, 10, 11, 15, 22, 23, 29}; /* Pentium III; Core 2 and its Xeons */

	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
		if (strcmp(m->vendor, "GenuineIntel") == 0 && m->family == 6 && m->number == models[i])
			return true;
	return false;
}

static bool add_processor(struct doctor_report *report, const struct litmus_machine *m)
{
	if (has_erratum(m)) {
		doctor_add(
			report, "processor", DOCTOR_NO,
			"family 6 model %u: erratum on unsynchronized cross-modifying code; policies breakpoint or quiesce",
			m->number);
		return false;
	}
	if (strcmp(m->vendor, "AuthenticAMD") == 0 || strcmp(m->vendor, "HygonGenuine") == 0)
		doctor_add(report, "processor", DOCTOR_OK,
			   "a single store inside an aligned quadword is documented (APM vol. 2, 7.6.1)");
	else if (strcmp(m->vendor, "GenuineIntel") == 0)
		doctor_add(
			report, "processor", DOCTOR_OK,
			"one byte, and int3 first, are practice; by Intel's written rules only policy quiesce is right");
	else
		doctor_add(report, "processor", DOCTOR_LIMITED,
			   "of %s nothing is known; measure with crosspatch litmus",
			   m->vendor[0] ? m->vendor : "this vendor");
	return true;
}

/* What the last run of crosspatch litmus found. False: against the ground that policy auto stands on. */
static bool add_litmus(struct doctor_report *report, const struct litmus_machine *m)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME"), *at;
	char path[4096] = "", *text = NULL;
	unsigned long contrary;
	size_t room = 0;
	FILE *file;
	bool ours;

	if (state && state[0] == '/')
		snprintf(path, sizeof(path), "%s/crosspatch/litmus.json", state);
	else if (home && home[0] == '/')
		snprintf(path, sizeof(path), "%s/.local/state/crosspatch/litmus.json", home);
	file = fopen(path, "re");
	if (file == NULL || getdelim(&text, &room, '\0', file) < 0) {
		doctor_add(report, "litmus", DOCTOR_UNKNOWN, "crosspatch litmus was not run here by this user");
		if (file)
			fclose(file);
		free(text);
		return true;
	}
	fclose(file);
	ours = strstr(text, m->model) && strstr(text, m->vendor);
	at = strstr(text, "\"amd\": {\"contrary\": ");
	contrary = at ? strtoul(at + 20, NULL, 10) : 0;
	if (!ours || at == NULL)
		doctor_add(report, "litmus", DOCTOR_UNKNOWN, "the last run was on another processor");
	else if (contrary)
		doctor_add(report, "litmus", DOCTOR_NO,
			   "%lu executions that the fetch model of policy auto does not allow", contrary);
	else
		doctor_add(report, "litmus", DOCTOR_OK, "the last run saw nothing that speaks against policy auto");
	free(text);
	return !ours || !contrary;
}

static void add_limits(struct doctor_report *report)
{
	long membarrier = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	int mdwe = prctl(PR_GET_MDWE, 0, 0, 0, 0), seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
	uint64_t shadow = 0;
	bool has_shadow = syscall(SYS_arch_prctl, 0x5005 /* ARCH_SHSTK_STATUS */, &shadow) == 0 && shadow & 1;

	if (membarrier < 0)
		doctor_add(report, "membarrier", DOCTOR_NO, "the system call is refused: %s", strerror(errno));
	else
		doctor_add(report, "membarrier",
			   membarrier & MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE ? DOCTOR_OK : DOCTOR_NO,
			   "commands 0x%lx, sync_core %s", membarrier,
			   membarrier & MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE ? "among them" : "not among them");
	doctor_add(report, "seccomp", seccomp == 0 ? DOCTOR_OK : DOCTOR_LIMITED,
		   seccomp == 0 ? "no seccomp filter" : "a seccomp filter is in force: what it refuses shows above");
	doctor_add(report, "W^X", mdwe > 0 ? DOCTOR_LIMITED : DOCTOR_OK,
		   mdwe > 0 ? "memory-deny-write-execute is on: the mprotect writer is not used"
			    : "memory-deny-write-execute is off here");
	doctor_add(report, "shadow stacks", has_shadow ? DOCTOR_LIMITED : DOCTOR_OK,
		   has_shadow ? "on: calls and returns are not emulated, those sites change by one store or not at all"
			      : "off here");
}

static const char *method_of(unsigned syncs)
{
	return syncs == 1 ? "one store, 1 sync, no trap" : "behind a breakpoint";
}

void doctor_machine(struct doctor_report *report)
{
	struct outcome auto_outcome, outcome, single;
	struct litmus_machine machine;
	bool any_writer, any_sync, auto_works, others, known_good;
	int forced = xp_policy();

	litmus_machine_read(&machine);
	snprintf(report->subject, sizeof(report->subject),
		 "%s (%s family %u model %u stepping %u)%s, %s, %ld processors", machine.model, machine.vendor,
		 machine.family, machine.number, machine.stepping, machine.hypervisor ? ", hypervisor" : "",
		 machine.kernel, sysconf(_SC_NPROCESSORS_ONLN));

	any_writer = tried(report, "writer procmem",
			   &(struct trial){XP_POLICY_AUTO, XP_WRITER_PROCMEM, XP_SYNC_AUTO, false, false},
			   "/proc/self/mem; one byte is one store", &outcome);
	if (tried(report, "writer mprotect",
		  &(struct trial){XP_POLICY_AUTO, XP_WRITER_MPROTECT, XP_SYNC_AUTO, true, false},
		  "pages writable for a moment; up to 8 bytes are one store", &single))
		any_writer = true;
	/* Opt-in: that it is not there is nothing to mend. */
	if (!tried(report, "writer pkey", &(struct trial){XP_POLICY_AUTO, XP_WRITER_PKEY, XP_SYNC_AUTO, true, false},
		   "opt-in: no system call, up to 8 bytes are one store; handlers cannot read patched text as data",
		   &outcome))
		report->checks[report->nr - 1].answer = DOCTOR_LIMITED;
	any_sync = tried(report, "sync membarrier",
			 &(struct trial){XP_POLICY_AUTO, XP_WRITER_AUTO, XP_SYNC_MEMBARRIER, false, false},
			 "one system call", &outcome);
	if (tried(report, "sync signal", &(struct trial){XP_POLICY_AUTO, XP_WRITER_AUTO, XP_SYNC_SIGNAL, false, false},
		  "a signal to each thread", &outcome))
		any_sync = true;

	auto_works =
		tried(report, "policy auto",
		      &(struct trial){XP_POLICY_AUTO, XP_WRITER_AUTO, XP_SYNC_AUTO, false, false}, "", &auto_outcome);
	if (auto_works)
		snprintf(report->checks[report->nr - 1].why, sizeof(report->checks[0].why), "a key: %s",
			 method_of(auto_outcome.key_syncs));
	if (tried(report, "  raw sites", &(struct trial){XP_POLICY_AUTO, XP_WRITER_AUTO, XP_SYNC_AUTO, true, false}, "",
		  &outcome))
		snprintf(report->checks[report->nr - 1].why, sizeof(report->checks[0].why),
			 "5 bytes in a quadword: %s%s; across two: %s", method_of(outcome.inside_syncs),
			 outcome.inside_syncs > 1 && !single.error && single.inside_syncs == 1
				 ? " (with CROSSPATCH_WRITER=mprotect one store)"
				 : "",
			 method_of(outcome.across_syncs));
	if (tried(report, "policy breakpoint",
		  &(struct trial){XP_POLICY_BREAKPOINT, XP_WRITER_AUTO, XP_SYNC_AUTO, true, true}, "", &outcome)) {
		struct doctor_check *check = &report->checks[report->nr - 1];

		snprintf(check->why, sizeof(check->why),
			 "%llu traps of other threads in %u changes; others' traps are%s passed on",
			 (unsigned long long)outcome.traps, outcome.changes, outcome.passed_on ? "" : " NOT");
		check->answer = !outcome.passed_on ? DOCTOR_NO : outcome.traps ? DOCTOR_OK : DOCTOR_LIMITED;
	}
	others = tried(report, "policy quiesce",
		       &(struct trial){XP_POLICY_QUIESCE, XP_WRITER_AUTO, XP_SYNC_AUTO, true, false},
		       "every other thread parked meanwhile", &outcome);
	add_limits(report);
	known_good = add_processor(report, &machine);
	known_good = add_litmus(report, &machine) && known_good;

	report->safe = any_writer && any_sync && auto_works && known_good ? DOCTOR_OK : DOCTOR_NO;
	if (auto_outcome.error == -EAGAIN)
		report->safe = DOCTOR_UNKNOWN;
	if (!any_writer)
		snprintf(report->advice, sizeof(report->advice), "no writer works: allow /proc/self/mem or mprotect");
	else if (!any_sync)
		snprintf(report->advice, sizeof(report->advice),
			 "no sync works: allow membarrier, or a real-time signal");
	else if (!known_good)
		snprintf(report->advice, sizeof(report->advice), "not under policy auto; set CROSSPATCH_POLICY=%s",
			 others ? "quiesce" : "breakpoint");
	else if (report->safe == DOCTOR_OK && forced != XP_POLICY_AUTO)
		snprintf(report->advice, sizeof(report->advice),
			 "CROSSPATCH_POLICY forces another policy than auto here");
}
