/* SPDX-License-Identifier: MIT */
/*
 * The emulator against the processor. The oracle loads a register frame, executes one instruction with the trap flag
 * set, and reads the frame back: what xp__emulate() makes of the same frame must be the same. It works because a
 * single-step trap comes after the instruction and before anything at its target is fetched, so that targets need
 * not be mapped.
 *
 * Conditions are also held against Jcc written by name, so that a confusion of condition codes shows.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arch/x86/emulate.h"
#include "xp_test.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
enum { NR_GPRS = 16 };
static const int greg_of[NR_GPRS] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
enum { GREG_IP = REG_RIP };
#define RED_ZONE_DOWN "leaq -128(%%rsp), %%rsp\n\t"
#define RED_ZONE_UP "leaq 128(%%rsp), %%rsp\n\t"
#else
enum { NR_GPRS = 8 };
static const int greg_of[NR_GPRS] = { REG_EAX, REG_ECX, REG_EDX, REG_EBX, REG_ESP, REG_EBP, REG_ESI, REG_EDI };
enum { GREG_IP = REG_EIP };
#define RED_ZONE_DOWN ""
#define RED_ZONE_UP ""
#endif

enum {
	RAX,
	RSP = 4,
};

enum {
	CF = 0x001,
	PF = 0x004,
	AF = 0x010,
	ZF = 0x040,
	SF = 0x080,
	TF = 0x100,
	DF = 0x400,
	OF = 0x800,
	STATUS = CF | PF | AF | ZF | SF | OF,
	FIXED = 0x202, /* interrupts on, and the bit that is always 1 */
};

/* The status flags whose bits in @set are 1: 64 sets. */
static uint64_t flag_set(unsigned set)
{
	static const uint64_t bit[] = { CF, PF, AF, ZF, SF, OF };
	uint64_t flags = 0;

	for (unsigned i = 0; i < 6; i++)
		if (set >> i & 1)
			flags |= bit[i];
	return flags;
}

/*
 * Conditions. The stack pointer steps over the red zone, for the compiler may keep something there; LEA leaves the
 * flags alone.
 */
#define REAL_JCC(jcc)                                                                                       \
	static bool real_##jcc(uint64_t flags)                                                              \
	{                                                                                                   \
		unsigned taken = 1;                                                                         \
                                                                                                            \
		__asm__ volatile(RED_ZONE_DOWN "push %[flags]\n\t"                                          \
					       "popf\n\t" RED_ZONE_UP #jcc " 1f\n\t"                        \
					       "movl $0, %[taken]\n"                                        \
					       "1:"                                                         \
				 : [taken] "+&r"(taken)                                                     \
				 : [flags] "r"((uintptr_t)flags)                                            \
				 : "cc", "memory");                                                         \
		return taken;                                                                               \
	}

REAL_JCC(jo)
REAL_JCC(jno)
REAL_JCC(jb)
REAL_JCC(jae)
REAL_JCC(je)
REAL_JCC(jne)
REAL_JCC(jbe)
REAL_JCC(ja)
REAL_JCC(js)
REAL_JCC(jns)
REAL_JCC(jp)
REAL_JCC(jnp)
REAL_JCC(jl)
REAL_JCC(jge)
REAL_JCC(jng)
REAL_JCC(jnle)

static const struct {
	const char *name;
	bool (*holds)(uint64_t flags);
} conditions[16] = {
	{ "O", real_jo }, { "NO", real_jno }, { "B", real_jb },   { "AE", real_jae },
	{ "E", real_je }, { "NE", real_jne }, { "BE", real_jbe }, { "A", real_ja },
	{ "S", real_js }, { "NS", real_jns }, { "P", real_jp },   { "NP", real_jnp },
	{ "L", real_jl }, { "GE", real_jge }, { "NG", real_jng }, { "NLE", real_jnle },
};

