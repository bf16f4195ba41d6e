/* SPDX-License-Identifier: MIT */
/* The parts of the request fuzzer: what an input looks like. */
#ifndef FUZZ_REQUEST_H
#define FUZZ_REQUEST_H

#include "fuse_private.h"
#include "fuzz.h"

/*
 * An input is one byte of options and then messages: this, and `len` bytes of body, which are
 * filled up with zeros to what the opcode's struct needs and by `zeros` more behind all of it.
 */
struct message {
	uint8_t opcode;
	uint8_t node; /* of the inodes that answers have named so far */
	uint8_t fh;   /* of the handles that answers have named, or a second inode */
	uint8_t flags;
	slu_le16 zeros;
	uint8_t len;
};

enum message_flags {
	MESSAGE_RAW_NODE = 1,    /* the body's first eight bytes are the inode, too */
	MESSAGE_RAW_BODY = 2,    /* no handle or inode is put into the body, nothing is filled up */
	MESSAGE_USER = 4,        /* not root */
	MESSAGE_TOGETHER = 8,    /* the next one comes before this one is answered */
	MESSAGE_BIG_OPCODE = 16, /* an opcode beyond all */
	MESSAGE_LIES = 32,       /* says that it is longer than it is */
	MESSAGE_EXTENDED = 64,   /* says that it has extensions */
};

/*
 * A message with this opcode is no request: it sets a fault, instead of the one before, and its
 * fields are read as follows. It has a body like any other, which means nothing.
 *
 *	node	enum fault
 *	fh	disk: the kind (EIO, EIO at submission, half done) and which request from now
 *	flags	enum fault_flags
 *	zeros	HOST: blocks that the host has left; MEMORY: which allocation from now
 */
#define OPCODE_FAULT 255u

enum fault {
	FAULT_NONE, /* everything works again */
	FAULT_READ,
	FAULT_WRITE,
	FAULT_SUPER, /* a write of a superblock */
	FAULT_FLUSH,
	FAULT_GONE, /* the whole disk */
	FAULT_HOST,
	FAULT_MEMORY,
	FAULT_NKINDS,
};

enum fault_flags {
	FAULT_LASTS = 1,    /* that request to the disk and all after it */
	FAULT_UNMOUNTS = 2, /* if it is the last one, it stays until the volume is unmounted */
	FAULT_MEETS = 4,    /* time enough for writeback and commits to meet it */
};

enum option_flags {
	OPTION_WRITEBACK = 1, /* the kernel keeps dirty pages */
	OPTION_PREEMPT = 2,   /* threads of the park take turns more often */
	OPTION_FILLED = 128,  /* the volume is not empty, and nothing of it is in memory */
			      /* the others: the seed of the simulation */
};

#endif
