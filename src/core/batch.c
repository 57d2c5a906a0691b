// SPDX-License-Identifier: MIT
/*
 * Builds commits: reads the text, compares it with what is expected, lets the method selection plan each change.
 *
 * I1  Everything that can be refused is refused here or in the port's prepare(), before the first store.
 * I2  The sites of all keys share two plans, jmp and test: what differs between them, the displacement, stays.
 */
#include "core/batch.h"

#include "core/deps.h"

#define BRANCH_LEN 5

static const uint8_t branch_test[BRANCH_LEN] = {0xa9};
static const uint8_t branch_jmp[BRANCH_LEN] = {0xe9};

static int build_branch_plan(struct xp__plan *plan, bool to_jmp, enum xp_policy policy, unsigned can,
			     struct xp_diag *diag)
{
	const char *detail = NULL;
	struct xp__change change = {
		.old = to_jmp ? branch_test : branch_jmp,
		.new = to_jmp ? branch_jmp : branch_test,
		.len = BRANCH_LEN,
		.known = 1,
		.policy = policy,
		.can = can,
	};
	int error = xp__plan_build(&change, plan, &detail);

	return error ? xp__fail(diag, error, XP_PHASE_VALIDATE, NULL, detail) : 0;
}

/* What stands at a branch site that must agree with its record: opcode as given, displacement to the target. */
static inline bool branch_is(const struct xp_branch_site *site, uint8_t opcode)
{
	uintptr_t code = xp__site_code(site);
	const uint8_t *text = (const uint8_t *)code;
	int32_t disp;

	/* One load. In freestanding code the plain name is a call, here for every site of a key. */
	__builtin_memcpy(&disp, text + 1, sizeof(disp));
	return text[0] == opcode && (int32_t)(xp__site_target(site) - (code + BRANCH_LEN)) == disp;
}

static int fail_branch(const struct xp_branch_site *site, bool jumps, struct xp_diag *diag)
{
	uintptr_t code = xp__site_code(site);
	uint8_t expected[BRANCH_LEN];
	int32_t disp = (int32_t)(xp__site_target(site) - (code + BRANCH_LEN));
	int error;

	expected[0] = jumps ? branch_jmp[0] : branch_test[0];
	memcpy(expected + 1, &disp, sizeof(disp));
	error = xp__fail_text(diag, (const void *)code, expected, (const uint8_t *)code, BRANCH_LEN);
	if (diag)
		diag->key = xp__site_key(site)->name;
	return error;
}

/* Plans are numbered 0 and 1 where both directions occur; a commit of one direction has plan 0 only. */
struct directions {
	bool to_jmp, to_test;
};

static uint32_t plan_number(const struct directions *d, bool to_jmp)
{
	return d->to_jmp && !to_jmp ? 1 : 0;
}

static int build_branch_plans(struct xp__commit *commit, const struct directions *d, enum xp_policy policy,
			      struct xp_diag *diag)
{
	unsigned can = xp__port->can(~0u);
	int error = 0;

	if (d->to_jmp)
		error = build_branch_plan(&commit->plans[plan_number(d, true)], true, policy, can, diag);
	if (!error && d->to_test)
		error = build_branch_plan(&commit->plans[plan_number(d, false)], false, policy, can, diag);
	return error;
}

static int add_use(struct xp__commit *commit, const struct xp__key_use *use, bool on, const struct directions *d,
		   struct xp_diag *diag)
{
	/* A copy that nothing points to stays in registers while the addresses are stored. */
	struct xp__commit to = *commit;

	for (uint32_t i = 0; i < use->nr; i++) {
		const struct xp_branch_site *site = &use->sites[use->numbers[i]];
		bool to_jmp = xp__site_jumps(site, on);

		if (!branch_is(site, to_jmp ? branch_test[0] : branch_jmp[0]))
			return fail_branch(site, !to_jmp, diag);
		xp__commit_add(&to, xp__site_code(site), plan_number(d, to_jmp));
	}
	*commit = to;
	return 0;
}

static int add_poke(struct xp__commit *commit, const struct xp__poke *poke, uint32_t number, enum xp_policy policy,
		    unsigned can, struct xp_diag *diag)
{
	const void *site = (const void *)poke->addr;
	const char *detail = NULL;
	uint8_t found[XP_MAX_LEN];
	struct xp__change change = {
		.addr = poke->addr,
		.old = poke->expect,
		.new = poke->replace,
		.len = poke->len,
		.known = poke->len,
		.resume = poke->resume,
		.resume_at = poke->resume_at,
		.policy = policy,
		.can = can,
	};
	int error = xp__port->text_check(site, poke->len);

	if (!error)
		error = xp__port->text_read(found, site, poke->len);
	if (error)
		return xp__fail(diag, error, XP_PHASE_VALIDATE, site, NULL);
	if (memcmp(found, poke->expect, poke->len) != 0)
		return xp__fail_text(diag, site, poke->expect, found, poke->len);
	error = xp__plan_build(&change, &commit->plans[number], &detail);
	if (error)
		return xp__fail(diag, error, XP_PHASE_VALIDATE, site, detail);
	xp__commit_add(commit, poke->addr, number);
	return 0;
}

