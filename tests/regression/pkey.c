// SPDX-License-Identifier: MIT
/*
 * The writer that needs no system call: a protection key lets the committing thread alone write. What threads and handlers may
 * meanwhile and afterwards; what becomes of text that is unmapped, forked, given back; and where there is no key to be had.
 */
#include "xp_child.h"
#include "xp_gregs.h"
#include "xp_subject.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

static bool have_keys(void)
{
	long key = syscall(SYS_pkey_alloc, 0, 0);

	return key > 0 && syscall(SYS_pkey_free, key) == 0;
}

#define NEED_KEYS()                                                                                                    \
	do {                                                                                                           \
		if (!have_keys())                                                                                      \
			SKIP("the processor or the system has no protection keys");                                    \
	} while (0)

static uint32_t rights(void)
{
	uint32_t value, zero;

	__asm__ volatile("rdpkru" : "=a"(value), "=d"(zero) : "c"(0));
	return value;
}

static void set_rights(uint32_t value)
{
	__asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}

/* How many mappings are writable and executable. */
static unsigned nr_writable_text(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned nr = 0;

	while (maps && fgets(line, sizeof(line), maps)) {
		const char *mode = strchr(line, ' ');

		nr += mode && mode[2] == 'w' && mode[3] == 'x';
	}
	if (maps)
		fclose(maps);
	return nr;
}

/* ---- what a thread may: without a handler's siglongjmp, which would change its rights ---- */

static _Thread_local struct {
	bool wanted, faulted;
} probe;

/* Goes on behind the access, which is two bytes long. SEGV_ACCERR: of a page that was never written to, and has no key. */
static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)number;
	if (!probe.wanted || (info->si_code != 4 /* SEGV_PKUERR */ && info->si_code != SEGV_ACCERR)) {
		signal(SIGSEGV, SIG_DFL);
		return;
	}
	probe.faulted = true;
	((ucontext_t *)context)->uc_mcontext.gregs[XP_GREG_IP] += 2;
}

static bool catch_faults(void)
{
	struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

	return sigaction(SIGSEGV, &act, NULL) == 0;
}

static bool can_write(uint8_t *at)
{
	probe.wanted = true;
	probe.faulted = false;
	__asm__ volatile("orb %b1, (%0)" : : "a"(at), "c"(0) : "memory", "cc"); /* 08 08 */
	probe.wanted = false;
	return !probe.faulted;
}

static bool can_read(const uint8_t *at)
{
	uint8_t byte = 0;

	probe.wanted = true;
	probe.faulted = false;
	__asm__ volatile("movb (%1), %b0" : "+c"(byte) : "a"(at) : "memory"); /* 8a 08 */
	probe.wanted = false;
	return !probe.faulted;
}

static uint8_t *key_text(void)
{
	return (uint8_t *)(uintptr_t)subject_key_site;
}

static bool take_writer(void)
{
	CHECK_EQ(xp_set_writer(XP_WRITER_PKEY), 0);
	key_works();
	return catch_faults();
}

/* ---- it works, wherever the site lies ---- */

static void works_everywhere(void)
{
	static const unsigned boundaries[] = {16, 32, 64, 4096};

	REQUIRE(take_writer());
	for (unsigned policy = XP_POLICY_AUTO; policy <= XP_POLICY_EARLY; policy++)
		for (unsigned i = 0; i < 4; i++)
			for (unsigned k = 0; k <= SUBJECT_LEN; k++) {
				struct subject s;

				REQUIRE(subject_make_at(&s, (i < 3 ? 4096u : 0) + boundaries[i] - k));
				CHECK_EQ(xp_set_policy((enum xp_policy)policy), 0);
				CHECK(subject_works(&s));
				CHECK(!can_write(s.site) && !can_write(s.site + 4) && can_read(s.site));
				xp_text_free(&s.text);
			}
}

XP_TEST(works_everywhere_and_leaves_nothing_open)
{
	NEED_KEYS();
	xp_child(works_everywhere);
}

/* A store of eight bytes is one: no breakpoint where a site lies in a quadword. */
static void single_stores(void)
{
	struct xp_stats before, after;
	struct subject s;

	REQUIRE(take_writer() && subject_make_at(&s, 64));
	xp_stats_read(&before);
	CHECK(subject_works(&s));
	xp_stats_read(&after);
	CHECK_EQ(after.syncs - before.syncs, 2);
}

XP_TEST(a_quadword_is_one_store)
{
	NEED_KEYS();
	xp_child(single_stores);
}

