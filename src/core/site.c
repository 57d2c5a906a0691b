// SPDX-License-Identifier: MIT
/*
 * Site tables. A module brings unsorted records, several objects mixed; a change of a key needs its sites, without
 * a look at those of others. So registration groups the record numbers by object, in a few passes over the records and one over the
 * objects, and hangs each group on its object. Records stay where the linker put them, read-only.
 *
 * I1  A module is registered with all its sites in agreement with their objects, or not at all.
 * I2  All under the text lock; nothing here runs in a trap handler.
 * I3  object->scratch is zero between two calls.
 * I4  The sites of one object are all of one kind: they stand in tables of the same number.
 * I5  Several modules with the same tables count as one: the first brings the sites, the last takes them along.
 * I6  A module that is not registered, since there is no port yet or since it was refused, waits in a list. It is tried
 *     again at every change; until it is registered, what its records name is not changed (xp__modules_retry()). The list
 *     takes no memory. A module comes in kind of it at any time, without the lock; it leaves it under the lock.
 * I7  Each site has one record. A linker that folds identical functions keeps the records of all of them: those of one site
 *     that say the same count as one; a module where they differ is refused, since its functions were not identical.
 */
#include "core/site.h"

#include "core/deps.h"
#include "core/emit.h"
#include "core/object.h"
#include "core/reclaim.h"
#include "core/share.h"
#include "core/state.h"
#include "core/ticket.h"

/* What compilers emit does not depend on the size of a pointer. */
_Static_assert(sizeof(struct xp_branch_site) == 12, "record");

/* In the low bits of xp_module.state; from bit ERROR_AT on: with which error it was refused. */
enum { NEW, WAITING, REGISTERED, STATE = 3, WAS_REGISTERED = 4 /* its text may be patched */, ERROR_AT = 16 };

struct module {
	size_t size; /* of this block of memory */
	struct module *next;
	struct xp_site_table tables[XP_NR_SITE_KINDS];
	unsigned nr_public;       /* that have these tables */
	struct xp_module *public; /* the last of them that came */
	void *pin;                /* keeps its object mapped until the end */
	bool asked;               /* for that pin */
	size_t nr_groups;
	struct xp__group groups[]; /* then the numbers that they point to */
};

static struct module *registered;
static struct xp_module *waiting; /* linked through private_data */
static int last_error;            /* of those that wait */
static bool ending;               /* relaxed atomic */
static unsigned nr_unknown;       /* modules of another ABI: nothing but their state is known, that they wait */

/* The table's references to objects, one for each record. */
struct references {
	const uint8_t *first;
	size_t stride, nr;
};

static struct references references(const struct xp_site_table *table, const struct xp__kind *kind)
{
	size_t bytes = (size_t)((uintptr_t)table->end - (uintptr_t)table->start);

	if (kind->record_size == 0)
		return (struct references){0};
	return (struct references){(const uint8_t *)table->start + kind->object_at, kind->record_size,
				   bytes / kind->record_size};
}

static inline const int32_t *reference(const struct references *r, size_t i)
{
	return (const int32_t *)(r->first + i * r->stride);
}

/* The object that a reference names, without its flags: the real one, or a module's handle. */
static struct xp_object *named(uintptr_t reference)
{
	return (struct xp_object *)(reference & ~(uintptr_t)XP_SITE_FLAGS);
}

/* Numbers the distinct objects in object->scratch, from @first + 1 on. Returns the last number; 0: one is of another kind too (I4). */
static size_t number_objects(const struct references *r, size_t first)
{
	const struct xp_object *before = NULL;
	size_t last = first;
	bool mixed = false;

	for (size_t i = 0; i < r->nr; i++) {
		struct xp_object *object = named(xp__relative(reference(r, i)));

		if (object == before)
			continue;
		before = object;
		object = xp__real(object);
		if (object->scratch == 0)
			object->scratch = (uint32_t)++last;
		mixed |= object->scratch <= first;
	}
	return mixed ? 0 : last;
}

static void forget_numbers(const struct references *r)
{
	for (size_t i = 0; i < r->nr; i++)
		xp__site_object(reference(r, i))->scratch = 0;
}

/* ---- records of one site ---- */

