/* SPDX-License-Identifier: MIT */
/*
 * Asks libblkid what is in an image. Called before anything is written, by mkfs and where no volume
 * was found. Opens the image a second time, which leaves a lock on it alone. Takes no lock.
 */
#include "sluice/content.h"
#include <blkid/blkid.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

bool slu_content_describe(const char *path, uint64_t offset, uint64_t len, char *ret, size_t size)
{
	blkid_probe probe = NULL;
	const char *type = NULL;
	bool found = false;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	probe = blkid_new_probe();
	if (!probe || blkid_probe_set_device(probe, fd, (blkid_loff_t)offset, (blkid_loff_t)len))
		goto out;
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE);
	blkid_probe_enable_partitions(probe, 1);
	/* 1: nothing found. -2, several at once, is data as well. */
	switch (blkid_do_safeprobe(probe)) {
	case 0:
		if (!blkid_probe_lookup_value(probe, "TYPE", &type, NULL))
			snprintf(ret, size, "a filesystem of type %s", type);
		else if (!blkid_probe_lookup_value(probe, "PTTYPE", &type, NULL))
			snprintf(ret, size, "a partition table of type %s", type);
		else
			snprintf(ret, size, "data that libblkid knows");
		found = true;
		break;
	case -2:
		snprintf(ret, size, "several filesystems at once");
		found = true;
		break;
	default:
		break;
	}
out:
	if (probe)
		blkid_free_probe(probe);
	close(fd);
	return found;
}
