/* SPDX-License-Identifier: MIT */
/*
 * The contract between the core and an architecture, as port.h is the one between the core and what it runs on. One
 * architecture for each build, chosen here; the core includes nothing else of it. There is no table of functions: what an
 * architecture wants inlined it defines in its header, as static inline functions of the names below.
 *
 * Everything here is pure, calls nothing, takes no lock and may be called anywhere, but for what says otherwise. Text is given
 * as bytes that were read; @code is where they stand. How a new architecture is made: doc/adding-an-arch.md.
 */
#ifndef XP_ARCH_ARCH_H
#define XP_ARCH_ARCH_H

#include <crosspatch/arch.h>
#include <crosspatch/error.h>
#include <crosspatch/port.h>
#include <crosspatch/text_poke.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef XP_ARCH_HEADER /* of an architecture outside of this tree */
#include XP_ARCH_HEADER
#else
#include "arch/x86/arch.h"
#endif

/*
 * What the architecture's header defines.
 *
 * XP__BRANCH_LEN, XP__CALL_LEN, XP__JUMP_LEN, XP__TRAMPOLINE_LEN, XP__ENTRY_LEN, XP__FAULT_LEN - bytes of the sites of each
 * kind, at most XP_MAX_LEN. XP__TRAMPOLINE_CHANGE - leading bytes of a trampoline that differ between its forms.
 * XP__TRAP_LEN - bytes of the instruction that traps. XP__ENTRY_SHARED - leading bytes in which the two forms of an entry
 * differ that is traced and no longer traced, 1 at least.
 * XP__BRANCH_SHARED - the two forms of a key's site differ in their first XP__BRANCH_SHARED bytes alone, wherever it leads:
 * two plans serve all sites, and a commit of a million keeps to a loop over them. 0: each site has a plan of its own.
 * XP__TRAMPOLINE_STAYS - whether a trampoline that jumps through the word may stay so where the word leads to the right place
 * already. Not if that takes several instructions: a thread that rested between them would enter the old target later.
 * XP__SLOT_MAX - bytes of the longest instruction out of line with the way back.
 *
 * XP__HAS_SWITCHES, XP__HAS_GATES, XP__HAS_FAR, XP__HAS_ENTRIES - whether it has the forms of these kinds. 0: modules with such
 * sites are refused, what is said below of them is not needed, and the kinds' functions are not there.
 * XP__HAS_THUNKS - whether calls find their sites when they are executed: XP__THUNK. Gates need it, too.
 * XP__HAS_TRACING - whether handlers run at entries: struct xp__call and what follows it.
 *
 * struct xp__insn - one instruction, decoded: `kind`, an enum of its own, 0 if it is none that the engine understands; `len`,
 * its bytes. No padding: plans are compared as memory. struct xp__trapped - where a bystander trapped: `addr`, the address of
 * the site; else its own. struct xp__far_request - what a request for a site of kind XP_SITE_FAR says.
 * enum xp__method - its methods. XP__METHOD_NONE is 0; XP__METHOD_BYPASS needs a slot.
 * enum xp__fetch - what a processor may fetch while text changes, as its verifier has it; 0 is what plans are made for.
 */
_Static_assert(XP__BRANCH_LEN <= XP_MAX_LEN && XP__CALL_LEN <= XP_MAX_LEN && XP__TRAMPOLINE_LEN <= XP_MAX_LEN,
	       "XP_MAX_LEN");
_Static_assert(XP__TRAMPOLINE_CHANGE <= XP__TRAMPOLINE_LEN && XP__BRANCH_SHARED <= XP__BRANCH_LEN, "leading bytes");
_Static_assert(XP__METHOD_NONE == 0 && XP__METHOD_BYPASS > 0, "enum xp__method");

/* ---- text ---- */

/*
 * xp__insn_decode - the one instruction that begins @bytes. Returns its length, 0 if it is none that the engine understands
 * or is cut off. Context: trap handlers too, so it calls nothing, not even memcpy. Strict: what it is not sure of is nothing.
 */
unsigned xp__insn_decode(const uint8_t *bytes, size_t avail, struct xp__insn *insn);

/* xp__is_trap - whether the instruction that traps stands there. Context: text that can be read, XP__TRAP_LEN bytes. */
bool xp__is_trap(const uint8_t *text);