/* Which records of a table say what an earlier one has said. */
struct doubles {
	uint8_t *bits; /* NULL: none do */
	uint32_t *scratch;
	size_t size; /* of the memory that both lie in */
};

static bool is_double(const struct doubles *doubles, size_t i)
{
	return doubles->bits && doubles->bits[i / 8] >> i % 8 & 1;
}

static const void *record(const struct xp_site_table *table, const struct xp__kind *kind, size_t i)
{
	return (const uint8_t *)table->start + i * kind->record_size;
}

/* The address of the site is the first field of every record. */
static uintptr_t site(const struct xp_site_table *table, const struct xp__kind *kind, size_t i)
{
	return xp__relative(record(table, kind, i));
}

/* The end of the run of numbers from @at on whose sites ascend. */
static size_t site_run_end(const struct xp_site_table *table, const struct xp__kind *kind, const uint32_t *numbers,
			   size_t nr, size_t at)
{
	if (at < nr)
		at++;
	while (at < nr && site(table, kind, numbers[at - 1]) <= site(table, kind, numbers[at]))
		at++;
	return at;
}

/* Natural merge sort, by site: most come in order. Of one site the records stay in the order of their numbers. */
static void site_sort(const struct xp_site_table *table, const struct xp__kind *kind, uint32_t *numbers, size_t nr,
		      uint32_t *scratch)
{
	while (site_run_end(table, kind, numbers, nr, 0) < nr) {
		for (size_t low = 0; low < nr;) {
			size_t middle = site_run_end(table, kind, numbers, nr, low);
			size_t high = site_run_end(table, kind, numbers, nr, middle);
			size_t a = low, b = middle;

			for (size_t i = low; i < high; i++) {
				bool left = b == high || (a < middle && site(table, kind, numbers[a]) <=
										site(table, kind, numbers[b]));

				scratch[i] = numbers[left ? a++ : b++];
			}
			memcpy(numbers + low, scratch + low, (high - low) * sizeof(*numbers));
			low = high;
		}
	}
}

static bool site_same(const struct xp__kind *kind, const uint8_t *a, const uint8_t *b)
{
	size_t at = 0;

	for (unsigned i = 0; i < kind->nr_relative; i++, at += sizeof(int32_t))
		if (xp__relative((const int32_t *)(const void *)(a + at)) !=
		    xp__relative((const int32_t *)(const void *)(b + at)))
			return false;
	return memcmp(a + at, b + at, kind->record_size - at) == 0;
}

#define DIFFER "two records of this site differ: functions that are not the same were made one"

static int find_doubles(const struct xp_site_table *table, const struct xp__kind *kind, struct doubles *doubles,
			struct xp_diag *diag)
{
	size_t nr = references(table, kind).nr, i;
	uint32_t *numbers;

	doubles->size = 2 * nr * sizeof(uint32_t) + (nr + 7) / 8;
	numbers = doubles->scratch = xp__reclaim_port(doubles->size);
	if (numbers == NULL)
		return xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	doubles->bits = (uint8_t *)(numbers + 2 * nr);
	memset(doubles->bits, 0, (nr + 7) / 8);
	for (i = 0; i < nr; i++)
		numbers[i] = (uint32_t)i;
	site_sort(table, kind, numbers, nr, numbers + nr);
	for (i = 1; i < nr; i++) {
		uintptr_t code = site(table, kind, numbers[i]);

		for (size_t k = i; k-- > 0 && site(table, kind, numbers[k]) == code;) {
			if (site_same(kind, record(table, kind, numbers[k]), record(table, kind, numbers[i]))) {
				doubles->bits[numbers[i] / 8] |= (uint8_t)(1u << numbers[i] % 8);
				break;
			}
			if (!kind->several_records)
				return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)code, DIFFER);
		}
	}
	return 0;
}

static void forget_doubles(const struct doubles *doubles)
{
	if (doubles->scratch)
		xp__port->release(doubles->scratch, doubles->size);
}

/* ---- by object ---- */

/* Groups the records of one table by object; the objects have numbers @first + 1 to @last, and @groups and @numbers room. */
static void group_records(const struct xp_site_table *table, const struct xp__kind *kind, const struct doubles *doubles,
			  struct xp__group *groups, size_t first, size_t last, uint32_t *numbers)
{
	const struct references r = references(table, kind);
	const struct doubles own = *doubles; /* what is stored below does not change it */
	struct xp_object *object, *before = NULL; /* most records name the object of the one before */
	struct xp__group *group = NULL;
	uint32_t *at = numbers;

