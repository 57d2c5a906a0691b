// SPDX-License-Identifier: MIT
/*
 * Counts the words of files while the instructions that do it are being changed.
 *
 * Worker threads run the loop of wordcount_kernel.h over the files, in memory, again and again: with its trace points
 * compiled out, behind plain flags that are off, behind keys that are off, on, and while another thread switches them on and
 * off as fast as it can. Every
 * round's total must equal that of a plain loop that ran before, and what the trace points counted must fit.
 *
 * Status: 0 all totals are right; 1 one is not, or a key could not be switched; 2 usage, or a file named that cannot
 * be read.
 */
#include <crosspatch/crosspatch.h>

#include <Zydis/Zydis.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (64u << 10) /* bytes of one unit of work */
#define MAX_WORKERS 64
#define MAX_ROUNDS 99
#define EXTRA_ROUNDS 20
#define MAX_LATENCIES (1u << 20) /* a random sample of so many is kept */

XP_DEFINE_STATIC_KEY_FALSE(trace_words);
XP_DEFINE_STATIC_KEY_FALSE(trace_lines);
XP_DEFINE_STATIC_KEY_FALSE(trace_chunks);

static struct xp_static_key *const keys[] = {&trace_words.key, &trace_lines.key, &trace_chunks.key};
#define NR_KEYS (sizeof(keys) / sizeof(keys[0]))

/* What one worker's trace points have seen; a cache line of its own. */
struct trace {
	uint64_t words, lines, chunks;
} __attribute__((aligned(64)));

enum class { CLASS_OTHER, CLASS_SPACE, CLASS_NEWLINE, CLASS_GRAPHIC };
static uint8_t class_of[256];

#define KERNEL count_compiled_out
#define TRACE_POINT(key, statement) ((void)0)
#include "wordcount_kernel.h"

/* What a program does without this library. */
static bool flag_words __attribute__((used)), flag_lines __attribute__((used)), flag_chunks __attribute__((used));
#define KERNEL count_flagged
#define TRACE_POINT(key, statement)                                                                                    \
	do {                                                                                                           \
		if (__builtin_expect(__atomic_load_n(&FLAG_OF(key), __ATOMIC_RELAXED), 0))                             \
			statement;                                                                                     \
	} while (0)
#define FLAG_OF(key) *(&key == &trace_words ? &flag_words : &key == &trace_lines ? &flag_lines : &flag_chunks)
#include "wordcount_kernel.h"

#define KERNEL count_traced
#define TRACE_POINT(key, statement)                                                                                    \
	do {                                                                                                           \
		if (xp_static_branch_unlikely(&key))                                                                   \
			statement;                                                                                     \
	} while (0)
#include "wordcount_kernel.h"

