// SPDX-License-Identifier: MIT
/*
 * Static switches and their sites.
 *
 * I1  A site jumps to the target of its switch's choice: switch->choice says which text stands there. It changes after
 *     the text, under the text lock.
 * I2  An array of targets is believed only if the words at its ends say that it is the one, and whole.
 * I3  A site jumps from its first asm to a block of a later one only if nothing but jumps and padding lies between the
 *     two: then to the compiler both jump with the same registers and stack. Else it jumps to where the choice is loaded.
 *
 * The store of the choice (N1) pairs with the acquire of xp__static_switch_choice() (N2): who reads a choice finds
 * that text, or a later one. It is not only a release: sites that load the choice shall find it when the call returns,
 * not when the patcher's store buffer lets go of it.
 */
#include "arch/x86/insn.h"
#include "core/batch.h"
#include "core/deps.h"
#include "core/engine.h"

#include <crosspatch/static_switch.h>

#define JMP_LEN 5
#define UD1_LEN 7
#define FIRST_CHOICE 0 /* which the compiler emits */

static struct xp_static_switch *switch_of(const struct xp__item *item)
{
	return (struct xp_static_switch *)item->object;
}

/* ---- targets ---- */

/* Some of a site's targets, those of the choices from @first on. */
struct part {
	const int32_t *targets;
	uint32_t first, nr;
};

/* The part that begins with choice @first, of a switch of @nr choices. False: it is no such thing. */
static bool read_part(struct part *part, const int32_t *targets, uint32_t first, uint32_t nr)
{
	uint32_t word = (uint32_t)targets[-1], count = word >> 20;

	if (count == 0 || count > nr - first || word != (uint32_t)XP_SWITCH_PART(nr, first, count) ||
	    (uint32_t)targets[count] != ~word)
		return false;
	*part = (struct part){targets, first, count};
	return true;
}

/*
 * The part behind the code at @code, an UD1 whose operand it is. The compiler may have put jumps between, or padding.
 * Nobody ever executes it. NULL: something else lies between.
 */
static const int32_t *follow(uintptr_t *code)
{
	enum { STEPS = 16 };
	static const uint8_t ud1[] = {0x0f, 0xb9, 0x05};
	uintptr_t page = 0;

	for (int i = 0; i < STEPS; i++) {
		const uint8_t *text = (const uint8_t *)*code;
		struct xp__insn insn;
		int32_t distance;

		if (!xp__text_readable(&page, *code, UD1_LEN))
			break;
		if (memcmp(text, ud1, sizeof(ud1)) == 0) {
			memcpy(&distance, text + sizeof(ud1), sizeof(distance));
			*code += UD1_LEN;
			return (const int32_t *)(*code + (uintptr_t)(intptr_t)distance);
		}
		*code += xp__insn_decode(text, XP_MAX_LEN, &insn);
		if (insn.kind == XP__INSN_JMP)
			*code += (uintptr_t)(intptr_t)insn.imm;
		else if (insn.kind != XP__INSN_NOP)
			break;
	}
	return NULL;
}

/* Where the site jumps with @choice, of @nr (I3); 0: its targets are not those of a switch of @nr choices. */
static uintptr_t target_of(const struct xp_switch_site *site, uint32_t choice, uint32_t nr)
{
	const int32_t *targets = (const int32_t *)xp__relative(&site->targets);
	uintptr_t code = xp__relative(&site->code) + JMP_LEN;
	struct part part = {NULL, 0, 0};
	const int32_t *load = NULL;

	for (;;) {
		if (!read_part(&part, targets, part.first + part.nr, nr))
			return 0;
		if (choice - part.first < part.nr)
			return xp__relative(&part.targets[choice - part.first]);
		if (load == NULL)
			load = &part.targets[part.nr + 1];
		targets = follow(&code);
		if (targets == NULL)
			return xp__relative(load);
	}
}

/* ---- sites ---- */

static bool is_as_built(const struct xp__item *item)
{
	return item->goal == XP__GOAL_ATTACH && item->choice == FIRST_CHOICE;
}

static void measure(const struct xp__item *item, const struct xp__use *use, struct xp__size *size)
{
	if (is_as_built(item))
		return;
	size->sites += use->nr;
	size->plans += use->nr; /* each has its own displacements */
}

static int fail(const struct xp__item *item, uintptr_t code, struct xp_diag *diag)
{
	if (diag)
		diag->key = item->object->name;
	return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)code,
			"compiled with another number of choices");
}

/*
 * The choice whose jump stands at the site, as far as it matters: the switch's, that of the compiler, or any if the
 * module was here before. @jmp is that jump. A code if there is none; it is told to @diag.
 */
static int find_old(const struct xp__item *item, const struct xp_switch_site *site, uint8_t *jmp, struct xp_diag *diag)
{
	const struct xp_static_switch *key = switch_of(item);
	uintptr_t code = xp__relative(&site->code);
	uint32_t first = item->goal == XP__GOAL_CHANGE ? key->choice : FIRST_CHOICE;
	uint32_t last = item->goal == XP__GOAL_REATTACH ? key->nr - 1 : first;

	for (uint32_t choice = first; choice <= last; choice++) {
		uintptr_t target = target_of(site, choice, key->nr);

		if (target == 0 || !xp__insn_rel32(jmp, 0xe9, code, target))
			return fail(item, code, diag);
		if (memcmp((const void *)code, jmp, JMP_LEN) == 0)
			return 0;
	}
	if (diag)
		diag->key = item->object->name;
	return xp__fail_text(diag, (const void *)code, jmp, (const uint8_t *)code, JMP_LEN);
}

