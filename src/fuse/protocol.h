/* SPDX-License-Identifier: MIT */
/*
 * The kernel's FUSE protocol, and those parts of it that the linux/fuse.h of Debian 12 (7.38) does
 * not know yet. Names of our own, so that a newer header does no harm. Source: the Linux kernel's
 * include/uapi/linux/fuse.h (BSD-2-Clause alternative).
 */
#ifndef SLUICE_FUSE_PROTOCOL_H
#define SLUICE_FUSE_PROTOCOL_H

#include <linux/fuse.h>
#include <stdint.h>

/* We speak up to 7.39; older than 7.31 (Linux 5.4) lacks too much of what is relied on here. */
#define PROTOCOL_MINOR     39u
#define PROTOCOL_MINOR_MIN 31u

#define OPCODE_SYNCFS  50u
#define OPCODE_TMPFILE 51u
#define OPCODE_STATX   52u

struct protocol_statx_in {
	uint32_t getattr_flags;
	uint32_t reserved;
	uint64_t fh;
	uint32_t sx_flags;
	uint32_t sx_mask;
};

struct protocol_sx_time {
	int64_t tv_sec;
	uint32_t tv_nsec;
	int32_t reserved;
};

struct protocol_statx {
	uint32_t mask;
	uint32_t blksize;
	uint64_t attributes;
	uint32_t nlink;
	uint32_t uid;
	uint32_t gid;
	uint16_t mode;
	uint16_t spare0;
	uint64_t ino;
	uint64_t size;
	uint64_t blocks;
	uint64_t attributes_mask;
	struct protocol_sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor;
	uint32_t dev_major, dev_minor;
	uint64_t spare2[14];
};

struct protocol_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec;
	uint32_t flags;
	uint64_t spare[2];
	struct protocol_statx stat;
};

#endif
