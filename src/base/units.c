/* SPDX-License-Identifier: MIT */
/*
 * Sizes as people write them. Called by the programs for their options and messages; no state, no
 * locks, no allocation.
 */
#include "sluice/units.h"
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char units_letters[] = "KMGTPE";

/* Reads the unit at s, which must end there; the shift it stands for or -1. */
static int units_parse_suffix(const char *s)
{
	const char *letter;

	if (!*s || !strcmp(s, "B"))
		return 0;
	letter = strchr(units_letters, toupper((unsigned char)*s));
	if (!letter)
		return -1;
	if (s[1] && strcmp(s + 1, "iB") != 0)
		return -1;
	return 10 * (int)(letter - units_letters + 1);
}

int slu_parse_size(const char *s, uint64_t *ret)
{
	/*
	 * The fraction is num / den, with at most 9 digits; more change less than a byte below 1 G.
	 */
	uint64_t whole = 0, num = 0, den = 1;
	unsigned __int128 total;
	bool fraction = false, too_large = false;
	int shift;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	for (; isdigit((unsigned char)*s); s++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*s - '0'), &whole))
			too_large = true;
	}
	if (*s == '.') {
		fraction = true;
		if (!isdigit((unsigned char)*++s))
			return -EINVAL;
		for (; isdigit((unsigned char)*s); s++) {
			if (den >= 1000000000)
				continue;
			den *= 10;
			num = num * 10 + (uint64_t)(*s - '0');
		}
	}
	shift = units_parse_suffix(s);
	if (shift < 0 || (fraction && shift == 0))
		return -EINVAL;
	total = ((unsigned __int128)whole << shift) + ((unsigned __int128)num << shift) / den;
	if (too_large || total > UINT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)total;
	return 0;
}

void slu_format_size(uint64_t bytes, char buf[SLU_SIZE_STR])
{
	unsigned int i = 0, tenths;

	if (bytes < 1024) {
		snprintf(buf, SLU_SIZE_STR, "%u B", (unsigned int)bytes);
		return;
	}
	while (i + 1 < strlen(units_letters) && bytes >> (10 * (i + 2)))
		i++;
	tenths = (unsigned int)(((unsigned __int128)bytes * 10 >> (10 * (i + 1))) % 10);
	bytes = bytes >> (10 * i) >> 10;
	if (tenths)
		snprintf(buf, SLU_SIZE_STR, "%u.%u %ciB", (unsigned int)bytes, tenths,
			 units_letters[i]);
	else
		snprintf(buf, SLU_SIZE_STR, "%u %ciB", (unsigned int)bytes, units_letters[i]);
}
