// SPDX-License-Identifier: MIT
/*
 * Chooses and builds a plan.
 *
 * I1  A plan is offered only if every mixture of versions that a processor may fetch under the model asked for executes
 *     as old, as new, or traps where the trap table knows it: the table below, which the verifier's tests hold true.
 * I2  A site of several instructions is never changed under a running bystander: its program counter may rest on the
 *     second. Only quiesce (which looks) and early (no other thread runs) take it. The same for its replacement: a commit
 *     whose last sync fails is undone under bystanders that may have begun it.
 * I3  Nothing here reads the text or calls the port: the verifier runs the same function.
 */
#include "arch/x86/method.h"

#include "arch/x86/emulate.h"
#include "core/deps.h"

#define FETCH(model) (1u << XP__FETCH_##model)
#define FETCH_ALL ((1u << XP__NR_FETCHES) - 1)

/*
 * The models that prove a method. What each rests on:
 * flip         one byte changes, and a byte is never seen in halves
 * word         the bytes that change lie in one aligned quadword, are stored at once and are fetched at once
 * shortjmp     the same for the first two bytes; the tail changes while no thread can execute it (syncs between)
 * breakpoint   single bytes change, and the tail while a breakpoint that every thread sees stands before it
 * bypass       the same; what a trapped bystander executes out of line never changes
 * quiesce      no thread executes meanwhile, none rests inside, each serializes before going on
 * early        no other thread executes
 */
static const uint8_t proven[XP__NR_METHODS] = {
	[XP__METHOD_NONE] = FETCH_ALL,
	[XP__METHOD_FLIP] = FETCH(AMD) | FETCH(AMD_REREAD) | FETCH(BYTE) | FETCH(LINE64),
	[XP__METHOD_WORD] = FETCH(AMD) | FETCH(LINE64),
	[XP__METHOD_SHORTJMP] = FETCH(AMD) | FETCH(LINE64),
	[XP__METHOD_BREAKPOINT] = FETCH(AMD) | FETCH(AMD_REREAD) | FETCH(BYTE) | FETCH(LINE64),
	[XP__METHOD_BYPASS] = FETCH(AMD) | FETCH(AMD_REREAD) | FETCH(BYTE) | FETCH(LINE64),
	[XP__METHOD_QUIESCE] = FETCH_ALL,
	[XP__METHOD_EARLY] = FETCH_ALL,
};

bool xp__method_proven(enum xp__method method, enum xp__fetch fetch)
{
	return proven[method] >> fetch & 1;
}

/* The bytes that differ: [first, last], and how many. */
struct span {
	unsigned first, last, nr;
};

static struct span differing(const struct xp__change *c)
{
	struct span span = {0, 0, 0};

	for (unsigned i = 0; i < c->known; i++) {
		if (c->old[i] == c->new[i])
			continue;
		if (span.nr == 0)
			span.first = i;
		span.last = i;
		span.nr++;
	}
	return span;
}

static bool all_nops(const uint8_t *bytes, unsigned len)
{
	struct xp__insn insn;
	unsigned at = 0;

	while (at < len) {
		unsigned n = xp__insn_decode(bytes + at, len - at, &insn);

		if (n == 0 || insn.kind != XP__INSN_NOP)
			return false;
		at += n;
	}
	return true;
}

/* Execution never falls out of its end by itself. */
static bool is_final(const struct xp__insn *insn)
{
	return insn->kind == XP__INSN_JMP || insn->kind == XP__INSN_RET;
}

/* Known to continue, now or when a call returns, at its end. */
static bool falls_through(const struct xp__insn *insn)
{
	return insn->kind != XP__INSN_UNKNOWN && insn->kind != XP__INSN_INT3 && !is_final(insn);
}

static void method_add_store(struct xp__plan *plan, const uint8_t *bytes, unsigned off, unsigned len, unsigned flags)
{
	struct xp__store *store = &plan->store[plan->nr_stores++];

	store->off = (uint8_t)off;
	store->len = (uint8_t)len;
	store->flags = (uint8_t)flags;
	memcpy(store->bytes, bytes + off, len);
}

