// SPDX-License-Identifier: MIT
/*
 * The reader of plan files, and the explorer behind it, on any bytes.
 *
 * As a test: a short deterministic run over the files given (those in tests/fuzz/planfile), each cut off at every byte and with
 * every byte replaced in turn; prints TAP. With libFuzzer, in a build directory of clang's:
 *
 *	ninja -C build/check-clang tests/libfuzzer_planfile
 *	build/check-clang/tests/libfuzzer_planfile -max_len=800 CORPUS
 *
 * where CORPUS is a copy of tests/fuzz/planfile and plans: it grows.
 */
#include "verify/explore.h"
#include "verify/planfile.h"
#include "verify/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "violated: %s\n", what);
	abort();
}

/* What the explorer relies on. */
static void check_schedule(const struct xp__schedule *schedule)
{
	uint8_t final[XP_MAX_LEN];

	require(schedule->name[0] && memchr(schedule->name, 0, sizeof(schedule->name)), "a name");
	require(schedule->len >= 1 && schedule->len <= XP_MAX_LEN, "a length");
	require(schedule->mode == 16 || schedule->mode == 32 || schedule->mode == 64, "a mode");
	require(schedule->nr_events >= 1 && schedule->nr_events <= XP__MAX_EVENTS, "events");
	require(schedule->nr_invalid <= XP__MAX_RANGES, "ranges");
	require(schedule->resume >= XP__RESUME_OUT && schedule->resume <= (int)schedule->len, "a resume offset");
	for (unsigned i = 0; i < schedule->nr_events; i++) {
		const struct xp__event *event = &schedule->event[i];

		require(event->off + event->len <= schedule->len, "a store inside the site");
		require((event->len > 0) == (event->kind == XP__EVENT_STORE), "a store of some bytes");
	}
	xp__schedule_final(schedule, final);
	require(memcmp(final, schedule->new, schedule->len) == 0, "stores that lead to the last state");
}

/* Small ones only: that a large one takes long is no discovery. */
static void explore(const struct xp__schedule *schedule)
{
	static struct xp__explorer *explorer;
	static FILE *nowhere;

	if (!explorer) {
		explorer = xp__explorer_new();
		nowhere = fopen("/dev/null", "w");
	}
	if (!explorer || !nowhere || schedule->len > 6 || schedule->nr_events > 9)
		return;
	for (unsigned m = 0; m < XP__NR_MODELS; m++) {
		struct xp__result result;
		int error = xp__explore(explorer, schedule, 61, &xp__models[m], &result);

		require(error == 0, "a small schedule is decided");
		require(result.proven || (result.why && result.nr_steps > 0), "a counterexample says why");
		if (!result.proven) {
			xp__report_result(nowhere, schedule, 61, &xp__models[m], &result);
			xp__report_result_json(nowhere, schedule, 61, &xp__models[m], &result);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct xp__planfile file;
	int error = xp__planfile_read(&file, (const char *)data, size);

	require(error == 0 || error == -EINVAL || error == -ENOMEM, "an error code");
	if (error == -EINVAL) {
		require(file.reason[0] != 0, "a reason");
		require(file.line >= 1 && file.column >= 1 && file.column <= size + 1, "a place in the file");
	}
	for (size_t i = 0; i < file.nr && error == 0; i++) {
		check_schedule(&file.schedules[i]);
		explore(&file.schedules[i]);
	}
	xp__planfile_free(&file);
	return 0;
}

#ifndef XP_LIBFUZZER
/* Every prefix; then every byte replaced by each of these. Exact memory, so that a sanitizer sees a byte too far. */
static unsigned run(const uint8_t *text, size_t len)
{
	static const uint8_t with[] = {0, '\n', ' ', '#', '-', '0', '9', 'c', 'f', 'g', 0xff};
	uint8_t *copy = malloc(len ? len : 1);
	unsigned nr = 0;

	require(copy != NULL, "memory");
	for (size_t i = 0; i <= len; i++) {
		uint8_t *prefix = malloc(i ? i : 1);

		require(prefix != NULL, "memory");
		memcpy(prefix, text, i);
		LLVMFuzzerTestOneInput(prefix, i);
		free(prefix);
		nr++;
	}
	for (size_t i = 0; i < len; i++)
		for (size_t w = 0; w < sizeof(with); w++) {
			memcpy(copy, text, len);
			copy[i] = with[w];
			LLVMFuzzerTestOneInput(copy, len);
			nr++;
		}
	free(copy);
	return nr;
}

int main(int argc, char **argv)
{
	static uint8_t text[65536];

	printf("1..%d\n", argc - 1);
	for (int i = 1; i < argc; i++) {
		FILE *file = fopen(argv[i], "r");
		size_t len = file ? fread(text, 1, sizeof(text), file) : 0;
		unsigned nr = run(text, len);

		if (file)
			fclose(file);
		printf("# %u inputs\n%sok %d - %s\n", nr, file ? "" : "not ", i, argv[i]);
		fflush(stdout);
	}
	return argc < 2;
}
#endif
