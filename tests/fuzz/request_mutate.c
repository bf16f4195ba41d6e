/* SPDX-License-Identifier: MIT */
/*
 * A mutator that knows what a message is: it adds requests that make sense and faults, takes some
 * away, and now and then leaves it to libFuzzer to make nonsense of them.
 */
#include "request.h"
#include <linux/fs.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

static uint64_t rng(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t number(uint64_t *s)
{
	static const uint64_t some[] = {
		0,
		1,
		2,
		7,
		100,
		511,
		512,
		4095,
		4096,
		4097,
		8192,
		65536,
		1u << 20,
		20u << 20,
		100u << 20,
		INT32_MAX,
		UINT32_MAX,
		1ull << 40,
		INT64_MAX - 4096,
		INT64_MAX,
		UINT64_MAX,
	};

	return rng(s) % 4 ? some[rng(s) % slu_array_size(some)] : rng(s) % 100000;
}

static size_t put(uint8_t *out, const void *what, size_t len)
{
	memcpy(out, what, len);
	return len;
}

static size_t put_name(uint64_t *s, uint8_t *out)
{
	static const char *const names[] = {"a",
					    "b",
					    "c",
					    "d",
					    "e",
					    ".",
					    "..",
					    "user.x",
					    "user.y",
					    "system.posix_acl_access",
					    "security.capability"};
	const char *name = names[rng(s) % 4 ? rng(s) % 5 : rng(s) % slu_array_size(names)];

	return put(out, name, strlen(name) + 1);
}

static size_t put_xattr_name(uint64_t *s, uint8_t *out)
{
	static const char *const names[] = {"user.x",
					    "user.y",
					    "system.posix_acl_access",
					    "system.posix_acl_default",
					    "security.capability",
					    "trusted.t",
					    "nothing"};
	const char *name = names[rng(s) % slu_array_size(names)];

	return put(out, name, strlen(name) + 1);
}

/* The requests about data. */
static size_t put_data_op(uint64_t *s, struct message *m, uint8_t *out)
{
	static const uint32_t modes[] = {0, 1, 3, 16, 17, 2, 8};
	uint64_t pos = rng(s) % 4 ? rng(s) % 300000 : number(s);
	uint32_t size = rng(s) % 2 ? 4096 * (uint32_t)(rng(s) % 17) : (uint32_t)(rng(s) % 65536);

	switch (m->opcode) {
	case FUSE_WRITE: {
		struct fuse_write_in w = {.offset = pos,
					  .size = size,
					  .write_flags = (uint32_t)(rng(s) % 8)};
		w.flags = rng(s) % 4 ? 0 : 040000; /* O_DIRECT */
		slu_put_le16(&m->zeros, (uint16_t)slu_min(size, 65535u));
		return put(out, &w, sizeof(w));
	}
	case FUSE_READ: {
		struct fuse_read_in r = {.offset = pos, .size = rng(s) % 8 ? size : 1u << 20};
		return put(out, &r, sizeof(r));
	}
	case FUSE_FALLOCATE: {
		struct fuse_fallocate_in f = {.offset = pos,
					      .length = number(s),
					      .mode = modes[rng(s) % slu_array_size(modes)]};
		return put(out, &f, sizeof(f));
	}
	case FUSE_LSEEK: {
		struct fuse_lseek_in l = {.offset = pos, .whence = 3 + rng(s) % 2};
		return put(out, &l, sizeof(l));
	}
	default: {
		struct fuse_copy_file_range_in c = {.off_in = pos,
						    .off_out = number(s),
						    .len = number(s)};
		return put(out, &c, sizeof(c));
	}
	}
}

static size_t put_setattr(uint64_t *s, uint8_t *out)
{
	struct fuse_setattr_in in = {
		.valid = (uint32_t)(rng(s) % 4 ? 1u << rng(s) % 12 : rng(s)),
		.size = number(s),
		.mode = (uint32_t)(rng(s) % 010000),
		.uid = (uint32_t)(rng(s) % 3),
		.gid = (uint32_t)(rng(s) % 3),
		.mtime = number(s),
	};

	return put(out, &in, sizeof(in));
}

static size_t put_setxattr(uint64_t *s, struct message *m, uint8_t *out)
{
	struct fuse_setxattr_in in = {.size = (uint32_t)(rng(s) % 3000),
				      .flags = (uint32_t)(rng(s) % 8 ? 0 : rng(s) % 3)};
	size_t n = put(out, &in, sizeof(in));

	slu_put_le16(&m->zeros, (uint16_t)in.size);
	return n + put_xattr_name(s, out + n);
}

static size_t put_ioctl(uint64_t *s, struct message *m, uint8_t *out)
{
	static const uint32_t cmds[] = {(uint32_t)FS_IOC_GETFLAGS, (uint32_t)FS_IOC_SETFLAGS,
					(uint32_t)FS_IOC_FSGETXATTR, (uint32_t)FS_IOC_FSSETXATTR};
	struct fuse_ioctl_in in = {.cmd = cmds[rng(s) % 4], .in_size = 28, .out_size = 28};
	uint32_t flags = rng(s) % 2 ? 1u << rng(s) % 18 : 0;
	size_t n = put(out, &in, sizeof(in));

	slu_put_le16(&m->zeros, 28);
	return n + put(out + n, &flags, sizeof(flags));
}

/* A struct of this size that is mostly flags, sizes and modes, then names. */
static size_t put_words(uint64_t *s, uint8_t *out, size_t size, unsigned int names)
{
	size_t n = size & ~(size_t)3;

	memset(out, 0, n);
	for (size_t i = 0; i + 4 <= n; i += 4) {
		if (rng(s) % 3 == 0)
			slu_put_le32(out + i, rng(s) % 2 ? 1u << rng(s) % 18 : (uint32_t)number(s));
	}
	while (names--)
		n += put_name(s, out + n);
	return n;
}

static size_t put_body(uint64_t *s, struct message *m, uint8_t *out)
{
	const struct op *op = op_find(m->opcode);

	switch (m->opcode) {
	case FUSE_WRITE:
	case FUSE_READ:
	case FUSE_FALLOCATE:
	case FUSE_LSEEK:
	case FUSE_COPY_FILE_RANGE:
		return put_data_op(s, m, out);
	case FUSE_SETATTR:
		return put_setattr(s, out);
	case FUSE_SETXATTR:
		return put_setxattr(s, m, out);
	case FUSE_IOCTL:
		return put_ioctl(s, m, out);
	case FUSE_GETXATTR:
		return put_words(s, out, 8, 0) + put_xattr_name(s, out + 8);
	case FUSE_REMOVEXATTR:
		return put_xattr_name(s, out);
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_SYMLINK:
		return put_words(s, out, op->arg_size, 2);
	default:
		return put_words(s, out, op ? op->arg_size : 8, rng(s) % 8 ? 1 : 0);
	}
}

static bool names_in_root(uint8_t opcode)
{
	return opcode == FUSE_CREATE || opcode == FUSE_MKDIR || opcode == FUSE_RENAME2 ||
	       opcode == FUSE_LOOKUP;
}

static size_t make_fault(uint64_t *s, uint8_t *out)
{
	struct message m = {
		.opcode = OPCODE_FAULT,
		.node = (uint8_t)(rng(s) % FAULT_NKINDS),
		.fh = (uint8_t)(rng(s) % (rng(s) % 4 ? 12 : 256)),
		.flags = (uint8_t)(rng(s) % 8),
	};

	slu_put_le16(&m.zeros, (uint16_t)(rng(s) % (rng(s) % 4 ? 64 : 4096)));
	return put(out, &m, sizeof(m));
}

static size_t make_message(uint64_t *s, uint8_t *out)
{
	static const uint8_t often[] = {FUSE_CREATE, FUSE_CREATE,  FUSE_WRITE,   FUSE_WRITE,
					FUSE_WRITE,  FUSE_SETATTR, FUSE_RENAME2, FUSE_MKDIR,
					FUSE_LOOKUP, FUSE_READ,    FUSE_FSYNC};
	struct message m = {.node = (uint8_t)(rng(s) % 8), .fh = (uint8_t)(rng(s) % 8)};
	size_t len;

	if (rng(s) % 8 == 0)
		return make_fault(s, out);
	m.opcode = rng(s) % 2 ? often[rng(s) % sizeof(often)] : (uint8_t)(rng(s) % 56);
	if (names_in_root(m.opcode) && rng(s) % 4)
		m.node = 0;
	if (rng(s) % 16 == 0)
		m.flags = (uint8_t)(1u << rng(s) % 8);
	else if (rng(s) % 4 == 0)
		m.flags = MESSAGE_TOGETHER;
	len = put_body(s, &m, out + sizeof(m));
	m.len = (uint8_t)slu_min(len, (size_t)255);
	memcpy(out, &m, sizeof(m));
	return sizeof(m) + m.len;
}

static unsigned int split(const uint8_t *data, size_t size, size_t *starts, unsigned int max)
{
	unsigned int n = 0;
	size_t at = 1;

	while (n < max && at + sizeof(struct message) <= size) {
		starts[n++] = at;
		at += sizeof(struct message) + data[at + offsetof(struct message, len)];
	}
	return n;
}

static size_t insert(uint64_t *s, uint8_t *data, size_t size, size_t at, size_t max_size)
{
	uint8_t message[sizeof(struct message) + 512];
	size_t len = make_message(s, message);

	if (size + len > max_size)
		return size;
	memmove(data + at + len, data + at, size - at);
	memcpy(data + at, message, len);
	return size + len;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	uint64_t s = seed * 0x9e3779b97f4a7c15ull + 1;
	size_t starts[64], end;
	unsigned int n, i;

	rng(&s);
	if (!size && max_size)
		data[size++] = 0;
	n = split(data, size, starts, slu_array_size(starts));
	switch (n ? rng(&s) % 8 : 0) {
	case 0:
	case 1:
	case 2:
		return insert(&s, data, size, size, max_size);
	case 3:
		return insert(&s, data, size, starts[rng(&s) % n], max_size);
	case 4:
		return LLVMFuzzerMutate(data, size, max_size);
	case 5:
		data[0] = (uint8_t)rng(&s);
		return size;
	default:
		i = (unsigned int)(rng(&s) % n);
		end = i + 1 < n ? starts[i + 1] : size;
		memmove(data + starts[i], data + end, size - end);
		size -= end - starts[i];
		return rng(&s) % 3 ? insert(&s, data, size, starts[i], max_size) : size;
	}
}
