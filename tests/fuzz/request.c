/* SPDX-License-Identifier: MIT */
/*
 * A kernel that says anything: requests in any order, with any contents, to the dispatch layer over
 * a small volume. Every request that wants an answer gets exactly one, and whatever was asked, the
 * volume can be unmounted and check finds nothing wrong.
 *
 * Between requests the disk, the host below it and the memory may fail. Requests may then fail too,
 * and the volume may turn read-only, having said so; what is on the disk is sound all the same, and
 * when the fault is over and the volume is still writable, nothing is lost.
 *
 * A file in memory takes the device's place, so that no answer can block; the worker that reads
 * requests is this one.
 */
#include "request.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define NBLOCKS      8192u
#define MAX_MESSAGES 64u
#define MAX_KNOWN    32u
#define MAX_WRITE    65536u
#define WAIT_NS      (3600 * SLU_NS_PER_SEC) /* of the simulation's time */

struct asked {
	uint8_t opcode;
	bool wants;
	unsigned int answers;
};

struct kernel {
	struct fuzz_bytes in;
	uint8_t options;
	struct slu_simdisk *disk;
	struct slu_fs *fs;
	struct slu_session *s;
	struct request *req;
	int fd; /* our end of the file in memory */
	off_t read_to;
	unsigned int nasked; /* the unique number of the last one */
	struct asked asked[MAX_MESSAGES + 2];
	uint64_t nodes[MAX_KNOWN], fhs[MAX_KNOWN];
	unsigned int nnodes, nfhs;
	bool destroyed;
	bool has_failed;       /* a fault was set */
	bool failing, stays;   /* one is; it is not taken away before the unmount */
	_Atomic bool readonly; /* an event said that the volume has turned so */
};

/* ------------------------------------------------------------------ answers */

static void know(uint64_t *list, unsigned int *n, uint64_t what)
{
	if (what && *n < MAX_KNOWN)
		list[(*n)++] = what;
}

static bool names_inode(uint8_t opcode)
{
	return opcode == FUSE_LOOKUP || opcode == FUSE_MKNOD || opcode == FUSE_MKDIR ||
	       opcode == FUSE_SYMLINK || opcode == FUSE_LINK || opcode == FUSE_CREATE ||
	       opcode == OPCODE_TMPFILE;
}

static void learn(struct kernel *k, uint8_t opcode, off_t body, size_t len)
{
	struct fuse_entry_out entry;
	struct fuse_open_out open;

	if (names_inode(opcode)) {
		if (len < sizeof(entry) ||
		    pread(k->fd, &entry, sizeof(entry), body) != sizeof(entry))
			fuzz_fail("opcode %u: an answer of %zu bytes", opcode, len);
		know(k->nodes, &k->nnodes, entry.nodeid);
		body += sizeof(entry);
		len -= sizeof(entry);
	}
	if (opcode == FUSE_OPEN || opcode == FUSE_CREATE || opcode == OPCODE_TMPFILE) {
		if (len != sizeof(open) || pread(k->fd, &open, sizeof(open), body) != sizeof(open))
			fuzz_fail("opcode %u: no handle", opcode);
		know(k->fhs, &k->nfhs, open.fh);
	}
}

static void take_answer(struct kernel *k, const struct fuse_out_header *out, off_t at)
{
	struct asked *a;

	if (!out->unique) { /* a notification */
		if (out->error != FUSE_NOTIFY_INVAL_INODE)
			fuzz_fail("a notification of kind %d", out->error);
		return;
	}
	if (out->unique > k->nasked)
		fuzz_fail("an answer to %llu, which was not asked",
			  (unsigned long long)out->unique);
	a = &k->asked[out->unique];
	if (!a->wants || a->answers++)
		fuzz_fail("opcode %u was answered %u times", a->opcode, a->answers);
	if (out->error > 0 || out->error <= -512 || (out->error && out->len != sizeof(*out)))
		fuzz_fail("opcode %u: error %d, %u bytes", a->opcode, out->error, out->len);
	if (!out->error)
		learn(k, a->opcode, at + (off_t)sizeof(*out), out->len - sizeof(*out));
}