__attribute__((noreturn, format(printf, 2, 3))) static void die(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fflush(stdout);
	fprintf(stderr, "wordcount: ");
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(status);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- files ---- */

struct chunk {
	const uint8_t *start;
	uint32_t len;
	bool in_word; /* a word of the same file runs into it */
};

static struct chunk *chunks;
static size_t nr_chunks, room_chunks;
static uint64_t nr_files, nr_bytes;
static struct trace reference; /* what the plain loop counted */

static void *grow(void *array, size_t nr, size_t *room, size_t size)
{
	if (nr < *room)
		return array;
	*room = *room ? *room * 2 : 64;
	if (*room > SIZE_MAX / size)
		die(1, "out of memory");
	array = realloc(array, *room * size);
	if (array == NULL)
		die(1, "out of memory");
	return array;
}

/* isspace() and isprint() of the C locale, which this program never leaves. */
static bool is_space(uint8_t byte)
{
	return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static bool is_graphic(uint8_t byte)
{
	return byte > ' ' && byte < 0x7f;
}

/* The reference count, and the cuts. No trace points, no tables, one thread. */
static void add_contents(const uint8_t *bytes, size_t size)
{
	bool in_word = false;

	for (size_t i = 0; i < size; i++) {
		if (i % CHUNK == 0) {
			chunks = grow(chunks, nr_chunks, &room_chunks, sizeof(*chunks));
			chunks[nr_chunks].start = bytes + i;
			chunks[nr_chunks].len = (uint32_t)(size - i < CHUNK ? size - i : CHUNK);
			chunks[nr_chunks].in_word = in_word;
			nr_chunks++;
		}
		reference.lines += bytes[i] == '\n';
		if (is_space(bytes[i])) {
			in_word = false;
		} else if (is_graphic(bytes[i])) {
			reference.words += !in_word;
			in_word = true;
		}
	}
	reference.chunks = nr_chunks;
	nr_files++;
	nr_bytes += size;
}

/* To the end, whatever size was announced: files of /proc announce none. NULL: errno says why. */
static uint8_t *read_all(int fd, size_t announced, size_t *size)
{
	size_t room = announced + 1;
	uint8_t *bytes = malloc(room);

	*size = 0;
	while (bytes) {
		ssize_t n = read(fd, bytes + *size, room - *size);

		if (n == 0)
			return bytes;
		if (n < 0) {
			int error = errno;

			if (error == EINTR)
				continue;
			free(bytes);
			errno = error;
			return NULL;
		}
		*size += (size_t)n;
		if (*size == room) {
			uint8_t *larger = realloc(bytes, room *= 2);

			if (larger == NULL)
				free(bytes);
			bytes = larger;
		}
	}
	errno = ENOMEM;
	return NULL;
}

static void refuse(const char *path, bool named, int error)
{
	if (named)
		die(2, "%s: %s", path, strerror(error));
	fprintf(stderr, "wordcount: %s: %s, skipped\n", path, strerror(error));
}

static void add_file(const char *path, bool named)
{
	/* O_NONBLOCK: what was a file a moment ago may be a pipe now. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	uint8_t *bytes;
	size_t size;

	if (fd < 0 || fstat(fd, &st)) {
		refuse(path, named, errno);
	} else if (!S_ISREG(st.st_mode)) {
		fprintf(stderr, "wordcount: %s: not a file any more, skipped\n", path);
	} else {
		bytes = read_all(fd, (size_t)st.st_size, &size);
		if (bytes == NULL)
			refuse(path, named, errno);
		else
			add_contents(bytes, size); /* the chunks point into it */
	}
	if (fd >= 0)
		close(fd);
}

/* @named: given by the user, so that symbolic links are followed and errors are fatal; as `find -H` does. */
static void add_path(const char *path, bool named)
{
	struct stat st;
	struct dirent *entry;
	DIR *dir;

	if (named ? stat(path, &st) : lstat(path, &st)) {
		refuse(path, named, errno);
		return;
	}
	if (S_ISREG(st.st_mode)) {
		add_file(path, named);
		return;
	}
	if (!S_ISDIR(st.st_mode)) {
		if (named)
			fprintf(stderr, "wordcount: %s: neither a file nor a directory, skipped\n", path);
		return;
	}
	dir = opendir(path);
	if (dir == NULL) {
		refuse(path, named, errno);
		return;
	}
	while (errno = 0, (entry = readdir(dir)) != NULL) {
		char *inner;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (asprintf(&inner, "%s/%s", path, entry->d_name) < 0)
			die(1, "out of memory");
		add_path(inner, false);
		free(inner);
	}
	if (errno)
		refuse(path, named, errno);
	closedir(dir);
}

/* The directory that holds this project's sources: as the build says, or the first above the executable. */
static bool find_sources(char *root, size_t size)
{
	char file[4096];
	ssize_t len;
	char *slash;

#ifdef WORDCOUNT_SOURCES
	snprintf(file, sizeof(file), "%s/include/crosspatch/crosspatch.h", WORDCOUNT_SOURCES);
	if (access(file, R_OK) == 0)
		return snprintf(root, size, "%s", WORDCOUNT_SOURCES) < (int)size;
#endif
	len = readlink("/proc/self/exe", root, size - 1);
	if (len < 0)
		return false;
	root[len] = '\0';
	while ((slash = strrchr(root, '/')) != NULL) {
		*slash = '\0';
		if (snprintf(file, sizeof(file), "%s/include/crosspatch/crosspatch.h", root) < (int)sizeof(file) &&
		    access(file, R_OK) == 0)
			return true;
	}
	return false;
}

/* How to count the same files by other means; the paths quoted for a shell. */
static void print_wc(char *const *paths, int nr)
{
	printf("compare with: find -H");
	for (int i = 0; i < nr; i++) {
		printf(" '%s", paths[i][0] == '-' ? "./" : "");
		for (const char *c = paths[i]; *c; c++)
			printf(*c == '\'' ? "'\\''" : "%c", *c);
		printf("'");
	}
	printf(" -type f -print0 | LC_ALL=C wc -w --files0-from=- | tail -n 1\n");
}

static void add_default_paths(void)
{
	static const char *const names[] = {"include", "src",    "examples", "tests",  "bench",
					    "tool",    "plugin", "doc",      "scripts"};
	char *paths[1 + sizeof(names) / sizeof(names[0])];
	char root[3000];
	int nr = 0;

	if (access("/usr/share/common-licenses", R_OK | X_OK) == 0)
		paths[nr++] = strdup("/usr/share/common-licenses");
	if (find_sources(root, sizeof(root))) {
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			if (asprintf(&paths[nr], "%s/%s", root, names[i]) < 0)
				die(1, "out of memory");
			if (access(paths[nr], R_OK | X_OK) == 0)
				nr++;
			else
				free(paths[nr]);
		}
	}
	if (nr == 0)
		die(2, "neither /usr/share/common-licenses nor the project's sources are here: name files to count");
	for (int i = 0; i < nr; i++)
		add_path(paths[i], true);
	print_wc(paths, nr);
	for (int i = 0; i < nr; i++)
		free(paths[i]);
}