/* ---- forms: the instructions that a site of each kind may have ---- */

/*
 * Each writes the bytes of one form of the site at @code. False: it cannot be encoded, since @target is out of reach.
 *
 * xp__form_branch - of a key's site: a jump to @target, or what goes on. xp__branch_is - whether that stands there, in text that
 * can be read: asked for each of a million sites, so it is inline.
 */
bool xp__form_branch(uint8_t *bytes, uintptr_t code, uintptr_t target, bool jumps);
bool xp__branch_is(uintptr_t code, uintptr_t target, bool jumps);

/* A jump to @target; a call of it, which as a @tail is a jump. A call returns to @code + XP__CALL_LEN. */
bool xp__form_jump(uint8_t *bytes, uintptr_t code, uintptr_t target);
bool xp__form_call(uint8_t *bytes, uintptr_t code, uintptr_t target, bool tail);

/* xp__form_call_fits - whether one store changes a call at @code into another, whatever the writer of today can do. */
bool xp__form_call_fits(uintptr_t code);

/*
 * Trampolines, aligned to XP__TRAMPOLINE_LEN: they jump to @target, or, as the compiler left them, through @word.
 * xp__form_trampoline_is_indirect - whether it is not a jump to its target.
 */
bool xp__form_trampoline(uint8_t *bytes, uintptr_t code, uintptr_t target);
void xp__form_trampoline_indirect(uint8_t *bytes, uintptr_t code, const void *word);
bool xp__form_trampoline_is_indirect(const uint8_t *text);

/*
 * Values: the instruction of @len bytes at @text loads an operand of @size bytes, the value's, into whatever register the compiler
 * chose. xp__form_is_value - whether it is one. xp__form_value - the same one with the operand @bits. xp__value_size - whether
 * there are values of so many bytes.
 */
void xp__form_value(uint8_t *bytes, const uint8_t *text, unsigned len, unsigned size, uint64_t bits);
bool xp__form_is_value(const uint8_t *text, unsigned len, unsigned size);
bool xp__value_size(size_t size);

#if XP__HAS_SWITCHES
/*
 * xp__switch_step - at the code behind a switch site, one step on the way to its next part: 1: there it is, @to its targets,
 * and *@code behind it; 0: a jump or padding, *@code is what follows; -1: something else. No thread ever executes that way.
 * XP__SWITCH_STEP bytes of @text, which stand at *@code, can be read.
 */
int xp__switch_step(const uint8_t *text, uintptr_t *code, const int32_t **to);
#endif

#if XP__HAS_GATES
/*
 * Sites that fault until they are bound, aligned to XP__FAULT_LEN, and behind what faults what tells calls from jumps.
 * xp__form_fault - as the compiler left it; its byte XP__FAULT_CALL tells. xp__form_fault_call - bound to @target: the call
 * stands XP__FAULT_CALL bytes behind @code. xp__fault_stands - whether executing it faults. Context: fault handlers.
 * XP__GATE_ASKS - bytes in front of a stub that ask the resolver; 0: the word leads to the resolver itself.
 */
void xp__form_fault(uint8_t *bytes, bool jump);
bool xp__form_fault_call(uint8_t *bytes, uintptr_t code, uintptr_t target, bool jump);
bool xp__fault_stands(uintptr_t code);
#endif

#if XP__HAS_ENTRIES
/*
 * Entries of functions. xp__form_entry_off - what does nothing at an entry, and differs from the call of @stub there in its
 * first XP__ENTRY_SHARED bytes alone. It may do what is dead at an entry, change flags for instance. xp__form_is_entry_off -
 * one of those, whatever its stub. xp__entry_is - whether the call of @stub, or what differs from it so, stands there, in text
 * that can be read; inline, as xp__branch_is(). xp__entry_flip - @text is one of these two, and becomes the other one;
 * inline. xp__form_entry_built - number @n of the nops that compilers leave, the
 * one of one instruction first. False: there are no more. xp__form_is_entry_nop - any of them; xp__form_is_entry_nops - the
 * second, of several instructions. xp__form_is_landing - whether the XP__LANDING_LEN bytes are an instruction that marks where indirect
 * branches may arrive: it stands before the entry.
 */
