// SPDX-License-Identifier: MIT
/*
 * Site tables. A module brings unsorted records, several objects mixed; a key wants its sites without a look at anybody
 * else's. So registration groups the record numbers by object, in a few passes over the records and one over the
 * objects, and hangs each group on its object. Records stay where the linker put them, read-only.
 *
 * I1  A module is registered with all its sites in agreement with their objects, or not at all.
 * I2  All under the text lock; nothing here runs in a trap handler.
 * I3  object->scratch is zero between two calls.
 * I4  The sites of one object are all of one kind: they stand in tables of the same number.
 */
#include "core/site.h"

#include "core/batch.h"
#include "core/deps.h"
#include "core/engine.h"

/* What compilers emit does not depend on the size of a pointer. */
_Static_assert(sizeof(struct xp_branch_site) == 12, "record");

enum { NEW, QUEUED, REGISTERED, LEFT }; /* xp_module.state; LEFT: was registered, its text may be patched */

struct module {
	size_t size; /* of this block of memory */
	struct module *next;
	size_t nr_uses;
	struct xp__use uses[]; /* then the numbers that they point to */
};

static struct module *registered;
static struct xp_module *queue; /* registered before there was a port; linked through private_data */
static int last_error;

/* The table's references to objects, one for each record. */
struct references {
	const uint8_t *first;
	size_t stride, nr;
};

static struct references references(const struct xp_site_table *table, const struct xp__front *front)
{
	size_t bytes = (size_t)((uintptr_t)table->end - (uintptr_t)table->start);

	if (front->record_size == 0)
		return (struct references){0};
	return (struct references){(const uint8_t *)table->start + front->object_at, front->record_size,
				   bytes / front->record_size};
}

static inline const int32_t *reference(const struct references *r, size_t i)
{
	return (const int32_t *)(r->first + i * r->stride);
}

/* Numbers the distinct objects in object->scratch, from @from on. Returns the last number. */
static size_t number_objects(const struct references *r, size_t from)
{
	for (size_t i = 0; i < r->nr; i++) {
		struct xp_object *object = xp__site_object(reference(r, i));

		if (object->scratch == 0)
			object->scratch = (uint32_t)++from;
	}
	return from;
}

static void forget_numbers(const struct references *r)
{
	for (size_t i = 0; i < r->nr; i++)
		xp__site_object(reference(r, i))->scratch = 0;
}

/* Groups the records of one table by object; the objects have numbers @first + 1 to @last, and @uses and @numbers room. */
static void group(const struct xp_site_table *table, const struct xp__front *front, struct xp__use *uses, size_t first,
		  size_t last, uint32_t *numbers)
{
	struct references r = references(table, front);
	uint32_t *at = numbers;

	for (size_t i = 0; i < r.nr; i++) {
		struct xp_object *object = xp__site_object(reference(&r, i));
		struct xp__use *use = &uses[object->scratch - 1];
		unsigned flags = xp__site_flags(reference(&r, i));

		use->object = object;
		use->nr++;
		use->nr_flag[0] += flags & 1;
		use->nr_flag[1] += flags >> 1 & 1;
	}
	for (size_t k = first; k < last; k++) {
		uses[k].front = front;
		uses[k].records = table->start;
		uses[k].numbers = at;
		at += uses[k].nr;
		uses[k].nr = 0;
	}
	for (size_t i = 0; i < r.nr; i++) {
		struct xp__use *use = &uses[xp__site_object(reference(&r, i))->scratch - 1];

		numbers[(size_t)(use->numbers - numbers) + use->nr++] = (uint32_t)i;
	}
	for (size_t k = first; k < last; k++)
		uses[k].object->scratch = 0;
}

/* All tables of a module; NULL: no memory. */
static struct module *make(const struct xp_module *public, size_t nr_records)
{
	size_t last[XP_NR_SITE_KINDS] = {0}, nr_uses = 0, size;
	uint32_t *numbers = NULL;
	struct module *module;

	for (unsigned kind = 0; kind < public->nr_tables; kind++) {
		struct references r = references(&public->tables[kind], xp__front_of(kind));

		last[kind] = nr_uses = number_objects(&r, nr_uses);
	}
	size = sizeof(struct module) + nr_uses * sizeof(struct xp__use) + nr_records * sizeof(uint32_t);
	module = xp__port->alloc(size);
	if (module) {
		module->size = size;
		module->nr_uses = nr_uses;
		numbers = (uint32_t *)(module->uses + nr_uses);
	}
	for (unsigned kind = 0; kind < public->nr_tables; kind++) {
		const struct xp__front *front = xp__front_of(kind);
		struct references r = references(&public->tables[kind], front);

		if (module == NULL) {
			forget_numbers(&r);
		} else {
			group(&public->tables[kind], front, module->uses, kind ? last[kind - 1] : 0, last[kind],
			      numbers);
			numbers += r.nr;
		}
	}
	return module;
}

static void link_uses(struct module *module)
{
	for (size_t k = 0; k < module->nr_uses; k++) {
		struct xp__use *use = &module->uses[k];

		use->next = use->object->uses;
		use->object->uses = use;
	}
}

