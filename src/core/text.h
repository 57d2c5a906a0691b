/* SPDX-License-Identifier: MIT */
/*
 * Characters of text that comes from outside: which bytes are one, which of them only show, and what each is in JSON.
 * Every printer of JSON, and the tool for terminals, asks here.
 */
#ifndef XP_CORE_TEXT_H
#define XP_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XP__NO_CHARACTER UINT32_MAX

/*
 * The bytes of the first character of @text, which is not empty and ended by a zero. Bytes that are no UTF-8 (overlong forms
 * and surrogates are none) are each a character of its own, XP__NO_CHARACTER.
 */
static inline size_t xp__character(const char *text, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *bytes = (const unsigned char *)text;
	size_t len = bytes[0] < 0x80   ? 1
		     : bytes[0] < 0xc0 ? 0
		     : bytes[0] < 0xe0 ? 2
		     : bytes[0] < 0xf0 ? 3
		     : bytes[0] < 0xf8 ? 4
				       : 0;
	uint32_t value = len > 1 ? bytes[0] & (0x7fu >> len) : bytes[0];

	*code = XP__NO_CHARACTER;
	if (len == 0)
		return 1;
	for (size_t i = 1; i < len; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 1;
		value = value << 6 | (bytes[i] & 0x3f);
	}
	if (value < least[len] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
		return 1;
	*code = value;
	return len;
}

/*
 * Whether a character only shows: it moves no cursor, reorders no others, and can be seen. Controls are none (C1, which
 * terminals obey, too), nor are Unicode's format characters, line separators, tags and noncharacters.
 */
static inline bool xp__character_shows(uint32_t code)
{
	static const struct {
		uint32_t first, last;
	} others[] = {
		{0, 0x1f},        {0x7f, 0x9f},       {0xad, 0xad},       {0x61c, 0x61c},     {0x180e, 0x180e},
		{0x200b, 0x200f}, {0x2028, 0x202e},   {0x2060, 0x206f},   {0xfdd0, 0xfdef},   {0xfeff, 0xfeff},
		{0xfff0, 0xfffb}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (code >= others[i].first && code <= others[i].last)
			return false;
	return code <= 0x10ffff && (code & 0xfffe) != 0xfffe;
}

/*
 * The first character of @text as it stands in a string of JSON, in ASCII, ended by a zero. Bytes that are no UTF-8 become
 * U+FFFD. Returns the bytes that it has in @text.
 */
static inline size_t xp__character_json(const char *text, char json[13])
{
	uint32_t code;
	size_t len = xp__character(text, &code), at = 0;
	uint16_t units[2];
	size_t nr = 1;

	if (code >= 0x20 && code < 0x7f) {
		if (code == '"' || code == '\\')
			json[at++] = '\\';
		json[at++] = (char)code;
		json[at] = '\0';
		return len;
	}
	units[0] = code == XP__NO_CHARACTER ? 0xfffd : (uint16_t)code;
	if (code != XP__NO_CHARACTER && code > 0xffff) {
		units[0] = (uint16_t)(0xd800 + ((code - 0x10000) >> 10));
		units[1] = (uint16_t)(0xdc00 + ((code - 0x10000) & 0x3ff));
		nr = 2;
	}
	for (size_t i = 0; i < nr; i++) {
		json[at++] = '\\';
		json[at++] = 'u';
		for (unsigned shift = 16; shift;)
			json[at++] = "0123456789abcdef"[units[i] >> (shift -= 4) & 15];
	}
	json[at] = '\0';
	return len;
}

#endif