	for (size_t i = 0; i < r.nr; i++) {
		uintptr_t flags = xp__relative(reference(&r, i));

		object = named(flags);
		if (object != before) {
			before = object;
			object = xp__real(object);
			group = &groups[object->scratch - 1];
			group->object = object;
		}
		if (is_double(&own, i))
			continue;
		group->nr++;
		if (flags & XP_SITE_FLAGS) {
			group->nr_flag[0] += flags & 1;
			group->nr_flag[1] += flags >> 1 & 1;
		}
	}
	for (size_t k = first; k < last; k++) {
		groups[k].kind = kind;
		groups[k].records = table->start;
		groups[k].numbers = at;
		at += groups[k].nr;
		groups[k].nr = 0;
	}
	before = NULL;
	for (size_t i = 0; i < r.nr; i++) {
		object = named(xp__relative(reference(&r, i)));
		if (object != before) {
			if (before)
				group->nr = (size_t)(at - group->numbers);
			before = object;
			group = &groups[xp__real(object)->scratch - 1];
			at = numbers + (group->numbers - numbers) + group->nr;
		}
		if (!is_double(&own, i))
			*at++ = (uint32_t)i;
	}
	if (before)
		group->nr = (size_t)(at - group->numbers);
	for (size_t k = first; k < last; k++)
		groups[k].object->scratch = 0;
}

/* Groups the records of all tables. */
static int group_all(const struct xp_module *public, const struct doubles *doubles, size_t nr_records,
		     struct module **result, struct xp_diag *diag)
{
	size_t last[XP_NR_SITE_KINDS] = {0}, nr_groups = 0, size;
	uint32_t *numbers = NULL;
	struct module *module = NULL;
	bool mixed = false;

	for (unsigned kind = 0; kind < public->nr_tables; kind++) {
		struct references r = references(&public->tables[kind], xp__kind_of(kind));

		last[kind] = number_objects(&r, nr_groups);
		mixed |= last[kind] < nr_groups;
		nr_groups = last[kind];
	}
	size = sizeof(struct module) + nr_groups * sizeof(struct xp__group) + nr_records * sizeof(uint32_t);
	if (!mixed)
		module = xp__reclaim_port(size);
	if (module) {
		module->size = size;
		memcpy(module->tables, public->tables, public->nr_tables * sizeof(public->tables[0]));
		module->nr_groups = nr_groups;
		numbers = (uint32_t *)(module->groups + nr_groups);
	}
	for (unsigned kind = 0; kind < public->nr_tables; kind++) {
		const struct xp__kind *of = xp__kind_of(kind);
		struct references r = references(&public->tables[kind], of);

		if (module == NULL) {
			forget_numbers(&r);
		} else {
			group_records(&public->tables[kind], of, &doubles[kind], module->groups,
				      kind ? last[kind - 1] : 0, last[kind], numbers);
			numbers += r.nr;
		}
	}
	*result = module;
	if (mixed)
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, NULL, "an object has records of two kinds");
	return module ? 0 : xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
}

static int make(const struct xp_module *public, size_t nr_records, unsigned ascending, struct module **result,
		struct xp_diag *diag)
{
	struct doubles doubles[XP_NR_SITE_KINDS] = {{0}};
	int error = 0;

	*result = NULL;
	for (unsigned kind = 0; kind < public->nr_tables && !error; kind++)
		if (!(ascending >> kind & 1))
			error = find_doubles(&public->tables[kind], xp__kind_of(kind), &doubles[kind], diag);
	if (!error)
		error = group_all(public, doubles, nr_records, result, diag);
	for (unsigned kind = 0; kind < public->nr_tables; kind++)
		forget_doubles(&doubles[kind]);
	return error;
}

static void link_groups(struct module *module)
{
	for (size_t k = 0; k < module->nr_groups; k++) {
		struct xp__group *group = &module->groups[k];

		group->next = group->object->groups;
		group->object->groups = group;
	}
}

