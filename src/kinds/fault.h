/* SPDX-License-Identifier: MIT */
/* Sites that fault when they are executed: a sorted table that handlers search without a lock, replaced as a whole. */
#ifndef XP_KINDS_FAULT_H
#define XP_KINDS_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xp__fault_sites;

/* What is published. One for each kind of fault. */
struct xp__faults {
	struct xp__fault_sites *sites;
};

/*
 * xp__faults_copy - what is published, but for sites that are gone, with room for @more; NULL: no memory. Context: text lock,
 * here and below.
 */
struct xp__fault_sites *xp__faults_copy(const struct xp__faults *faults, size_t more);
/* xp__faults_insert - a site and whose it is, into a copy. */
void xp__faults_insert(struct xp__fault_sites *sites, uintptr_t code, void *owner);
/* xp__faults_publish - from now on handlers find what is in the copy. Ordering: (G3). */
void xp__faults_publish(struct xp__faults *faults, struct xp__fault_sites *sites);
/* xp__faults_forget - the site at @code goes: a fault at that address is no site's from now on. */
void xp__faults_forget(struct xp__faults *faults, uintptr_t code);

/* xp__faults_find - whose site it is, or NULL. Context: a handler counted in (xp__trap_enter()). Ordering: (G4). */
void *xp__faults_find(const struct xp__faults *faults, uintptr_t code);

/*
 * xp__faults_try - whether the text is to be changed for this fault, or the handler does what the call would and no more.
 * @count: of the gate's faults since one of them was the last at its site, 0 at first. Where a site cannot be changed each try
 * may wait for some ms, and the site faults at each call. So the first 8 faults try, and those of number 8, 16, … 4096, counted from 0,
 * then every 4096th: what a call waits is nothing on average, and a site that can be changed again is within as many calls
 * as were in vain.
 * xp__faults_ended - a try succeeded: the next fault is the first.
 * Context: any. Ordering: none: which of several threads tries does not matter. Progress: wait-free.
 */
bool xp__faults_try(uint16_t *count);
void xp__faults_ended(uint16_t *count);

#endif