/* The site is as wished; @jmp is what the switch's choice asks for, or in a module that comes the compiler's. */
static int find_new(const struct xp__item *item, const struct xp_switch_site *site, const uint8_t *wished, uint8_t *jmp,
		    struct xp_diag *diag)
{
	const struct xp_static_switch *key = switch_of(item);
	uint32_t before = item->goal == XP__GOAL_CHANGE ? key->choice : FIRST_CHOICE;
	uintptr_t code = xp__relative(&site->code), target = target_of(site, before, key->nr);

	if (target == 0 || !xp__insn_rel32(jmp, 0xe9, code, target))
		return fail(item, code, diag);
	if (memcmp((const void *)code, wished, JMP_LEN) == 0)
		return 0;
	return xp__fail_text(diag, (const void *)code, wished, (const uint8_t *)code, JMP_LEN);
}

static int add_site(const struct xp__item *item, const struct xp_switch_site *site, struct xp__commit *commit,
		    struct xp_diag *diag)
{
	uint8_t old[JMP_LEN], new[JMP_LEN];
	uintptr_t code = xp__relative(&site->code);
	uintptr_t target = target_of(site, item->choice, switch_of(item)->nr);
	struct xp__change change = {
		.addr = code,
		.old = old,
		.new = new,
		.len = JMP_LEN,
		.known = JMP_LEN,
		.resume = XP_RESUME_EMULATE,
	};
	int error;

	if (!xp__commit_readable(commit, code, JMP_LEN)) {
		if (diag)
			diag->key = item->object->name;
		return xp__fail_unreadable(diag, code);
	}
	if (target == 0 || !xp__insn_rel32(new, 0xe9, code, target))
		return fail(item, code, diag);
	error = item->undo ? find_new(item, site, new, old, diag) : find_old(item, site, old, diag);
	if (error || memcmp(old, new, JMP_LEN) == 0)
		return error; /* choices may share a block */
	return xp__commit_change(commit, &change, XP__PLAN_OWN, diag);
}

static int add(const struct xp__item *item, const struct xp__use *use, struct xp__commit *commit, struct xp_diag *diag)
{
	const struct xp_switch_site *sites = use->records;
	int error = 0;

	if (is_as_built(item))
		return 0;
	for (uint32_t i = 0; i < use->nr && !error; i++)
		if (xp__commit_takes(commit))
			error = add_site(item, &sites[use->numbers[i]], commit, diag);
	return error;
}

static int look(const struct xp__item *item, const struct xp__use *use, size_t i, struct xp__look *look)
{
	const struct xp_switch_site *site =
		(const struct xp_switch_site *)use->records + (i < use->nr ? use->numbers[i] : 0);
	const uint32_t nr = switch_of(item)->nr;
	uintptr_t target;
	uint8_t jmp[JMP_LEN];

	if (i >= use->nr)
		return -1;
	if (!xp__look_at(look, xp__relative(&site->code), JMP_LEN))
		return 1;
	target = target_of(site, item->choice, nr);
	look->known = target && xp__insn_rel32(look->wanted, 0xe9, look->code, target);
	for (uint32_t choice = 0; look->known && choice < nr && !look->form; choice++) {
		target = target_of(site, choice, nr);
		look->form = target && xp__insn_rel32(jmp, 0xe9, look->code, target) &&
			     memcmp((const void *)look->code, jmp, JMP_LEN) == 0;
	}
	return 1;
}

/* ---- the choice ---- */

static int start(struct xp__item *item)
{
	item->skip = item->choice == switch_of(item)->choice;
	return 0;
}

static void finish(struct xp__item *item, bool done)
{
	if (done)
		/* ordering: (N1) pairs with (N2) */
		__atomic_store_n(&switch_of(item)->choice, item->choice, __ATOMIC_SEQ_CST);
}

static void current(struct xp__item *item)
{
	item->choice = switch_of(item)->choice;
}

static int wish(struct xp__item *item, struct xp_object *object, uint64_t choice)
{
	if (choice >= ((struct xp_static_switch *)object)->nr)
		return -XP__EINVAL;
	*item = (struct xp__item){.front = &xp__switch_front, .object = object, .choice = (uint32_t)choice};
	return 0;
}

const struct xp__front xp__switch_front = {
	.record_size = sizeof(struct xp_switch_site),
	.object_at = offsetof(struct xp_switch_site, key),
	.nr_relative = 3,
	.rounds = true,
	.start = start,
	.finish = finish,
	.current = current,
	.wish = wish,
	.measure = measure,
	.add = add,
	.look = look,
};

/* Fills @item: -EINVAL for a choice that there is not. */
static int fill(struct xp__item *item, struct xp_static_switch *key, int choice)
{
	if (key == NULL || choice < 0)
		return -XP__EINVAL;
	return wish(item, xp__real(&key->object), (uint64_t)choice);
}

int xp__static_switch_set(struct xp_static_switch *key, int choice)
{
	struct xp__item item;
	int error = fill(&item, key, choice);

	return error ? error : xp__apply(&item, NULL);
}

int xp__batch_add_switch(struct xp_batch *batch, struct xp_static_switch *key, int choice)
{
	struct xp__item item;
	int error = fill(&item, key, choice);

	return error ? error : xp__batch_add(batch, &item);
}