static void unlink_groups(struct module *module)
{
	for (size_t k = 0; k < module->nr_groups; k++) {
		struct xp__group **link = &module->groups[k].object->groups;

		while (*link != &module->groups[k])
			link = &(*link)->next;
		*link = module->groups[k].next;
	}
}

/* The list of those whose objects are there. */
static void site_enter(struct module *module)
{
	module->next = registered;
	registered = module;
}

static void strike(const struct module *module)
{
	struct module **link = &registered;

	while (*link && *link != module)
		link = &(*link)->next;
	if (*link)
		*link = module->next;
}

int xp__objects_each(int (*visit)(const struct xp__group *groups, void *data), void *data)
{
	int result = 0;

	for (const struct module *module = registered; module && !result; module = module->next)
		for (size_t k = 0; k < module->nr_groups && !result; k++)
			if (module->groups[k].object->groups == &module->groups[k])
				result = visit(&module->groups[k], data);
	return result;
}

static int say_coming(const struct xp_module *public)
{
	int error = 0;

	for (unsigned kind = 0; kind < public->nr_tables && !error; kind++)
		if (xp__kind_of(kind)->coming)
			error = xp__kind_of(kind)->coming(&public->tables[kind]);
	return error;
}

static void say_live(const struct xp_module *public)
{
	for (unsigned kind = 0; kind < public->nr_tables; kind++)
		if (xp__kind_of(kind)->live)
			xp__kind_of(kind)->live(&public->tables[kind]);
}

static void say_going(const struct xp_module *public)
{
	for (unsigned kind = 0; kind < public->nr_tables; kind++)
		if (xp__kind_of(kind)->going)
			xp__kind_of(kind)->going(&public->tables[kind]);
}

/* ---- modules that wait ---- */

static unsigned state_of(const struct xp_module *module)
{
	return __atomic_load_n(&module->state, __ATOMIC_RELAXED) & STATE;
}

static void set_state(struct xp_module *module, unsigned state, int error)
{
	uint32_t was = module->state & WAS_REGISTERED;

	__atomic_store_n(&module->state, state | was | (uint32_t)-error << ERROR_AT, __ATOMIC_RELAXED);
}

static int error_of(const struct xp_module *module)
{
	return -(int)(__atomic_load_n(&module->state, __ATOMIC_RELAXED) >> ERROR_AT);
}

static struct xp_module *first_waiting(void)
{
	/* ordering: (M2) pairs with (M1) */
	return __atomic_load_n(&waiting, __ATOMIC_ACQUIRE);
}

