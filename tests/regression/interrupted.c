// SPDX-License-Identifier: MIT
/*
 * Signal handlers at any instruction of malloc, stdio, pthread_create, dlopen, fork and exit, that call what handlers may call.
 *
 * The thread steps through the operation, instruction by instruction (the trap flag), and the handler of SIGTRAP calls one of
 * the functions in the table below, another one at each instruction, beginning with another one in each run: at all of them,
 * or where there are very many at some PLACES; with the argument `whole` it calls all of them at each. Another thread forks and
 * commits meanwhile. No commit here needs a breakpoint, so SIGTRAP is the test's own: by the mprotect writer each is a single
 * store, by the default one those functions are left out that would need more.
 */
#include "xp_child.h"
#include "xp_entries.h"
#include "xp_subject.h"

#include "arch/x86/sync.h"
#include "port/linux/sys.h"

#include <crosspatch/function.h>
#include <crosspatch/gate.h>
#include <crosspatch/static_call.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { TF = 0x100, PLACES = 3000 };

static int target(int x);

XP_DEFINE_STATIC_KEY_FALSE(key);
XP_DEFINE_STATIC_KEY_FALSE(drifting);
XP_DEFINE_STATIC_KEY_FALSE(others_key);
XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(lazy, 1);
XP_DEFINE_IMV(int, value, 0);
XP_DEFINE_STATIC_SWITCH(choice, 3, 0);
XP_DEFINE_STATIC_CALL_LAZY(lazy_call, target);
XP_DECLARE_GATE(int, resolved, (int x));
XP_DECLARE_GATE(int, recorded, (int x));
XP_DECLARE_GATE_UD2(int, faulting, (int x));
XP_DECLARE_GATE(int, faulting_site, (int x));
XP_DECLARE_GATE(int, absent, (int x));

static __attribute__((noinline)) int sites(void)
{
	return xp_static_branch_unlikely(&key) + 2 * xp_static_branch_unlikely(&lazy.key) + 4 * xp_imv_read(value) +
	       16 * xp_static_switch(&choice);
}

static __attribute__((noinline)) bool drifts(void)
{
	return xp_static_branch_unlikely(&drifting);
}

static __attribute__((noinline, used)) bool others_site(void)
{
	return xp_static_branch_unlikely(&others_key);
}

/*
 * Functions of one call each: of a stub, across two quadwords and in one, of a trampoline, in UD2 form. And one that raw pokes
 * change.
 */
/* clang-format off */
#define CALLER(name, skip, bytes)                                                                                       \
	".balign 16\n.skip " skip ", 0x90\n" #name ": subq $8, %rsp\n" #name "_site: " bytes "\naddq $8, %rsp\nret\n"
#define CALL(target) ".byte 0xe8\n.long " #target " - (. + 4)\n"
#define UD2_SITE ".byte 0x0f, 0x0b, 0x2e, 0xe8, 0, 0, 0, 0"
#define RECORD(name, gate)                                                                                             \
	".pushsection xp_gate_sites,\"a\",@progbits\n.balign 4\n.long " #name "_site - .\n.long " #gate " - .\n.popsection\n"
__asm__(".pushsection .text\n"
	CALLER(by_resolver, "16", CALL(xp_gate_stub_resolved))
	CALLER(by_record, "11", CALL(xp_gate_stub_recorded)) RECORD(by_record, xp_gate_recorded)
	CALLER(by_fault, "4", UD2_SITE) RECORD(by_fault, xp_gate_faulting_site + 1)
	CALLER(by_discovery, "12", CALL(xp_trampoline_lazy_call))
	".balign 16\n"
	"raw: movl $1, %eax\n"
	"ret\n"
	".popsection");
/* clang-format on */
extern int by_resolver(int), by_record(int), by_discovery(int), by_fault(int), raw(void);
extern uint8_t by_resolver_site[], by_record_site[], by_discovery_site[], by_fault_site[];

static int target(int x)
{
	return x + 1;
}

int traced(int x), traced_body(int x);
XP_ENTRY(traced);
__attribute__((noinline)) int traced_body(int x)
{
	return x + 2;
}

static int replacement(int x)
{
	return x + 3;
}

