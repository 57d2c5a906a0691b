/* SPDX-License-Identifier: MIT */
/*
 * Chooses the architecture: the one public header that names any. What the others have of it is `struct xp_regs`, and the
 * macros that emit sites. Freestanding, and included by those that need it; harmless where XP_NO_PATCHING says that there
 * are no sites.
 *
 * A new architecture is one line here and one header in crosspatch/arch: doc/adding-an-arch.md. To build the core
 * for an architecture that is not in this tree, define XP_ARCH_PUBLIC_HEADER as the name of its header.
 */
#ifndef XP_ARCH_H
#define XP_ARCH_H

#include <stdint.h>

#if defined(XP_ARCH_PUBLIC_HEADER)
#include XP_ARCH_PUBLIC_HEADER
#elif (defined(__x86_64__) && !defined(__ILP32__)) || defined(__i386__)
#include <crosspatch/arch/x86.h>
#elif !defined(XP_NO_PATCHING)
#error "crosspatch: this architecture is not supported yet; define XP_NO_PATCHING for plain loads and branches"
#endif

#endif
