/* SPDX-License-Identifier: MIT */
/* From requests (this key on, these bytes there) to one commit. */
#ifndef XP_CORE_BATCH_H
#define XP_CORE_BATCH_H

#include "core/kind.h"

#include <crosspatch/text_poke.h>

/*
 * xp__batch_patch - one commit of the sites of all requests. It does not update the objects' state: the caller does.
 * Context: text lock. Errors: as xp_batch_commit(); the text is as before unless wedged.
 */
int xp__batch_patch(const struct xp__request *requests, size_t nr, struct xp_diag *diag);

/*
 * xp__batch_settle_modules - tries modules that wait to be registered once more. Errors: that of a module which
 * has sites of a requested object and was refused again; the object is not to be changed then. Context: text lock.
 */
int xp__batch_settle_modules(const struct xp__request *requests, size_t nr, struct xp_diag *diag);

/* xp__batch_apply_locked - xp__batch_patch() with the objects' own state: the requests hold, or nothing changed. */
int xp__batch_apply_locked(struct xp__request *requests, size_t nr, struct xp_diag *diag);

/* xp__batch_apply - the same for one request, under the text lock that it takes. */
int xp__batch_apply(struct xp__request *request, struct xp_diag *diag);

/* xp__batch_apply_async - the same, and @ticket tells of the sync that is left. Errors: also -EINVAL for NULL, -XP_E_NEEDS_SYNC. */
int xp__batch_apply_async(struct xp__request *request, struct xp_ticket *ticket);

/*
 * xp__batch_apply_listed - the same for the requests that @list writes down, in one commit. It is asked for their number first, with
 * NULL. Errors: -ENOMEM too.
 */
int xp__batch_apply_listed(size_t (*list)(struct xp__request *requests));

/*
 * xp__batch_poke - room for one more of the pokes of @kind, which the caller fills. NULL: no memory, the batch is as before. Many
 * of them are one request. Context: thread.
 */
struct xp__poke *xp__batch_poke(struct xp_batch *batch, const struct xp__kind *kind);

/* xp__batch_add - a copy of @request. Context: thread. Errors: -EINVAL for a NULL batch, -ENOMEM; the batch is as before. */
int xp__batch_add(struct xp_batch *batch, const struct xp__request *request);

#endif
