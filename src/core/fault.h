/* SPDX-License-Identifier: MIT */
/* Sites that fault when they are executed: a sorted table that handlers search without a lock, replaced as a whole. */
#ifndef XP_CORE_FAULT_H
#define XP_CORE_FAULT_H

#include <stddef.h>
#include <stdint.h>

struct xp__fault_sites;

/* What is published, and what was and may still be looked at. One for each kind of fault. */
struct xp__faults {
	struct xp__fault_sites *sites, *replaced;
};

/* xp__faults_copy - what is published, with room for @more; NULL: no memory. Context: text lock, here and below. */
struct xp__fault_sites *xp__faults_copy(const struct xp__faults *faults, size_t more);
/* xp__faults_insert - a site and whose it is, into a copy. _remove - takes it out again, if it is there. */
void xp__faults_insert(struct xp__fault_sites *sites, uintptr_t code, void *owner);
void xp__faults_remove(struct xp__fault_sites *sites, uintptr_t code);
/* xp__faults_publish - from now on handlers find what is in the copy. Ordering: (G3). */
void xp__faults_publish(struct xp__faults *faults, struct xp__fault_sites *sites);

/* xp__faults_find - whose site it is, or NULL. Context: a handler counted in (xp__trap_enter()). Ordering: (G4). */
void *xp__faults_find(const struct xp__faults *faults, uintptr_t code);

#endif