static size_t count_sites(const struct xp__wish *wishes, size_t nr_wishes, struct directions *d)
{
	size_t nr = 0;

	for (size_t i = 0; i < nr_wishes; i++) {
		if (wishes[i].skip)
			continue;
		for (const struct xp__key_use *use = wishes[i].key->uses; use; use = use->next) {
			uint32_t nr_to_jmp = wishes[i].on ? use->nr - use->nr_likely : use->nr_likely;

			nr += use->nr;
			d->to_jmp = d->to_jmp || nr_to_jmp > 0;
			d->to_test = d->to_test || nr_to_jmp < use->nr;
		}
	}
	return nr;
}

static int add_all(struct xp__commit *commit, const struct xp__poke *pokes, size_t nr_pokes,
		   const struct xp__wish *wishes, size_t nr_wishes, const struct directions *d, struct xp_diag *diag)
{
	enum xp_policy policy = xp_policy();
	uint32_t number = (uint32_t)d->to_jmp + (uint32_t)d->to_test;
	int error = build_branch_plans(commit, d, policy, diag);

	for (size_t i = 0; i < nr_wishes && !error; i++)
		if (!wishes[i].skip)
			for (const struct xp__key_use *use = wishes[i].key->uses; use && !error; use = use->next)
				error = add_use(commit, use, wishes[i].on, d, diag);
	if (!error && nr_pokes > 0) {
		unsigned can = xp__port->can(~0u);

		for (size_t i = 0; i < nr_pokes && !error; i++)
			error = add_poke(commit, &pokes[i], number++, policy, can, diag);
	}
	return error;
}

int xp__patch_locked(const struct xp__poke *pokes, size_t nr_pokes, const struct xp__wish *wishes, size_t nr_wishes,
		     struct xp_diag *diag)
{
	struct directions d = {false, false};
	size_t nr_sites = count_sites(wishes, nr_wishes, &d) + nr_pokes;
	struct xp__commit *commit;
	int error;

	if (nr_sites == 0)
		return 0;
	commit = xp__commit_new(nr_sites, nr_pokes + (size_t)d.to_jmp + (size_t)d.to_test);
	if (commit == NULL)
		return xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	error = add_all(commit, pokes, nr_pokes, wishes, nr_wishes, &d, diag);
	if (error) {
		xp__commit_free(commit);
		return error;
	}
	return xp__commit_run(commit, diag);
}

static bool is_on(const struct xp_static_key *key)
{
	return xp__static_key_count(key) > 0;
}

int xp__patch_uses_locked(const struct xp__key_use *uses, size_t nr, bool as_built, struct xp_diag *diag)
{
	struct directions both = {true, true};
	struct xp__commit *commit = NULL;
	size_t nr_sites = 0;
	int error = 0;

	for (size_t k = 0; k < nr; k++)
		if (!as_built || uses[k].nr_true != (is_on(uses[k].key) ? uses[k].nr : 0))
			nr_sites += uses[k].nr;
	if (nr_sites == 0)
		return 0;
	commit = xp__commit_new(nr_sites, 2);
	if (commit == NULL)
		return xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	error = build_branch_plans(commit, &both, xp_policy(), diag);
	for (size_t k = 0; k < nr && !error; k++) {
		bool on = is_on(uses[k].key);

		if (as_built && uses[k].nr_true == (on ? uses[k].nr : 0))
			continue;
		for (uint32_t i = 0; i < uses[k].nr && !error; i++) {
			const struct xp_branch_site *site = &uses[k].sites[uses[k].numbers[i]];
			bool jumps = xp__site_jumps(site, on);

			if (branch_is(site, jumps ? branch_jmp[0] : branch_test[0]))
				continue;
			if (!branch_is(site, jumps ? branch_test[0] : branch_jmp[0]))
				error = fail_branch(site, !jumps, diag);
			else
				xp__commit_add(commit, xp__site_code(site), plan_number(&both, jumps));
		}
	}
	if (error) {
		xp__commit_free(commit);
		return error;
	}
	return xp__commit_run(commit, diag);
}

/* ---- the public batch ---- */

struct xp_batch {
	struct xp__poke *pokes;
	struct xp__wish *wishes;
	size_t nr_pokes, room_pokes;
	size_t nr_wishes, room_wishes;
};

static int policy = XP_POLICY_AUTO;

int xp_set_policy(enum xp_policy value)
{
	if ((unsigned)value > XP_POLICY_EARLY)
		return -XP__EINVAL;
	__atomic_store_n(&policy, value, __ATOMIC_RELAXED);
	return 0;
}

