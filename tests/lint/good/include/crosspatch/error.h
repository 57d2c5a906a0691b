/* SPDX-License-Identifier: MIT */
#ifndef XP_ERROR_H
#define XP_ERROR_H
#define XP_ERRORS(X) \
	X(SOME, 4201, "some error")
#endif