XP_TEST(conditions_by_name)
{
	for (unsigned cond = 0; cond < 16; cond++) {
		unsigned failures = xp_test_state.failures, nr_held = 0;

		for (unsigned set = 0; set < 64; set++) {
			bool real = conditions[cond].holds(FIXED | flag_set(set));

			CHECK_EQ(xp__condition(cond, FIXED | flag_set(set)), real);
			/* flags that conditions do not look at, and those above 32 bits that do not exist */
			CHECK_EQ(xp__condition(cond, flag_set(set)), real);
			CHECK_EQ(xp__condition(cond, flag_set(set) | ~(uint64_t)STATUS), real);
			nr_held += real;
		}
		CHECK(nr_held > 0 && nr_held < 64); /* the oracle saw both */
		if (xp_test_state.failures != failures)
			XP_TEST_NOTE("condition %u, %s, is wrong", cond, conditions[cond].name);
	}
}

/* Got wrong elsewhere: NG is "zero or signs differ", NLE its negation. Written out, without an oracle. */
XP_TEST(not_greater_and_greater)
{
	static const struct {
		uint64_t flags;
		bool not_greater;
	} rows[] = {
		{ 0, false },     { SF, true },       { OF, true },       { SF | OF, false },
		{ ZF, true },     { ZF | SF, true },  { ZF | OF, true },  { ZF | SF | OF, true },
		{ CF, false },    { PF, false },      { AF, false },      { CF | PF | AF, false },
		{ CF | SF, true }, { CF | OF, true }, { CF | SF | OF, false },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK_EQ(xp__condition(14, rows[i].flags), rows[i].not_greater);
		CHECK_EQ(xp__condition(15, rows[i].flags), !rows[i].not_greater);
	}
}

/* The oracle. */

enum {
	TEXT_SIZE = 0x1000,
	STACK_SLOTS = 64,
};

/* Far from anything else, so that every 32-bit displacement leads to a canonical address; anywhere in 32-bit code. */
#define TEXT_HINT ((void *)(uintptr_t)0x200000000000)

static uint8_t *text_write, *text_run; /* one page, mapped twice: writable, executable */
static uintptr_t stack[STACK_SLOTS];
static uintptr_t *const stack_middle = &stack[STACK_SLOTS / 2];

static struct xp_regs step_regs;
static gregset_t step_return;
static volatile sig_atomic_t step_state; /* 0 idle, 1 load the frame, 2 the instruction was executed */
static unsigned long nr_steps;

static void step_trap(int signal, siginfo_t *info, void *context)
{
	greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)signal;
	(void)info;
	if (step_state == 1) {
		memcpy(step_return, gregs, sizeof(step_return));
		for (unsigned i = 0; i < NR_GPRS; i++)
			gregs[greg_of[i]] = (greg_t)step_regs.gpr[i];
		gregs[GREG_IP] = (greg_t)step_regs.ip;
		gregs[REG_EFL] = (greg_t)(step_regs.flags | TF);
		step_state = 2;
	} else if (step_state == 2) {
		for (unsigned i = 0; i < NR_GPRS; i++)
			step_regs.gpr[i] = (uintptr_t)gregs[greg_of[i]];
		step_regs.ip = (uintptr_t)gregs[GREG_IP];
		step_regs.flags = (uintptr_t)gregs[REG_EFL] & ~(uintptr_t)TF;
		memcpy(gregs, step_return, sizeof(step_return));
		step_state = 0;
	} else {
		_exit(3); /* an unexpected trap would come again forever */
	}
}

/* Has the processor execute the instruction at @regs->ip, and nothing more. */
static void step(struct xp_regs *regs)
{
	step_regs = *regs;
	step_state = 1;
	__asm__ volatile("int3" : : : "memory");
	*regs = step_regs;
	nr_steps++;
}