static void take_answers(struct kernel *k)
{
	struct fuse_out_header out;
	off_t end = lseek(k->fd, 0, SEEK_END);

	while (k->read_to < end) {
		if (pread(k->fd, &out, sizeof(out), k->read_to) != sizeof(out) ||
		    out.len < sizeof(out) || k->read_to + out.len > end)
			fuzz_fail("an answer of %u bytes", out.len);
		take_answer(k, &out, k->read_to);
		k->read_to += out.len;
	}
	if (k->read_to > 1 << 20) {
		if (ftruncate(k->fd, 0))
			fuzz_fail("the file in memory cannot be emptied");
		k->read_to = 0;
	}
}

static bool all_answered(struct kernel *k)
{
	take_answers(k);
	for (unsigned int i = 1; i <= k->nasked; i++) {
		struct asked *a = &k->asked[i];

		/* That one waits for the volume to be unmounted. */
		if (a->wants && !a->answers && a->opcode != FUSE_DESTROY)
			return false;
	}
	return true;
}

static void wait_answered(struct kernel *k)
{
	uint64_t deadline = slu_clock_ns() + WAIT_NS;

	while (!all_answered(k)) {
		if (slu_clock_ns() > deadline)
			fuzz_fail("a request was not answered");
		slu_sleep_ns(SLU_NS_PER_MS);
	}
}

/* ------------------------------------------------------------------ requests */

/* Where the body has the handle, or the inode of another file; -1: nowhere. */
static int other_at(uint8_t opcode, bool *ret_node)
{
	*ret_node = opcode == FUSE_RENAME || opcode == FUSE_RENAME2 || opcode == FUSE_LINK;
	switch (opcode) {
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_RELEASE:
	case FUSE_FSYNC:
	case FUSE_IOCTL:
	case FUSE_FALLOCATE:
	case FUSE_LSEEK:
	case FUSE_COPY_FILE_RANGE:
		return 0;
	default:
		return -1;
	}
}

static void put_known(struct kernel *k, const struct message *m, char *body, size_t len)
{
	bool node;
	int at = other_at(m->opcode, &node);
	uint64_t what = node      ? k->nodes[m->fh % k->nnodes]
			: k->nfhs ? k->fhs[m->fh % k->nfhs]
				  : UINT64_MAX;

	if (at >= 0 && len >= sizeof(what))
		memcpy(body + at, &what, sizeof(what));
	if (m->opcode == FUSE_COPY_FILE_RANGE && len >= sizeof(struct fuse_copy_file_range_in)) {
		struct fuse_copy_file_range_in *in = (void *)body;

		in->nodeid_out = k->nodes[m->fh % k->nnodes];
	}
}

static size_t make_body(struct kernel *k, const struct message *m, const uint8_t *data, char *body,
			size_t cap)
{
	const struct op *op = op_find(m->opcode);
	size_t len = m->len;

	memset(body, 0, cap);
	if (len)
		memcpy(body, data, len);
	if (!(m->flags & MESSAGE_RAW_BODY) && op)
		len = slu_max(len, (size_t)op->arg_size);
	len = slu_min(len + slu_get_le16(&m->zeros), cap);
	if (!(m->flags & MESSAGE_RAW_BODY))
		put_known(k, m, body, len);
	return len;
}

static void expect(struct kernel *k, const struct message *m, const struct fuse_in_header *h)
{
	struct asked *a = &k->asked[++k->nasked];
	const struct op *op = op_find(h->opcode);

	*a = (struct asked){.opcode = m->opcode};
	a->wants = !(m->flags & MESSAGE_LIES) && (!op || !(op->flags & OP_NOREPLY));
}

