/* SPDX-License-Identifier: MIT */
/*
 * Plan files: sequences of code states, written by hand. One directive per line; # begins a comment.
 *
 *	plan NAME                          begins a plan; the rest of the line is its name
 *	mode 16|32|64                      64 if not given
 *	let SYMBOL = BYTE…                 bytes that the symbol stands for, in the order of its occurrences in a state
 *	invalid-selectors FIRST-LAST…      far calls to these selectors fault; one number stands for itself
 *	state BYTE-OR-SYMBOL…              the first is the old code, the last the new; all are equally long, 1 to 16 bytes.
 *	                                   A state is reached from the one before by one store that covers all bytes
 *	                                   that differ, or by those of the `store` lines before it
 *	store OFFSET LENGTH                one store of the next state's bytes, up to 8 of them
 *	sync                               every processor serializes; after the last state: old code is not executed later
 *	restart-on-nop                     the fault handler executes again if the instruction begins with a nop; without it,
 *	                                   if what is there now does not fault. What still faults at the site's first byte
 *	                                   is bound there, or waited for
 *	resume N|copy                      a breakpoint continues at offset N, or in an out-of-line copy of the old code;
 *	                                   without it, as the new code
 *	free-copy                          from here the memory of that copy is used for something else
 *	entry N…                           branches from elsewhere lead to these offsets
 *	commit                             what follows is another commit, whose old code is the state before
 *
 * Numbers of selectors and bytes are hexadecimal, others decimal. Hosted.
 */
#ifndef XP_VERIFY_PLANFILE_H
#define XP_VERIFY_PLANFILE_H

#include "verify/schedule.h"

#include <stddef.h>

struct xp__planfile {
	size_t nr;
	struct xp__schedule *schedules; /* malloc()ed */
	unsigned line, column;          /* of an error; from 1 */
	char reason[120];
};

/* xp__planfile_read - 0; -EINVAL with line, column and reason set; -ENOMEM. The schedules read so far are kept. */
int xp__planfile_read(struct xp__planfile *file, const char *text, size_t len);

void xp__planfile_free(struct xp__planfile *file);

#endif