/* NULL, or why there is no oracle. */
static const char *oracle_open(void)
{
	static uint8_t signal_stack[1 << 16];
	stack_t alternate = { .ss_sp = signal_stack, .ss_size = sizeof(signal_stack) };
	struct sigaction action = { .sa_sigaction = step_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct xp_regs regs = { .gpr = { 0 } };
	int fd;

	if (text_run)
		return NULL;
	fd = memfd_create("text", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, TEXT_SIZE))
		return "no memory file for the instructions";
	text_write = mmap(NULL, TEXT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	text_run = mmap(TEXT_HINT, TEXT_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	if (text_write == MAP_FAILED || text_run == MAP_FAILED) {
		text_run = NULL;
		return "no executable memory for the instructions";
	}
	memset(text_write, XP__INSN_INT3_BYTE, TEXT_SIZE);
	/* The frame under test brings a stack pointer of its own, which may point anywhere. */
	if (sigaltstack(&alternate, NULL) || sigaction(SIGTRAP, &action, NULL))
		return "no signal stack";
	text_write[0] = 0x90;
	regs.ip = (uintptr_t)text_run;
	regs.flags = FIXED;
	step(&regs);
	return regs.ip == (uintptr_t)text_run + 1 ? NULL : "single-stepping does not work here";
}

#define REQUIRE_ORACLE()                                                                                    \
	do {                                                                                                \
		const char *missing = oracle_open();                                                        \
		if (missing)                                                                                \
			SKIP(missing);                                                                      \
	} while (0)

/* Distinct in every register, stack pointer in the middle of the stack. */
static struct xp_regs frame(uint64_t flags)
{
	struct xp_regs regs = {.ip = 0xdead}; /* ignored */

	for (unsigned i = 0; i < 16; i++)
		regs.gpr[i] = (uintptr_t)(0x0123456789abcdefu * (i + 1));
	regs.gpr[RSP] = (uintptr_t)stack_middle;
	regs.flags = FIXED | flags;
	return regs;
}

static void fill_stack(void)
{
	for (unsigned i = 0; i < STACK_SLOTS; i++)
		stack[i] = (uintptr_t)(0x1111111111111111u * (i % 15 + 1));
}

/* Executes @bytes both ways on @start, compares frame and stack, but for AF after TEST. Returns where it led. */
static int64_t compare(const uint8_t *bytes, size_t len, const struct xp_regs *start)
{
	enum { OFFSET = 0x100 };
	uintptr_t initial[STACK_SLOTS], emulated_stack[STACK_SLOTS];
	struct xp_regs emulated = *start, real = *start;
	unsigned failures = xp_test_state.failures;
	uintptr_t addr = (uintptr_t)text_run + OFFSET;
	struct xp__insn insn;

	memcpy(text_write + OFFSET, bytes, len);
	if (!xp_test_check(xp__insn_decode(text_run + OFFSET, len, &insn) == len && xp__can_emulate(&insn),
			   "can be emulated", __FILE__, __LINE__))
		return 0;

	memcpy(initial, stack, sizeof(stack));
	xp__emulate(&insn, addr, addr + len, &emulated);
	memcpy(emulated_stack, stack, sizeof(stack));
	memcpy(stack, initial, sizeof(stack));

	real.ip = addr;
	step(&real);

	CHECK_MEM(emulated_stack, stack, sizeof(stack));
	CHECK_MEM(emulated.gpr, real.gpr, sizeof(real.gpr));
	CHECK_EQ(emulated.ip, real.ip);
	if (insn.kind == XP__INSN_TEST_IMM) {
		CHECK_EQ(emulated.flags & AF, start->flags & AF); /* undefined: left alone */
		CHECK_EQ(emulated.flags & ~(uint64_t)AF, real.flags & ~(uint64_t)AF);
	} else {
		CHECK_EQ(emulated.flags, real.flags);
	}
	memcpy(stack, initial, sizeof(stack));
	if (xp_test_state.failures != failures && failures < 20) {
		printf("# bytes:");
		for (size_t i = 0; i < len; i++)
			printf(" %02x", bytes[i]);
		printf(", rax %#llx, flags %#llx\n", (unsigned long long)start->gpr[RAX],
		       (unsigned long long)start->flags);
	}
	return (intptr_t)(uintptr_t)(real.ip - addr - len);
}

static void put32(uint8_t *bytes, uint32_t value)
{
	memcpy(bytes, &value, sizeof(value));
}

static const int32_t displacements[] = { 0, 1, -1, 5, -5, 127, -128, 128, -129, 255, 256, 0x7fff, 0x8000, -0x8000,
					 -0x8001, 0x04030201, -0x04030201, INT32_MAX, INT32_MIN };

enum { NR_DISPLACEMENTS = sizeof(displacements) / sizeof(displacements[0]) };

XP_TEST(conditional_jumps)
{
	unsigned nr_taken = 0, nr_not_taken = 0;

	REQUIRE_ORACLE();
	fill_stack();
	for (uint8_t cond = 0; cond < 16; cond++) {
		for (unsigned set = 0; set < 64; set++) {
			struct xp_regs regs = frame(flag_set(set));
			bool taken = conditions[cond].holds(FIXED | flag_set(set));

			for (unsigned i = 0; i < NR_DISPLACEMENTS; i++) {
				int8_t near = (int8_t)displacements[i];
				uint8_t short_form[] = { (uint8_t)(0x70 + cond), (uint8_t)near };
				uint8_t long_form[6] = { 0x0f, (uint8_t)(0x80 + cond) };

				put32(long_form + 2, (uint32_t)displacements[i]);
				CHECK_EQ(compare(short_form, sizeof(short_form), &regs), taken ? near : 0);
				CHECK_EQ(compare(long_form, sizeof(long_form), &regs), taken ? displacements[i] : 0);
				nr_taken += taken;
				nr_not_taken += !taken;
			}
		}
	}
	XP_TEST_NOTE("%u taken, %u not taken, %lu steps of the processor", nr_taken, nr_not_taken, nr_steps);
	CHECK(nr_taken && nr_not_taken);
}

XP_TEST(jumps)
{
	REQUIRE_ORACLE();
	fill_stack();
	for (unsigned set = 0; set < 64; set++) {
		struct xp_regs regs = frame(flag_set(set));

		for (unsigned i = 0; i < NR_DISPLACEMENTS; i++) {
			int8_t near = (int8_t)displacements[i];
			uint8_t short_form[] = { 0xeb, (uint8_t)near };
			uint8_t long_form[5] = { 0xe9 };

			put32(long_form + 1, (uint32_t)displacements[i]);
			CHECK_EQ(compare(short_form, sizeof(short_form), &regs), near);
			CHECK_EQ(compare(long_form, sizeof(long_form), &regs), displacements[i]);
		}
	}
}

XP_TEST(calls)
{
	REQUIRE_ORACLE();
	fill_stack();
	for (unsigned i = 0; i < NR_DISPLACEMENTS; i++) {
		struct xp_regs regs = frame(flag_set(i * 7 % 64) | DF);
		uint8_t call[5] = { 0xe8 };

		put32(call + 1, (uint32_t)displacements[i]);
		CHECK_EQ(compare(call, sizeof(call), &regs), displacements[i]);
		regs.gpr[RSP] += 3; /* unaligned is allowed */
		CHECK_EQ(compare(call, sizeof(call), &regs), displacements[i]);
	}
}

XP_TEST(returns)
{
	static const uint16_t drops[] = { 0, 1, 8, 16, 0xff, 0x100, 0x7fff, 0x8000, 0x8008, 0xffff };
	static const uintptr_t targets[] = { 0, 1, 0x400000, (uintptr_t)0x7ffff7fc1000, (uintptr_t)0x7fffffffefff };

	REQUIRE_ORACLE();
	fill_stack();
	for (size_t t = 0; t < sizeof(targets) / sizeof(targets[0]); t++) {
		struct xp_regs regs = frame(flag_set((unsigned)t * 11 % 64) | DF);
		uintptr_t base = (uintptr_t)text_run + 0x100;
		uint8_t ret[] = { 0xc3 };

		*stack_middle = targets[t];
		CHECK_EQ((uintptr_t)compare(ret, sizeof(ret), &regs) + base + sizeof(ret), targets[t]);
		for (size_t d = 0; d < sizeof(drops) / sizeof(drops[0]); d++) {
			uint8_t ret_drop[] = { 0xc2, (uint8_t)drops[d], (uint8_t)(drops[d] >> 8) };

			CHECK_EQ((uintptr_t)compare(ret_drop, sizeof(ret_drop), &regs) + base + sizeof(ret_drop),
				 targets[t]);
		}
		regs.gpr[RSP] -= 3;
		memcpy((char *)stack_middle - 3, &targets[t], sizeof(targets[t]));
		CHECK_EQ((uintptr_t)compare(ret, sizeof(ret), &regs) + base + sizeof(ret), targets[t]);
	}
}

XP_TEST(nops)
{
	static const uint8_t register_nop[] = { 0x66, 0x0f, 0x1f, 0xc0 };
	uint8_t bytes[9];

	REQUIRE_ORACLE();
	fill_stack();
	for (unsigned set = 0; set < 64; set++) {
		struct xp_regs regs = frame(flag_set(set));

		for (unsigned len = 1; len <= sizeof(bytes); len++) {
			xp__insn_nop(bytes, len);
			CHECK_EQ(compare(bytes, len, &regs), 0);
		}
		CHECK_EQ(compare(register_nop, sizeof(register_nop), &regs), 0);
	}
}

/* TEST of rax, value @value, with @imm in all widths. */
static void compare_tests(uint64_t value, uint32_t imm, uint64_t flags)
{
	struct xp_regs regs = frame(flags);
	uint8_t test8[] = { 0xa8, (uint8_t)imm };
	uint8_t test16[] = { 0x66, 0xa9, (uint8_t)imm, (uint8_t)(imm >> 8) };
	uint8_t test32[5] = { 0xa9 };
	uint8_t test64[6] = { 0x48, 0xa9 };

	put32(test32 + 1, imm);
	put32(test64 + 2, imm);
	regs.gpr[RAX] = (uintptr_t)value;
	CHECK_EQ(compare(test8, sizeof(test8), &regs), 0);
	CHECK_EQ(compare(test16, sizeof(test16), &regs), 0);
	CHECK_EQ(compare(test32, sizeof(test32), &regs), 0);
	if (XP__CODE_BITS == 64)
		CHECK_EQ(compare(test64, sizeof(test64), &regs), 0);
}

XP_TEST(test_edges)
{
	static const uint64_t values[] = {
		0,          1,           0x7f,       0x80,       0xff,
		0x100,      0x7fff,      0x8000,     0xffff,     0x10000,
		0x7fffffff, 0x80000000,  0xffffffff, 0x100000000, 0x7fffffffffffffff,
		0x8000000000000000,      0xffffffffffffffff,     0xffffffff00000000,
		0xffffffffffffff00,      0xffffffffffff0000,     0x0123456789abcdef,
	};
	enum { NR = sizeof(values) / sizeof(values[0]) };

	REQUIRE_ORACLE();
	fill_stack();
	for (unsigned v = 0; v < NR; v++) {
		for (unsigned i = 0; i < NR; i++) {
			compare_tests(values[v], (uint32_t)values[i], 0);
			compare_tests(values[v], (uint32_t)values[i], STATUS);
		}
	}
}

/* Parity, of all lowest bytes, with something above that must not count. */
XP_TEST(test_parity)
{
	REQUIRE_ORACLE();
	fill_stack();
	for (unsigned byte = 0; byte < 256; byte++) {
		compare_tests(byte, 0xffffffff, flag_set(byte % 64));
		compare_tests(0xffffffffffffff00 | byte, 0xffffffff, flag_set(byte / 4));
		compare_tests(0x0000010001000100 | byte, 0xffffffff, flag_set(byte % 64));
	}
}

XP_TEST(test_random)
{
	uint64_t random;

	REQUIRE_ORACLE();
	random = xp_test_seed();
	fill_stack();
	for (unsigned n = 0; n < 10000; n++) {
		uint64_t value = xp_test_random(&random), imm = xp_test_random(&random);

		/* Dense values seldom give zero: thin out every other pair. */
		if (n & 1) {
			value &= xp_test_random(&random) & xp_test_random(&random);
			imm &= xp_test_random(&random) & xp_test_random(&random);
		}
		compare_tests(value, (uint32_t)imm, flag_set((unsigned)(imm >> 32) % 64));
	}
	XP_TEST_NOTE("%lu steps of the processor", nr_steps);
}

static uint64_t wide_immediates[] = {0,
				     1,
				     0x7f,
				     0x80,
				     0xff,
				     0x7fff,
				     0x8000,
				     0x12345678,
				     0x7fffffff,
				     0x80000000,
				     0xffffffff,
				     0x100000000,
				     0x0123456789abcdef,
				     0x8000000000000000,
				     0xffffffffffffffff};

/* Appends REX, if there is one, an opcode and, for the long forms, ModRM. */
static unsigned put_mov(uint8_t *bytes, unsigned prefix, unsigned rex, unsigned opcode, unsigned reg, bool modrm)
{
	unsigned at = 0;

	if (prefix)
		bytes[at++] = (uint8_t)prefix;
	if (rex)
		bytes[at++] = (uint8_t)rex;
	bytes[at++] = (uint8_t)(modrm ? opcode : opcode + reg % 8);
	if (modrm)
		bytes[at++] = (uint8_t)(0xc0 + reg % 8);
	return at;
}

static void compare_mov(const uint8_t *bytes, unsigned len, unsigned operand, unsigned flags)
{
	struct xp_regs regs = frame(flag_set(flags % 64));
	uint8_t code[16];

	/* Its low bytes may come to anything: not near the signal stack, where the kernel would take the thread for nested. */
	regs.gpr[RSP] = (uintptr_t)0x123456789abcdef0;
	memcpy(code, bytes, len);
	for (size_t i = 0; i < sizeof(wide_immediates) / sizeof(wide_immediates[0]); i++) {
		memcpy(code + len, &wide_immediates[i], operand);
		CHECK_EQ(compare(code, len + operand, &regs), 0);
	}
}

/* Every register and width, in the short and the long form; byte registers with REX and without it. */
XP_TEST(moves)
{
	enum { REX_B = 0x41, REX_W = 0x48 };
	unsigned nr_forms = 0;

	REQUIRE_ORACLE();
	fill_stack();
	for (unsigned reg = 0; reg < XP__CODE_BITS / 4; reg++) { /* REX comes with 16 of them, and with 64 bits */
		unsigned b = reg >= 8 ? REX_B : 0, w = (reg >= 8 ? REX_B : 0) | REX_W;
		uint8_t code[8];

		for (unsigned modrm = 0; modrm < 2; modrm++) {
			unsigned full = modrm ? 0xc7 : 0xb8, byte = modrm ? 0xc6 : 0xb0;

			compare_mov(code, put_mov(code, 0x66, b, full, reg, modrm), 2, reg);
			compare_mov(code, put_mov(code, 0, b, full, reg, modrm), 4, reg * 5);
			if (XP__CODE_BITS == 64)
				compare_mov(code, put_mov(code, 0, w, full, reg, modrm), modrm ? 4 : 8, reg * 11);
			/* 4 to 7 without REX are ah, ch, dh and bh. */
			compare_mov(code, put_mov(code, 0, b, byte, reg, modrm), 1, reg * 3);
			nr_forms += XP__CODE_BITS == 64 ? 4 : 3;
			if (XP__CODE_BITS == 64 && reg >= 4 && reg < 8) {
				compare_mov(code, put_mov(code, 0, 0x40, byte, reg, modrm), 1, reg * 7);
				nr_forms++;
			}
		}
	}
	CHECK_EQ(nr_forms, XP__CODE_BITS == 64 ? 136 : 48);
	XP_TEST_NOTE("%u forms, %lu steps of the processor", nr_forms, nr_steps);
}

/* The direction flag, which a handler itself must not keep, is the thread's and stays. */
XP_TEST(other_flags_stay)
{
	static const uint64_t others[] = { 0, DF, DF | FIXED, 0x40000 /* AC */, 0x200000 /* ID */, 0x4000 /* NT */,
					   0x10000 /* RF */, TF };
	static const uint8_t code[][6] = { { 0xa9, 1, 2, 3, 4 }, { 0xeb, 1 }, { 0x75, 1 }, { 0x90 }, { 0xe8, 1 }, { 0xb8, 1 } };

	fill_stack();
	for (size_t o = 0; o < sizeof(others) / sizeof(others[0]); o++) {
		for (size_t c = 0; c < sizeof(code) / sizeof(code[0]); c++) {
			struct xp_regs regs = frame(0);
			struct xp__insn insn;

			regs.flags = others[o] | AF;
			CHECK(xp__insn_decode(code[c], sizeof(code[c]), &insn));
			xp__emulate(&insn, 0x1000, 0x1005, &regs);
			CHECK_EQ(regs.flags & ~(uint64_t)(STATUS & ~AF), others[o] | AF);
		}
	}
}

/* A site may be longer than its instruction: the displacement counts from the instruction, the rest is skipped. */
XP_TEST(padding)
{
	static const uint8_t jump[] = { 0xeb, 0x10 }, branch[] = { 0x74, 0xf0 }, test[] = { 0xa8, 0x01 };
	static const uint8_t call[] = { 0xe8, 0x00, 0x01, 0x00, 0x00 }, nop[] = { 0x90 }, mov[] = { 0xb4, 0x01 };
	const uintptr_t addr = (uintptr_t)0x7f0000001000, end = addr + 9;
	struct xp__insn insn;
	struct xp_regs regs;

	fill_stack();
	CHECK(xp__insn_decode(jump, sizeof(jump), &insn));
	regs = frame(0);
	xp__emulate(&insn, addr, end, &regs);
	CHECK_EQ(regs.ip, addr + 2 + 0x10);

	CHECK(xp__insn_decode(branch, sizeof(branch), &insn));
	regs = frame(ZF);
	xp__emulate(&insn, addr, end, &regs);
	CHECK_EQ(regs.ip, addr + 2 - 0x10);
	regs = frame(0);
	xp__emulate(&insn, addr, end, &regs);
	CHECK_EQ(regs.ip, end);

	CHECK(xp__insn_decode(test, sizeof(test), &insn));
	regs = frame(0);
	xp__emulate(&insn, addr, end, &regs);
	CHECK_EQ(regs.ip, end);

	CHECK(xp__insn_decode(nop, sizeof(nop), &insn));
	regs = frame(0);
	xp__emulate(&insn, addr, end, &regs);
	CHECK_EQ(regs.ip, end);

	CHECK(xp__insn_decode(mov, sizeof(mov), &insn));
	regs = frame(0);
	xp__emulate(&insn, addr, end, &regs);
	CHECK_EQ(regs.ip, end);

	CHECK(xp__insn_decode(call, sizeof(call), &insn));
	regs = frame(0);
	xp__emulate(&insn, addr, end, &regs);
	CHECK_EQ(regs.ip, addr + 5 + 0x100);
	CHECK_EQ(regs.gpr[RSP], (uintptr_t)(stack_middle - 1));
	CHECK_EQ(stack_middle[-1], end); /* returns behind the padding */
}

XP_TEST(entry_ip_ignored)
{
	static const uint8_t code[][6] = { { 0xeb, 0x10 }, { 0x74, 0x10 }, { 0x75, 0x10 }, { 0x90 }, { 0xa8, 1 },
					   { 0xe8, 1 },    { 0xc3 }, { 0xb0, 1 } };

	fill_stack();
	for (size_t c = 0; c < sizeof(code) / sizeof(code[0]); c++) {
		struct xp_regs one = frame(ZF), other = frame(ZF);
		struct xp__insn insn;

		CHECK(xp__insn_decode(code[c], sizeof(code[c]), &insn));
		one.ip = 0;
		other.ip = ~(uint64_t)0;
		xp__emulate(&insn, 0x401000, 0x401008, &one);
		xp__emulate(&insn, 0x401000, 0x401008, &other);
		CHECK_MEM(&one, &other, sizeof(one));
		CHECK(one.ip != 0 && one.ip != ~(uint64_t)0);
	}
}

XP_TEST(not_emulatable)
{
	static const uint8_t pause[] = { 0xf3, 0x90 }, int3[] = { 0xcc };
	struct xp_regs regs = frame(0), before = regs;
	struct xp__insn insn;

	CHECK_EQ(xp__insn_decode(pause, sizeof(pause), &insn), 0);
	CHECK(!xp__can_emulate(&insn));
	xp__emulate(&insn, 0x1000, 0x1002, &regs);
	CHECK_MEM(&regs, &before, sizeof(regs));

	CHECK_EQ(xp__insn_decode(int3, sizeof(int3), &insn), 1);
	CHECK(!xp__can_emulate(&insn));
	xp__emulate(&insn, 0x1000, 0x1001, &regs);
	CHECK_MEM(&regs, &before, sizeof(regs));

	for (unsigned kind = XP__INSN_NEAR_CALL + 1; kind < 256; kind++) {
		insn.kind = (uint8_t)kind;
		CHECK(!xp__can_emulate(&insn));
	}
}

XP_TEST_MAIN()
