/* SPDX-License-Identifier: MIT */
/* Sites in templates and inline functions: two files have them, the linker keeps one of each. */
#ifndef TEMPLATES_H
#define TEMPLATES_H

#include "keys.h"

template <typename T, int n> struct box {
	static int look()
	{
		int bad = 0;

		bad += differ(xp_static_branch_unlikely(&key_false), xp_static_key_enabled(&key_false)) * n;
		bad += differ(xp_static_branch_likely(&key_true), xp_static_key_enabled(&key_true)) * n;
		return bad + static_cast<int>(sizeof(T) - sizeof(T));
	}

	int member() const
	{
		return differ(xp_static_branch_unlikely(&keys_cxx[1]), xp_static_key_enabled(&keys_cxx[1]));
	}
};

template <typename T> int function(T value)
{
	auto lambda = [](T) { return differ(xp_static_branch_likely(&key_cxx), xp_static_key_enabled(&key_cxx)); };

	return lambda(value);
}

inline int inline_function()
{
	int bad = 0;

	if (xp_static_branch_unlikely(&key_cxx))
		bad += !xp_static_key_enabled(&key_cxx);
	else
		bad += xp_static_key_enabled(&key_cxx);
	return bad + differ(xp_static_branch_unlikely(&keys_false[1]), xp_static_key_enabled(&keys_false[1]));
}

template <typename T> int all()
{
	return box<T, 1>::look() + box<T, 2>::look() + box<T, 1>().member() + function(T()) + inline_function();
}

#endif