static unsigned long steps, places;
static unsigned long from, stride; /* 0: only counts */
static unsigned turn;              /* which function is next */
static int wrong;                  /* line of the first one */
static int stepping;               /* thread id */
static int mem;                    /* /proc/self/mem */

static void expect(bool condition, int line)
{
	if (!condition && wrong == 0)
		wrong = line;
}

#define EXPECT(condition) expect(condition, __LINE__)

/* ---- what is called ---- */

static void enable(void)
{
	EXPECT(xp_static_branch_enable(&key) == 0 && xp_static_key_enabled(&key) && sites() & 1);
	EXPECT(xp_static_branch_disable(&key) == 0 && !(sites() & 1));
}

static void count(void)
{
	EXPECT(xp_static_branch_inc(&key) == 0 && xp_static_key_count(&key) == 1 && sites() & 1);
	EXPECT(xp_static_branch_dec(&key) == 0 && !(sites() & 1));
}

static void defer(void)
{
	EXPECT(xp_static_branch_deferred_inc(&lazy) == 0 && sites() & 2);
	EXPECT(xp_static_branch_slow_dec_deferred(&lazy) == 0);
	EXPECT(xp_static_key_deferred_flush(&lazy) == 0 && !(sites() & 2));
	EXPECT(xp_jump_label_rate_limit(&lazy, 1) == 0);
}

static void set_value(void)
{
	int number = (int)(turn % 4);

	EXPECT(xp_imv_set(value, number) == 0 && (sites() >> 2 & 3) == number);
}

static void set_switch(void)
{
	int number = (int)(turn % 3);

	EXPECT(xp_static_switch_set(&choice, number) == 0 && sites() >> 4 == number);
	EXPECT(xp_static_switch_choice(&choice) == number);
}

/*
 * The site is as it was before it was executed. Only this thread executes it, and what was stored through another address
 * it has to serialize for.
 */
static void put_back(uint8_t *site, const uint8_t *bytes, size_t len)
{
	EXPECT(syscall(SYS_pwrite64, mem, bytes, len, site) == (long)len);
	xp__serialize();
}

static void put_back_call(uint8_t *site, const void *stub)
{
	uint8_t call[5];

	EXPECT(xp_text_gen_insn(call, 0xe8, site, stub) == 0);
	put_back(site, call, sizeof(call));
}

static bool calls_target(const uint8_t *call)
{
	int32_t distance;

	memcpy(&distance, call + 1, sizeof(distance));
	return (uintptr_t)call + 5 + (uintptr_t)(intptr_t)distance == (uintptr_t)target;
}

static void gate_by_resolver(void)
{
	put_back_call(by_resolver_site, (const void *)xp_gate(resolved));
	EXPECT(xp_gate_available(resolved) && by_resolver(1) == 2 && calls_target(by_resolver_site) &&
	       by_resolver(2) == 3);
}

static void gate_by_record(void)
{
	put_back_call(by_record_site, (const void *)xp_gate(recorded));
	EXPECT(by_record(1) == 2 && calls_target(by_record_site) && by_record(2) == 3);
}

static void gate_by_stub_that_faults(void)
{
	static const uint8_t ud2[8] = {0x0f, 0x0b, 0x2e, 0xe9};
	int (*volatile pointer)(int) = xp_gate(faulting); /* a call of its own would be bound */
	uint8_t *stub = (uint8_t *)(uintptr_t)pointer;

	put_back(stub, ud2, sizeof(ud2));
	EXPECT(pointer(1) == 2 && stub[0] == 0x2e && pointer(2) == 3);
}

static void gate_by_site_that_faults(void)
{
	static const uint8_t ud2[8] = {0x0f, 0x0b, 0x2e, 0xe8};

	put_back(by_fault_site, ud2, sizeof(ud2));
	EXPECT(by_fault(1) == 2 && calls_target(by_fault_site + 3) && by_fault(2) == 3);
}

static void gate_without_provider(void)
{
	EXPECT(!xp_gate_available(absent) && xp_gate(absent)(1) == 0);
	xp_gate_set_eager(false);
}

