// SPDX-License-Identifier: MIT
/* Opens a plugin, lets it work and closes it, round and round. Afterwards traps come, and the process forks. */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 5 };

static volatile sig_atomic_t traps;

static void on_trap(int signal)
{
	(void)signal;
	traps = traps + 1;
}

int main(int argc, char **argv)
{
	signal(SIGTRAP, on_trap);
	for (int i = 0; i < ROUNDS; i++) {
		void *plugin = dlopen(argc > 1 ? argv[1] : NULL, RTLD_NOW);
		void *symbol = plugin ? dlsym(plugin, "work") : NULL;
		int (*work)(void), error = 0, status;
		pid_t child;

		if (symbol == NULL) {
			fprintf(stderr, "%s\n", dlerror());
			return 1;
		}
		memcpy(&work, &symbol, sizeof(work));
		error = work();
		dlclose(plugin);
		if (error) {
			fprintf(stderr, "%d\n", error);
			return 1;
		}
		/* Time for the deferred decrement. */
		usleep(100000);
		raise(SIGTRAP);
		__asm__ volatile("int3");
		child = fork();
		if (child == 0)
			_exit(0);
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
			return 1;
	}
	return traps == 2 * ROUNDS ? 0 : 1;
}
