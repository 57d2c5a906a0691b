/* SPDX-License-Identifier: MIT */
/* Reads in templates and inline functions: two files have them, the linker keeps one of each. */
#ifndef VALUES_TEMPLATES_H
#define VALUES_TEMPLATES_H

#include "values.h"

template <typename T, int n> struct box {
	static int look()
	{
		return n * (xp_imv_read(v_double) != expected_v_double) + static_cast<int>(sizeof(T) - sizeof(T));
	}

	int member() const
	{
		return xp_imv_read(v_pointer) != expected_v_pointer;
	}
};

template <typename T> int through_lambda(T value)
{
	auto lambda = [](T) { return xp_imv_read(v_s16) != expected_v_s16; };

	return lambda(value);
}

inline int inline_function()
{
	int bad = 0;

#define LOOK(type, name, first, second) bad += xp_imv_read(name) != expected_##name;
	VALUES(LOOK)
#undef LOOK
	return bad;
}

template <typename T> int all()
{
	return box<T, 1>::look() + box<T, 2>::look() + box<T, 1>().member() + through_lambda(T()) + inline_function();
}

#endif
