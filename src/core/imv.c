// SPDX-License-Identifier: MIT
/*
 * Immediate values: variables whose value stands in the operands of their sites, and in memory once more, for sites that
 * come later.
 *
 * I1  Under the text lock the operand of every registered site is the variable's value, bit by bit; and that is one which its type
 *     and range allow.
 * I2  What changes at a site is its operand. The method is the selection's choice; a value that stays makes no commit.
 * I3  A site's record is believed in nothing: the text must be a mov of its length with an operand of its size.
 */
#include "core/batch.h"
#include "core/deps.h"
#include "core/engine.h"

#include <crosspatch/imv.h>

/*
 * Plans of one value's sites differ in register and encoding, and in whether the operand lies in one quadword: of four
 * bytes, 16 registers by 3 encodings by 2; of fewer or more, less. So all that are equal are shared.
 */
#define PLANS_MAX XP__PLAN_SHARE
_Static_assert(PLANS_MAX > 16 * 3 * 2, "plans of one value");

static struct xp_imv *imv_of(const struct xp_object *object)
{
	return (struct xp_imv *)(uintptr_t)object;
}

static bool is_size(size_t size)
{
	return size == 1 || size == 2 || size == 4 || size == sizeof(uintptr_t); /* 32-bit code has no mov of 8 bytes */
}

/*
 * The variable is read by programs that were built without patching; nothing is ordered by it. Whatever its type,
 * it is accessed as bytes are: the compiler is told so by may_alias.
 */
typedef uint16_t __attribute__((may_alias)) two_t;
typedef uint32_t __attribute__((may_alias)) four_t;
typedef uintptr_t __attribute__((may_alias)) word_t;

static uint64_t load(const void *value, size_t size)
{
	switch (size) {
	case 1:
		return __atomic_load_n((const uint8_t *)value, __ATOMIC_RELAXED);
	case 2:
		return __atomic_load_n((const two_t *)value, __ATOMIC_RELAXED);
	case 4:
		return __atomic_load_n((const four_t *)value, __ATOMIC_RELAXED);
	default:
		return __atomic_load_n((const word_t *)value, __ATOMIC_RELAXED);
	}
}

static void store(void *value, size_t size, uint64_t bits)
{
	switch (size) {
	case 1:
		__atomic_store_n((uint8_t *)value, (uint8_t)bits, __ATOMIC_RELAXED);
		break;
	case 2:
		__atomic_store_n((two_t *)value, (uint16_t)bits, __ATOMIC_RELAXED);
		break;
	case 4:
		__atomic_store_n((four_t *)value, (uint32_t)bits, __ATOMIC_RELAXED);
		break;
	default:
		__atomic_store_n((word_t *)value, (uintptr_t)bits, __ATOMIC_RELAXED);
		break;
	}
}

static bool is_whole(const struct xp_imv *imv)
{
	return is_size(imv->size) && imv->value != NULL;
}

static uint64_t value_of(const struct xp_imv *imv)
{
	return is_whole(imv) ? load(imv->value, imv->size) : 0;
}

/* The operand that ends at @end. */
static uint64_t operand(const uint8_t *end, size_t size)
{
	uint64_t bits = 0;

	memcpy(&bits, end - size, size);
	return bits;
}

static int start(struct xp__item *item)
{
	item->skip = value_of(imv_of(item->object)) == item->bits;
	return 0;
}

static void finish(struct xp__item *item, bool done)
{
	struct xp_imv *imv = imv_of(item->object);

	if (done)
		store(imv->value, imv->size, item->bits);
}

static void current(struct xp__item *item)
{
	item->bits = value_of(imv_of(item->object));
}

static void measure(const struct xp__item *item, const struct xp__use *use, struct xp__size *size)
{
	(void)item;
	size->sites += use->nr;
	size->plans += use->nr < PLANS_MAX ? use->nr : PLANS_MAX;
}

static int fail(const struct xp_imv *imv, const void *site, int error, const char *detail, struct xp_diag *diag)
{
	if (diag)
		diag->key = imv->object.name;
	return xp__fail(diag, error, XP_PHASE_VALIDATE, site, detail);
}

/* The text of a site must be what its record says. */
static int look(const struct xp_imv_site *site, const struct xp_imv *imv, const uint8_t *text, struct xp__insn *insn,
		struct xp_diag *diag)
{
	if (!is_whole(imv) || site->size != imv->size || site->zero != 0)
		return fail(imv, text, -XP_E_CORRUPT, "the record's size is not the value's", diag);
	if (text[0] == XP__INSN_INT3_BYTE)
		return fail(imv, text, -XP__EBUSY, "a debugger or probe has a breakpoint there", diag);
	if (xp__insn_decode(text, site->len, insn) != site->len || insn->kind != XP__INSN_MOV_IMM ||
	    insn->size != site->size)
		return fail(imv, text, -XP_E_MISMATCH, "no mov with an operand of the recorded size stands there",
			    diag);
	return 0;
}

/*
 * One look at the sites of a use. @before: what stands in the operands that change, one number for all, or the number of
 * plans would have no bound. It is the value, and 0 where the text is as it was emitted; in a module that comes back it
 * is what the value was when it left, which the first site that changes tells.
 */
struct pass {
	const struct xp__item *item;
	struct xp__commit *commit;
	size_t first; /* plan */
	uint64_t before;
	bool before_is_known;
};