bool xp__form_entry_off(uint8_t *bytes, uintptr_t code, uintptr_t stub);
bool xp__form_is_entry_off(const uint8_t *text);
bool xp__entry_is(uintptr_t code, uintptr_t stub, bool calls);
void xp__entry_flip(uint8_t *text, bool calls);
bool xp__form_entry_built(uint8_t *bytes, unsigned n);
void xp__form_entry_nop(uint8_t *bytes);
bool xp__form_is_entry_nop(const uint8_t *text);
bool xp__form_is_entry_nops(const uint8_t *text);
bool xp__form_is_landing(const uint8_t *text);

/*
 * xp__jump_word - whether the XP__JUMP_WORD bytes of @text, which stand at @code, are a jump through a word as linkers write it to
 * reach other objects, and where the word is.
 */
bool xp__jump_word(const uint8_t *text, uintptr_t code, uintptr_t *word);
#endif

/* ---- live: how one site gets from old to new ---- */

#define XP__MAX_STORES 3

struct xp__store {
	uint8_t off;
	uint8_t len;
	uint8_t flags; /* XP_WRITE_SINGLE */
	uint8_t bytes[XP_MAX_LEN];
};

/*
 * A plan: validated, immutable. The same plan serves every site with the same bytes; it holds no address but the
 * resume address that a caller gave.
 */
struct xp__plan {
	uint8_t method;    /* enum xp__method */
	uint8_t len;       /* of the site */
	uint8_t known;     /* leading bytes of old and new that are given; the others stay as they are in the text */
	uint8_t nr_stores; /* one per phase; a sync follows each, but for quiesce and early */
	uint8_t needs;     /* enum xp_need */
	bool traps;        /* a bystander may meet our breakpoint: the first store puts it, the last takes it away */
	bool single;       /* old is one instruction: no program counter rests inside */
	bool one_way;      /* a site that is new stays new when its commit is undone */
	uint8_t old[XP_MAX_LEN];
	uint8_t new[XP_MAX_LEN];
	struct xp__store store[XP__MAX_STORES];
	struct xp__insn insn; /* what a trapped bystander executes, unless */
	uintptr_t resume;     /* not 0: where it continues; method bypass: in the copy, whose place is added later */
};

struct xp__change {
	uintptr_t addr;
	const uint8_t *old;
	const uint8_t *new;
	uint8_t len;   /* 1…XP_MAX_LEN */
	uint8_t known; /* as in the plan; len, but for branch sites, whose displacement stays */
	enum xp_resume resume;
	uintptr_t resume_at;
	enum xp_policy policy;
	unsigned can; /* what the port can serve, enum xp_need */
	/*
	 * Not NULL: old is code that the decoder does not know, and new may be, in segments; this is what a thread that
	 * meets a breakpoint executes in the place of new, of the same length. Old is one instruction.
	 */
	const struct xp__insn *as;
	/*
	 * A handler brings a thread that fetches old late to new, so nothing has to be undone once new is there: new may be
	 * several instructions.
	 */
	bool one_way;
	enum xp__fetch fetch; /* a method that this model does not prove is not chosen */
};

/*
 * xp__plan_build - the first of the architecture's methods that serves @change, at every moment at which a processor may fetch,
 * rollback included. Of the address only the place in a quadword counts, XP__PLAN_PERIOD: equal changes that lie there alike have
 * equal plans. Policies quiesce and early are one store. It reads no text and calls no port: verifiers run it as it is.
 * 0, or -XP_E_MULTI, -XP_E_EMULATE, -XP_E_SHADOW_STACK, -XP_E_NO_METHOD, with *@detail set to the reason.
 */
#define XP__PLAN_PERIOD 8u
int xp__plan_build(const struct xp__change *change, struct xp__plan *plan, const char **detail);

/* xp__commit_plan_before - the bytes that the @phase-th store of @plan covers, as they were before it. The core has it (commit.c). */
void xp__commit_plan_before(const struct xp__plan *plan, unsigned phase, uint8_t *bytes);

/* ---- trap: from registers to a site, and back ---- */