static void lazy_static_call(void)
{
	put_back_call(by_discovery_site, (const void *)xp_static_call(lazy_call));
	EXPECT(by_discovery(1) == 2 && calls_target(by_discovery_site) && by_discovery(2) == 3);
	EXPECT(xp_static_call_query(lazy_call) == target);
}

static uint8_t raw_before[5] = {0xb8, 1}, raw_after[5] = {0xb8, 2};
static const struct xp_poke poke = {(void *)(uintptr_t)raw, raw_before, raw_after, 5, XP_RESUME_EMULATE, NULL};
static const struct xp_poke poke_back = {(void *)(uintptr_t)raw, raw_after, raw_before, 5, XP_RESUME_EMULATE, NULL};

static void poke_text(void)
{
	struct xp_diag diag;

	EXPECT(xp_text_poke(&poke, &diag) == 0 && raw() == 2);
	EXPECT(xp_text_poke(&poke, &diag) == -XP_E_MISMATCH && diag.error == -XP_E_MISMATCH);
	EXPECT(xp_text_poke(&poke_back, NULL) == 0 && raw() == 1);
}

/* Made beforehand, by a thread. */
static struct xp_batch *batches[512], *refused;
static unsigned next_batch;

static void commit_batch(void)
{
	struct xp_diag diag;

	EXPECT(xp_batch_commit(refused, &diag) == -XP_E_MISMATCH);
	if (next_batch == sizeof(batches) / sizeof(*batches))
		return;
	EXPECT(xp_batch_commit(batches[next_batch++], &diag) == 0 && raw() == 2 && sites() & 1);
	EXPECT(xp_text_poke(&poke_back, NULL) == 0 && xp_static_branch_disable(&key) == 0);
}

/* What the file has, and not what the key says: as a probe leaves it. */
static void repair(void)
{
	uint8_t before[5];
	const struct xp_branch_site *site = NULL;

	for (const struct xp_branch_site *s = __start_xp_branch_sites; s < __stop_xp_branch_sites; s++)
		if ((((uintptr_t)&s->key + (uintptr_t)(intptr_t)s->key) & ~(uintptr_t)XP_SITE_FLAGS) ==
		    (uintptr_t)&drifting)
			site = s;
	memcpy(before, (const uint8_t *)&site->code + site->code, sizeof(before));
	EXPECT(xp_static_branch_enable(&drifting) == 0 && drifts());
	put_back((uint8_t *)(uintptr_t)&site->code + site->code, before, sizeof(before));
	EXPECT(!drifts() && xp_static_branch_disable(&drifting) == -XP_E_DRIFTED);
	EXPECT(xp_repair(NULL) == 1 && drifts());
	EXPECT(xp_static_branch_disable(&drifting) == 0 && !drifts());
}

static unsigned long entered, left_again;

/* A handler may change what it is called by, and anything else that handlers may. */
static void on_entry(const struct xp_function_call *call, void *data)
{
	entered += call->integer[0] == 1 && data == &entered;
	EXPECT(xp_static_branch_enable(&key) == 0 && xp_static_branch_disable(&key) == 0);
}

static void on_leave(const struct xp_function_call *call, void *data)
{
	left_again += call->integer[0] == 3 && data == &entered;
}

static const struct xp_function_handler handler = {on_entry, on_leave, 0};

static void trace(void)
{
	unsigned long n = entered;

	EXPECT(xp_function_trace(traced, &handler, &entered) == 0);
	EXPECT(traced(1) == 3 && entered == n + 1 && left_again == n + 1);
	EXPECT(xp_function_untrace(traced, &handler, &entered) == 0);
	EXPECT(traced(1) == 3 && entered == n + 1);
}

static void trace_matching(void)
{
	static struct xp_function_counter counter;
	unsigned long n = xp_function_counted(&counter);

	EXPECT(xp_function_trace_matching("trace?", xp_function_counting(), &counter, NULL) == 1);
	EXPECT(traced(1) == 3 && xp_function_counted(&counter) == n + 1);
	EXPECT(xp_function_untrace_matching("trace?", xp_function_counting(), &counter, NULL) == 1);
	EXPECT(xp_function_stack_gone(&counter, &counter) == 0);
}