static void send(struct kernel *k, const struct message *m, const uint8_t *data)
{
	struct fuse_in_header *h = (void *)k->req->buf;
	char *body = k->req->buf + sizeof(*h);
	size_t len = make_body(k, m, data, body, k->req->cap - sizeof(*h));

	*h = (struct fuse_in_header){
		.len = (uint32_t)(sizeof(*h) + len) + (m->flags & MESSAGE_LIES ? 8 : 0),
		.opcode = m->opcode,
		.unique = k->nasked + 1,
		.nodeid = k->nodes[m->node % k->nnodes],
		.uid = m->flags & MESSAGE_USER ? 1000 : 0,
		.gid = m->flags & MESSAGE_USER ? 1000 : 0,
		.pid = 1,
		.total_extlen = m->flags & MESSAGE_EXTENDED ? m->node : 0,
	};
	if (m->flags & MESSAGE_BIG_OPCODE)
		h->opcode |= 0x1000;
	if ((m->flags & MESSAGE_RAW_NODE) && m->len >= sizeof(h->nodeid))
		memcpy(&h->nodeid, data, sizeof(h->nodeid));
	expect(k, m, h);
	k->req->fd = k->s->fd;
	k->req = session_dispatch(k->req, sizeof(*h) + len);
	if (!k->req && !(k->req = request_new(k->s)) && !(k->req = request_new(k->s)))
		fuzz_fail("no memory for a request, twice");
}

/* ------------------------------------------------------------------ faults */

static void heal(struct kernel *k)
{
	slu_simdisk_fault(k->disk, NULL);
	slu_simdisk_fail(k->disk, false);
	slu_simdisk_host_space(k->disk, UINT64_MAX);
	slu_alloc_fail_nth(0);
	k->failing = k->stays = false;
}

static void fail_disk(struct kernel *k, const struct message *m, enum slu_io_op op,
		      uint64_t nblocks)
{
	static const int kinds[] = {SLU_FAULT_ERROR, SLU_FAULT_SUBMIT_ERROR, SLU_FAULT_SHORT};
	const struct slu_simdisk_fault fault = {
		.op = op,
		.nth = 1u + m->fh / slu_array_size(kinds),
		.times = m->flags & FAULT_LASTS ? UINT64_MAX : 1,
		.nblocks = nblocks,
		.kind = kinds[m->fh % slu_array_size(kinds)],
	};

	slu_simdisk_fault(k->disk, &fault);
}

static void set_fault(struct kernel *k, const struct message *m)
{
	enum fault fault = m->node % FAULT_NKINDS;

	heal(k);
	k->failing = fault != FAULT_NONE;
	k->has_failed |= k->failing;
	k->stays = k->failing && m->flags & FAULT_UNMOUNTS;
	switch (fault) {
	case FAULT_READ:
		fail_disk(k, m, SLU_IO_READ, 0);
		break;
	case FAULT_WRITE:
		fail_disk(k, m, SLU_IO_WRITE, 0);
		break;
	case FAULT_SUPER:
		fail_disk(k, m, SLU_IO_WRITE, 2);
		break;
	case FAULT_FLUSH:
		fail_disk(k, m, SLU_IO_FLUSH, 0);
		break;
	case FAULT_GONE:
		slu_simdisk_fail(k->disk, true);
		break;
	case FAULT_HOST:
		slu_simdisk_host_space(k->disk, slu_get_le16(&m->zeros));
		break;
	case FAULT_MEMORY:
		slu_alloc_fail_nth(1u + slu_get_le16(&m->zeros));
		break;
	default:
		break;
	}
	if (m->flags & FAULT_MEETS)
		slu_sleep_ns(12 * SLU_NS_PER_SEC);
}

/* A node that could not be read is told when it is asked for again; no record is ever wrong. */
static void on_event(void *ctx, const struct slu_event *ev)
{
	struct kernel *k = ctx;

	if (ev->kind == SLU_EVENT_READONLY)
		atomic_store(&k->readonly, true);
	else if (ev->kind == SLU_EVENT_NODE_CORRUPT && (ev->ino || !k->has_failed))
		fuzz_fail("inode %llu, block %llu: %s", (unsigned long long)ev->ino,
			  (unsigned long long)ev->pos, ev->text);
}