/* ---- workers ---- */

typedef uint64_t kernel(const uint8_t *at, const uint8_t *end, bool in_word, struct trace *trace);

static struct worker {
	struct trace trace; /* of the last round */
	uint64_t words;
	pthread_t thread;
} workers[MAX_WORKERS];
static int nr_workers;

static pthread_barrier_t begin, end;
static kernel *round_kernel;
static uint64_t round_units; /* chunks of all passes */
static uint64_t cursor;      /* next unit to take */
static int nr_busy;

static void *work(void *arg)
{
	struct worker *self = arg;

	for (;;) {
		struct trace trace = {0, 0, 0};
		uint64_t words = 0, unit;

		pthread_barrier_wait(&begin);
		if (round_kernel == NULL)
			return NULL;
		while ((unit = __atomic_fetch_add(&cursor, 1, __ATOMIC_RELAXED)) < round_units) {
			const struct chunk *chunk = &chunks[unit % nr_chunks];

			words += round_kernel(chunk->start, chunk->start + chunk->len, chunk->in_word, &trace);
		}
		self->trace = trace;
		self->words = words;
		__atomic_sub_fetch(&nr_busy, 1, __ATOMIC_RELEASE);
		pthread_barrier_wait(&end);
	}
}

static void start_workers(void)
{
	pthread_barrier_init(&begin, NULL, (unsigned)nr_workers + 1);
	pthread_barrier_init(&end, NULL, (unsigned)nr_workers + 1);
	for (int i = 0; i < nr_workers; i++) {
		int error = pthread_create(&workers[i].thread, NULL, work, &workers[i]);

		if (error)
			die(1, "cannot create a thread: %s", strerror(error));
	}
}

static void stop_workers(void)
{
	round_kernel = NULL;
	pthread_barrier_wait(&begin);
	for (int i = 0; i < nr_workers; i++)
		pthread_join(workers[i].thread, NULL);
}

/* ---- the thread that switches ---- */

struct toggles {
	uint64_t nr, ns;   /* time in all */
	uint32_t *latency; /* ns, of a sample */
	uint32_t nr_kept;
	uint64_t random;
	int error;
	bool stop;
};

