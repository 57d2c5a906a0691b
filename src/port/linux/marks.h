/* SPDX-License-Identifier: MIT */
/* Marks of which process this is. */
#ifndef XP_LINUX_MARKS_H
#define XP_LINUX_MARKS_H

#include <stdint.h>

/* xp__marks_fork - zero at first and after every fork, however it was made: code that set one knows when it is in a child. */
enum xp__mark {
	XP__MARK_LOCK,
	XP__MARK_PROCMEM,
	XP__MARK_THREADS,
	XP__MARK_MAPS,
	XP__MARK_DEFER,
	XP__MARK_CONTROL,
	XP__MARK_PARENT,
	XP__NR_MARKS
};
extern uint32_t *xp__marks_fork;
void xp__marks_start(void); /* Context: start */

#endif