/* ------------------------------------------------------------------ all of an input */

static void send_all(struct kernel *k)
{
	const uint8_t *p, *data;
	struct message m;

	while (k->nasked < MAX_MESSAGES && (p = fuzz_take(&k->in, sizeof(m)))) {
		memcpy(&m, p, sizeof(m));
		m.len = (uint8_t)slu_min((size_t)m.len, k->in.left);
		data = fuzz_take(&k->in, m.len);
		if (m.opcode == OPCODE_FAULT) {
			set_fault(k, &m);
			continue;
		}
		/* The kernel sends it once and then no more, so only one answer is kept in mind. */
		if (m.opcode == FUSE_DESTROY) {
			if (k->destroyed || (m.flags & (MESSAGE_LIES | MESSAGE_BIG_OPCODE)))
				continue;
			k->destroyed = true;
		}
		send(k, &m, data);
		if (!(m.flags & MESSAGE_TOGETHER))
			wait_answered(k);
	}
	wait_answered(k);
}

/* ------------------------------------------------------------------ a mount without a kernel */

static void make_name(struct slu_fs *fs, uint64_t dir, const char *name, mode_t mode,
		      uint64_t *ret_ino)
{
	struct slu_ctx ctx = {.may_wait = true};
	struct slu_attr attr;

	if (slu_ns_mknod(fs->ns, &ctx, dir, name, mode, 0, &attr) ||
	    slu_ns_setxattr(fs->ns, &ctx, attr.ino, "user.x", "value", 5, 0, false))
		fuzz_fail("the volume cannot be filled");
	*ret_ino = attr.ino;
}

static void make_data(struct slu_fs *fs, uint64_t ino, uint64_t pos)
{
	static char data[3 * SLU_BLOCK_SIZE];
	struct iovec iov = {data, sizeof(data)};
	struct slu_ctx ctx = {.may_wait = true};
	struct slu_write_result res;
	struct slu_source_buffer src;

	slu_source_buffer_init(&src, &iov, 1);
	if (slu_fs_write(fs, &ctx, ino, UINT64_MAX, &src.source, pos, sizeof(data), 0, false, &res))
		fuzz_fail("the volume cannot be filled");
}

/* Names that the requests use too: a file with holes, and a directory with more than one leaf. */
static void fill(struct kernel *k)
{
	struct slu_fs_opts opts = {.cache_size = 16 << 20};
	uint64_t file, dir, ino;
	struct slu_fs *fs;
	char name[16];

	if (slu_fs_mount(fuzz_open_disk(k->disk, false), &opts, &fs, NULL))
		fuzz_fail("the volume cannot be mounted");
	make_name(fs, SLU_INO_ROOT, "a", S_IFREG | 0666, &file);
	make_name(fs, SLU_INO_ROOT, "b", S_IFDIR | 0777, &dir);
	for (unsigned int i = 0; i < 40; i++) {
		make_data(fs, file, i * 8ull * SLU_BLOCK_SIZE);
		snprintf(name, sizeof(name), "%c%u", 'a' + i % 5, i / 5);
		make_name(fs, dir, i < 5 ? (char[]){name[0], 0} : name, S_IFREG | 0666, &ino);
	}
	if (slu_fs_unmount(fs))
		fuzz_fail("the volume cannot be unmounted");
}

static void say_init(struct kernel *k)
{
	struct fuse_init_in in = {
		.major = 7,
		.minor = 39,
		.max_readahead = 131072,
		.flags = FUSE_DONT_MASK | FUSE_POSIX_ACL | FUSE_HANDLE_KILLPRIV_V2 |
			 FUSE_SETXATTR_EXT | FUSE_WRITEBACK_CACHE | FUSE_MAX_PAGES |
			 FUSE_DO_READDIRPLUS,
	};
	struct message m = {.opcode = FUSE_INIT, .len = sizeof(in)};

	send(k, &m, (const uint8_t *)&in);
	wait_answered(k);
}

