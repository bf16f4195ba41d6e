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

enum option_flags {
	OPTION_WRITEBACK = 1, /* the kernel keeps dirty pages */
	OPTION_PREEMPT = 2,   /* threads of the park take turns more often */
			      /* the others: the seed of the simulation */
};

#endif
