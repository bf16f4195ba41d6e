/* SPDX-License-Identifier: MIT */
/* What an image holds that is no sluicefs volume. Takes no lock. */
#ifndef SLUICE_CONTENT_H
#define SLUICE_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What libblkid takes the bytes from offset on for, as words for people: "a filesystem of type
 * ext4". len 0: to the end. False: nothing that it knows, or it cannot be read.
 */
bool slu_content_describe(const char *path, uint64_t offset, uint64_t len, char *ret, size_t size);

#endif
