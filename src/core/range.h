/* SPDX-License-Identifier: MIT */
/* Ranges of addresses as a port gets them: sorted, disjoint (struct xp_range). */
#ifndef XP_CORE_RANGE_H
#define XP_CORE_RANGE_H

#include <crosspatch/port.h>

/* xp__ranges_hold - whether @value lies in one of the @nr ranges. Context: any. */
static inline bool xp__ranges_hold(const struct xp_range *ranges, size_t nr, uintptr_t value)
{
	size_t low = 0, high = nr;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ranges[middle].end <= value)
			low = middle + 1;
		else
			high = middle;
	}
	return low < nr && value >= ranges[low].start;
}

#endif
