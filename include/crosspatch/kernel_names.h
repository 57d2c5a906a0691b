/* SPDX-License-Identifier: MIT */
/* The kernel's names, for code that moves between the two. Opt-in: these names have no prefix. */
#ifndef XP_KERNEL_NAMES_H
#define XP_KERNEL_NAMES_H

#include <crosspatch/imv.h>
#include <crosspatch/static_call.h>
#include <crosspatch/static_key.h>

#define static_key xp_static_key
#define static_key_true xp_static_key_true
#define static_key_false xp_static_key_false
#define static_key_deferred_true xp_static_key_deferred_true
#define static_key_deferred_false xp_static_key_deferred_false

#define DEFINE_STATIC_KEY_TRUE XP_DEFINE_STATIC_KEY_TRUE
#define DEFINE_STATIC_KEY_FALSE XP_DEFINE_STATIC_KEY_FALSE
#define DECLARE_STATIC_KEY_TRUE XP_DECLARE_STATIC_KEY_TRUE
#define DECLARE_STATIC_KEY_FALSE XP_DECLARE_STATIC_KEY_FALSE
#define DEFINE_STATIC_KEY_ARRAY_TRUE XP_DEFINE_STATIC_KEY_ARRAY_TRUE
#define DEFINE_STATIC_KEY_ARRAY_FALSE XP_DEFINE_STATIC_KEY_ARRAY_FALSE
#define DECLARE_STATIC_KEY_ARRAY_TRUE XP_DECLARE_STATIC_KEY_ARRAY_TRUE
#define DECLARE_STATIC_KEY_ARRAY_FALSE XP_DECLARE_STATIC_KEY_ARRAY_FALSE
#define DEFINE_STATIC_KEY_DEFERRED_TRUE XP_DEFINE_STATIC_KEY_DEFERRED_TRUE
#define DEFINE_STATIC_KEY_DEFERRED_FALSE XP_DEFINE_STATIC_KEY_DEFERRED_FALSE

#define static_branch_likely xp_static_branch_likely
#define static_branch_unlikely xp_static_branch_unlikely
#define static_branch_enable xp_static_branch_enable
#define static_branch_disable xp_static_branch_disable
#define static_branch_inc xp_static_branch_inc
#define static_branch_dec xp_static_branch_dec
#define static_key_enabled xp_static_key_enabled
#define static_key_count xp_static_key_count

#define static_branch_deferred_inc xp_static_branch_deferred_inc
#define static_branch_slow_dec_deferred xp_static_branch_slow_dec_deferred
/* The kernel's own takes the key alone, as ours does; its static_key_slow_ names take a struct static_key. */
#define static_key_deferred_flush xp_static_key_deferred_flush
#define jump_label_rate_limit xp_jump_label_rate_limit
#define static_key_slow_inc xp_static_key_inc
#define static_key_slow_dec xp_static_key_dec
#define static_key_enable xp_static_key_enable
#define static_key_disable xp_static_key_disable

#define DEFINE_STATIC_CALL XP_DEFINE_STATIC_CALL
#define DEFINE_STATIC_CALL_NULL XP_DEFINE_STATIC_CALL_NULL
#define DEFINE_STATIC_CALL_RET0 XP_DEFINE_STATIC_CALL_RET0
#define DECLARE_STATIC_CALL XP_DECLARE_STATIC_CALL
#define static_call xp_static_call
#define static_call_cond xp_static_call_cond
/* The kernel's own returns nothing. */
#define static_call_update xp_static_call_update
#define static_call_query xp_static_call_query

/* imv_set() returns an error here. */
#define DEFINE_IMV XP_DEFINE_IMV
#define DECLARE_IMV XP_DECLARE_IMV
#define imv_read xp_imv_read
#define imv_set xp_imv_set

#endif
