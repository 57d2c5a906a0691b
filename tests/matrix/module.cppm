// SPDX-License-Identifier: MIT
/*
 * Objects and sites in a named module of C++20. In clang 16 none in a template that is exported: it crashes; and no static ones:
 * importers that inline get copies of these. Calls and gates,
 * whose stubs are assembly at file scope, are defined elsewhere: clang 16 emits that in every importer, clang 19 nowhere.
 */
module;
#include <crosspatch/crosspatch.h>
export module module_of_sites;

XP_DEFINE_STATIC_KEY_FALSE(local);
XP_DEFINE_STATIC_KEY_TRUE(key);
XP_DEFINE_STATIC_KEY_ARRAY_FALSE(keys, 2);
XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(deferred, 1);
XP_DEFINE_STATIC_SWITCH(choice, 3, 1);
XP_DEFINE_IMV(int, value, 3);

export int look()
{
	return (xp_static_branch_unlikely(&local) ? 1 : 0) + (xp_static_branch_likely(&key) ? 0 : 2) +
	       (xp_static_branch_unlikely(&keys[1]) ? 4 : 0) + (xp_static_branch_unlikely(&deferred.key) ? 8 : 0) +
	       100 * xp_static_switch(&choice) + 1000 * xp_imv_read(value);
}
export inline int look_inline()
{
	return (xp_static_branch_likely(&key) ? 0 : 2) + 1000 * xp_imv_read(value);
}
export template <typename T> T look_template(T x)
{
#if defined(__clang__) && __clang_major__ < 17
	return x + (look() & 2);
#else
	return x + (xp_static_branch_likely(&key) ? 0 : 2);
#endif
}
export int change()
{
	return xp_static_branch_enable(&local) + xp_static_branch_disable(&key) + xp_static_branch_enable(&keys[1]) +
	       xp_static_branch_deferred_inc(&deferred) + xp_static_switch_set(&choice, 2) + xp_imv_set(value, 4);
}