/* ---- threads ---- */

static struct {
	bool go, done, reads, writes;
	bool handler_reads, handler_writes;
	uint8_t *at;
	uint32_t rights;
} other;

static void wait_for(const bool *flag)
{
	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE))
		usleep(100);
}

static void *look(void *unused)
{
	wait_for(&other.go);
	other.rights = rights();
	other.reads = can_read(other.at);
	other.writes = can_write(other.at);
	__atomic_store_n(&other.done, true, __ATOMIC_RELEASE);
	return unused;
}

static void looks(pthread_t thread)
{
	other.at = key_text();
	__atomic_store_n(&other.go, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	CHECK(other.reads);
	CHECK(!other.writes);
}

static void thread_from_before(void)
{
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, look, NULL), 0);
	REQUIRE(take_writer());
	looks(thread);
}

static void thread_from_after(void)
{
	pthread_t thread;

	REQUIRE(take_writer());
	REQUIRE_EQ(pthread_create(&thread, NULL, look, NULL), 0);
	looks(thread);
}

/* Another component had the key, freed it, and left a thread with every right to it. */
static void thread_with_old_rights(void)
{
	long key = syscall(SYS_pkey_alloc, 0, 0);
	uint32_t all = rights();
	pthread_t thread;

	REQUIRE(key > 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, look, NULL), 0);
	REQUIRE_EQ(syscall(SYS_pkey_free, key), 0);
	REQUIRE(take_writer());
	looks(thread);
	CHECK_EQ(all >> 2 * key & 3, 0);
	CHECK_EQ(other.rights >> 2 * key & 3, 2);
}

XP_TEST(no_other_thread_can_write)
{
	NEED_KEYS();
	xp_child(thread_from_before);
	xp_child(thread_from_after);
	xp_child(thread_with_old_rights);
}

/* A thread that cannot be asked may have had the key: it is given back, and no page was changed. */
static void *blocks_all(void *unused)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	__atomic_store_n(&other.go, true, __ATOMIC_RELEASE);
	wait_for(&other.done);
	return unused;
}

