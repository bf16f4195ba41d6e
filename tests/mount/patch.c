/* SPDX-License-Identifier: MIT */
/*
 * mount_patch IMAGE OFFSET HEX: puts bytes into both superblocks of a volume at this offset and
 * makes their checksums right again, for volumes that no program would write.
 * mount_patch IMAGE nodes|leaves: the numbers of the blocks that are, or once were, nodes of the
 * volume, or only the leaves.
 */
#include "sluice/format.h"
#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

static int patch_nodes(int fd, bool leaves)
{
	static struct slu_disk_super super;
	static struct slu_disk_node node;

	if (pread(fd, &super, sizeof(super), 0) != sizeof(super))
		return 1;
	for (uint64_t blkno = 2; pread(fd, &node, sizeof(node), (off_t)(blkno * SLU_BLOCK_SIZE)) ==
				 (ssize_t)sizeof(node);
	     blkno++) {
		if (!memcmp(node.volume_id, super.volume_id, sizeof(node.volume_id)) &&
		    slu_get_le64(&node.blkno) == blkno && !(leaves && slu_get_le16(&node.level)))
			printf("%llu\n", (unsigned long long)blkno);
	}
	return 0;
}

static int patch_supers(int fd, size_t offset, const char *hex)
{
	static uint8_t super[SLU_BLOCK_SIZE];
	size_t len = strlen(hex) / 2;

	if (offset < 8 || offset + len > sizeof(super)) {
		fprintf(stderr, "mount_patch: not within a superblock\n");
		return 2;
	}
	for (int slot = 0; slot < 2; slot++) {
		if (pread(fd, super, sizeof(super), slot * (off_t)sizeof(super)) != sizeof(super))
			return 1;
		for (size_t i = 0; i < len; i++) {
			unsigned int byte;

			if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
				return 2;
			super[offset + i] = (uint8_t)byte;
		}
		slu_put_le64(super, XXH3_64bits(super + 8, sizeof(super) - 8));
		if (pwrite(fd, super, sizeof(super), slot * (off_t)sizeof(super)) != sizeof(super))
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	int fd = argc >= 3 ? open(argv[1], O_RDWR) : -1, status;
	bool leaves = argc == 3 && !strcmp(argv[2], "leaves");

	if (fd < 0 || (argc == 3 ? !leaves && strcmp(argv[2], "nodes") != 0 : argc != 4)) {
		fprintf(stderr,
			"usage: mount_patch IMAGE OFFSET HEX | mount_patch IMAGE nodes|leaves\n");
		return 2;
	}
	status = argc == 3 ? patch_nodes(fd, leaves)
			   : patch_supers(fd, strtoul(argv[2], NULL, 0), argv[3]);
	return close(fd) ? 1 : status;
}
