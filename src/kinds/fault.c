// SPDX-License-Identifier: MIT
/*
 * The tables of sites that fault.
 *
 * I1  What is published changes in one way only: a site that goes loses its owner, which takes no memory. What it replaced is
 *     free when every handler that counted itself in before (T2) has left (T5), as with the trap table.
 *
 * Ordering. (G3) publishes a table, before a site in it is executed, (G4) reads it.
 */
#include "kinds/fault.h"

#include "core/deps.h"
#include "core/reclaim.h"
#include "core/state.h"
#include "core/trap.h"

#define TRY_FIRST 8u   /* faults that all try */
#define TRY_EACH 4096u /* then those whose number is a power of two up to this; then one of so many */

struct xp__fault_sites {
	struct xp__block block;
	size_t nr;
	struct {
		uintptr_t code;
		void *owner;
	} site[];
};

void xp__faults_publish(struct xp__faults *faults, struct xp__fault_sites *sites)
{
	struct xp__fault_sites *before = faults->sites;

	/* The full barrier is T3's. ordering: (G3) pairs with (G4) */
	__atomic_store_n(&faults->sites, sites, __ATOMIC_SEQ_CST);
	if (before)
		xp__reclaim_retire(&xp__trap_domain, &before->block);
	xp__reclaim();
}

struct xp__fault_sites *xp__faults_copy(const struct xp__faults *faults, size_t more)
{
	size_t nr = faults->sites ? faults->sites->nr : 0;
	size_t size = sizeof(struct xp__fault_sites) + (nr + more) * sizeof(faults->sites->site[0]);
	struct xp__fault_sites *sites = xp__reclaim_take(size);

	if (sites == NULL)
		return NULL;
	sites->block.size = size;
	for (size_t i = 0; i < nr; i++)
		if (faults->sites->site[i].owner)
			sites->site[sites->nr++] = faults->sites->site[i];
	return sites;
}

void xp__faults_insert(struct xp__fault_sites *sites, uintptr_t code, void *owner)
{
	size_t i = sites->nr++;

	for (; i > 0 && sites->site[i - 1].code > code; i--)
		sites->site[i] = sites->site[i - 1];
	sites->site[i].code = code;
	sites->site[i].owner = owner;
}

/* The first site at @code or behind it. */
static size_t fault_place(const struct xp__fault_sites *sites, uintptr_t code)
{
	size_t low = 0, high = sites->nr;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (sites->site[middle].code < code)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * No thread executes a site that goes. One that faults at its address later executes what was mapped there since, and the
 * system's lock for mappings lies between.
 */
void xp__faults_forget(struct xp__faults *faults, uintptr_t code)
{
	struct xp__fault_sites *sites = faults->sites;
	size_t i = sites ? fault_place(sites, code) : 0;

	if (sites && i < sites->nr && sites->site[i].code == code)
		__atomic_store_n(&sites->site[i].owner, NULL, __ATOMIC_RELAXED);
}

void *xp__faults_find(const struct xp__faults *faults, uintptr_t code)
{
	/* ordering: (G4) pairs with (G3) */
	const struct xp__fault_sites *sites = __atomic_load_n(&faults->sites, __ATOMIC_ACQUIRE);
	size_t i = sites ? fault_place(sites, code) : 0;

	if (sites == NULL || i == sites->nr || sites->site[i].code != code)
		return NULL;
	return __atomic_load_n(&sites->site[i].owner, __ATOMIC_RELAXED);
}

/* One thread sees each number, but for those that come while another one takes TRY_EACH away. */
bool xp__faults_try(uint16_t *count)
{
	unsigned before = __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);

	if (before == 2 * TRY_EACH)
		__atomic_fetch_sub(count, TRY_EACH, __ATOMIC_RELAXED);
	return before < TRY_FIRST || (before & (before - 1)) == 0;
}

void xp__faults_ended(uint16_t *count)
{
	__atomic_store_n(count, 0, __ATOMIC_RELAXED);
}
