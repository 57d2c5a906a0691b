// SPDX-License-Identifier: MIT
/* Objects in namespaces and classes, named with them and without. */
#include <crosspatch/crosspatch.h>
#include <stdio.h>

namespace outer
{
XP_DEFINE_STATIC_KEY_FALSE(key);
XP_DEFINE_STATIC_KEY_ARRAY_FALSE(keys, 2);
XP_DEFINE_STATIC_SWITCH(choice, 3, 1);
XP_DEFINE_IMV(int, value, 3);
namespace inner
{
XP_DEFINE_IMV_STATIC(const char *, text, nullptr);
XP_DECLARE_IMV(short, later);
} // namespace inner

int old_target(int x)
{
	return x + 1;
}
int new_target(int x)
{
	return x + 2;
}
XP_DEFINE_STATIC_CALL(a_call, old_target);
XP_DECLARE_GATE(int, a_gate, (int x));
} // namespace outer
namespace outer
{
namespace inner
{
XP_DEFINE_IMV(short, later, 5);
XP_DEFINE_STATIC_CALL_NULL(another_call, old_target);
XP_DECLARE_GATE_UD2_FALLBACK(int, another_gate, (int x), old_target);
} // namespace inner
} // namespace outer

class counted
{
	XP_DECLARE_STATIC_KEY_MEMBER_FALSE(hidden);
	XP_DECLARE_STATIC_CALL_MEMBER(a_call, outer::old_target);
	XP_DECLARE_GATE_MEMBER(int, a_gate, (int x));

      public:
	XP_DECLARE_STATIC_KEY_MEMBER_TRUE(on);
	XP_DECLARE_STATIC_SWITCH_MEMBER(choice, 4);
	XP_DECLARE_IMV_MEMBER(long, limit);
	XP_DECLARE_IMV_MEMBER(unsigned char, small);
	XP_DECLARE_STATIC_CALL_MEMBER(later_call, outer::old_target);
	XP_DECLARE_GATE_MEMBER(int, later_gate, (int x));
	static int call(int x)
	{
		return xp_static_call(a_call)(x) + 10 * xp_gate(a_gate)(x);
	}
	static int look()
	{
		return xp_static_branch_unlikely(&hidden) ? 1 : 0;
	}
	static int set()
	{
		return xp_static_branch_enable(&hidden);
	}
};
XP_DEFINE_STATIC_KEY_MEMBER_FALSE(counted::hidden);
XP_DEFINE_STATIC_KEY_MEMBER_TRUE(counted::on);
XP_DEFINE_STATIC_SWITCH_MEMBER(counted::choice, 4, 2);
XP_DEFINE_IMV_MEMBER(long, counted::limit, 100);
XP_DEFINE_IMV_MEMBER(unsigned char, counted::small, 7);

XP_DEFINE_STATIC_CALL(later_call, outer::old_target);
XP_DECLARE_GATE(int, later_gate, (int x));

static int bad;

static void check(const char *what, bool ok)
{
	if (ok)
		return;
	printf("%s\n", what);
	bad++;
}

int main()
{
	check("registered", xp_module_error() == 0);
	check("at first", !xp_static_branch_unlikely(&outer::key) && !xp_static_branch_unlikely(&outer::keys[1]) &&
				  xp_static_switch(&outer::choice) == 1 && xp_imv_read(outer::value) == 3 &&
				  xp_imv_read(outer::inner::text) == nullptr && xp_imv_read(outer::inner::later) == 5);
	check("members at first", !counted::look() && xp_static_branch_likely(&counted::on) &&
					  xp_static_switch(&counted::choice) == 2 &&
					  xp_imv_read(counted::limit) == 100 && xp_imv_read(counted::small) == 7);
	check("set", !xp_static_branch_enable(&outer::key) && !xp_static_branch_enable(&outer::keys[1]) &&
			     !xp_static_switch_set(&outer::choice, 2) && !xp_imv_set(outer::value, 4) &&
			     !xp_imv_set(outer::inner::text, "text") && !xp_imv_set(::outer::inner::later, 6));
	check("members set", !counted::set() && !xp_static_branch_disable(&counted::on) &&
				     !xp_static_switch_set(&counted::choice, 3) && !xp_imv_set(counted::limit, 101) &&
				     !xp_imv_set(counted::small, 8));
	check("then", xp_static_branch_unlikely(&outer::key) && xp_static_branch_unlikely(&outer::keys[1]) &&
			      xp_static_switch(&outer::choice) == 2 && xp_imv_read(outer::value) == 4 &&
			      *xp_imv_read(outer::inner::text) == 't' && xp_imv_read(outer::inner::later) == 6);
	check("members then", counted::look() && !xp_static_branch_likely(&counted::on) &&
				      xp_static_switch(&counted::choice) == 3 && xp_imv_read(counted::limit) == 101 &&
				      xp_imv_read(counted::small) == 8);

	check("a call by its namespace", xp_static_call_in(outer, a_call)(1) == 2 &&
						 !xp_static_call_update_in(outer, a_call, outer::new_target) &&
						 xp_static_call_in(::outer, a_call)(1) == 3 && counted::call(1) == 3 &&
						 xp_static_call_query_in(outer, a_call) == outer::new_target &&
						 !xp_static_call_update_in(outer, a_call, outer::old_target) &&
						 counted::call(1) == 2);
	xp_static_call_cond_in(outer::inner, another_call)(1);
	check("a call by its class", xp_static_call_in(counted, later_call)(1) == 2 &&
					     !xp_static_call_update_in(counted, later_call, outer::new_target) &&
					     xp_static_call_in(counted, later_call)(1) == 3 &&
					     xp_static_call(later_call)(1) == 3);
	check("gates at first", !xp_gate_in(outer, a_gate)(1) && xp_gate_in(outer::inner, another_gate)(1) == 2 &&
					!xp_gate_in(counted, later_gate)(1) &&
					!xp_gate_available_in(counted, later_gate));
	check("gates provided", !xp_gate_provide("a_gate", outer::old_target) &&
					!xp_gate_provide("another_gate", outer::new_target) &&
					!xp_gate_provide("later_gate", outer::new_target));
	check("gates", xp_gate_in(outer, a_gate)(1) == 2 && xp_gate_in(outer::inner, another_gate)(1) == 3 &&
			       xp_gate_in(counted, later_gate)(1) == 3 && xp_gate(later_gate)(1) == 3 &&
			       xp_gate_available_in(counted, later_gate) && counted::call(1) == 22);

	using namespace outer;
	check("call", xp_static_call(a_call)(1) == 2 && !xp_static_call_update(a_call, new_target) &&
			      xp_static_call(a_call)(1) == 3);
	struct xp_batch *batch = xp_batch_new();
	check("batch", batch && !xp_batch_add_call_in(batch, outer, a_call, old_target) &&
			       !xp_batch_add_call_in(batch, outer::inner, another_call, new_target) &&
			       !xp_batch_add_imv(batch, outer::value, 5) &&
			       !xp_batch_add_imv(batch, counted::limit, 5) && !xp_batch_commit(batch, nullptr) &&
			       xp_imv_read(value) == 5 && xp_imv_read(counted::limit) == 5);
	check("calls", xp_static_call(a_call)(1) == 2 && xp_static_call_in(outer::inner, another_call)(1) == 3);
	xp_batch_free(batch);
	return bad != 0;
}
