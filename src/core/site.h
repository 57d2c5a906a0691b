/* SPDX-License-Identifier: MIT */
/* Modules: what they bring, and which objects have sites. */
#ifndef XP_CORE_SITE_H
#define XP_CORE_SITE_H

#include "core/kind.h"

/*
 * xp__objects_each - calls @visit for each object that has sites with records, once, with the list of its groups, until it
 * returns something else than 0, which is returned. All that the object points to is there. Modules that were unregistered
 * while the engine was wedged are skipped. Context: text lock.
 */
int xp__objects_each(int (*visit)(const struct xp__group *groups, void *data), void *data);

/*
 * xp__modules_wait - whether there are modules that are not registered: refused, or not yet looked at. Context: any.
 * xp__modules_retry - tries them again. Returns the error of a module that is refused again, if @concerns accepts that
 * module, told to @diag. Context: text lock. Errors: those of xp_module_register().
 * xp__module_names - whether @is says yes of an object that a record of the module refers to.
 */
bool xp__modules_wait(void);
int xp__modules_retry(bool (*concerns)(const struct xp_module *module, const void *what), const void *what,
		      struct xp_diag *diag);
bool xp__module_names(const struct xp_module *module,
		      bool (*is)(const struct xp_object *object, unsigned kind, const void *what), const void *what);

/*
 * xp__modules_adopt - the engine's port has come: those that came before it are registered. Context: xp_port_set()'s.
 * xp__modules_keep - xp_modules_keep().
 */
void xp__modules_adopt(void);
void xp__modules_keep(void);

#endif