/* Without the lock. */
static void start_waiting(struct xp_module *module)
{
	uint32_t state = module->state;
	struct xp_module *first = first_waiting();

	if ((state & STATE) != NEW || !__atomic_compare_exchange_n(&module->state, &state, state | WAITING, false,
								   __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return;
	/* ordering: (M1) pairs with (M2): told to a sanitizer, since another thread may register the module */
	xp__tell(&module->state, __ATOMIC_RELEASE);
	do
		module->private_data = first;
	/* ordering: (M1) pairs with (M2) */
	while (!__atomic_compare_exchange_n(&waiting, &first, module, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static void stop_waiting(struct xp_module *module, unsigned state)
{
	struct xp_module *at = module;

	/* ordering: (M2) pairs with (M1) */
	if (!__atomic_compare_exchange_n(&waiting, &at, module->private_data, false, __ATOMIC_ACQUIRE,
					 __ATOMIC_ACQUIRE)) {
		while (at->private_data != module)
			at = at->private_data;
		at->private_data = module->private_data;
	}
	module->private_data = NULL;
	set_state(module, state, 0);
}

static void note_error(void)
{
	int error = 0;

	for (const struct xp_module *module = first_waiting(); module && !error; module = module->private_data)
		error = error_of(module);
	__atomic_store_n(&last_error, error, __ATOMIC_RELAXED);
}

static bool has_group(const struct xp__group *group, const struct xp_object *object, const struct xp__kind *kind)
{
	for (const struct module *module = registered; module; module = module->next)
		if ((uintptr_t)group - (uintptr_t)module->groups < module->nr_groups * sizeof(*group))
			return ((uintptr_t)group - (uintptr_t)module->groups) % sizeof(*group) == 0 &&
			       group->object == object && group->kind == kind;
	return false;
}

bool xp__modules_wait(void)
{
	return first_waiting() != NULL;
}

bool xp__module_names(const struct xp_module *public,
		      bool (*is)(const struct xp_object *object, unsigned kind, const void *what), const void *what)
{
	for (unsigned kind = 0; kind < public->nr_tables && kind < XP_NR_SITE_KINDS; kind++) {
		const struct xp__kind *of = xp__kind_of(kind);
		struct references r = references(&public->tables[kind], of);
		struct xp__known known = {.has = has_group};

		/* It may have been refused because of what its records name. */
		for (size_t i = 0; i < r.nr; i++)
			if (xp__object_sound(&known, of, record(&public->tables[kind], of, i)) &&
			    is(xp__site_object(reference(&r, i)), kind, what))
				return true;
	}
	return false;
}

/* ---- registration ---- */

static bool is_empty(const struct xp_site_table *table)
{
	return table->start == table->end;
}

/*
 * The module that has the tables of @public already: a part of a program may be linked beforehand, constructor and all, and
 * then several of them have the bounds of the whole. Not all tables, or a part of one: -XP_E_CORRUPT.
 */
static int find_same(const struct xp_module *public, struct module **found, struct xp_diag *diag)
{
	*found = NULL;
	for (struct module *module = registered; module; module = module->next) {
		unsigned same = 0, other = 0, overlapping = 0;

		for (unsigned kind = 0; kind < public->nr_tables; kind++) {
			const struct xp_site_table *a = &public->tables[kind], *b = &module->tables[kind];

			if (is_empty(a))
				continue;
			if (a->start == b->start && a->end == b->end)
				same++;
			else if ((uintptr_t)a->start < (uintptr_t)b->end && (uintptr_t)b->start < (uintptr_t)a->end)
				overlapping++;
			else
				other++;
		}
		if (overlapping || (same && other))
			return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, NULL,
					"its tables are in part those of another module");
		if (same)
			*found = module;
	}
	return 0;
}

/*
 * Refuses records that a tool emptied, as it does when it takes a section out of a program: each one's object is then the
 * record itself. And those that name what is no object. In the same pass over memory: of which kinds each site lies above the one before.
 */
static int check_records(const struct xp_module *public, unsigned *ascending, struct xp_diag *diag)
{
	*ascending = 0;
	for (unsigned kind = 0; kind < public->nr_tables; kind++) {
		const struct xp_site_table *table = &public->tables[kind];
		const struct xp__kind *of = xp__kind_of(kind);
		uintptr_t start = (uintptr_t)table->start, size = (uintptr_t)table->end - start, before = 0;
		struct references r = references(table, of);
		bool ascends = true;
		struct xp__known known = {.has = has_group, .idle = true};
		const struct xp_object *last = NULL;

		for (size_t i = 0; i < r.nr; i++) {
			uintptr_t code = site(table, of, i), object = xp__relative(reference(&r, i));

			ascends &= before < code;
			before = code;
			if (named(object) == last && of->sound == NULL)
				continue;
			last = named(object);
			if (object - start < size)
				return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, NULL,
						"a site record names no object: its section was emptied");
			if (!xp__object_sound(&known, of, record(table, of, i)))
				return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, NULL,
						"a site record names something that is no object");
		}
		*ascending |= (unsigned)ascends << kind;
	}
	return 0;
}

static int make_and_attach(const struct xp_module *public, size_t nr, unsigned ascending, struct module **result,
			   struct xp_diag *diag)
{
	enum xp__which from = public->state & WAS_REGISTERED ? XP__FROM_ANY : XP__FROM_BUILT;
	struct module *module = NULL;
	int error = say_coming(public);

	if (error)
		(void)xp__fail(diag, error, XP_PHASE_VALIDATE, NULL, NULL);
	else
		error = make(public, nr, ascending, &module, diag);
	if (!error)
		error = xp__emit_attach_locked(module->groups, module->nr_groups, from, diag);
	if (error) {
		say_going(public);
		if (module)
			xp__port->release(module, module->size);
	}
	*result = module;
	return error;
}

/* A module that waits. */
static int register_locked(struct xp_module *public, struct xp_diag *diag)
{
	struct module *module = NULL;
	size_t nr = 0;
	bool any = false, is_new;
	unsigned ascending = 0;
	int error = 0;

	if (public->nr_tables > XP_NR_SITE_KINDS)
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, NULL,
				"built with a later version of the headers");
	for (unsigned kind = 0; kind < public->nr_tables; kind++) {
		nr += references(&public->tables[kind], xp__kind_of(kind)).nr;
		any = any || !is_empty(&public->tables[kind]);
	}
	if (nr > UINT32_MAX)
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, NULL, "more records than there can be");
	if (any)
		error = check_records(public, &ascending, diag);
	if (any && !error)
		error = find_same(public, &module, diag);
	is_new = any && !module;
	if (!error && is_new)
		error = make_and_attach(public, nr, ascending, &module, diag);
	if (error)
		return error;
	stop_waiting(public, REGISTERED);
	public->private_data = module;
	if (module) {
		module->public = public;
		module->nr_public++;
	}
	if (is_new) {
		link_groups(module);
		site_enter(module);
		say_live(public);
	}
	return 0;
}

