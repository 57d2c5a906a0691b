/* SPDX-License-Identifier: MIT */
/* Syncs: they are numbered, and a commit may leave its own to a later one. Context: text lock, where nothing else is said. */
#ifndef XP_CORE_TICKET_H
#define XP_CORE_TICKET_H

#include <crosspatch/text_poke.h>

struct xp_object;
struct xp__group;

/* xp__sync - the port's sync. What was stored before it is owed no more. Errors: the port's. */
int xp__sync(void);

/* xp__count_parked - a rendezvous ended, which is a sync too. xp__syncs - how many there were, of both. Context: any. */
void xp__count_parked(void);
uint64_t xp__syncs(void);

/*
 * xp__owe - a commit stored to the sites of @object (NULL: at addresses), and no sync followed.
 * xp__owed - whether a sync is owed at all. xp__owed_by - for sites of @object, NULL: for addresses.
 * xp__owed_forget - @nr groups go, and were taken from their objects' lists.
 */
void xp__owe(struct xp_object *object);
bool xp__owed(void);
bool xp__owed_by(const struct xp_object *object);
void xp__owed_forget(const struct xp__group *groups, size_t nr);

/* xp__settle - the sync that is owed, if one is. Errors: the port's, told to @diag; it is owed still. */
int xp__settle(struct xp_diag *diag);

/* xp__ticket - what is stored so far is done when this sync is; see struct xp_ticket. */
struct xp_ticket xp__ticket(void);

#endif