static int add_site(struct pass *pass, const struct xp_imv_site *site, struct xp_diag *diag)
{
	const struct xp__item *item = pass->item;
	const struct xp_imv *imv = imv_of(item->object);
	const uint8_t *text = (const uint8_t *)xp__relative(&site->code);
	uint8_t old[XP_MAX_LEN], new[XP_MAX_LEN];
	struct xp__change change = {
		.addr = (uintptr_t)text,
		.old = old,
		.new = new,
		.len = site->len,
		.known = site->len,
	};
	struct xp__insn insn;
	uint64_t found;
	int error;

	if (!xp__commit_readable(pass->commit, (uintptr_t)text, site->len)) {
		if (diag)
			diag->key = imv->object.name;
		return xp__fail_unreadable(diag, (uintptr_t)text);
	}
	error = look(site, imv, text, &insn, diag);

	if (error)
		return error;
	memcpy(old, text, site->len);
	memcpy(new, text, site->len);
	found = operand(old + site->len, site->size);
	if (found == item->bits && (item->undo ? pass->before == found : item->goal != XP__GOAL_CHANGE))
		return 0;
	if (item->undo && found == item->bits) {
		memcpy(old + site->len - site->size, &pass->before, site->size);
		return xp__commit_change(pass->commit, &change, pass->first, diag);
	}
	if (!pass->before_is_known) {
		pass->before = found;
		pass->before_is_known = true;
	}
	if (found == pass->before && !item->undo) {
		memcpy(new + site->len - site->size, &item->bits, site->size);
		return xp__commit_change(pass->commit, &change, pass->first, diag);
	}
	memcpy(new + site->len - site->size, item->undo ? &item->bits : &pass->before, site->size);
	if (diag)
		diag->key = imv->object.name;
	return xp__fail_text(diag, text, new, old, site->len);
}

static int add(const struct xp__item *item, const struct xp__use *use, struct xp__commit *commit, struct xp_diag *diag)
{
	const struct xp_imv_site *sites = use->records;
	struct pass pass = {.item = item, .commit = commit, .first = commit->nr_plans};
	int error = 0;

	pass.before_is_known = item->goal != XP__GOAL_REATTACH;
	if (item->goal == XP__GOAL_CHANGE)
		pass.before = value_of(imv_of(item->object));
	for (uint32_t i = 0; i < use->nr && !error; i++)
		if (xp__commit_takes(commit))
			error = add_site(&pass, &sites[use->numbers[i]], diag);
	return error;
}

/* What its type and its range allow. */
static bool allows(const struct xp_imv *imv, uint64_t bits)
{
	unsigned above = 64 - 8 * imv->size;

	if (imv->type & XP_IMV_BOOL && bits > 1)
		return false;
	if (!(imv->type & XP_IMV_RANGE))
		return true;
	if (imv->type & XP_IMV_SIGNED) {
		int64_t value = (int64_t)(bits << above) >> above;

		return value >= (int64_t)imv->least && value <= (int64_t)imv->most;
	}
	return bits >= imv->least && bits <= imv->most;
}

/* Any value is one that it may have. */
static int look_at(const struct xp__item *item, const struct xp__use *use, size_t i, struct xp__look *look_)
{
	const struct xp_imv_site *site = (const struct xp_imv_site *)use->records + (i < use->nr ? use->numbers[i] : 0);
	const uint8_t *text = (const uint8_t *)xp__relative(&site->code);
	struct xp__insn insn;

	if (i >= use->nr)
		return -1;
	if (!xp__look_at(look_, (uintptr_t)text, site->len) || look(site, imv_of(item->object), text, &insn, NULL))
		return 1;
	look_->known = look_->form = true;
	memcpy(look_->wanted, text, site->len);
	memcpy(look_->wanted + site->len - site->size, &item->bits, site->size);
	return 1;
}

static int fill(struct xp__item *item, struct xp_imv *imv, const void *value, size_t size)
{
	if (imv == NULL || value == NULL || !is_size(size))
		return -XP__EINVAL;
	imv = imv_of(xp__real(&imv->object));
	if (!is_whole(imv) || imv->size != size)
		return -XP__EINVAL;
	memset(item, 0, sizeof(*item));
	item->front = &xp__imv_front;
	item->object = &imv->object;
	memcpy(&item->bits, value, size);
	return allows(imv, item->bits) ? 0 : -XP_E_VALUE;
}

/* A number of the value's size, signed or not. */
static int wish(struct xp__item *item, struct xp_object *object, uint64_t value)
{
	size_t size = imv_of(object)->size;
	unsigned sign = 8 * (unsigned)size - 1;

	if (!is_size(size))
		return -XP__EINVAL;
	if (size < sizeof(value) && value >> sign > 1 && value >> sign != UINT64_MAX >> sign)
		return -XP__EINVAL;
	return fill(item, imv_of(object), &value, size);
}

const struct xp__front xp__imv_front = {
	.record_size = sizeof(struct xp_imv_site),
	.object_at = offsetof(struct xp_imv_site, imv),
	.nr_relative = 2,
	.rounds = true,
	.start = start,
	.finish = finish,
	.current = current,
	.wish = wish,
	.measure = measure,
	.add = add,
	.look = look_at,
};

int xp__imv_set(struct xp_imv *imv, const void *value, size_t size)
{
	struct xp__item item;
	int error = fill(&item, imv, value, size);

	return error ? error : xp__apply(&item, NULL);
}

int xp__batch_add_imv(struct xp_batch *batch, struct xp_imv *imv, const void *value, size_t size)
{
	struct xp__item item;
	int error = batch ? fill(&item, imv, value, size) : -XP__EINVAL;

	return error ? error : xp__batch_add(batch, &item);
}
