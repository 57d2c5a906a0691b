/* SPDX-License-Identifier: MIT */
/* Blocks of the arena, and the rights of its pages: ../libc.c. */
#ifndef MACHINE_MMAN_H
#define MACHINE_MMAN_H
#include <stddef.h>
#define PROT_NONE 0
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 32
#define MAP_FAILED ((void *)-1)
void *mmap(void *address, size_t size, int rights, int flags, int fd, long offset);
int munmap(void *block, size_t size);
int mprotect(void *start, size_t size, int rights);
#endif
