// SPDX-License-Identifier: MIT
#include "text.h"

#include "core/text.h"

#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <string.h>

/* A terminal of 8-bit characters takes the second byte of some for a control character. */
static bool shows_utf8(void)
{
	static int answer = -1;
	locale_t locale;

	if (answer >= 0)
		return answer;
	locale = newlocale(LC_CTYPE_MASK, "", (locale_t)0);
	answer = locale != (locale_t)0 && strcmp(nl_langinfo_l(CODESET, locale), "UTF-8") == 0;
	if (locale != (locale_t)0)
		freelocale(locale);
	return answer;
}

/* @out: NULL to count only. */
static size_t each_character(FILE *out, const char *text)
{
	size_t columns = 0;

	while (*text) {
		uint32_t code;
		size_t len = xp__character(text, &code);

		if (xp__character_shows(code) && (code < 0x80 || shows_utf8())) {
			columns++;
			if (out)
				fwrite(text, 1, len, out);
		} else {
			columns += 4 * len;
			for (size_t i = 0; i < len && out; i++)
				fprintf(out, "\\x%02x", (unsigned char)text[i]);
		}
		text += len;
	}
	return columns;
}

size_t text_put(FILE *out, const char *text)
{
	return each_character(out, text);
}

size_t text_columns(const char *text)
{
	return each_character(NULL, text);
}

int text_say(const char *command, int status, const char *format, ...)
{
	char sentence[4096];
	va_list list;

	va_start(list, format);
	vsnprintf(sentence, sizeof(sentence), format, list);
	va_end(list);
	fprintf(stderr, "crosspatch %s: ", command);
	text_put(stderr, sentence);
	putc('\n', stderr);
	return status;
}
