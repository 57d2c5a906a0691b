// SPDX-License-Identifier: MIT
/*
 * A program that goes on, and is switched from another terminal.
 *
 *	cc -O2 served.c $(pkg-config --cflags --libs crosspatch) && ./a.out
 *
 * It says what to type. Ends when its input does.
 */
#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

XP_DEFINE_STATIC_KEY_FALSE(tracing);
XP_DEFINE_IMV(unsigned, step, 1);

static unsigned long sum;

__attribute__((noinline)) static void work(void)
{
	sum += xp_imv_read(step);
	if (xp_static_branch_unlikely(&tracing)) {
		printf("sum %lu\n", sum);
		fflush(stdout);
	}
}

int main(void)
{
	struct pollfd input = {0, POLLIN, 0};
	char byte;
	int error = xp_control_start(NULL);

	/* The caller that started it may have asked for a socket already. */
	if (error && error != -EALREADY) {
		fprintf(stderr, "served: %s (%d)\n", xp_strerror(error), error);
		return 1;
	}
	printf("crosspatch list %d\ncrosspatch set %d tracing on\ncrosspatch set %d step 1000\n", getpid(), getpid(),
	       getpid());
	fflush(stdout);
	while (poll(&input, 1, 500) == 0 || read(0, &byte, 1) > 0)
		work();
	return xp_control_stop() != 0;
}
