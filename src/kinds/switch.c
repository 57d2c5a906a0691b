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
#include "arch/arch.h"
#include "core/batch.h"
#include "core/deps.h"
#include "core/state.h"

#include <crosspatch/static_switch.h>

#if XP__HAS_SWITCHES

#define FIRST_CHOICE 0 /* which the compiler emits */

static struct xp_static_switch *switch_of(const struct xp__request *request)
{
	return (struct xp_static_switch *)request->object;
}

/* ---- targets ---- */

/* Some of a site's targets, those of the choices from @first on. */
struct part {
	const int32_t *targets;
	uint32_t first, nr;
};

/* The page with targets that was read last: those of one request's sites lie together, and stay as long as it lasts. */
static uintptr_t read_last;

static bool can_read(const int32_t *word, size_t nr)
{
	return xp__text_readable(&read_last, (uintptr_t)word, nr * sizeof(*word));
}

/* The part that begins with choice @first, of a switch of @nr choices. False: it is no such thing. */
static bool read_part(struct part *part, const int32_t *targets, uint32_t first, uint32_t nr)
{
	uint32_t word, count;

	if (!can_read(targets - 1, 1))
		return false;
	word = (uint32_t)targets[-1];
	count = word >> 20;
	/* Behind the complement there may be one word more. */
	if (count == 0 || count > nr - first || word != (uint32_t)XP_SWITCH_PART(nr, first, count) ||
	    !can_read(targets, count + (count < nr ? 2 : 1)) || (uint32_t)targets[count] != ~word)
		return false;
	*part = (struct part){targets, first, count};
	return true;
}

/* The part behind the code at *@code, and what is behind that. NULL: something else than jumps and padding lies between. */
static const int32_t *follow(uintptr_t *code)
{
	enum { STEPS = 16 };
	const int32_t *targets = NULL;
	uintptr_t page = 0;
	int there = 0;

	for (int i = 0; i < STEPS && there == 0; i++) {
		if (!xp__text_readable(&page, *code, XP__SWITCH_STEP))
			break;
		there = xp__switch_step((const uint8_t *)*code, code, &targets);
	}
	return there > 0 ? targets : NULL;
}

/* Where the site jumps with @choice, of @nr (I3); 0: its targets are not those of a switch of @nr choices. */
static uintptr_t switch_target_of(const struct xp_switch_site *site, uint32_t choice, uint32_t nr)
{
	const int32_t *targets = (const int32_t *)xp__relative(&site->targets);
	uintptr_t code = xp__relative(&site->code) + XP__JUMP_LEN;
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

/* The first choice is what the compiler emits. */
static bool switch_as_built(const struct xp__request *request, const struct xp__group *group)
{
	(void)group;
	return request->choice == FIRST_CHOICE;
}

/* A jump to the target of a choice. Choices may share a block. */
static int switch_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		       enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag)
{
	const struct xp_static_switch *key = switch_of(request);
	uint32_t choice = which == XP__FROM_STATE   ? key->choice
			  : which == XP__FROM_BUILT ? FIRST_CHOICE
			  : which == XP__FROM_ANY   ? n
						    : request->choice;
	uintptr_t target;

	(void)text;
	if (n > 0 && (which != XP__FROM_ANY || n >= key->nr))
		return 0;
	target = switch_target_of(site->record, choice, key->nr);
	if (target == 0 || !xp__form_jump(form->bytes, site->code, target))
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)site->code,
				"compiled with another number of choices");
	return 1;
}

/* ---- the choice ---- */

static int switch_begin(struct xp__request *request)
{
	read_last = 0;
	request->skip = request->choice == switch_of(request)->choice;
	return 0;
}

static void switch_end(struct xp__request *request, bool done)
{
	if (done)
		/* ordering: (N1) pairs with (N2) */
		__atomic_store_n(&switch_of(request)->choice, request->choice, __ATOMIC_SEQ_CST);
}

static void switch_get_state(struct xp__request *request)
{
	read_last = 0;
	request->choice = switch_of(request)->choice;
}

static int switch_parse(struct xp__request *request, struct xp_object *object, uint64_t choice)
{
	if (choice >= ((struct xp_static_switch *)object)->nr)
		return -XP__EINVAL;
	*request = (struct xp__request){.kind = &xp__switch_kind, .object = object, .choice = (uint32_t)choice};
	return 0;
}

const struct xp__kind xp__switch_kind = {
	.record_size = sizeof(struct xp_switch_site),
	.object_size = sizeof(struct xp_static_switch),
	.object_at = offsetof(struct xp_switch_site, key),
	.nr_relative = 3,
	.asynchronous = true,
	.site_len = XP__JUMP_LEN,
	.own_plans = true,
	.begin = switch_begin,
	.end = switch_end,
	.get_state = switch_get_state,
	.parse = switch_parse,
	.as_built = switch_as_built,
	.site = xp__group_site,
	.form = switch_form,
};

/* Fills @request: -EINVAL for a choice that there is not. */
static int switch_fill(struct xp__request *request, struct xp_static_switch *key, int choice)
{
	if (key == NULL || choice < 0)
		return -XP__EINVAL;
	return switch_parse(request, xp__real(&key->object), (uint64_t)choice);
}

int xp__static_switch_set(struct xp_static_switch *key, int choice)
{
	struct xp__request request;
	int error = switch_fill(&request, key, choice);

	return error ? error : xp__batch_apply(&request, NULL);
}

int xp__batch_add_switch(struct xp_batch *batch, struct xp_static_switch *key, int choice)
{
	struct xp__request request;
	int error = switch_fill(&request, key, choice);

	return error ? error : xp__batch_add(batch, &request);
}

#endif