static void redirect(void)
{
	EXPECT(xp_function_redirect(traced, replacement) == 0 && traced(1) == 4);
	EXPECT(xp_function_original(traced)(1) == 3);
	EXPECT(xp_function_restore(traced) == 0 && traced(1) == 3);
}

static void query(void)
{
	struct xp_diag diag = {.error = -XP_E_MISMATCH};
	char line[256];

	EXPECT(xp_diag_format(&diag, line, sizeof(line)) > 0 && xp_strerror(diag.error) != NULL);
	EXPECT(xp_state() == XP_STATE_READY && xp_module_error() == 0);
	EXPECT(xp_set_policy(XP_POLICY_AUTO) == 0 && xp_policy() == XP_POLICY_AUTO);
}

/*
 * Everything whose contract allows signal handlers, or any context, by its header. `single`: what changes several bytes at
 * once, which without a trap only the mprotect writer does. What is not named here is for threads: what makes, fills and
 * frees batches; providers; updates of static calls; modules; far gates; all of linux.h; of functions synchronize, quiesce,
 * prepare, find, name and statistics; xp_stats_read().
 */
static const struct {
	const char *names;
	void (*call)(void);
	bool single;
} table[] = {
	{"xp_static_branch_enable _disable _unlikely xp_static_key_enabled", enable, false},
	{"xp_static_branch_inc _dec xp_static_key_count", count, false},
	{"xp_static_branch_deferred_inc _slow_dec_deferred xp_static_key_deferred_flush xp_jump_label_rate_limit",
	 defer, false},
	{"xp_imv_set _read", set_value, false},
	{"xp_static_switch_set _choice", set_switch, false},
	{"xp_gate: the resolver", gate_by_resolver, true},
	{"xp_gate: a site with a record", gate_by_record, true},
	{"xp_gate: a stub in UD2 form", gate_by_stub_that_faults, true},
	{"xp_gate: a site in UD2 form", gate_by_site_that_faults, true},
	{"xp_gate xp_gate_available xp_gate_set_eager", gate_without_provider, false},
	{"xp_static_call _query", lazy_static_call, true},
	{"xp_text_poke xp_text_gen_insn", poke_text, false},
	{"xp_batch_commit", commit_batch, false},
	{"xp_repair", repair, false},
	{"xp_function_trace _untrace", trace, true},
	{"xp_function_trace_matching _untrace_matching _stack_gone _counting _counted", trace_matching, true},
	{"xp_function_redirect _restore _original", redirect, true},
	{"xp_diag_format xp_strerror xp_state xp_module_error xp_set_policy xp_policy", query, false},
};
#define NR_CALLS (sizeof(table) / sizeof(table[0]))

static bool whole;  /* all of them at each instruction */
static bool single; /* the writer makes single stores */
static const char *wrong_in;

static void call_next(void)
{
	unsigned i;

	do
		i = turn++ % NR_CALLS;
	while (table[i].single && !single);
	table[i].call();
	if (wrong && wrong_in == NULL)
		wrong_in = table[i].names;
}

/* libc blocks all signals at times, and a trap would kill then: its set is replaced by one without SIGTRAP, and SIGILL. */
static void keep_sigtrap_open(greg_t *gregs)
{
	static __thread uint64_t set;
	const uint8_t *next = (const uint8_t *)gregs[REG_RIP];

	if (next[0] != 0x0f || next[1] != 0x05 || gregs[REG_RAX] != SYS_rt_sigprocmask || gregs[REG_RSI] == 0)
		return;
	memcpy(&set, (const void *)gregs[REG_RSI], sizeof(set));
	if (gregs[REG_RDI] != SIG_UNBLOCK)
		set &= ~(xp__sigbit(SIGTRAP) | xp__sigbit(SIGILL));
	gregs[REG_RSI] = (greg_t)&set;
}

static void on_step(int signal, siginfo_t *info, void *context)
{
	greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;
	int error = errno;

	(void)signal;
	(void)info;
	/* A thread, or a child, that the operation made. */
	if (syscall(SYS_gettid) != stepping) {
		gregs[REG_EFL] &= ~TF;
		errno = error;
		return;
	}
	keep_sigtrap_open(gregs);
	if (stride && steps >= from && (steps - from) % stride == 0) {
		places++;
		for (unsigned n = whole ? NR_CALLS : 1; n > 0; n--)
			call_next();
	}
	steps++;
	errno = error;
}