int xp__modules_retry(bool (*concerns)(const struct xp_module *module, const void *what), const void *what,
		      struct xp_diag *diag)
{
	static const char detail[] = "an executable or shared object that has sites of it could not be registered";
	int result = 0;
	struct xp_module *next;

	if (!xp__modules_wait())
		return 0;
	for (struct xp_module *module = first_waiting(); module; module = next) {
		struct xp_diag why = {0};
		int error = -XP_E_WEDGED;

		next = module->private_data;
		/* ordering: (M2) pairs with (M1): told to a sanitizer */
		xp__tell(&module->state, __ATOMIC_ACQUIRE);
		/* The one before may have been the engine's end. */
		if (xp_state() == XP_STATE_READY)
			error = register_locked(module, &why);
		if (error)
			set_state(module, WAITING, error);
		if (!error || result || !concerns(module, what))
			continue;
		result = error;
		if (diag) {
			*diag = why;
			(void)xp__fail(diag, error, why.phase ? why.phase : XP_PHASE_VALIDATE, why.site,
				       why.detail ? NULL : detail);
		}
	}
	note_error();
	return result;
}

/* ---- the end of the process ---- */

static void keep(struct module *module, void *pin)
{
	struct module *at = NULL;

	if (xp__port->lock() == 0) {
		for (at = registered; at && at != module; at = at->next)
			;
		if (at && at->pin == NULL) {
			at->pin = pin;
			pin = NULL;
		}
		xp__port->unlock();
	}
	if (pin)
		xp__port->unpin(pin);
}

void xp__modules_keep(void)
{
	struct module *module;
	const void *public;

	__atomic_store_n(&ending, true, __ATOMIC_RELAXED);
	while (xp__port->pin && xp__port->lock() == 0) {
		for (module = registered; module && module->asked; module = module->next)
			;
		public = module ? module->public : NULL;
		if (module)
			module->asked = true;
		xp__port->unlock();
		if (module == NULL)
			return;
		/* Without the lock: a thread that closes an object has the dynamic linker's, and may want ours. */
		keep(module, xp__port->pin(public, NULL));
	}
}

/* No lock: only the one thread that ends a module looks at it then. */
static bool is_kept(const struct xp_module *public)
{
	return state_of(public) == REGISTERED && public->private_data &&
	       ((const struct module *)public->private_data)->pin;
}

int xp_module_exit(struct xp_module *module)
{
	bool has_port = xp_state() != XP_STATE_NO_PORT;

	if (is_kept(module) || (has_port && xp__port->lasts && xp__port->lasts(module, false)))
		return 0;
	return xp_module_unregister(module);
}

/* ---- the interface ---- */

static bool is(const struct xp_module *module, const void *which)
{
	return module == which;
}