/*
 * Context, of all: trap handlers, which a thread may be in anywhere. They take no lock, call nothing, not even memcpy, and write
 * nothing but @regs.
 *
 * xp__trap_taken - where the thread trapped that executed the instruction that traps. False: nowhere that can be a site.
 * xp__trap_finish - what @insn, of @len bytes with its padding, would have done there: the registers are as after it. Only
 * instructions that xp__plan_build() let a plan have.
 * xp__trap_goto - it continues at @to. xp__trap_again - it executes again what stands there.
 * xp__trap_is_late - whether the text at @addr does not trap any more: neither by the instruction that traps nor by another one
 * that leaves the same registers behind. @peek: a byte of text, -1 if it cannot be read, and then it was never ours.
 */
bool xp__trap_taken(const struct xp_regs *regs, struct xp__trapped *at);
void xp__trap_finish(const struct xp__insn *insn, const struct xp__trapped *at, unsigned len, struct xp_regs *regs);
void xp__trap_goto(struct xp_regs *regs, uintptr_t to);
void xp__trap_again(struct xp_regs *regs, const struct xp__trapped *at);
bool xp__trap_is_late(uintptr_t addr, int (*peek)(uintptr_t addr));

#if XP__HAS_GATES
/* xp__fault_taken - as xp__trap_taken(), for the fault of an instruction that is none. */
bool xp__fault_taken(const struct xp_regs *regs, struct xp__trapped *at);
#endif

/* ---- out of line ---- */

/*
 * xp__slot_build - writes to @out what does at @to what the one instruction of @len bytes at @insn does at @from, and behind it
 * the way to @from + @len. Returns how many bytes, XP__SLOT_MAX at most. 0: it is none that can be executed elsewhere (it
 * branches, calls, traps, or leaves its address somewhere), or what it needs is out of reach from there. With @to as @from
 * only whether it is such a one.
 */
unsigned xp__slot_build(uint8_t *out, const uint8_t *insn, unsigned len, uintptr_t from, uintptr_t to);

/* ---- order ---- */

/*
 * xp__serialize - the processor that executes this drops what it fetched before. Ordering: all that the caller stored before
 * is fetched after. Context: any. Progress: wait-free.
 * xp__cpu_relax - the pause of a waiting loop.
 */
void xp__serialize(void);
void xp__cpu_relax(void);

/* xp__data_keys - whether what a thread may read depends on the protection keys of pages, which handlers do not have. */
bool xp__data_keys(void);

/*
 * For ports. xp__store_single - @len bytes to @addr by one store, which instruction fetch sees whole: all inside one aligned
 * quadword of writable memory. The bytes around are written back as they were found. Context: under the text lock, where
 * xp__can_store_single(). Ordering: release (W2). Progress: lock-free.
 * xp__can_store_single - whether this processor has such a store. Context: any.
 */
bool xp__can_store_single(void);
void xp__store_single(void *addr, const void *bytes, size_t len);

/*
 * ---- ways into C ----
 *
 * XP__THUNK(symbol, function) - if XP__HAS_THUNKS: defines the code @symbol, which asks
 *
 *	void *function(struct xp_object *object, uintptr_t return_address);
 *
 * where a call that is under way is to go, and goes there. The stubs in <crosspatch/arch.h> lead there. All that a call of any
 * function passes, vector state included, is as before; a shadow stack stays balanced; unwinders go through.
 * XP__RETURN0(symbol) - a function that returns zero in each register that a value comes back in. Gates' fallback.
 *
 * XP__GENERAL_REGS - if XP__HAS_ENTRIES, an attribute: functions with it touch neither vector nor floating-point
 * registers.
 *
 * If XP__HAS_TRACING:
 * struct xp__call - what a thunk leaves on the stack: `own`, four words of the core's; `resume`, where it returns to, which may be
 * changed: the code behind the entry, or the caller; `caller`, the return address of the function, at its place; `integer`,
 * the registers as struct xp_function_call has them; `stack`.
 * xp__function_entered, xp__function_return, xp__function_personality, XP__NR_FRAMES, XP__FRAME_SIZE, XP__RETURN_SIZE,
 * XP__RETURN_CALL, XP__AREA_VECTOR, XP__AREA_X87, XP__RESULT, XP__RESULT_2 - see arch/x86/thunk_trace.h, which is the only one.
 * xp__own_increment, xp__own_add - change a counter that this thread alone changes, by one instruction.
 */

#endif