static void thread_that_does_not_come(void)
{
	pthread_t thread;
	long key;

	REQUIRE_EQ(pthread_create(&thread, NULL, blocks_all, NULL), 0);
	wait_for(&other.go);
	CHECK_EQ(xp_set_writer(XP_WRITER_PKEY), -XP_E_NO_WRITER);
	CHECK_EQ(nr_writable_text(), 0);
	key = syscall(SYS_pkey_alloc, 0, 0);
	CHECK_EQ(key, 1);
	CHECK_EQ(syscall(SYS_pkey_free, key), 0);
	key_works();
	__atomic_store_n(&other.done, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	REQUIRE(take_writer());
}

XP_TEST(a_thread_that_does_not_come)
{
	NEED_KEYS();
	xp_child(thread_that_does_not_come);
}

/* ---- handlers ---- */

static struct subject in_handler;
static unsigned failed_in_handler;

static void handler_must(bool good)
{
	failed_in_handler += !good;
}

/* What handlers may call, with the rights of a handler, which do not let it read the text that has the key. */
static void on_signal(int number)
{
	struct xp_batch *batch;
	struct xp_stats stats;

	(void)number;
	other.handler_reads = can_read(key_text());
	other.handler_writes = can_write(key_text());
	handler_must(xp_static_branch_enable(&subject_key) == 0 && subject_key_site());
	handler_must(xp_static_branch_enable(&subject_key) == 0);
	handler_must(xp_static_branch_disable(&subject_key) == 0 && !subject_key_site());
	handler_must(xp_static_branch_inc(&subject_key) == 0 && xp_static_branch_dec(&subject_key) == 0);
	handler_must(xp_text_poke(&in_handler.on, NULL) == 0 && subject_call(&in_handler) == SUBJECT_ON);
	handler_must(xp_text_poke(&in_handler.off, NULL) == 0 && subject_call(&in_handler) == SUBJECT_OFF);
	batch = xp_batch_new();
	handler_must(batch && xp_batch_add_key(batch, &subject_key.key, true) == 0 &&
		     xp_batch_add_poke(batch, &in_handler.on) == 0 && xp_batch_commit(batch, NULL) == 0);
	handler_must(xp_batch_add_key(batch, &subject_key.key, false) == 0 &&
		     xp_batch_add_poke(batch, &in_handler.off) == 0 && xp_batch_commit(batch, NULL) == 0);
	xp_batch_free(batch);
	handler_must(xp_repair(NULL) == 0);
	handler_must(xp_module_error() == 0 && xp_state() == XP_STATE_READY);
	xp_stats_read(&stats);
}

static void calls_in_a_handler(void)
{
	struct sigaction act = {.sa_handler = on_signal};

	REQUIRE(take_writer() && subject_make(&in_handler));
	REQUIRE_EQ(sigaction(SIGUSR1, &act, NULL), 0);
	for (unsigned policy = XP_POLICY_AUTO; policy <= XP_POLICY_BREAKPOINT; policy++) {
		CHECK_EQ(xp_set_policy((enum xp_policy)policy), 0);
		CHECK(subject_works(&in_handler));
		raise(SIGUSR1);
		CHECK_EQ(failed_in_handler, 0);
		CHECK(!other.handler_reads && !other.handler_writes);
		CHECK(can_read(key_text()) && !can_write(key_text()));
	}
}

/* Left by siglongjmp, a handler leaves its rights behind: the library gives reading back, and nothing more. */
static sigjmp_buf back;

static void leave(int number)
{
	(void)number;
	siglongjmp(back, 1);
}

static void after_siglongjmp(void)
{
	REQUIRE(take_writer());
	signal(SIGUSR1, leave);
	if (sigsetjmp(back, 1) == 0)
		raise(SIGUSR1);
	CHECK(!can_read(key_text()));
	key_works();
	CHECK(can_read(key_text()) && !can_write(key_text()));
}

/* A thread that a handler made: it meets breakpoints, and the handler of SIGTRAP reads where a key's site jumps to. */
static void *meets(void *argument)
{
	struct subject_runner *runner = argument;

	set_rights(0x55555554u);
	while (!__atomic_load_n(&runner->stop, __ATOMIC_RELAXED)) {
		unsigned result = subject_call(runner->subject);

		runner->wrong += result != SUBJECT_OFF && result != SUBJECT_ON;
		runner->calls += subject_key_site();
	}
	return NULL;
}

static void traps_without_rights(void)
{
	struct subject_runner runner = {.subject = &in_handler};
	struct xp_stats stats = {0};
	pthread_t thread;

	REQUIRE(take_writer() && subject_make(&in_handler));
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, meets, &runner), 0);
	for (int i = 0; i < 40000 && stats.traps < 100; i++) {
		CHECK_EQ(xp_text_poke(i % 2 ? &in_handler.off : &in_handler.on, NULL), 0);
		CHECK_EQ(i % 2 ? xp_static_branch_disable(&subject_key) : xp_static_branch_enable(&subject_key), 0);
		xp_stats_read(&stats);
	}
	XP_TEST_NOTE("traps %llu, late %llu", (unsigned long long)stats.traps, (unsigned long long)stats.late_traps);
	CHECK(stats.traps > 0);
	__atomic_store_n(&runner.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK_EQ(runner.wrong, 0);
}

XP_TEST(handlers_of_the_program)
{
	NEED_KEYS();
	xp_child(calls_in_a_handler);
	xp_child(after_siglongjmp);
	xp_child(traps_without_rights);
}

/*
 * ---- the window, instruction by instruction: a trap after each, whose frame says what rights the thread had ----
 */

#ifdef __x86_64__
#define AREA 0
#define FLAGS REG_EFL
#else
#define AREA 112
#define FLAGS REG_EFL
#endif

static uint32_t pkru_at;
static int key_number;
static unsigned steps, open_steps, calls_while_open, longest, since_open;

static void on_step(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	const uint8_t *area = (const uint8_t *)uc->uc_mcontext.fpregs + AREA, *next;
	uint32_t value;

	(void)number;
	(void)info;
	memcpy(&value, area + pkru_at, sizeof(value));
	steps++;
	if (value >> 2 * key_number & 2) {
		since_open = 0;
		return;
	}
	open_steps++;
	longest = ++since_open > longest ? since_open : longest;
	next = (const uint8_t *)(uintptr_t)uc->uc_mcontext.gregs[XP_GREG_IP];
	calls_while_open += (next[0] == 0x0f && next[1] == 0x05) || (next[0] == 0xcd && next[1] == 0x80);
}

static void set_stepping(bool on)
{
#ifdef __x86_64__
	uint64_t flags = __builtin_ia32_readeflags_u64();

	__builtin_ia32_writeeflags_u64(on ? flags | 0x100 : flags & ~0x100ull);
#else
	uint32_t flags = __builtin_ia32_readeflags_u32();

	__builtin_ia32_writeeflags_u32(on ? flags | 0x100 : flags & ~0x100u);
#endif
}

