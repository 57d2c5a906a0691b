/* SPDX-License-Identifier: MIT */
/* What host and plugin agree on: names and types. */
#ifndef GATES_H
#define GATES_H

#include <crosspatch/gate.h>

/* "compress": the plugin provides, the host calls. "report": the other way round. */
XP_DECLARE_GATE(void, report, (const char *text));

#endif