static void unlink_uses(struct module *module)
{
	for (size_t k = 0; k < module->nr_uses; k++) {
		struct xp__use **link = &module->uses[k].object->uses;

		while (*link != &module->uses[k])
			link = &(*link)->next;
		*link = module->uses[k].next;
	}
}

/* The list of those whose objects are there. */
static void enter(struct module *module)
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

int xp__objects_each(int (*visit)(const struct xp__use *uses, void *data), void *data)
{
	int result = 0;

	for (const struct module *module = registered; module && !result; module = module->next)
		for (size_t k = 0; k < module->nr_uses && !result; k++)
			if (module->uses[k].object->uses == &module->uses[k])
				result = visit(&module->uses[k], data);
	return result;
}

static int arrive(const struct xp_module *public)
{
	int error = 0;

	for (unsigned kind = 0; kind < public->nr_tables && !error; kind++)
		if (xp__front_of(kind)->arrive)
			error = xp__front_of(kind)->arrive(&public->tables[kind]);
	return error;
}

static void arrived(const struct xp_module *public)
{
	for (unsigned kind = 0; kind < public->nr_tables; kind++)
		if (xp__front_of(kind)->arrived)
			xp__front_of(kind)->arrived(&public->tables[kind]);
}

static void depart(const struct xp_module *public)
{
	for (unsigned kind = 0; kind < public->nr_tables; kind++)
		if (xp__front_of(kind)->depart)
			xp__front_of(kind)->depart(&public->tables[kind]);
}

static int register_locked(struct xp_module *public)
{
	struct module *module;
	size_t nr = 0;
	bool any = false;
	int error;

	if (public->state == REGISTERED)
		return 0;
	if (public->abi != XP_MODULE_ABI || public->nr_tables > XP_NR_SITE_KINDS)
		return -XP_E_CORRUPT;
	for (unsigned kind = 0; kind < public->nr_tables; kind++) {
		nr += references(&public->tables[kind], xp__front_of(kind)).nr;
		any = any || public->tables[kind].start != public->tables[kind].end;
	}
	if (!any) {
		public->state = REGISTERED;
		public->private_data = NULL;
		return 0;
	}
	if (nr > UINT32_MAX)
		return -XP_E_CORRUPT;
	error = arrive(public);
	module = error ? NULL : make(public, nr);
	if (module == NULL) {
		depart(public);
		return error ? error : -XP__ENOMEM;
	}
	error = xp__attach_locked(module->uses, module->nr_uses,
				  public->state == LEFT ? XP__GOAL_REATTACH : XP__GOAL_ATTACH, NULL);
	if (error) {
		depart(public);
		xp__port->release(module, module->size);
		return error;
	}
	link_uses(module);
	enter(module);
	public->private_data = module;
	public->state = REGISTERED;
	arrived(public);
	return 0;
}

int xp_module_register(struct xp_module *module)
{
	int error = xp__lock(NULL);

	if (error == -XP_E_NOT_READY) {
		if (module->state != QUEUED) {
			module->private_data = queue;
			module->state = QUEUED;
			queue = module;
		}
		return 0;
	}
	if (!error) {
		error = register_locked(module);
		xp__unlock();
	}
	if (error)
		__atomic_store_n(&last_error, error, __ATOMIC_RELAXED);
	return error;
}

static void unqueue(struct xp_module *module)
{
	struct xp_module **link = &queue;

	while (*link && *link != module)
		link = (struct xp_module **)&(*link)->private_data;
	if (*link)
		*link = module->private_data;
	module->state = NEW;
}

int xp_module_unregister(struct xp_module *public)
{
	struct module *module;
	int error;

	if (public->state == QUEUED)
		unqueue(public);
	if (public->state != REGISTERED)
		return 0;
	error = xp__lock(NULL);
	/*
	 * In a wedged engine nothing is patched any more; what the module has is left to the breakpoints' table. But its
	 * names go away, which somebody might want to know.
	 */
	if (error == -XP_E_WEDGED && xp__port->lock() == 0) {
		strike(public->private_data);
		xp__port->unlock();
	}
	if (error)
		return error;
	module = public->private_data;
	if (module) {
		depart(public);
		strike(module);
		unlink_uses(module);
		xp__port->release(module, module->size);
	}
	public->private_data = NULL;
	public->state = LEFT;
	xp__unlock();
	for (unsigned kind = 0; kind < public->nr_tables; kind++)
		if (xp__front_of(kind)->leave)
			xp__front_of(kind)->leave(&public->tables[kind]);
	return 0;
}

int xp_module_error(void)
{
	return __atomic_load_n(&last_error, __ATOMIC_RELAXED);
}

int xp_port_set(const struct xp_port *port)
{
	if (port == NULL || port->abi != XP_PORT_ABI)
		return -XP__EINVAL;
	xp__start(port);
	while (queue) {
		struct xp_module *module = queue;

		queue = module->private_data;
		module->private_data = NULL;
		module->state = NEW;
		(void)xp_module_register(module);
	}
	return 0;
}