static void start(struct kernel *k)
{
	struct slu_fs_opts opts = {
		.cache_size = 16 << 20,
		.relatime = true,
		.events = {on_event, k},
	};
	struct slu_session_opts sopts = {
		.writeback = k->options & OPTION_WRITEBACK,
		.max_write = MAX_WRITE,
	};
	struct park_limits limits = {.max_items = 16, .max_bytes = 1 << 20, .max_threads = 3};
	struct slu_blockio *bio;
	int fd = memfd_create("answers", MFD_CLOEXEC);

	k->disk = slu_simdisk_new(NBLOCKS, 1);
	slu_simdisk_inline(k->disk, true);
	bio = fuzz_open_disk(k->disk, false);
	if (slu_fs_format(bio, NBLOCKS, "fuzz", 0, 0))
		fuzz_fail("the volume cannot be formatted");
	slu_blockio_close(bio);
	if (k->options & OPTION_FILLED)
		fill(k);
	if (slu_fs_mount(fuzz_open_disk(k->disk, false), &opts, &k->fs, NULL))
		fuzz_fail("the volume cannot be mounted");
	k->fd = dup(fd);
	if (fd < 0 || k->fd < 0 || fcntl(fd, F_SETFL, O_APPEND))
		fuzz_fail("no file in memory");
	if (slu_session_new(k->fs, fd, &sopts, &k->s) || park_init(&k->s->park, &limits))
		fuzz_fail("no session");
	k->req = request_new(k->s);
	k->nodes[0] = SLU_INO_ROOT;
	k->nnodes = 1;
	say_init(k);
}

/* What was accepted goes to disk now, whatever went wrong before; delays have grown up to 5 s. */
static void recover(struct kernel *k)
{
	int err;

	heal(k);
	slu_sleep_ns(60 * SLU_NS_PER_SEC);
	err = slu_fs_sync(k->fs);
	if (err && !k->readonly)
		fuzz_fail("sync: %d", err);
}

static void check_disk(struct kernel *k)
{
	struct slu_check_result result;
	int err = fuzz_check(k->disk, true, &result);

	if (err || result.problems || result.incomplete)
		fuzz_fail("the volume is damaged");
}

/* And it can be used again. */
static void mount_once_more(struct kernel *k)
{
	struct slu_fs_opts opts = {.cache_size = 16 << 20};
	int err = slu_fs_mount(fuzz_open_disk(k->disk, false), &opts, &k->fs, NULL);

	if (!err)
		err = slu_fs_unmount(k->fs);
	if (err)
		fuzz_fail("a mount later: %d", err);
	check_disk(k);
}

static void stop(struct kernel *k)
{
	bool stays = k->stays;
	int err;

	request_free(k->req);
	park_fini(&k->s->park);
	if (k->failing && !stays)
		recover(k);
	err = slu_fs_unmount(k->fs);
	if (err && !stays && !k->readonly)
		fuzz_fail("unmount: %d", err);
	heal(k);
	slu_session_free(k->s);
	take_answers(k);
	for (unsigned int i = 1; i <= k->nasked; i++) {
		if (k->asked[i].wants && !k->asked[i].answers)
			fuzz_fail("opcode %u was not answered", k->asked[i].opcode);
	}
	close(k->fd);
	check_disk(k);
	if (k->has_failed)
		mount_once_more(k);
	slu_simdisk_free(k->disk);
}

static void run(void *arg)
{
	struct kernel *k = arg;

	start(k);
	send_all(k);
	stop(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kernel *k = calloc(1, sizeof(*k));

	if (!k)
		fuzz_fail("no memory");
	k->in = (struct fuzz_bytes){data, size};
	if (size)
		k->options = *fuzz_take(&k->in, 1);
	fuzz_simulate(((k->options & ~OPTION_FILLED) >> 2) + 1u,
		      k->options & OPTION_PREEMPT ? 4 : 0, run, k);
	free(k);
	return 0;
}
