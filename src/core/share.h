/* SPDX-License-Identifier: MIT */
/* Threads that change something at the same time share a commit. */
#ifndef XP_CORE_SHARE_H
#define XP_CORE_SHARE_H

#include "core/kind.h"

#include <crosspatch/error.h>

/*
 * xp__share - has @request carried out, by this thread with those of others that wait, or by another one. It is of an
 * `asynchronous` kind: nothing of it is needed afterwards. Context: thread, no lock held. Errors: as xp__batch_apply(); -XP_E_BEGUN.
 * @apply: carries out requests under the text lock.
 */
typedef int xp__share_apply(struct xp__request *requests, size_t nr, struct xp_diag *diag);
int xp__share(struct xp__request *request, xp__share_apply *apply, struct xp_diag *diag);

/*
 * xp__share_lead - carries out @own and the requests of those that wait, and returns the error of @own. xp__share_waits - whether one
 * waits. Context: text lock.
 */
int xp__share_lead(struct xp__request *own, xp__share_apply *apply, struct xp_diag *diag);
bool xp__share_waits(void);

/*
 * xp__share_disband - no request that waits will be carried out by another thread than its own: before a change that is not shared,
 * and before a module goes. Context: text lock.
 */
void xp__share_disband(void);

#endif
