/* SPDX-License-Identifier: MIT */
/* What tracing functions asks of a process. */
#ifndef XP_LINUX_FUNCTION_H
#define XP_LINUX_FUNCTION_H

#include <crosspatch/port.h>

#include <stdbool.h>
#include <stdint.h>

struct xp_function_thread *xp__function_thread(void);
void xp__function_start(void);
int xp__function_hook_exit(struct xp_function_thread *self);
bool xp__stack_left(uintptr_t frame, uintptr_t here);
int xp__function_begins(const void *code);
uintptr_t xp__unwind_ip(void *context);
void xp__moment_wait(void);

#endif