enum xp_policy xp_policy(void)
{
	return (enum xp_policy)__atomic_load_n(&policy, __ATOMIC_RELAXED);
}

int xp_text_gen_insn(uint8_t *out, uint8_t opcode, const void *addr, const void *target)
{
	if (opcode != 0xe8 && opcode != 0xe9)
		return -XP__EINVAL;
	return xp__insn_rel32(out, opcode, (uintptr_t)addr, (uintptr_t)target) ? 0 : -XP_E_RANGE;
}

static int copy_poke(struct xp__poke *to, const struct xp_poke *poke)
{
	if (poke == NULL || poke->addr == NULL || poke->expect == NULL || poke->replace == NULL)
		return -XP__EINVAL;
	if (poke->len == 0 || poke->len > XP_MAX_LEN)
		return -XP_E_LENGTH;
	if (poke->resume != XP_RESUME_EMULATE && (poke->resume != XP_RESUME_AT || poke->resume_at == NULL))
		return -XP__EINVAL;
	memset(to, 0, sizeof(*to));
	to->addr = (uintptr_t)poke->addr;
	to->len = poke->len;
	to->resume = (uint8_t)poke->resume;
	to->resume_at = (uintptr_t)poke->resume_at;
	memcpy(to->expect, poke->expect, poke->len);
	memcpy(to->replace, poke->replace, poke->len);
	return 0;
}

int xp_text_poke(const struct xp_poke *poke, struct xp_diag *diag)
{
	struct xp__poke copy;
	int error = copy_poke(&copy, poke);

	if (error) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		return xp__fail(diag, error, XP_PHASE_VALIDATE, poke ? poke->addr : NULL, NULL);
	}
	error = xp__lock(diag);
	if (error)
		return error;
	error = xp__patch_locked(&copy, 1, NULL, 0, diag);
	xp__unlock();
	return error;
}

struct xp_batch *xp_batch_new(void)
{
	struct xp_batch *batch;

	if (xp__lock(NULL))
		return NULL;
	batch = xp__port->alloc(sizeof(*batch));
	xp__unlock();
	return batch;
}

void xp_batch_free(struct xp_batch *batch)
{
	/* Also in a wedged engine: memory is no patching. */
	if (batch == NULL || xp__port->lock())
		return;
	if (batch->pokes)
		xp__port->release(batch->pokes, batch->room_pokes * sizeof(*batch->pokes));
	if (batch->wishes)
		xp__port->release(batch->wishes, batch->room_wishes * sizeof(*batch->wishes));
	xp__port->release(batch, sizeof(*batch));
	xp__port->unlock();
}

/* Room for one more of @size bytes in an array; NULL: no memory, array as before. */
static void *grow(void *array, size_t nr, size_t *room, size_t size)
{
	size_t more = *room ? *room * 2 : 64;
	void *larger;

	if (nr < *room)
		return array;
	if (xp__lock(NULL))
		return NULL;
	larger = xp__port->alloc(more * size);
	if (larger && array) {
		memcpy(larger, array, nr * size);
		xp__port->release(array, *room * size);
	}
	xp__unlock();
	if (larger)
		*room = more;
	return larger;
}

int xp_batch_add_poke(struct xp_batch *batch, const struct xp_poke *poke)
{
	struct xp__poke copy;
	struct xp__poke *pokes;
	int error = batch ? copy_poke(&copy, poke) : -XP__EINVAL;

	if (error)
		return error;
	pokes = grow(batch->pokes, batch->nr_pokes, &batch->room_pokes, sizeof(*pokes));
	if (pokes == NULL)
		return -XP__ENOMEM;
	batch->pokes = pokes;
	pokes[batch->nr_pokes++] = copy;
	return 0;
}

int xp_batch_add_key(struct xp_batch *batch, struct xp_static_key *key, bool on)
{
	struct xp__wish *wishes;

	if (batch == NULL || key == NULL)
		return -XP__EINVAL;
	wishes = grow(batch->wishes, batch->nr_wishes, &batch->room_wishes, sizeof(*wishes));
	if (wishes == NULL)
		return -XP__ENOMEM;
	batch->wishes = wishes;
	wishes[batch->nr_wishes].key = xp__key_real(key);
	wishes[batch->nr_wishes++].on = on;
	return 0;
}

int xp_batch_commit(struct xp_batch *batch, struct xp_diag *diag)
{
	int error;

	if (batch == NULL) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		return xp__fail(diag, -XP__EINVAL, XP_PHASE_VALIDATE, NULL, NULL);
	}
	error = xp__lock(diag);
	if (error)
		return error;
	error = xp__switch_locked(batch->pokes, batch->nr_pokes, batch->wishes, batch->nr_wishes, diag);
	xp__unlock();
	if (!error)
		batch->nr_pokes = batch->nr_wishes = 0;
	return error;
}