static void keep(struct toggles *t, uint64_t ns)
{
	uint32_t at = t->nr_kept;

	if (at < MAX_LATENCIES) {
		t->nr_kept++;
	} else {
		/* Reservoir sampling; xorshift64. */
		t->random ^= t->random << 13;
		t->random ^= t->random >> 7;
		t->random ^= t->random << 17;
		if (t->random % t->nr >= MAX_LATENCIES)
			return;
		at = (uint32_t)(t->random % t->nr);
	}
	t->latency[at] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

/* All keys on, one after the other, then all off, over and over; leaves them off. */
static void *toggle(void *arg)
{
	struct toggles *t = arg;
	uint64_t before = now_ns(), start = before;

	while (!t->error && !__atomic_load_n(&t->stop, __ATOMIC_RELAXED)) {
		for (unsigned i = 0; i < 2 * NR_KEYS && !t->error; i++) {
			uint64_t after;

			t->error =
				i < NR_KEYS ? xp_static_key_enable(keys[i]) : xp_static_key_disable(keys[i - NR_KEYS]);
			after = now_ns();
			t->nr++;
			keep(t, after - before);
			before = after;
		}
	}
	t->ns += now_ns() - start;
	return NULL;
}

static void init_toggles(struct toggles *t)
{
	memset(t, 0, sizeof(*t));
	t->random = 88172645463325252u;
	t->latency = malloc(MAX_LATENCIES * sizeof(*t->latency));
	if (t->latency == NULL)
		die(1, "out of memory");
}

static void check_switched(int error)
{
	if (error)
		die(1, "cannot switch a key: %s (%s%d)", xp_strerror(error), error > -4200 ? "errno " : "code ",
		    -error);
}

static void switch_keys(bool on)
{
	for (size_t i = 0; i < NR_KEYS; i++)
		check_switched(on ? xp_static_key_enable(keys[i]) : xp_static_key_disable(keys[i]));
}

/* ---- one site, seen by a disassembler ---- */

#define SHOWN 16 /* bytes of text: the site's five and what follows */

struct view {
	uint8_t bytes[SHOWN];
	bool valid;
};

/* The first site of a key. The records are described in <crosspatch/site.h>. */
static const uint8_t *find_site(const struct xp_static_key *key)
{
	for (const struct xp_branch_site *s = __start_xp_branch_sites; s < __stop_xp_branch_sites; s++)
		if ((((uintptr_t)&s->key + (uintptr_t)(intptr_t)s->key) & ~(uintptr_t)XP_SITE_FLAGS) == (uintptr_t)key)
			return (const uint8_t *)&s->code + s->code;
	return NULL;
}

static void look(struct view *view, const uint8_t *site)
{
	for (int i = 0; i < SHOWN; i++)
		view->bytes[i] = ((const volatile uint8_t *)site)[i];
	view->valid = true;
}

static void print_line(const uint8_t *at, const uint8_t *bytes, unsigned len, const char *text)
{
	printf("    %12" PRIxPTR ": ", (uintptr_t)at);
	for (unsigned i = 0; i < 8; i++)
		printf(i < len ? " %02x" : "   ", i < len ? bytes[i] : 0);
	printf("  %s\n", text);
}

static void print_view(const char *title, const struct view *view, const uint8_t *site)
{
	unsigned at = 0;

	printf("  %s\n", title);
	if (!view->valid)
		return;
	for (int i = 0; i < 2 && at < SHOWN; i++) {
		ZydisDisassembledInstruction insn;

		if (!ZYAN_SUCCESS(ZydisDisassembleATT(ZYDIS_MACHINE_MODE_LONG_64, (uintptr_t)site + at,
						      view->bytes + at, SHOWN - at, &insn)))
			return;
		print_line(site + at, view->bytes + at, insn.info.length, insn.text);
		at += insn.info.length;
		if (at == 1 && view->bytes[0] == 0xcc) {
			print_line(site + at, view->bytes + at, 5 - at, "(operand; no thread executes it)");
			at = 5;
		}
	}
}

/* ---- rounds ---- */

enum mode { COMPILED_OUT, FLAGS_OFF, OFF, ON, TOGGLED, NR_MODES };

static const char *const mode_names[NR_MODES] = {"keys compiled out", "plain flags, off", "compiled in, off", "on",
						 "being toggled"};

struct result {
	double rate; /* bytes per second */
	uint64_t words;
	struct trace seen;
	bool wrong;
};

static bool check(const char *what, uint64_t found, uint64_t low, uint64_t high, const char *mode)
{
	if (found >= low && found <= high)
		return true;
	fflush(stdout);
	if (low == high)
		fprintf(stderr, "wordcount: WRONG, %s: %" PRIu64 " %s, must be %" PRIu64 "\n", mode, found, what, low);
	else
		fprintf(stderr, "wordcount: WRONG, %s: %" PRIu64 " %s, must be %" PRIu64 " to %" PRIu64 "\n", mode,
			found, what, low, high);
	return false;
}

static bool check_round(enum mode mode, const char *name, uint64_t words, const struct trace *seen, uint64_t passes)
{
	uint64_t low = mode == ON ? passes : 0, high = mode == ON || mode == TOGGLED ? passes : 0;
	bool right = check("words", words, reference.words * passes, reference.words * passes, name);

	right &= check("words traced", seen->words, reference.words * low, reference.words * high, name);
	right &= check("lines traced", seen->lines, reference.lines * low, reference.lines * high, name);
	right &= check("chunks traced", seen->chunks, reference.chunks * low, reference.chunks * high, name);
	return right;
}

/* So many passes over all files. @catch: meanwhile, wait for a breakpoint at @site. */
static struct result run_round(enum mode mode, const char *name, uint64_t passes, struct toggles *t, struct view *catch,
			       const uint8_t *site)
{
	struct result result = {.words = 0};
	uint64_t start, ns;
	pthread_t toggler;
	int error;

	switch_keys(mode == ON);
	round_kernel = mode == COMPILED_OUT ? count_compiled_out : mode == FLAGS_OFF ? count_flagged : count_traced;
	round_units = passes * nr_chunks;
	cursor = 0;
	nr_busy = nr_workers;
	if (mode == TOGGLED) {
		t->stop = false;
		error = pthread_create(&toggler, NULL, toggle, t);
		if (error)
			die(1, "cannot create a thread: %s", strerror(error));
	}
	start = now_ns();
	pthread_barrier_wait(&begin);
	while (catch && !catch->valid && __atomic_load_n(&nr_busy, __ATOMIC_ACQUIRE) > 0) {
		look(catch, site);
		catch->valid = catch->bytes[0] == 0xcc;
	}
	pthread_barrier_wait(&end);
	ns = now_ns() - start;
	if (mode == TOGGLED) {
		__atomic_store_n(&t->stop, true, __ATOMIC_RELAXED);
		pthread_join(toggler, NULL);
		check_switched(t->error);
	}
	for (int i = 0; i < nr_workers; i++) {
		result.words += workers[i].words;
		result.seen.words += workers[i].trace.words;
		result.seen.lines += workers[i].trace.lines;
		result.seen.chunks += workers[i].trace.chunks;
	}
	result.wrong = !check_round(mode, name, result.words, &result.seen, passes);
	result.rate = (double)nr_bytes * (double)passes * 1e9 / (double)(ns ? ns : 1);
	return result;
}

/* Passes that take about @ns. */
static uint64_t calibrate(uint64_t ns)
{
	uint64_t passes = 1;

	for (;;) {
		uint64_t start = now_ns(), took;

		if (run_round(OFF, "calibration", passes, NULL, NULL, NULL).wrong)
			exit(1);
		took = now_ns() - start;
		if (took * 4 >= ns || passes > UINT64_MAX / 4 / nr_chunks) {
			double wanted = (double)passes * (double)ns / (double)(took ? took : 1);

			return wanted < 1 ? 1 : (uint64_t)wanted;
		}
		passes *= 2;
	}
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int compare_latencies(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

__attribute__((format(printf, 1, 2))) static void progress(const char *format, ...)
{
	bool tty = isatty(STDERR_FILENO);
	va_list args;

	va_start(args, format);
	fflush(stdout);
	fprintf(stderr, tty ? "\r\033[K" : "... ");
	vfprintf(stderr, format, args);
	if (!tty)
		fputc('\n', stderr);
	va_end(args);
}

static void end_progress(void)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
}

static void print_toggles(struct toggles *t)
{
	if (t->nr_kept == 0)
		return;
	qsort(t->latency, t->nr_kept, sizeof(*t->latency), compare_latencies);
	printf("  %" PRIu64 " toggles, %.0f per second; latency median %.1f us, p99 %.1f us\n", t->nr,
	       (double)t->nr * 1e9 / (double)t->ns, t->latency[t->nr_kept / 2] / 1e3,
	       t->latency[(uint64_t)t->nr_kept * 99 / 100] / 1e3);
}

static void print_stats(const struct xp_stats *from)
{
	struct xp_stats to;

	xp_stats_read(&to);
	printf("  %" PRIu64 " traps, %" PRIu64 " late; %" PRIu64 " commits, %" PRIu64 " syncs, %" PRIu64
	       " sites patched\n",
	       to.traps - from->traps, to.late_traps - from->late_traps, to.commits - from->commits,
	       to.syncs - from->syncs, to.sites - from->sites);
}

/* A part of all words went through the trace point: neither none nor all, if there was time for both. */
static bool print_share(uint64_t traced, uint64_t passes, const struct toggles *t, const char *mode)
{
	uint64_t all = reference.words * passes;

	if (all == 0)
		return true;
	printf("  trace points saw %" PRIu64 " of %" PRIu64 " words, %.1f %%\n", traced, all,
	       100.0 * (double)traced / (double)all);
	return t->nr < 10000 || all < 10000000 || check("words traced", traced, 1, all - 1, mode);
}

/* The rounds of all modes in turns, so that a busy moment of the machine hits all. */
static bool measure(double seconds, int rounds, uint64_t *passes)
{
	static double rates[NR_MODES][MAX_ROUNDS];
	uint64_t words[NR_MODES] = {0}, traced = 0, all;
	struct xp_stats before;
	struct toggles t;
	bool right = true;

	init_toggles(&t);
	*passes = calibrate((uint64_t)(seconds * 1e9 / (rounds * NR_MODES)));
	xp_stats_read(&before);
	for (int r = 0; r < rounds; r++) {
		for (int m = 0; m < NR_MODES; m++) {
			struct result result = run_round((enum mode)m, mode_names[m], *passes, &t, NULL, NULL);

			rates[m][r] = result.rate;
			words[m] += result.words;
			right &= !result.wrong;
			if (m == TOGGLED)
				traced += result.seen.words;
		}
		progress("round %d of %d: %.0f MB/s being toggled, %" PRIu64 " toggles", r + 1, rounds,
			 rates[TOGGLED][r] / 1e6, t.nr);
	}
	end_progress();
	printf("\nthroughput, MB/s; %d rounds of %" PRIu64 " passes each, interleaved\n", rounds, *passes);
	printf("  %-20s %8s %8s %8s %10s %14s\n", "", "median", "min", "max", "relative", "words");
	all = *passes * (uint64_t)rounds;
	for (int m = 0; m < NR_MODES; m++) {
		qsort(rates[m], (size_t)rounds, sizeof(rates[m][0]), compare_doubles);
		printf("  %-20s %8.1f %8.1f %8.1f %10.3f %14" PRIu64 "%s\n", mode_names[m], rates[m][rounds / 2] / 1e6,
		       rates[m][0] / 1e6, rates[m][rounds - 1] / 1e6,
		       rates[m][rounds / 2] / rates[COMPILED_OUT][rounds / 2], words[m] / all,
		       words[m] == reference.words * all ? "" : " WRONG");
	}
	printf("  off, keys run at %.2f of the speed of plain flags; what lies between those and compiled out is how the\n"
	       "  compiler lays out a loop that a branch leaves, whatever the branch is\n",
	       rates[OFF][rounds / 2] / rates[FLAGS_OFF][rounds / 2]);
	print_toggles(&t);
	right &= print_share(traced, all, &t, mode_names[TOGGLED]);
	print_stats(&before);
	free(t.latency);
	return right;
}

/* The kernel's way, in which bystanders meet breakpoints; and the site of the title while one stands there. */
static bool run_breakpoints(uint64_t passes, int rounds)
{
	const uint8_t *site = find_site(&trace_words.key);
	struct view off = {.valid = false}, during = {.valid = false}, on = {.valid = false};
	enum xp_policy policy = xp_policy();
	uint64_t words = 0, traced = 0, all = 0;
	struct xp_stats before;
	struct toggles t;
	bool right = true;

	if (site == NULL)
		die(1, "the key has no site"); /* the loop is there, so this is a bug */
	init_toggles(&t);
	look(&off, site);
	xp_stats_read(&before);
	(void)xp_set_policy(XP_POLICY_BREAKPOINT);
	/* On a busy machine the breakpoint may take some rounds more to be seen. */
	for (int r = 0; r < rounds || (!during.valid && r < rounds + EXTRA_ROUNDS); r++) {
		struct result result = run_round(TOGGLED, "breakpoint policy", passes, &t, &during, site);

		right &= !result.wrong;
		all += passes;
		words += result.words;
		traced += result.seen.words;
		progress("breakpoint policy, round %d of %d: %" PRIu64 " toggles%s", r + 1, rounds, t.nr,
			 during.valid ? ", breakpoint seen" : "");
	}
	end_progress();
	(void)xp_set_policy(policy);
	printf("\nthe same under the breakpoint policy\n  words %" PRIu64 "%s\n", words / all,
	       words == reference.words * all ? "" : " WRONG");
	print_toggles(&t);
	right &= print_share(traced, all, &t, "breakpoint policy");
	print_stats(&before);
	free(t.latency);

	switch_keys(true);
	look(&on, site);
	switch_keys(false);
	printf("\none site of trace_words, in count_traced+0x%" PRIxPTR "\n",
	       (uintptr_t)site - (uintptr_t)count_traced);
	print_view("off", &off, site);
	print_view(during.valid ? "while it is switched under the breakpoint policy"
				: "while it is switched under the breakpoint policy: not caught in this run",
		   &during, site);
	print_view("on", &on, site);
	return right;
}

static void usage(FILE *to)
{
	fputs("usage: wordcount [-s SECONDS] [-r ROUNDS] [-t THREADS] [FILE|DIRECTORY]...\n"
	      "Counts words as `LC_ALL=C wc -w` does, while the code that counts is being changed.\n"
	      "  -s SECONDS  how long to measure, about (10)\n"
	      "  -r ROUNDS   rounds per mode, 1 to 99 (9)\n"
	      "  -t THREADS  worker threads, 1 to 64 (one less than there are processors, at least one)\n"
	      "Default input: /usr/share/common-licenses and the project's own sources.\n"
	      "CROSSPATCH_POLICY (auto, breakpoint, quiesce) chooses how keys are switched.\n"
	      "Status: 0 all totals agree, 1 not so, 2 bad usage or unreadable argument.\n",
	      to);
}

static double number(const char *text, const char *option, double low, double high)
{
	char *rest;
	double value = strtod(text, &rest);

	if (*text == '\0' || *rest != '\0' || !(value >= low && value <= high))
		die(2, "%s wants a number from %g to %g, not '%s'", option, low, high, text);
	return value;
}

static int processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
}

int main(int argc, char **argv)
{
	static const char *const policies[] = {"auto", "breakpoint", "quiesce", "early"};
	double seconds = 10;
	int rounds = 9, option;
	uint64_t passes;
	bool right;

	nr_workers = processors() - 1;
	while ((option = getopt(argc, argv, "hr:s:t:")) != -1) {
		switch (option) {
		case 'h':
			usage(stdout);
			return 0;
		case 'r':
			rounds = (int)number(optarg, "-r", 1, MAX_ROUNDS);
			break;
		case 's':
			seconds = number(optarg, "-s", 0.01, 86400);
			break;
		case 't':
			nr_workers = (int)number(optarg, "-t", 1, MAX_WORKERS);
			break;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (nr_workers < 1)
		nr_workers = 1;
	if (nr_workers > MAX_WORKERS)
		nr_workers = MAX_WORKERS;

	for (int i = 0; i < 256; i++)
		class_of[i] = i == '\n'                ? CLASS_NEWLINE
			      : is_space((uint8_t)i)   ? CLASS_SPACE
			      : is_graphic((uint8_t)i) ? CLASS_GRAPHIC
						       : CLASS_OTHER;
	if (optind == argc) {
		add_default_paths();
	} else {
		for (int i = optind; i < argc; i++)
			add_path(argv[i], true);
		print_wc(argv + optind, argc - optind);
	}
	printf("files: %" PRIu64 "\nbytes: %" PRIu64 "\nlines: %" PRIu64 "\nwords: %" PRIu64 "\n", nr_files, nr_bytes,
	       reference.lines, reference.words);
	if (nr_chunks == 0) {
		printf("nothing to count, so nothing to measure\n");
		return 0;
	}
	printf("workers: %d\npolicy: %s\n", nr_workers, policies[xp_policy()]);

	start_workers();
	right = measure(seconds * 0.8, rounds, &passes);
	right &= run_breakpoints(passes, rounds);
	stop_workers();

	printf(right ? "\nevery total agrees with the plain count: %" PRIu64 " words\n"
		     : "\nTOTALS DIFFER from the plain count, %" PRIu64 " words: see above\n",
	       reference.words);
	return right ? 0 : 1;
}
