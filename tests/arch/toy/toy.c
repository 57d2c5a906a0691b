// SPDX-License-Identifier: MIT
#include "arch/arch.h"
#include "core/deps.h"

#define TRAP_WORD ((uint32_t)TOY_TRAP << 24)
#define REACH (1 << 25) /* bytes that a displacement reaches, either way */

/* ---- text ---- */

uint32_t toy_word(const void *text)
{
	const volatile uint8_t *bytes = text; /* the loop would become memcpy, which trap handlers must not call */
	uint32_t word = 0;

	for (unsigned i = 0; i < 4; i++)
		word |= (uint32_t)bytes[i] << 8 * i;
	return word;
}

static void put(uint8_t *bytes, uint32_t word)
{
	for (unsigned i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(word >> 8 * i);
}

uint32_t toy_insn(enum toy_kind kind, unsigned reg, int32_t imm)
{
	uint32_t low = kind == TOY_LOAD || kind == TOY_ADD ? reg << 16 | (uint16_t)imm : (uint32_t)(imm / 4) & 0xffffff;

	return (uint32_t)kind << 24 | low;
}

unsigned xp__insn_decode(const uint8_t *bytes, size_t avail, struct xp__insn *insn)
{
	uint32_t word = avail >= 4 ? toy_word(bytes) : 0, low = word & 0xffffff, kind = word >> 24;
	bool numbered = kind == TOY_LOAD || kind == TOY_ADD;
	bool displaced = kind == TOY_BRANCH || kind == TOY_CALL || kind == TOY_THROUGH;

	*insn = (struct xp__insn){0};
	if (kind == TOY_UNKNOWN || kind > TOY_ADD || (!numbered && !displaced && low != 0) || (numbered && low >> 18))
		return 0;
	insn->kind = (uint8_t)kind;
	insn->len = 4;
	if (numbered) {
		insn->reg = (uint16_t)(low >> 16);
		insn->imm = (int32_t)(low & 0xffff);
	} else if (displaced) {
		insn->imm = ((int32_t)(low << 8) >> 8) * 4;
	}
	return 4;
}

/* ---- forms ---- */

static bool displaced(uint8_t *bytes, enum toy_kind kind, uintptr_t code, uintptr_t target)
{
	intptr_t distance = (intptr_t)(target - code);

	if (distance % 4 != 0 || distance < -REACH || distance >= REACH)
		return false;
	put(bytes, toy_insn(kind, 0, (int32_t)distance));
	return true;
}

bool xp__form_branch(uint8_t *bytes, uintptr_t code, uintptr_t target, bool jumps)
{
	if (jumps)
		return displaced(bytes, TOY_BRANCH, code, target);
	put(bytes, toy_insn(TOY_NOP, 0, 0));
	return true;
}

bool xp__branch_is(uintptr_t code, uintptr_t target, bool jumps)
{
	uint8_t bytes[4];

	return xp__form_branch(bytes, code, target, jumps) && memcmp((const void *)code, bytes, 4) == 0;
}

bool xp__form_jump(uint8_t *bytes, uintptr_t code, uintptr_t target)
{
	return displaced(bytes, TOY_BRANCH, code, target);
}

bool xp__form_call(uint8_t *bytes, uintptr_t code, uintptr_t target, bool tail)
{
	return displaced(bytes, tail ? TOY_BRANCH : TOY_CALL, code, target);
}

bool xp__form_call_fits(uintptr_t code)
{
	return code % 4 == 0;
}

bool xp__form_trampoline(uint8_t *bytes, uintptr_t code, uintptr_t target)
{
	return displaced(bytes, TOY_BRANCH, code, target);
}

void xp__form_trampoline_indirect(uint8_t *bytes, uintptr_t code, const void *word)
{
	(void)displaced(bytes, TOY_THROUGH, code, (uintptr_t)word);
}

bool xp__form_trampoline_is_indirect(const uint8_t *text)
{
	return text[3] == TOY_THROUGH;
}

bool xp__form_is_value(const uint8_t *text, unsigned len, unsigned size)
{
	struct xp__insn insn;

	return xp__value_size(size) && xp__insn_decode(text, len, &insn) == len && insn.kind == TOY_LOAD;
}

void xp__form_value(uint8_t *bytes, const uint8_t *text, unsigned len, unsigned size, uint64_t bits)
{
	(void)len;
	put(bytes, (toy_word(text) & 0xffff0000) | (uint32_t)(bits & (size == 1 ? 0xff : 0xffff)));
}

int xp_text_gen_insn(uint8_t *out, uint8_t opcode, const void *addr, const void *target)
{
	(void)out;
	(void)opcode;
	(void)addr;
	(void)target;
	return -XP__EINVAL;
}

/* ---- live ---- */

static void add_store(struct xp__plan *plan, const uint8_t *bytes, unsigned off, unsigned len, unsigned flags)
{
	struct xp__store *store = &plan->store[plan->nr_stores++];

	store->off = (uint8_t)off;
	store->len = (uint8_t)len;
	store->flags = (uint8_t)flags;
	memcpy(store->bytes, bytes, len);
}

static bool is_final(uint8_t kind)
{
	return kind == TOY_BRANCH || kind == TOY_THROUGH || kind == TOY_RETURN;
}

static bool is_emulated(uint8_t kind)
{
	return kind != TOY_UNKNOWN && kind != TOY_TRAP && kind != TOY_ADD;
}

static int refuse(const char **detail, int error, const char *why)
{
	*detail = why;
	return error;
}

/* The trap is a single store as well. */
static int trap(const struct xp__change *c, const struct xp__insn *new, struct xp__plan *plan, const char **detail)
{
	bool bypass = c->resume == XP_RESUME_BYPASS && !is_emulated(new->kind);
	uint8_t word[4];

	if (!(c->can & XP_NEED_TRAP))
		return refuse(detail, -XP_E_NO_METHOD, "a trap is needed and the port has no handler");
	if (c->resume != XP_RESUME_AT && !bypass && !is_emulated(new->kind))
		return refuse(detail, -XP_E_EMULATE, "neither nop, branch, call, return nor load");
	plan->method = bypass ? XP__METHOD_BYPASS : XP__METHOD_TRAP;
	plan->needs = XP_NEED_SYNC | XP_NEED_SINGLE | XP_NEED_TRAP;
	plan->traps = true;
	plan->insn = *new;
	plan->resume = c->resume == XP_RESUME_AT ? c->resume_at : 0;
	put(word, TRAP_WORD);
	add_store(plan, word, 0, 4, XP_WRITE_SINGLE);
	if (c->len > 4)
		add_store(plan, c->new + 4, 4, c->len - 4u, 0);
	add_store(plan, c->new, 0, 4, XP_WRITE_SINGLE);
	return 0;
}

int xp__plan_build(const struct xp__change *c, struct xp__plan *plan, const char **detail)
{
	struct xp__insn old, new;

	memset(plan, 0, sizeof(*plan));
	plan->len = c->len;
	plan->known = c->known;
	memcpy(plan->old, c->old, c->len);
	memcpy(plan->new, c->new, c->len);
	plan->one_way = c->one_way;
	plan->single = c->len == 4;
	if (memcmp(c->old, c->new, c->len) == 0)
		return 0;
	if (c->len % 4 != 0 || c->addr % 4 != 0)
		return refuse(detail, -XP_E_MULTI, "no whole instructions");
	if (c->policy == XP_POLICY_EARLY || c->policy == XP_POLICY_QUIESCE) {
		plan->method = XP__METHOD_ALONE;
		plan->needs = c->policy == XP_POLICY_EARLY ? XP_NEED_ALONE : XP_NEED_PARK;
		add_store(plan, c->new, 0, c->len, 0);
		return 0;
	}
	if (!(c->can & XP_NEED_SINGLE))
		return refuse(detail, -XP_E_NO_METHOD, "the port stores no word at once");
	xp__insn_decode(c->old, c->len, &old);
	xp__insn_decode(c->new, c->len, &new);
	if (old.kind == TOY_TRAP)
		return refuse(detail, -XP_E_NO_METHOD, "the site already is a trap");
	if (c->len == 4 && c->policy == XP_POLICY_AUTO) {
		plan->method = XP__METHOD_STORE;
		plan->needs = XP_NEED_SYNC | XP_NEED_SINGLE;
		add_store(plan, c->new, 0, 4, XP_WRITE_SINGLE);
		return 0;
	}
	/* What stands behind a branch is dead; on anything else a thread may rest. */
	if (c->len > 4 && !(is_final(old.kind) && is_final(new.kind)))
		return refuse(detail, -XP_E_MULTI, "a thread may rest on the second instruction");
	return trap(c, &new, plan, detail);
}

/* ---- trap ---- */

bool toy_execute(const struct xp__insn *insn, uintptr_t addr, struct xp_regs *regs)
{
	regs->ip = addr + 4;
	switch (insn->kind) {
	case TOY_NOP:
		return true;
	case TOY_CALL:
		regs->link = addr + 4;
		/* fall through */
	case TOY_BRANCH:
		regs->ip = addr + (uintptr_t)(intptr_t)insn->imm;
		return true;
	case TOY_RETURN:
		regs->ip = regs->link;
		return true;
	case TOY_LOAD:
		regs->gpr[insn->reg] = (uint64_t)insn->imm;
		return true;
	case TOY_THROUGH:
		regs->ip =
			__atomic_load_n((const uintptr_t *)(addr + (uintptr_t)(intptr_t)insn->imm), __ATOMIC_RELAXED);
		return true;
	case TOY_ADD:
		regs->gpr[insn->reg] += (uint64_t)insn->imm;
		return true;
	default:
		regs->ip = addr;
		return false;
	}
}

bool xp__trap_taken(const struct xp_regs *regs, struct xp__trapped *at)
{
	at->addr = (uintptr_t)regs->ip;
	return true;
}

void xp__trap_finish(const struct xp__insn *insn, const struct xp__trapped *at, unsigned len, struct xp_regs *regs)
{
	(void)len; /* what lies behind a branch is dead */
	(void)toy_execute(insn, at->addr, regs);
}

void xp__trap_goto(struct xp_regs *regs, uintptr_t to)
{
	regs->ip = to;
}

void xp__trap_again(struct xp_regs *regs, const struct xp__trapped *at)
{
	regs->ip = at->addr;
}

bool xp__trap_is_late(uintptr_t addr, int (*peek)(uintptr_t addr))
{
	uint32_t word = 0;

	for (unsigned i = 0; i < 4; i++) {
		int byte = peek(addr + i);

		if (byte < 0)
			return false;
		word |= (uint32_t)byte << 8 * i;
	}
	return word != TRAP_WORD;
}

/* ---- out of line ---- */

/* Only what does not say where it stands. */
unsigned xp__slot_build(uint8_t *out, const uint8_t *insn, unsigned len, uintptr_t from, uintptr_t to)
{
	struct xp__insn decoded;

	xp__insn_decode(insn, len, &decoded);
	if (len != 4 || (decoded.kind != TOY_NOP && decoded.kind != TOY_LOAD && decoded.kind != TOY_ADD))
		return 0;
	memcpy(out, insn, 4);
	return displaced(out + 4, TOY_BRANCH, to + 4, from + 4) ? 8 : 0;
}
