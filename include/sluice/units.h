/* SPDX-License-Identifier: MIT */
/*
 * units: sizes as people write them. Powers of 1,024 throughout: "10G" and "10GiB" are the same.
 * Pure functions, from any thread. (Part of the layer base.)
 */
#ifndef SLUICE_UNITS_H
#define SLUICE_UNITS_H

#include <stdint.h>

/*
 * A number, then K, M, G, T, P or E in either case, with or without "iB"; "B" or nothing is bytes.
 * Before a unit the number may have a fraction ("1.5T"); what is less than a byte is cut off.
 * "KB" and the like are refused, since half of the world means 1,000 by it. 0; -EINVAL (not a
 * size); -ERANGE (2^64 bytes or more). *ret is untouched on failure.
 */
int slu_parse_size(const char *s, uint64_t *ret);

#define SLU_SIZE_STR 16

/* "4096 B", "512 KiB", "1.5 TiB": whole if it is whole, else one decimal, cut off. */
void slu_format_size(uint64_t bytes, char buf[SLU_SIZE_STR]);

#endif