static void set_flag(bool on)
{
	if (on)
		__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq" ::: "memory", "cc");
	else
		__asm__ volatile("pushfq; andl $~0x100, (%%rsp); popfq" ::: "memory", "cc");
}

/* ---- what is interrupted ---- */

static void allocate(void)
{
	void *volatile some[8];

	for (unsigned i = 0; i < 8; i++)
		some[i] = malloc(40u << (2 * i));
	for (unsigned i = 0; i < 8; i++)
		free(some[i]);
}

static void print(void)
{
	FILE *null = fopen("/dev/null", "w");

	fprintf(null, "%d %s\n", 1, "two");
	fclose(null);
}

static void *nothing(void *unused)
{
	return unused;
}

static void create(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, nothing, NULL) == 0)
		pthread_join(thread, NULL);
}

#ifdef __GLIBC__
static void load(void)
{
	void *object = dlopen("libm.so.6", RTLD_NOW);

	if (object)
		dlclose(object);
}
#endif

static void copy(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
}

static void (*operation)(void);
static bool stop;

/* What the functions need, and a thread has to do. */
static void prepare(void)
{
	static const uint8_t none[5] = {0xb8, 9};
	const struct xp_poke mismatch = {poke.addr, none, raw_after, 5, XP_RESUME_EMULATE, NULL};

	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	REQUIRE(mem >= 0);
	REQUIRE_EQ(xp_set_writer(single ? XP_WRITER_MPROTECT : XP_WRITER_AUTO), 0);
	REQUIRE(xp_gate_provide("resolved", target) == 0 && xp_gate_provide("recorded", target) == 0);
	REQUIRE(xp_gate_provide("faulting", target) == 0 && xp_gate_provide("faulting_site", target) == 0);
	for (unsigned i = 0; i < sizeof(batches) / sizeof(*batches); i++) {
		batches[i] = xp_batch_new();
		REQUIRE(batches[i] && xp_batch_add_poke(batches[i], &poke) == 0);
		REQUIRE_EQ(xp_batch_add_key(batches[i], &key.key, true), 0);
	}
	refused = xp_batch_new();
	REQUIRE(refused && xp_batch_add_poke(refused, &mismatch) == 0);
	/* Once where nothing is interrupted. */
	wrong = 0;
	wrong_in = NULL;
	for (unsigned i = 0; i < NR_CALLS; i++)
		call_next();
	REQUIRE_EQ(wrong, 0);
	turn = (unsigned)getpid();
}

static void prepare_steps(unsigned long all)
{
	stride = all == 0 ? 0 : whole ? 1 : all / PLACES + 1;
	from = stride ? (unsigned long)getpid() % stride : 0;
	steps = places = 0;
}

/* In the child of a test: once to count, then to interrupt. */
static void step_through(void)
{
	struct sigaction act = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO | SA_NODEFER};
	unsigned long all;

	/* Meson's MALLOC_PERTURB_ has malloc fill what it gives, which takes too many steps. */
#ifdef M_PERTURB
	mallopt(M_PERTURB, 0);
#endif
	stepping = (int)syscall(SYS_gettid);
	if (whole)
		alarm(600);
	prepare();
	REQUIRE_EQ(sigaction(SIGTRAP, &act, NULL), 0);
	operation(); /* binds what is bound lazily */
	prepare_steps(0);
	set_flag(true);
	operation();
	set_flag(false);
	all = steps;
	CHECK(all > 100);
	prepare_steps(all);
	set_flag(true);
	operation();
	set_flag(false);
	XP_TEST_NOTE("%lu instructions, interrupted at %lu of them, %lu apart from %lu on", all, places, stride, from);
	CHECK(places > all / stride / 3); /* the first time takes more of them */
	if (wrong)
		XP_TEST_NOTE("%s", wrong_in);
	CHECK_EQ(wrong, 0);
	CHECK_EQ(xp_static_key_count(&key), 0);
}

