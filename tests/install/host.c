// SPDX-License-Identifier: MIT
/* Loads the plugin given as argument, several times, with the common key in either state. */
#include "plugin.h"

#include <dlfcn.h>
#include <stdio.h>

XP_DEFINE_STATIC_KEY_SHARED_FALSE(common);
XP_DEFINE_STATIC_SWITCH_SHARED(common_choice, 5, 3);
XP_DEFINE_IMV_SHARED(int, common_value, -5);

static int failures;

#define EXPECT(expression, wanted) expect(expression, wanted, #expression, __LINE__)

static void expect(int found, int wanted, const char *expression, int line)
{
	if (found == wanted)
		return;
	printf("host.c:%d: %s is %d, not %d%s%s\n", line, expression, found, wanted, found < 0 ? ": " : "",
	       found < 0 ? xp_strerror(found) : "");
	failures++;
}

static int look(void)
{
	return xp_static_branch_unlikely(&common) ? 2 : 0;
}

static int pick(void)
{
	return xp_static_switch(&common_choice);
}

static int read_value(void)
{
	return xp_imv_read(common_value);
}

static void use(const char *path, int before)
{
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const struct plugin *plugin = handle ? (const struct plugin *)dlsym(handle, "plugin") : NULL;

	if (!plugin) {
		printf("%s\n", dlerror());
		failures++;
		return;
	}
	EXPECT(xp_module_error(), 0);
	/* Its sites took over the state that the key already had. */
	EXPECT(plugin->look(), before);
	EXPECT(look(), before);

	EXPECT(plugin->enable_own(), 0);
	EXPECT(plugin->look(), before | 1);
	EXPECT(look(), before);

	/* Switched on either side, seen on both. */
	EXPECT(xp_static_branch_enable(&common), 0);
	EXPECT(plugin->look(), 3);
	EXPECT(look(), 2);
	EXPECT(plugin->disable_common(), 0);
	EXPECT(plugin->look(), 1);
	EXPECT(look(), 0);
	EXPECT(plugin->enable_common(), 0);
	EXPECT(look(), 2);

	EXPECT(plugin->pick(), pick());
	for (int i = 0; i < 5; i++) {
		EXPECT(i % 2 ? plugin->choose(i) : xp_static_switch_set(&common_choice, i), 0);
		EXPECT(plugin->pick(), i);
		EXPECT(pick(), i);
	}
	EXPECT(plugin->read(), read_value());
	for (int i = 0; i < 4; i++) {
		EXPECT(i % 2 ? plugin->set(0x1111 * i) : xp_imv_set(common_value, 0x1111 * i), 0);
		EXPECT(plugin->read(), 0x1111 * i);
		EXPECT(read_value(), 0x1111 * i);
	}
	EXPECT(plugin->disable_own(), 0);
	EXPECT(plugin->look(), 2);
	EXPECT(dlclose(handle), 0);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	EXPECT(look(), 0);
	EXPECT(pick(), 3);
	use(argv[1], 0);
	/* The plugin is gone, its sites with it; the key is on. */
	EXPECT(look(), 2);
	for (int i = 0; i < 20; i++)
		use(argv[1], 2);
	EXPECT(xp_static_branch_disable(&common), 0);
	EXPECT(look(), 0);
	use(argv[1], 0);
	return failures != 0;
}
