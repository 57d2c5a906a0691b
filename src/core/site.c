// SPDX-License-Identifier: MIT
/*
 * Site tables. A module brings unsorted records, several keys mixed; a key wants its sites without a look at anybody
 * else's. So registration groups the record numbers by key, in two passes over the records and one over the keys, and
 * hangs each group on its key. Records stay where the linker put them, read-only.
 *
 * I1  A module is registered with all its sites in agreement with their keys, or not at all.
 * I2  All under the text lock; nothing here runs in a trap handler.
 * I3  key->scratch is zero between two calls.
 */
#include "core/site.h"

#include "core/batch.h"
#include "core/deps.h"
#include "core/poke.h"
#include "core/trap.h"

enum { NEW, QUEUED, REGISTERED, LEFT }; /* xp_module.state; LEFT: was registered, its text may be patched */

struct module {
	size_t size; /* of this block of memory */
	size_t nr_uses;
	uint32_t *numbers;
	struct xp__key_use uses[];
};

static struct xp_module *queue; /* registered before there was a port; linked through private_data */
static int last_error;

/* Numbers the distinct keys from 1 in key->scratch. */
static size_t number_keys(const struct xp_branch_site *sites, size_t nr)
{
	size_t nr_keys = 0;

	for (size_t i = 0; i < nr; i++) {
		struct xp_static_key *key = xp__site_key(&sites[i]);

		if (key->scratch == 0)
			key->scratch = (uint32_t)++nr_keys;
	}
	return nr_keys;
}

static void forget_numbers(const struct xp_branch_site *sites, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		xp__site_key(&sites[i])->scratch = 0;
}

static struct module *group(const struct xp_branch_site *sites, size_t nr)
{
	size_t nr_keys = number_keys(sites, nr);
	size_t size = sizeof(struct module) + nr_keys * sizeof(struct xp__key_use) + nr * sizeof(uint32_t);
	struct module *module = xp__port->alloc(size);
	uint32_t *at;

	if (module == NULL) {
		forget_numbers(sites, nr);
		return NULL;
	}
	module->size = size;
	module->nr_uses = nr_keys;
	module->numbers = at = (uint32_t *)(module->uses + nr_keys);
	for (size_t i = 0; i < nr; i++) {
		struct xp_static_key *key = xp__site_key(&sites[i]);
		struct xp__key_use *use = &module->uses[key->scratch - 1];

		use->key = key;
		use->nr++;
		use->nr_likely += (xp__site_flags(&sites[i]) & XP_SITE_LIKELY) != 0;
		use->nr_true += (xp__site_flags(&sites[i]) & XP_SITE_TRUE) != 0;
	}
	for (size_t k = 0; k < nr_keys; k++) {
		module->uses[k].sites = sites;
		module->uses[k].numbers = at;
		at += module->uses[k].nr;
		module->uses[k].nr = 0;
	}
	for (size_t i = 0; i < nr; i++) {
		struct xp__key_use *use = &module->uses[xp__site_key(&sites[i])->scratch - 1];

		module->numbers[(size_t)(use->numbers - module->numbers) + use->nr++] = (uint32_t)i;
	}
	for (size_t k = 0; k < nr_keys; k++)
		module->uses[k].key->scratch = 0;
	return module;
}

static void link_uses(struct module *module)
{
	for (size_t k = 0; k < module->nr_uses; k++) {
		struct xp__key_use *use = &module->uses[k];

		use->next = use->key->uses;
		use->key->uses = use;
	}
}

static void unlink_uses(struct module *module)
{
	for (size_t k = 0; k < module->nr_uses; k++) {
		struct xp__key_use **link = &module->uses[k].key->uses;

		while (*link != &module->uses[k])
			link = &(*link)->next;
		*link = module->uses[k].next;
	}
}

static int register_locked(struct xp_module *public)
{
	const struct xp_branch_site *sites = public->branch_sites;
	size_t nr = (size_t)(public->branch_sites_end - sites);
	struct module *module;
	int error;

	if (public->state == REGISTERED)
		return 0;
	if (nr == 0) {
		public->state = REGISTERED;
		public->private_data = NULL;
		return 0;
	}
	if (public->abi != XP_MODULE_ABI || nr > UINT32_MAX)
		return -XP_E_CORRUPT;
	module = group(sites, nr);
	if (module == NULL)
		return -XP__ENOMEM;
	error = xp__patch_uses_locked(module->uses, module->nr_uses, public->state != LEFT, NULL);
	if (error) {
		xp__port->release(module, module->size);
		return error;
	}
	link_uses(module);
	public->private_data = module;
	public->state = REGISTERED;
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
	/* In a wedged engine nothing is patched any more; what the module has is left to the breakpoints' table. */
	if (error)
		return error;
	module = public->private_data;
	if (module) {
		unlink_uses(module);
		xp__port->release(module, module->size);
	}
	public->private_data = NULL;
	public->state = LEFT;
	xp__unlock();
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