/* Under musl fork() blocks all signals while it waits for malloc's lock, and so cannot be asked for the text lock. */
static void fork_child(void)
{
#ifdef __GLIBC__
	pid_t child = fork();

	if (child == 0)
		_exit(xp_static_branch_enable(&others_key) != 0 || !others_site());
	if (child > 0) {
		int status = -1;

		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
		expect(status == 0, __LINE__);
	}
#endif
}

/* The other thread forks and commits. */
static void *disturb(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		fork_child();
		expect(xp_static_branch_enable(&others_key) == 0, __LINE__);
		expect(xp_static_branch_disable(&others_key) == 0, __LINE__);
		usleep(200);
	}
	return NULL;
}

static void step_beside_another(void)
{
	pthread_t thread;

	REQUIRE_EQ(pthread_create(&thread, NULL, disturb, NULL), 0);
	step_through();
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK_EQ(wrong, 0);
}

/* What a process that exits leaves behind. */
static struct {
	unsigned long steps, places;
	int wrong;
	char in[100];
} * left;

static void note_left(void)
{
	left->steps = steps;
	left->places = places;
	left->wrong = wrong;
	for (unsigned i = 0; wrong_in && wrong_in[i] && i + 1 < sizeof(left->in); i++)
		left->in[i] = wrong_in[i];
}

static void on_last_step(int signal, siginfo_t *info, void *context)
{
	on_step(signal, info, context);
	note_left();
}

static void leave(void)
{
	struct sigaction act = {.sa_sigaction = on_last_step, .sa_flags = SA_SIGINFO | SA_NODEFER};

	stepping = (int)syscall(SYS_gettid);
	prepare();
	sigaction(SIGTRAP, &act, NULL);
	prepare_steps(left->steps);
	set_flag(true);
	exit(0);
}

XP_TEST(exit_interrupted)
{
	left = mmap(NULL, sizeof(*left), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(left != MAP_FAILED);
	for (int i = 0; i < 2; i++) {
		single = i == 0;
		left->steps = 0;
		CHECK_EQ(xp_child_status(leave), 0);
		CHECK(left->steps > 100);
		CHECK_EQ(xp_child_status(leave), 0);
		XP_TEST_NOTE("%lu instructions, interrupted at %lu of them", left->steps, left->places);
		CHECK(left->places > 100);
		if (left->wrong)
			XP_TEST_NOTE("%s", left->in);
		CHECK_EQ(left->wrong, 0);
	}
	munmap(left, sizeof(*left));
}

#define INTERRUPTED(name)                                                                                              \
	XP_TEST(name##_interrupted)                                                                                    \
	{                                                                                                              \
		operation = name;                                                                                      \
		single = true;                                                                                         \
		xp_child(step_through);                                                                                \
		xp_child(step_beside_another);                                                                         \
		single = false;                                                                                        \
		xp_child(step_beside_another);                                                                         \
	}

INTERRUPTED(allocate)
INTERRUPTED(print)
INTERRUPTED(create)
#ifdef __GLIBC__ /* musl: a static program */
INTERRUPTED(load)
#endif
INTERRUPTED(copy)

#ifdef __GLIBC__
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t nr, size_t size);

static unsigned given; /* by libc's allocator */

void *malloc(size_t size)
{
	given++;
	return __libc_malloc(size);
}

void *calloc(size_t nr, size_t size)
{
	given++;
	return __libc_calloc(nr, size);
}

/* Also where the library takes memory for the first time, which is not in the window of a test that steps. */
static void take_memory(void)
{
	single = true;
	given = 0;
	REQUIRE_EQ(xp_set_writer(XP_WRITER_MPROTECT), 0);
	enable();
	set_value();
	set_switch();
	poke_text();
	trace();
	trace_matching();
	redirect();
	CHECK_EQ(wrong, 0);
	CHECK_EQ(given, 0);
}

XP_TEST(memory_is_not_of_libcs)
{
	xp_child(take_memory);
}
#endif

struct xp_test_state xp_test_state;

int main(int argc, char **argv)
{
	whole = argc > 1 && strcmp(argv[1], "whole") == 0;
	return xp_test_main(argc - whole, argv + whole);
}