/* One byte is fetched whole under every model: proven for any alignment. */
static bool try_flip(const struct span *span, struct xp__plan *plan)
{
	if (span->nr != 1)
		return false;
	plan->method = XP__METHOD_FLIP;
	plan->needs = XP_NEED_SYNC;
	method_add_store(plan, plan->new, span->first, 1, 0);
	return true;
}

/*
 * AMD64 APM vol. 2 §7.6.1: one store inside an aligned quadword; an instruction is extracted from one version of it.
 * On Intel the practice of every production runtime, not the written rule.
 */
static bool try_word(const struct xp__change *c, const struct span *span, const struct xp__insn *new,
		     struct xp__plan *plan)
{
	if (!(c->can & XP_NEED_SINGLE) || (c->addr + span->first) / 8 != (c->addr + span->last) / 8)
		return false;
	/* The instruction boundaries must stay; behind a jmp there is none that a thread comes to. */
	if (new->len != 0 && new->len != c->len && !(is_final(new) && all_nops(c->new + new->len, c->len - new->len)))
		return false;
	plan->method = XP__METHOD_WORD;
	plan->needs = XP_NEED_SYNC | XP_NEED_SINGLE;
	method_add_store(plan, plan->new, span->first, span->last - span->first + 1, XP_WRITE_SINGLE);
	return true;
}

static bool is_branch(const struct xp__insn *insn)
{
	return insn->kind == XP__INSN_JMP || insn->kind == XP__INSN_CALL;
}

/*
 * S3: jump over the tail, change the tail, change the head. Two-byte stores at an even address lie inside a quadword;
 * the syncs between answer the objection that a core may read the region several times for one instruction. The jump over
 * does what the nop does, so one of the two has to be the nop; the other one may be a call: it returns behind the site.
 */
static bool try_shortjmp(const struct xp__change *c, const struct xp__insn *old, const struct xp__insn *new,
			 struct xp__plan *plan)
{
	static const uint8_t over[2] = {0xeb, 0x03};
	bool from_nop = old->kind == XP__INSN_NOP && is_branch(new);
	bool to_nop = is_branch(old) && new->kind == XP__INSN_NOP;

	if (!(c->can & XP_NEED_SINGLE) || c->addr % 2 != 0 || c->known != 5)
		return false;
	if (!(from_nop || to_nop) || old->len != 5 || new->len != 5)
		return false;
	plan->method = XP__METHOD_SHORTJMP;
	plan->needs = XP_NEED_SYNC | XP_NEED_SINGLE;
	method_add_store(plan, over, 0, 2, XP_WRITE_SINGLE);
	method_add_store(plan, plan->new, 2, 3, 0);
	method_add_store(plan, plan->new, 0, 2, XP_WRITE_SINGLE);
	return true;
}

/* S4. A thread that meets the breakpoint executes the new instruction, or resumes where the caller says (S2). */
static int try_breakpoint(const struct xp__change *c, const struct span *span, const struct xp__insn *new,
			  struct xp__plan *plan, const char **detail)
{
	static const uint8_t int3[1] = {XP__INSN_INT3_BYTE};
	bool bypass = c->resume == XP_RESUME_BYPASS && !xp__can_emulate(new);
	bool emulate = c->resume == XP_RESUME_EMULATE || (c->resume == XP_RESUME_BYPASS && !bypass);

