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
#include "arch/arch.h"
#include "core/batch.h"
#include "core/commit.h"
#include "core/deps.h"
#include "core/object.h"
#include "core/state.h"

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

static void value_store(void *value, size_t size, uint64_t bits)
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
	return xp__value_size(imv->size) && imv->value != NULL;
}

static uint64_t value_of(const struct xp_imv *imv)
{
	return is_whole(imv) ? load(imv->value, imv->size) : 0;
}

static int value_begin(struct xp__request *request)
{
	request->skip = value_of(imv_of(request->object)) == request->bits;
	return 0;
}

static void value_end(struct xp__request *request, bool done)
{
	struct xp_imv *imv = imv_of(request->object);

	if (done)
		value_store(imv->value, imv->size, request->bits);
}

static void value_get_state(struct xp__request *request)
{
	request->bits = value_of(imv_of(request->object));
}

static int value_fail_text(const struct xp__site *site, const uint8_t *text, struct xp_diag *diag)
{
	if (xp__is_trap(text))
		return xp__fail(diag, -XP__EBUSY, XP_PHASE_VALIDATE, (const void *)site->code,
				"a debugger or probe has a breakpoint there");
	return xp__fail(diag, -XP_E_MISMATCH, XP_PHASE_VALIDATE, (const void *)site->code,
			"no mov with an operand of the recorded size stands there");
}

static void value_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	size->sites += group->nr;
	size->plans += group->nr < PLANS_MAX || request->from == XP__FROM_ANY ? group->nr : PLANS_MAX;
}

static int value_site(const struct xp__group *group, size_t i, struct xp__site *site)
{
	int there = xp__group_site(group, i, site);

	if (there > 0) {
		site->len = ((const struct xp_imv_site *)site->record)->len;
		if (site->len > XP_MAX_LEN)
			site->len = XP_MAX_LEN; /* form() refuses the record */
	}
	return there;
}

/* The mov that stands there, with another operand. The compiler leaves 0; what came back may have any. */
static int value_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		      enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag)
{
	const struct xp_imv_site *record = site->record;
	const struct xp_imv *imv = imv_of(request->object);
	uint64_t bits = which == XP__FROM_STATE ? value_of(imv) : which == XP__FROM_BUILT && n == 0 ? 0 : request->bits;

	if (n > (which == XP__FROM_BUILT))
		return 0;
	if (!is_whole(imv) || record->size != imv->size || record->zero != 0 || record->len > XP_MAX_LEN)
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)site->code,
				"the record's size is not the value's");
	/* What is wanted is asked of text that was found to be a mov. */
	if (which != XP__WANTED && !xp__form_is_value(text, record->len, record->size))
		return value_fail_text(site, text, diag);
	xp__form_value(form->bytes, text, record->len, record->size, bits);
	if (which == XP__FROM_ANY)
		memcpy(form->bytes, text, site->len);
	return 1;
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

static int value_fill(struct xp__request *request, struct xp_imv *imv, const void *value, size_t size)
{
	if (imv == NULL || value == NULL || !xp__value_size(size))
		return -XP__EINVAL;
	imv = imv_of(xp__real(&imv->object));
	if (!is_whole(imv) || imv->size != size)
		return -XP__EINVAL;
	memset(request, 0, sizeof(*request));
	request->kind = &xp__value_kind;
	request->object = &imv->object;
	memcpy(&request->bits, value, size);
	return allows(imv, request->bits) ? 0 : -XP_E_VALUE;
}

/* A number of the value's size, signed or not. */
static int value_parse(struct xp__request *request, struct xp_object *object, uint64_t value)
{
	size_t size = imv_of(object)->size;
	unsigned sign = 8 * (unsigned)size - 1;

	if (!xp__value_size(size))
		return -XP__EINVAL;
	if (size < sizeof(value) && value >> sign > 1 && value >> sign != UINT64_MAX >> sign)
		return -XP__EINVAL;
	return value_fill(request, imv_of(object), &value, size);
}

/* The handle of a shared value has no variable of its own. */
static bool value_sound(struct xp__known *known, const void *record)
{
	const struct xp_imv *imv = imv_of(xp__site_object(&((const struct xp_imv_site *)record)->imv));

	return imv->value == NULL ||
	       (xp__value_size(imv->size) && xp__object_data_sound(&known->value, imv->value, imv->size));
}

const struct xp__kind xp__value_kind = {
	.record_size = sizeof(struct xp_imv_site),
	.object_size = sizeof(struct xp_imv),
	.sound = value_sound,
	.object_at = offsetof(struct xp_imv_site, imv),
	.nr_relative = 2,
	.asynchronous = true,
	.begin = value_begin,
	.end = value_end,
	.get_state = value_get_state,
	.parse = value_parse,
	.count = value_count,
	.site = value_site,
	.form = value_form,
};

int xp__imv_set(struct xp_imv *imv, const void *value, size_t size)
{
	struct xp__request request;
	int error = value_fill(&request, imv, value, size);

	return error ? error : xp__batch_apply(&request, NULL);
}

int xp__batch_add_imv(struct xp_batch *batch, struct xp_imv *imv, const void *value, size_t size)
{
	struct xp__request request;
	int error = batch ? value_fill(&request, imv, value, size) : -XP__EINVAL;

	return error ? error : xp__batch_add(batch, &request);
}