int xp_module_register(struct xp_module *module)
{
	uint32_t state, refused;
	int error;

	if (module->abi != XP_MODULE_ABI) {
		if (__atomic_exchange_n(&module->state, WAITING, __ATOMIC_RELAXED) == NEW)
			__atomic_add_fetch(&nr_unknown, 1, __ATOMIC_RELAXED);
		return -XP_E_CORRUPT;
	}
	start_waiting(module);
	if (xp_state() == XP_STATE_NO_PORT)
		return 0;
	if (xp__port->lasts)
		(void)xp__port->lasts(module, true);
	error = xp__lock(NULL);
	if (!error) {
		error = xp__modules_retry(is, module, NULL);
		xp__unlock();
		if (__atomic_load_n(&ending, __ATOMIC_RELAXED))
			xp__modules_keep();
	} else {
		/* Without the lock: another thread may register it meanwhile. */
		refused = WAITING | (uint32_t)-error << ERROR_AT;
		state = __atomic_load_n(&module->state, __ATOMIC_RELAXED);
		if ((state & STATE) == WAITING)
			(void)__atomic_compare_exchange_n(&module->state, &state, refused | (state & WAS_REGISTERED),
							  false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
		__atomic_store_n(&last_error, error, __ATOMIC_RELAXED);
	}
	return error;
}

/* A module that waits, or of a wedged engine, is only forgotten. */
static void forget_locked(struct xp_module *public)
{
	if (state_of(public) == WAITING) {
		stop_waiting(public, NEW);
		note_error();
	} else if (public->private_data && --((struct module *)public->private_data)->nr_public == 0) {
		/*
		 * In a wedged engine nothing is patched any more; what the module has is left to the breakpoints' table. But its
		 * names go away, so it is struck off the lists.
		 */
		strike(public->private_data);
	}
}

int xp_module_unregister(struct xp_module *public)
{
	struct module *module;
	bool last;
	int error;

	if (public->abi != XP_MODULE_ABI) {
		if (__atomic_exchange_n(&public->state, NEW, __ATOMIC_RELAXED) == WAITING)
			__atomic_sub_fetch(&nr_unknown, 1, __ATOMIC_RELAXED);
		return 0;
	}
	if (state_of(public) == NEW)
		return 0;
	error = xp__lock(NULL);
	if (error == -XP_E_NOT_READY) {
		forget_locked(public);
		return 0;
	}
	if (error == -XP_E_WEDGED && xp__port->lock() == 0) {
		bool waits = state_of(public) == WAITING;

		forget_locked(public);
		xp__port->unlock();
		return waits ? 0 : error;
	}
	if (error)
		return error;
	if (state_of(public) != REGISTERED) {
		if (state_of(public) == WAITING)
			forget_locked(public);
		xp__unlock();
		return 0;
	}
	/* A thread that left its wait by a jump may have left a request in a slot, for an object that goes. */
	xp__share_disband();
	module = public->private_data;
	last = module && --module->nr_public == 0;
	if (last) {
		/* Old text of other modules may lead into this one. If the sync fails it is owed still. */
		(void)xp__settle(NULL);
		say_going(public);
		if (xp__port->text_gone)
			xp__port->text_gone();
		strike(module);
		unlink_groups(module);
		xp__owed_forget(module->groups, module->nr_groups);
		xp__port->release(module, module->size);
	}
	public->private_data = NULL;
	__atomic_store_n(&public->state, NEW | WAS_REGISTERED, __ATOMIC_RELAXED);
	xp__unlock();
	for (unsigned kind = 0; last && kind < public->nr_tables; kind++)
		if (xp__kind_of(kind)->gone)
			xp__kind_of(kind)->gone(&public->tables[kind]);
	return 0;
}

int xp_module_error(void)
{
	int error = __atomic_load_n(&last_error, __ATOMIC_RELAXED);

	return !error && __atomic_load_n(&nr_unknown, __ATOMIC_RELAXED) > 0 ? -XP_E_CORRUPT : error;
}

static bool nothing(const struct xp_module *module, const void *what)
{
	(void)module;
	(void)what;
	return false;
}

void xp__modules_adopt(void)
{
	for (const struct xp_module *module = first_waiting(); module && xp__port->lasts; module = module->private_data)
		(void)xp__port->lasts(module, true);
	if (xp__modules_wait() && xp__lock(NULL) == 0) {
		(void)xp__modules_retry(nothing, NULL, NULL);
		xp__unlock();
	}
}

static int header_coming(const struct xp_site_table *table)
{
	return table->start && xp__port->module_check ? xp__port->module_check(table->start) : 0;
}

const struct xp__kind xp__header_kind = {.coming = header_coming};