	if (!(c->can & XP_NEED_TRAP)) {
		*detail = "a breakpoint is needed and the port has no trap handler";
		return -XP_E_NO_METHOD;
	}
	if (c->old[0] == XP__INSN_INT3_BYTE) {
		*detail = "the site already is a breakpoint";
		return -XP_E_NO_METHOD;
	}
	if (emulate) {
		if (!xp__can_emulate(new) || (new->len < c->len && !all_nops(c->new + new->len, c->len - new->len))) {
			*detail = "only nop, jmp, jcc, call, ret and test-immediate, padded with nops, are emulated";
			return -XP_E_EMULATE;
		}
		if ((new->kind == XP__INSN_CALL || new->kind == XP__INSN_RET) && !(c->can & XP_NEED_CALL)) {
			*detail = "the return address would be missing on the shadow stack";
			return -XP_E_SHADOW_STACK;
		}
	}
	plan->method = bypass ? XP__METHOD_BYPASS : XP__METHOD_BREAKPOINT;
	plan->needs = XP_NEED_SYNC | XP_NEED_TRAP;
	plan->traps = true;
	plan->insn = *new;
	plan->resume = emulate || bypass ? 0 : c->resume_at;
	method_add_store(plan, int3, 0, 1, 0);
	if (span->last > 0) {
		unsigned first = span->first > 0 ? span->first : 1;

		method_add_store(plan, plan->new, first, span->last - first + 1, 0);
	}
	method_add_store(plan, plan->new, 0, 1, 0);
	return 0;
}

static int method_build(const struct xp__change *c, const struct span *span, struct xp__plan *plan, const char **detail)
{
	struct xp__insn old, new;
	bool several;

	if (c->as) {
		old = (struct xp__insn){.kind = XP__INSN_UNKNOWN, .len = c->len};
		new = *c->as;
	} else {
		xp__insn_decode(c->old, c->len, &old);
		xp__insn_decode(c->new, c->len, &new);
	}
	/* Padding behind an instruction that does not fall through is dead. */
	several = old.len != 0 && old.len < c->len &&
		  !(is_final(&old) && all_nops(c->old + old.len, c->len - old.len));
	plan->single = old.len == c->len;

	switch (c->policy) {
	case XP_POLICY_EARLY:
	case XP_POLICY_QUIESCE:
		plan->method = c->policy == XP_POLICY_EARLY ? XP__METHOD_EARLY : XP__METHOD_QUIESCE;
		plan->needs = c->policy == XP_POLICY_EARLY ? XP_NEED_ALONE : XP_NEED_PARK;
		method_add_store(plan, plan->new, span->first, span->last - span->first + 1, 0);
		return 0;
	case XP_POLICY_AUTO:
	case XP_POLICY_BREAKPOINT:
		break;
	}
	if (several) {
		*detail = "a thread may rest on the second instruction";
		return -XP_E_MULTI;
	}
	/* If the last sync fails, the first of the new instructions may have been executed: a call out of here returns. */
	if (new.len < c->len && falls_through(&new)) {
		*detail = "a rollback could find a thread on the second of the new instructions";
		return -XP_E_MULTI;
	}
	if (c->policy == XP_POLICY_AUTO &&
	    ((xp__method_proven(XP__METHOD_FLIP, c->fetch) && try_flip(span, plan)) ||
	     (xp__method_proven(XP__METHOD_WORD, c->fetch) && try_word(c, span, &new, plan)) ||
	     (xp__method_proven(XP__METHOD_SHORTJMP, c->fetch) && try_shortjmp(c, &old, &new, plan))))
		return 0;
	if (!xp__method_proven(XP__METHOD_BREAKPOINT, c->fetch)) {
		*detail = "under this fetch model only the quiesce policy is proven";
		return -XP_E_NO_METHOD;
	}
	return try_breakpoint(c, span, &new, plan, detail);
}

int xp__plan_build(const struct xp__change *c, struct xp__plan *plan, const char **detail)
{
	struct span span = differing(c);

	memset(plan, 0, sizeof(*plan));
	plan->len = c->len;
	plan->known = c->known;
	memcpy(plan->old, c->old, c->len);
	memcpy(plan->new, c->new, c->len);
	plan->one_way = c->one_way;
	if (span.nr == 0)
		return 0;
	return method_build(c, &span, plan, detail);
}
