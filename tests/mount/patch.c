/* SPDX-License-Identifier: MIT */
/*
 * mount_patch IMAGE OFFSET HEX: puts bytes into both superblocks of a volume at this offset and
 * makes their checksums right again, for volumes that no program would write.
 */
#include "sluice/format.h"
#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

int main(int argc, char **argv)
{
	static uint8_t super[SLU_BLOCK_SIZE];
	size_t offset, len;
	int fd;

	if (argc != 4 || (fd = open(argv[1], O_RDWR)) < 0) {
		fprintf(stderr, "usage: mount_patch IMAGE OFFSET HEX\n");
		return 2;
	}
	offset = strtoul(argv[2], NULL, 0);
	len = strlen(argv[3]) / 2;
	if (offset < 8 || offset + len > sizeof(super)) {
		fprintf(stderr, "mount_patch: not within a superblock\n");
		return 2;
	}
	for (int slot = 0; slot < 2; slot++) {
		if (pread(fd, super, sizeof(super), slot * (off_t)sizeof(super)) != sizeof(super))
			return 1;
		for (size_t i = 0; i < len; i++) {
			unsigned int byte;

			if (sscanf(argv[3] + 2 * i, "%2x", &byte) != 1)
				return 2;
			super[offset + i] = (uint8_t)byte;
		}
		slu_put_le64(super, XXH3_64bits(super + 8, sizeof(super) - 8));
		if (pwrite(fd, super, sizeof(super), slot * (off_t)sizeof(super)) != sizeof(super))
			return 1;
	}
	return close(fd) ? 1 : 0;
}
