// SPDX-License-Identifier: MIT
#include "json.h"

#include "core/text.h"

#include <string.h>

void json_string(FILE *out, const char *text)
{
	char json[13];

	if (text == NULL) {
		fputs("null", out);
		return;
	}
	putc('"', out);
	while (*text) {
		text += xp__character_json(text, json);
		fputs(json, out);
	}
	putc('"', out);
}

void json_number(FILE *out, const char *text)
{
	const char *digits = text && text[0] == '-' ? text + 1 : text;
	size_t len = text ? strlen(digits) : 0;

	if (len > 0 && len <= 20 && digits[strspn(digits, "0123456789")] == '\0' && (digits[0] != '0' || len == 1))
		fputs(text, out);
	else
		json_string(out, text);
}