static void step_by_step(void)
{
	struct sigaction act = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	uint32_t eax = 0xd, ebx, ecx = 9, edx, before;

	REQUIRE(take_writer());
	before = rights();
	for (key_number = 1; key_number < 15 && (before >> 2 * key_number & 3) != 2; key_number++)
		;
	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	pkru_at = ebx;
	REQUIRE_EQ(sigaction(SIGTRAP, &act, NULL), 0);
	for (int i = 0; i < 10; i++) {
		set_stepping(true);
		xp_static_branch_enable(&subject_key);
		xp_static_branch_disable(&subject_key);
		set_stepping(false);
	}
	XP_TEST_NOTE("%u instructions, %u with the right to write, %u in a row", steps, open_steps, longest);
	CHECK(steps > 1000);
	CHECK(open_steps >= 20);
	CHECK(longest < 64);
	CHECK_EQ(calls_while_open, 0);
	CHECK_EQ(rights(), before);
	signal(SIGTRAP, SIG_DFL);
	key_works();
}

XP_TEST(the_window_step_by_step)
{
	NEED_KEYS();
	xp_child(step_by_step);
}

/* ---- text that goes, and comes again ---- */

static void unmapped_and_mapped(void)
{
	struct subject s;
	uint8_t copy[4096];
	void *base;

	REQUIRE(take_writer() && subject_make(&s));
	CHECK(subject_works(&s));
	memcpy(copy, s.text.base, sizeof(copy));
	base = s.text.base;
	/* Gone. */
	REQUIRE_EQ(munmap(base, s.text.size), 0);
	CHECK_EQ(xp_text_poke(&s.on, NULL), -XP_E_NOT_TEXT);
	/* Another's, without the key; then data; then read-only by the program's own call, with the key. */
	REQUIRE(mmap(base, s.text.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		base);
	memcpy(base, copy, sizeof(copy));
	CHECK_EQ(xp_text_poke(&s.on, NULL), -XP_E_NOT_TEXT);
	REQUIRE_EQ(mprotect(base, s.text.size, PROT_READ | PROT_EXEC), 0);
	CHECK(subject_works(&s));
	CHECK(!can_write(s.site));
	REQUIRE_EQ(mprotect(base, s.text.size, PROT_READ | PROT_EXEC), 0);
	CHECK(subject_works(&s));
	/* Shared text cannot have it: the other writers serve. */
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	REQUIRE_EQ(munmap(base, s.text.size), 0);
	REQUIRE(mmap(base, s.text.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == base);
	memcpy(base, copy, sizeof(copy));
	REQUIRE_EQ(mprotect(base, s.text.size, PROT_READ | PROT_EXEC), 0);
	s.on.len = s.off.len = 1;
	CHECK_EQ(xp_text_poke(&s.on, NULL), 0);
	CHECK_EQ(s.site[0], s.jmp[0]);
	CHECK(!can_write(s.site));
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

/* Text that has a key of the program's keeps it: another writer serves. */
static void text_of_another_key(void)
{
	struct subject s;
	long key;

	REQUIRE(take_writer() && subject_make(&s));
	key = syscall(SYS_pkey_alloc, 0, 0);
	REQUIRE(key > 0);
	REQUIRE_EQ(syscall(SYS_pkey_mprotect, s.text.base, s.text.size, PROT_READ | PROT_EXEC, key), 0);
	s.on.len = 1;
	CHECK_EQ(xp_text_poke(&s.on, NULL), 0);
	CHECK_EQ(s.site[0], s.jmp[0]);
	set_rights(rights() | 1u << 2 * key);
	CHECK(!can_read(s.site));
}

/* A program that frees keys which are not its own. */
static void key_freed(void)
{
	REQUIRE(take_writer());
	for (int key = 1; key < 16; key++)
		syscall(SYS_pkey_free, key);
	key_works();
	CHECK(can_read(key_text()) && !can_write(key_text()));
}

XP_TEST(text_and_key_that_go)
{
	NEED_KEYS();
	xp_child(unmapped_and_mapped);
	xp_child(text_of_another_key);
	xp_child(key_freed);
}

/* A module that goes, and comes to the same place: its sites are asked about again. Its text is mapped anew meanwhile. */
static void module_comes_again(void)
{
	uint8_t *page = (uint8_t *)((uintptr_t)subject_key_site & ~(uintptr_t)4095);

	REQUIRE(take_writer());
	for (int i = 0; i < 3; i++) {
		uint8_t *copy = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		key_works();
		REQUIRE_EQ(nr_writable_text(), 1);
		REQUIRE_EQ(xp_module_unregister(&xp__module), 0);
		/* What is mapped there later is no page of ours, whose protection another writer would change. */
		REQUIRE_EQ(nr_writable_text(), 0);
		memcpy(copy, page, 4096);
		REQUIRE_EQ(mprotect(copy, 4096, PROT_READ | PROT_EXEC), 0);
		REQUIRE(mremap(copy, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page);
		REQUIRE_EQ(xp_module_register(&xp__module), 0);
		key_works();
		key_works();
		CHECK(!can_write(key_text()));
	}
}

/* The system refuses to take the key from a page: the module goes all the same, and the page is asked about. */
static void module_goes_with_key(void)
{
	REQUIRE(take_writer());
	REQUIRE(xp_child_filter_equal(SYS_pkey_mprotect, SECCOMP_RET_ERRNO | EACCES, PROT_WRITE, 0));
	REQUIRE_EQ(xp_module_unregister(&xp__module), 0);
	REQUIRE_EQ(xp_module_register(&xp__module), 0);
	key_works();
	CHECK(!can_write(key_text()));
}

XP_TEST(module_that_comes_again)
{
	NEED_KEYS();
	xp_child(module_comes_again);
	xp_child(module_goes_with_key);
}

/* As if another thread had unmapped the page just before the system was asked to give it back. */
static void on_filter(int number, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)number;
	(void)info;
	munmap((void *)regs[XP_GREG_ARG1], 4096);
	regs[XP_GREG_AX] = -ENOMEM;
}

static void unmapped_meanwhile(void)
{
	struct sigaction act = {.sa_sigaction = on_filter, .sa_flags = SA_SIGINFO};
	struct subject s;

	REQUIRE_EQ(xp_set_writer(XP_WRITER_PKEY), 0);
	REQUIRE(subject_make(&s));
	CHECK(subject_works(&s));
	REQUIRE_EQ(sigaction(SIGSYS, &act, NULL), 0);
	REQUIRE(xp_child_filter_equal(SYS_pkey_mprotect, SECCOMP_RET_TRAP, PROT_WRITE, 0));
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	CHECK_EQ(nr_writable_text(), 0);
}

XP_TEST(a_page_that_is_unmapped_while_it_is_given_back)
{
	NEED_KEYS();
	xp_child(unmapped_meanwhile);
}

/* ---- children ---- */

static void change_in_child(pid_t (*make)(void))
{
	int status = -1;
	pid_t child;

	CHECK_EQ(xp_static_branch_enable(&subject_key), 0);
	child = make();
	if (child == 0) {
		bool good = subject_key_site() && xp_static_branch_disable(&subject_key) == 0 && !subject_key_site() &&
			    !can_write(key_text()) && can_read(key_text());

		_exit(!good);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	CHECK(subject_key_site());
	CHECK_EQ(xp_static_branch_disable(&subject_key), 0);
	/* And what the parent changes is not seen in the child. */
	child = make();
	if (child == 0) {
		bool good;

		raise(SIGSTOP);
		good = !subject_key_site() && xp_static_branch_enable(&subject_key) == 0 && subject_key_site();
		_exit(!good);
	}
	CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
	CHECK_EQ(xp_static_branch_enable(&subject_key), 0);
	kill(child, SIGCONT);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	CHECK_EQ(xp_static_branch_disable(&subject_key), 0);
}

static pid_t by_clone(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void children(void)
{
	REQUIRE(take_writer());
	change_in_child(fork);
	change_in_child(by_clone);
}

/* Of another program nothing is left. */
XP_CHILD_PROGRAM(executed)
{
	CHECK_EQ(nr_writable_text(), 0);
	CHECK_EQ(syscall(SYS_pkey_alloc, 0, 0), 1);
}

static void keyed_before(void)
{
	xp_set_writer(XP_WRITER_PKEY);
	xp_static_branch_enable(&subject_key);
}

XP_TEST(children_have_their_own)
{
	NEED_KEYS();
	xp_child(children);
	xp_child_program("executed", keyed_before);
}

/* ---- another writer takes over ---- */

static void given_back(void)
{
	struct subject s;

	REQUIRE(take_writer() && subject_make(&s));
	CHECK(subject_works(&s));
	CHECK(nr_writable_text() > 0);
	for (int writer = XP_WRITER_AUTO; writer <= XP_WRITER_MPROTECT; writer++) {
		CHECK_EQ(xp_set_writer((enum xp_writer)writer), 0);
		CHECK_EQ(nr_writable_text(), 0);
		key_works();
		CHECK(subject_works(&s));
		CHECK_EQ(nr_writable_text(), 0);
		CHECK_EQ(xp_set_writer(XP_WRITER_PKEY), 0);
		key_works();
		CHECK(subject_works(&s));
		CHECK(!can_write(s.site) && !can_write(key_text()));
	}
	munmap(s.text.base, s.text.size);
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	CHECK_EQ(nr_writable_text(), 0);
}

/* The system refuses: the writer stays, with what is left, and no thread can write there. */
static void not_given_back(void)
{
	REQUIRE(take_writer());
	REQUIRE(xp_child_filter_equal(SYS_pkey_mprotect, SECCOMP_RET_ERRNO | EACCES, PROT_WRITE, 0));
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), -EACCES);
	CHECK(!can_write(key_text()));
	key_works();
	CHECK(!can_write(key_text()));
}

XP_TEST(another_writer_takes_over)
{
	NEED_KEYS();
	xp_child(given_back);
	xp_child(not_given_back);
}

/* ---- no key to be had ---- */

static void refused(void)
{
	CHECK_EQ(xp_set_writer(XP_WRITER_PKEY), -XP_E_NO_WRITER);
	CHECK_EQ(nr_writable_text(), 0);
	key_works();
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

static void all_taken(void)
{
	while (syscall(SYS_pkey_alloc, 0, 0) > 0)
		;
	refused();
}

static void filtered(void)
{
	REQUIRE(xp_child_filter(SYS_pkey_alloc, SECCOMP_RET_ERRNO | EPERM, 0));
	refused();
}

/* The pages cannot have it: found out by the first write, which tries the writer. */
static void filtered_pages(void)
{
	REQUIRE(xp_child_filter(SYS_pkey_mprotect, SECCOMP_RET_ERRNO | EACCES, 0));
	CHECK_EQ(xp_set_writer(XP_WRITER_PKEY), 0);
	CHECK_EQ(nr_writable_text(), 0);
	key_works();
}

static void under_mdwe(void)
{
	REQUIRE_EQ(prctl(PR_SET_MDWE, 1, 0, 0, 0), 0);
	refused();
}

/* Later: what has the key goes on, and other pages are for /proc/self/mem, which has no single stores of several bytes. */
static void mdwe_later(void)
{
	struct subject s;

	REQUIRE(take_writer() && subject_make(&s));
	REQUIRE_EQ(prctl(PR_SET_MDWE, 1, 0, 0, 0), 0);
	key_works();
	subject_refused(&s, &s.on, -EACCES, XP_PHASE_STORE, "(errno 13); everything was undone");
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK(subject_works(&s));
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
	CHECK_EQ(nr_writable_text(), 0);
	CHECK(subject_works(&s));
}

XP_CHILD_PROGRAM(wanted_and_refused)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	subject_refused(&s, &s.on, -XP_E_NO_WRITER, XP_PHASE_PREPARE,
			"no protection key is to be had for text here (errno");
}

static void want_without(void)
{
	setenv("CROSSPATCH_WRITER", "pkey", 1);
	xp_child_filter(SYS_pkey_alloc, SECCOMP_RET_ERRNO | ENOSPC, 0);
}

XP_TEST(no_key_to_be_had)
{
	xp_child_program("wanted_and_refused", want_without);
	xp_child(filtered);
	NEED_KEYS();
	xp_child(all_taken);
	xp_child(filtered_pages);
	if (prctl(66 /* PR_GET_MDWE */, 0, 0, 0, 0) < 0)
		SKIP("this kernel has no PR_SET_MDWE (6.3 or later)");
	xp_child(under_mdwe);
	xp_child(mdwe_later);
}

/* ---- from the environment: all threads are later ones ---- */

XP_CHILD_PROGRAM(from_the_start)
{
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, look, NULL), 0);
	REQUIRE(catch_faults());
	key_works();
	CHECK(nr_writable_text() > 0);
	looks(thread);
}

static void want(void)
{
	setenv("CROSSPATCH_WRITER", "pkey", 1);
}

XP_TEST(from_the_environment)
{
	NEED_KEYS();
	xp_child_program("from_the_start", want);
}

XP_CHILD_MAIN()
