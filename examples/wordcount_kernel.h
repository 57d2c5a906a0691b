/* SPDX-License-Identifier: MIT */
/*
 * The counting loop of wordcount.c, which includes this three times: with TRACE_POINT a static branch, a plain flag, and nothing.
 *
 * A word is what `LC_ALL=C wc -w` of coreutils 9.1 takes for one: white space (bytes 9 to 13 and 32) ends it, a graphic
 * ASCII character (33 to 126) begins it, and every other byte does neither: control characters, all of UTF-8's.
 */
#ifndef KERNEL
#error "wordcount.c defines KERNEL, the function's name, and TRACE_POINT(key, statement)"
#endif

/* The words that begin in [at, end). @in_word: one had begun before. */
__attribute__((noinline, aligned(64))) static uint64_t KERNEL(const uint8_t *at, const uint8_t *end, bool in_word,
							      struct trace *trace)
{
	uint64_t words = 0;

	(void)trace; /* unused where the trace points are compiled out */
	TRACE_POINT(trace_chunks, trace->chunks++);
	for (; at < end; at++) {
		switch (class_of[*at]) {
		case CLASS_NEWLINE:
			TRACE_POINT(trace_lines, trace->lines++);
			in_word = false;
			break;
		case CLASS_SPACE:
			in_word = false;
			break;
		case CLASS_GRAPHIC:
			if (!in_word) {
				TRACE_POINT(trace_words, trace->words++);
				words++;
			}
			in_word = true;
			break;
		default:
			break;
		}
	}
	return words;
}

#undef KERNEL
#undef TRACE_POINT
