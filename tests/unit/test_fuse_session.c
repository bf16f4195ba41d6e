/* SPDX-License-Identifier: MIT */
/* The session: what it asks for, refuses, answers and parks, and how it ends. */
#include "session_rig.h"
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>

static const struct fuse_entry_out *entry(struct kernel *k)
{
	assert_true(k->len >= sizeof(struct fuse_entry_out));
	return (const struct fuse_entry_out *)k->buf;
}

static uint64_t lookup(struct kernel *k, uint64_t parent, const char *name)
{
	assert_int_equal(ask_name(k, FUSE_LOOKUP, parent, name), 0);
	return entry(k)->nodeid;
}

static uint64_t create(struct kernel *k, const char *name, uint32_t mode, uint64_t *ret_fh)
{
	struct fuse_create_in in = {.flags = O_RDWR, .mode = mode};
	struct fuse_open_out open;

	assert_int_equal(ask(k, FUSE_CREATE, 1, &in, sizeof(in), name, strlen(name) + 1), 0);
	assert_int_equal(k->len, sizeof(struct fuse_entry_out) + sizeof(open));
	memcpy(&open, k->buf + sizeof(struct fuse_entry_out), sizeof(open));
	assert_true(open.open_flags & FOPEN_KEEP_CACHE);
	assert_false(open.open_flags & FOPEN_DIRECT_IO);
	*ret_fh = open.fh;
	return entry(k)->nodeid;
}

static int write_at(struct kernel *k, uint64_t ino, uint64_t fh, uint64_t pos, const void *data,
		    uint32_t len, uint32_t flags)
{
	struct fuse_write_in in = {.fh = fh, .offset = pos, .size = len, .write_flags = flags};

	return ask(k, FUSE_WRITE, ino, &in, sizeof(in), data, len);
}

static int read_at(struct kernel *k, uint64_t ino, uint64_t fh, uint64_t pos, uint32_t len)
{
	struct fuse_read_in in = {.fh = fh, .offset = pos, .size = len};

	return ask(k, FUSE_READ, ino, &in, sizeof(in), NULL, 0);
}

static const struct fuse_attr *get_attr(struct kernel *k, uint64_t ino)
{
	struct fuse_getattr_in in = {0};

	assert_int_equal(ask(k, FUSE_GETATTR, ino, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(k->len, sizeof(struct fuse_attr_out));
	return &((const struct fuse_attr_out *)k->buf)->attr;
}

static int setup(void **state)
{
	static struct kernel k;

	start(&k, &(struct slu_session_opts){.writeback = true});
	assert_int_equal(init_with(&k, 7, 45, KERNEL_FLAGS), 0);
	*state = &k;
	return 0;
}

static int teardown(void **state)
{
	stop(*state);
	return 0;
}

static int setup_bare(void **state)
{
	static struct kernel k;

	start(&k, &(struct slu_session_opts){0});
	*state = &k;
	return 0;
}

/* ------------------------------------------------------------------ INIT */

static void init_asks_for_what_one_writer_allows(void **state)
{
	struct kernel *k = *state;
	const struct fuse_init_out *out = (const void *)k->buf;

	assert_int_equal(init_with(k, 7, 45, KERNEL_FLAGS), 0);
	assert_int_equal(k->len, sizeof(*out));
	assert_int_equal(out->major, 7);
	assert_int_equal(out->minor, 39);
	assert_int_equal(out->max_write, MAX_WRITE);
	assert_int_equal(out->max_pages, MAX_WRITE / 4096);
	assert_int_equal(out->time_gran, 1);
	assert_true(out->flags & FUSE_HANDLE_KILLPRIV_V2);
	assert_true(out->flags & FUSE_SETXATTR_EXT);
	assert_true(out->flags & FUSE_POSIX_ACL);
	assert_true(out->flags & FUSE_DONT_MASK);
	/* not asked for: write-through; never asked for: the other two */
	assert_false(out->flags & FUSE_WRITEBACK_CACHE);
	assert_false(out->flags & (FUSE_AUTO_INVAL_DATA | FUSE_SPLICE_READ));
	assert_int_equal(slu_session_wait_ready(k->s, slu_clock_ns() + 10 * SLU_NS_PER_SEC), 0);
}

static void init_negotiates_a_newer_major_down(void **state)
{
	struct kernel *k = *state;

	assert_int_equal(init_with(k, 8, 0, 0), 0);
	assert_int_equal(((const struct fuse_init_out *)k->buf)->major, 7);
	assert_int_equal(init_with(k, 7, 31, KERNEL_FLAGS), 0);
	assert_int_equal(((const struct fuse_init_out *)k->buf)->minor, 31);
}

static void init_refuses_what_is_too_old(void **state)
{
	struct kernel *k = *state;
	int err = 0;

	assert_int_equal(init_with(k, 7, 30, KERNEL_FLAGS), -EPROTO);
	assert_true(slu_session_ended(k->s, &err));
	assert_int_equal(err, -EPROTO);
	assert_int_equal(slu_session_wait_ready(k->s, slu_clock_ns() + 10 * SLU_NS_PER_SEC),
			 -EPROTO);
}

static void init_refuses_a_kernel_without_killpriv(void **state)
{
	struct kernel *k = *state;

	assert_int_equal(init_with(k, 7, 45, KERNEL_FLAGS & ~FUSE_HANDLE_KILLPRIV_V2), -EPROTO);
}

static void nothing_is_served_before_init(void **state)
{
	struct kernel *k = *state;

	assert_int_equal(ask_name(k, FUSE_LOOKUP, 1, "x"), -EIO);
	assert_int_equal(slu_session_wait_ready(k->s, slu_clock_ns()), -ETIMEDOUT);
}

/* ------------------------------------------------------------------ bad messages */

static void unknown_requests_get_enosys(void **state)
{
	static const uint32_t opcodes[] = {FUSE_ACCESS, FUSE_FLUSH, FUSE_GETLK,     FUSE_SETLK,
					   FUSE_BMAP,   FUSE_POLL,  FUSE_INTERRUPT, 63,
					   64,          4096,       UINT32_MAX};
	char arg[64] = {0};

	for (size_t i = 0; i < slu_array_size(opcodes); i++)
		assert_int_equal(ask(*state, opcodes[i], 1, arg, sizeof(arg), NULL, 0), -ENOSYS);
}

static void short_arguments_get_einval(void **state)
{
	for (uint32_t opcode = 1; opcode < SLU_OP_MAX; opcode++) {
		const struct op *op = op_find(opcode);

		if (op && op->arg_size && !(op->flags & OP_NOREPLY))
			assert_int_equal(ask(*state, opcode, 1, "", 0, NULL, 0), -EINVAL);
	}
}

static void names_are_checked(void **state)
{
	struct kernel *k = *state;
	char name[300];

	memset(name, 'n', sizeof(name));
	assert_int_equal(ask(k, FUSE_LOOKUP, 1, name, 20, NULL, 0), -EINVAL); /* no NUL */
	name[256] = '\0';
	assert_int_equal(ask_name(k, FUSE_LOOKUP, 1, name), -ENAMETOOLONG);
	assert_int_equal(ask_name(k, FUSE_UNLINK, 1, name), -ENAMETOOLONG);
	name[255] = '\0';
	assert_int_equal(lookup(k, 1, name), 0); /* just not there */
	assert_int_equal(ask_name(k, FUSE_LOOKUP, 1, ""), -EINVAL);
	assert_int_equal(ask_name(k, FUSE_UNLINK, 1, "a/b"), -EINVAL);
	/* the second of two */
	assert_int_equal(ask(k, FUSE_SYMLINK, 1, "link", 5, "target", 6), -EINVAL);
	assert_int_equal(ask(k, FUSE_SYMLINK, 1, "link", 5, NULL, 0), -EINVAL);
}

static void lengths_are_checked(void **state)
{
	struct kernel *k = *state;
	struct fuse_write_in w = {.size = 4096};
	struct fuse_setxattr_in x = {.size = 100};
	struct fuse_ioctl_in i = {.in_size = 100, .cmd = (uint32_t)FS_IOC_SETFLAGS};
	struct fuse_read_in r = {.size = UINT32_MAX};
	uint64_t fh, ino = create(k, "f", 0644, &fh);

	w.fh = r.fh = fh;
	assert_int_equal(ask(k, FUSE_WRITE, ino, &w, sizeof(w), "short", 5), -EINVAL);
	assert_int_equal(ask(k, FUSE_SETXATTR, ino, &x, sizeof(x), "user.a\0xy", 9), -EINVAL);
	assert_int_equal(ask(k, FUSE_IOCTL, ino, &i, sizeof(i), "abcd", 4), -EINVAL);
	assert_int_equal(ask(k, FUSE_READ, ino, &r, sizeof(r), NULL, 0), -EINVAL);
	w.offset = UINT64_MAX - 10;
	w.size = 4;
	assert_int_equal(ask(k, FUSE_WRITE, ino, &w, sizeof(w), "abcd", 4), -EFBIG);
}

static void a_message_that_lies_about_its_length_is_dropped(void **state)
{
	struct kernel *k = *state;
	struct fuse_in_header h = {.len = 1000, .opcode = FUSE_STATFS, .unique = 4711};

	assert_int_equal(write(k->fd, &h, sizeof(h)), sizeof(h));
	assert_int_equal(write(k->fd, &h, 10), 10);
	/* the next answer is to the next request */
	assert_int_equal(ask(k, FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
}

/* ------------------------------------------------------------------ names and attributes */

static void a_missing_name_is_kept_as_missing(void **state)
{
	struct kernel *k = *state;

	assert_int_equal(lookup(k, 1, "nothing"), 0);
	assert_true(entry(k)->entry_valid > 1000000);
}

static void a_created_file_is_found(void **state)
{
	struct kernel *k = *state;
	uint64_t fh, ino = create(k, "file", 0640, &fh);

	assert_true(entry(k)->attr_valid > 1000000 && entry(k)->entry_valid > 1000000);
	assert_int_equal(entry(k)->attr.mode, S_IFREG | 0640);
	assert_int_equal(entry(k)->attr.ino, ino);
	assert_int_equal(lookup(k, 1, "file"), ino);
	assert_int_equal(slu_session_nopen(k->s), 1);
}

static void create_opens_what_is_there_unless_exclusive(void **state)
{
	struct kernel *k = *state;
	uint64_t fh, ino = create(k, "file", 0644, &fh);
	struct fuse_create_in in = {.flags = O_RDWR | O_EXCL, .mode = 0644};

	assert_int_equal(ask(k, FUSE_CREATE, 1, &in, sizeof(in), "file", 5), -EEXIST);
	in.flags = O_RDWR;
	assert_int_equal(ask(k, FUSE_CREATE, 1, &in, sizeof(in), "file", 5), 0);
	assert_int_equal(entry(k)->nodeid, ino);
}

/* ------------------------------------------------------------------ closing */

static int release(struct kernel *k, uint32_t opcode, uint64_t ino, uint64_t fh)
{
	struct fuse_release_in in = {.fh = fh};

	return ask(k, opcode, ino, &in, sizeof(in), NULL, 0);
}

static void expect_open(struct kernel *k, uint64_t ino, uint32_t of_inode, uint64_t in_all)
{
	struct slu_inode *inode;

	assert_int_equal(slu_inode_get(k->fs->ns, ino, &inode), 0);
	assert_int_equal(inode->nopen, of_inode);
	assert_int_equal(inode->nopen_write, of_inode);
	slu_inode_put(inode);
	assert_int_equal(slu_session_nopen(k->s), in_all);
}

static void a_release_of_what_is_not_open_counts_nothing(void **state)
{
	struct kernel *k = *state;
	uint64_t fh, other_fh, ino = create(k, "file", 0644, &fh);
	uint64_t other = create(k, "other", 0644, &other_fh);

	assert_int_equal(release(k, FUSE_RELEASE, ino, 0), -EBADF);
	assert_int_equal(release(k, FUSE_RELEASE, ino, UINT64_MAX), -EBADF);
	assert_int_equal(release(k, FUSE_RELEASE, ino, fh + (1ull << 32)), -EBADF);
	assert_int_equal(release(k, FUSE_RELEASE, ino, other_fh), -EBADF);
	assert_int_equal(release(k, FUSE_RELEASE, 4711, fh), -EBADF);
	assert_int_equal(release(k, FUSE_RELEASEDIR, ino, fh), 0); /* directories have no handles */
	expect_open(k, ino, 1, 2);
	expect_open(k, other, 1, 2);
	assert_int_equal(release(k, FUSE_RELEASE, ino, fh), 0);
	expect_open(k, ino, 0, 1);
	assert_int_equal(release(k, FUSE_RELEASE, ino, fh), -EBADF);
	expect_open(k, ino, 0, 1);
	assert_int_equal(release(k, FUSE_RELEASE, other, other_fh), 0);
	expect_open(k, other, 0, 0);
}

/* Sent before the first is answered, so that several workers have them at the same time. */
static void of_many_releases_of_a_handle_one_counts(void **state)
{
	struct kernel *k = *state;
	uint64_t fh, ino, unique;

	for (unsigned int i = 0; i < 200; i++) {
		struct fuse_release_in in = {0};
		unsigned int closed = 0;

		ino = create(k, "file", 0644, &fh);
		in.fh = fh;
		for (unsigned int n = 0; n < 8; n++)
			post_raw(k, FUSE_RELEASE, ino, &in, sizeof(in), NULL, 0);
		for (unsigned int n = 0; n < 8; n++) {
			assert_true(receive(k, &unique));
			assert_true(k->error == 0 || k->error == -EBADF);
			closed += k->error == 0;
		}
		assert_int_equal(closed, 1);
		expect_open(k, ino, 0, 0);
	}
}

static void one_setattr_can_change_size_and_mode(void **state)
{
	struct kernel *k = *state;
	struct fuse_setattr_in in = {
		.valid = FATTR_SIZE | FATTR_MODE | FATTR_MTIME,
		.size = 100000,
		.mode = 0600,
		.mtime = 12345,
		.mtimensec = 678,
	};
	uint64_t fh, ino = create(k, "file", 0644, &fh);
	const struct fuse_attr *a;

	assert_int_equal(ask(k, FUSE_SETATTR, ino, &in, sizeof(in), NULL, 0), 0);
	a = get_attr(k, ino);
	assert_int_equal(a->size, 100000);
	assert_int_equal(a->mode, S_IFREG | 0600);
	assert_int_equal(a->mtime, 12345);
	assert_int_equal(a->mtimensec, 678);
	in.valid = FATTR_SIZE;
	in.size = UINT64_MAX;
	assert_int_equal(ask(k, FUSE_SETATTR, ino, &in, sizeof(in), NULL, 0), -EFBIG);
}

static void statx_knows_the_birth_time(void **state)
{
	struct kernel *k = *state;
	struct protocol_statx_in in = {0};
	const struct protocol_statx_out *out = (const void *)k->buf;
	uint64_t fh, ino = create(k, "file", 0644, &fh);

	assert_int_equal(ask(k, OPCODE_STATX, ino, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(k->len, sizeof(*out));
	assert_int_equal(out->stat.ino, ino);
	assert_true(out->stat.mask & 0x800); /* STATX_BTIME */
	assert_true(out->stat.btime.tv_sec > 1000000000);
	assert_int_equal(out->stat.mode, S_IFREG | 0644);
}

static void a_tmpfile_has_no_name_until_linked(void **state)
{
	struct kernel *k = *state;
	struct fuse_create_in in = {.flags = O_RDWR | O_TMPFILE, .mode = 0600};
	struct fuse_link_in link;

	assert_int_equal(ask(k, OPCODE_TMPFILE, 1, &in, sizeof(in), "x", 2), 0);
	assert_int_equal(entry(k)->attr.nlink, 0);
	link.oldnodeid = entry(k)->nodeid;
	assert_int_equal(ask(k, FUSE_LINK, 1, &link, sizeof(link), "now", 4), 0);
	assert_int_equal(entry(k)->attr.nlink, 1);
	assert_int_equal(lookup(k, 1, "now"), link.oldnodeid);
}

/* The node id that readdirplus tells of a name. */
static uint64_t listed(struct kernel *k, const char *name)
{
	struct fuse_read_in in = {.size = 8192};

	assert_int_equal(ask(k, FUSE_READDIRPLUS, 1, &in, sizeof(in), NULL, 0), 0);
	for (uint32_t off = 0; off < k->len;) {
		const struct fuse_direntplus *p = (const void *)(k->buf + off);

		if (p->dirent.namelen == strlen(name) &&
		    !memcmp(p->dirent.name, name, p->dirent.namelen))
			return p->entry_out.nodeid;
		off += (uint32_t)FUSE_DIRENTPLUS_SIZE(p);
	}
	fail_msg("%s is not listed", name);
	return 0;
}

/* Attributes that were made up would be believed, an end of the file at 0 among them. */
static void readdirplus_makes_up_no_attributes(void **state)
{
	struct kernel *k = *state;
	struct slu_key key = SLU_KEY(1, SLU_REC_DIRENT, 77ull << 16);
	uint8_t record[sizeof(struct slu_disk_dirent) + 5];
	struct slu_disk_dirent *d = (struct slu_disk_dirent *)record;
	struct slu_ticket t;
	struct slu_batch b;

	slu_put_le64(&d->ino, 500);
	d->type = S_IFREG >> 12;
	memcpy(record + sizeof(*d), "ghost", 5);
	slu_batch_init(&b);
	slu_batch_put(&b, &key, record, sizeof(record));
	assert_int_equal(slu_ticket_get(k->fs->store, &t, 1, sizeof(record), 0, NULL), 0);
	assert_int_equal(slu_store_apply(k->fs->store, &t, &b, NULL, NULL), 0);
	slu_ticket_put(&t);
	slu_batch_fini(&b);
	assert_int_equal(listed(k, "ghost"), 0);
}

static void readdirplus_counts_no_dots(void **state)
{
	struct kernel *k = *state;
	struct fuse_read_in in = {.size = 8192};
	unsigned int dots = 0, files = 0;
	uint64_t fh;

	create(k, "one", 0644, &fh);
	create(k, "two", 0644, &fh);
	assert_int_equal(ask(k, FUSE_READDIRPLUS, 1, &in, sizeof(in), NULL, 0), 0);
	for (uint32_t off = 0; off < k->len;) {
		const struct fuse_direntplus *p = (const void *)(k->buf + off);

		if (p->dirent.name[0] == '.') {
			dots++;
			assert_int_equal(p->entry_out.nodeid, 0);
		} else {
			files++;
			assert_int_equal(p->entry_out.nodeid, p->dirent.ino);
			assert_int_equal(p->entry_out.attr.mode, S_IFREG | 0644);
			assert_int_equal(p->dirent.type, S_IFREG >> 12);
		}
		assert_true(p->dirent.off != 0);
		off += (uint32_t)FUSE_DIRENTPLUS_SIZE(p);
	}
	assert_int_equal(dots, 2);
	assert_int_equal(files, 2);
}

static void a_small_buffer_takes_entries_one_by_one(void **state)
{
	struct kernel *k = *state;
	struct fuse_read_in in = {.size = 40};
	unsigned int n = 0;
	uint64_t fh;

	for (int i = 0; i < 5; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		create(k, name, 0644, &fh);
	}
	do {
		assert_int_equal(ask(k, FUSE_READDIR, 1, &in, sizeof(in), NULL, 0), 0);
		if (k->len) {
			const struct fuse_dirent *d = (const void *)k->buf;

			in.offset = d->off;
			n++;
		}
	} while (k->len && n < 100);
	assert_int_equal(n, 7);
}

static void flags_are_roots_where_they_protect(void **state)
{
	struct kernel *k = *state;
	uint32_t flags = FS_IMMUTABLE_FL, nodump = FS_NODUMP_FL;
	struct fuse_ioctl_in set = {.cmd = (uint32_t)FS_IOC_SETFLAGS, .in_size = sizeof(flags)};
	struct fuse_ioctl_in get = {.cmd = (uint32_t)FS_IOC_GETFLAGS, .out_size = sizeof(flags)};
	struct fuse_ioctl_in getx = {.cmd = (uint32_t)FS_IOC_FSGETXATTR,
				     .out_size = sizeof(struct fsxattr)};
	struct fuse_ioctl_in other = {.cmd = 0x1234};
	struct fuse_open_in open = {.flags = O_WRONLY};
	const struct fsxattr *fsx = (const void *)(k->buf + sizeof(struct fuse_ioctl_out));
	uint64_t fh, ino;

	k->uid = 1000;
	ino = create(k, "file", 0644, &fh);
	assert_int_equal(ask(k, FUSE_IOCTL, ino, &set, sizeof(set), &flags, sizeof(flags)), -EPERM);
	assert_int_equal(ask(k, FUSE_IOCTL, ino, &set, sizeof(set), &nodump, sizeof(nodump)), 0);
	k->uid = 0;
	assert_int_equal(ask(k, FUSE_IOCTL, ino, &set, sizeof(set), &flags, sizeof(flags)), 0);
	assert_int_equal(ask(k, FUSE_IOCTL, ino, &get, sizeof(get), NULL, 0), 0);
	memcpy(&flags, k->buf + sizeof(struct fuse_ioctl_out), sizeof(flags));
	assert_int_equal(flags, FS_IMMUTABLE_FL);
	assert_int_equal(ask(k, FUSE_IOCTL, ino, &getx, sizeof(getx), NULL, 0), 0);
	assert_int_equal(fsx->fsx_xflags, FS_XFLAG_IMMUTABLE);
	assert_int_equal(ask(k, FUSE_OPEN, ino, &open, sizeof(open), NULL, 0), -EPERM);
	assert_int_equal(ask(k, FUSE_IOCTL, ino, &other, sizeof(other), NULL, 0), -ENOTTY);
	flags = 0x40000000;
	assert_int_equal(ask(k, FUSE_IOCTL, ino, &set, sizeof(set), &flags, sizeof(flags)),
			 -EOPNOTSUPP);
}

static void xattrs_come_whole_or_as_a_length(void **state)
{
	struct kernel *k = *state;
	struct fuse_setxattr_in set = {.size = 5};
	struct fuse_getxattr_in get = {.size = 0};
	uint64_t fh, ino = create(k, "file", 0644, &fh);

	assert_int_equal(ask(k, FUSE_SETXATTR, ino, &set, sizeof(set), "user.a\0hello", 12), 0);
	assert_int_equal(ask(k, FUSE_GETXATTR, ino, &get, sizeof(get), "user.a", 7), 0);
	assert_int_equal(((const struct fuse_getxattr_out *)k->buf)->size, 5);
	get.size = 100;
	assert_int_equal(ask(k, FUSE_GETXATTR, ino, &get, sizeof(get), "user.a", 7), 0);
	assert_int_equal(k->len, 5);
	assert_memory_equal(k->buf, "hello", 5);
	get.size = 2;
	assert_int_equal(ask(k, FUSE_GETXATTR, ino, &get, sizeof(get), "user.a", 7), -ERANGE);
	assert_int_equal(ask(k, FUSE_GETXATTR, ino, &get, sizeof(get), "user.b", 7), -ENODATA);
	get.size = 100;
	assert_int_equal(ask(k, FUSE_LISTXATTR, ino, &get, sizeof(get), NULL, 0), 0);
	assert_int_equal(k->len, 7);
	assert_memory_equal(k->buf, "user.a", 7);
	assert_int_equal(ask(k, FUSE_REMOVEXATTR, ino, "user.a", 7, NULL, 0), 0);
	assert_int_equal(ask(k, FUSE_REMOVEXATTR, ino, "user.a", 7, NULL, 0), -ENODATA);
}

/* ------------------------------------------------------------------ data */

static void what_was_written_is_read(void **state)
{
	struct kernel *k = *state;
	char data[50000];
	uint64_t fh, ino = create(k, "file", 0644, &fh);

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 7 + i / 251);
	assert_int_equal(write_at(k, ino, fh, 1000, data, sizeof(data), 0), 0);
	assert_int_equal(((const struct fuse_write_out *)k->buf)->size, sizeof(data));
	assert_int_equal(read_at(k, ino, fh, 0, MAX_WRITE), 0);
	assert_int_equal(k->len, 1000 + sizeof(data));
	assert_memory_equal(k->buf + 1000, data, sizeof(data));
	assert_int_equal(k->buf[999], 0);
	assert_int_equal(read_at(k, ino, fh, 51000, 4096), 0);
	assert_int_equal(k->len, 0);
	/* 13 blocks of 4,096 in units of 512 */
	assert_int_equal(get_attr(k, ino)->blocks, 13 * 8);
	assert_int_equal(get_attr(k, ino)->size, 51000);
}

static void the_kernels_own_pages_need_no_handle(void **state)
{
	struct kernel *k = *state;
	char page[4096];
	uint64_t fh, ino = create(k, "file", 0644, &fh);

	memset(page, 'k', sizeof(page));
	assert_int_equal(write_at(k, ino, 12345678, 0, page, sizeof(page), FUSE_WRITE_CACHE), 0);
	assert_int_equal(read_at(k, ino, fh, 0, 4096), 0);
	assert_memory_equal(k->buf, page, sizeof(page));
}

static void a_kill_flag_takes_setuid(void **state)
{
	struct kernel *k = *state;
	uint64_t fh, ino = create(k, "file", 06755, &fh);

	assert_int_equal(write_at(k, ino, fh, 0, "x", 1, 0), 0);
	assert_int_equal(get_attr(k, ino)->mode, S_IFREG | 06755);
	assert_int_equal(write_at(k, ino, fh, 0, "x", 1, FUSE_WRITE_KILL_SUIDGID), 0);
	assert_int_equal(get_attr(k, ino)->mode, S_IFREG | 0755);
}

static void an_open_that_truncates_takes_setuid(void **state)
{
	struct kernel *k = *state;
	struct fuse_open_in in = {.flags = O_WRONLY | O_TRUNC,
				  .open_flags = FUSE_OPEN_KILL_SUIDGID};
	uint64_t fh, ino = create(k, "file", 06755, &fh);

	assert_int_equal(write_at(k, ino, fh, 0, "xyz", 3, 0), 0);
	assert_int_equal(ask(k, FUSE_OPEN, ino, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(get_attr(k, ino)->mode, S_IFREG | 0755);
	assert_int_equal(get_attr(k, ino)->size, 0);
}

static void fallocate_takes_setuid_but_not_from_root(void **state)
{
	struct kernel *k = *state;
	struct fuse_fallocate_in in = {.length = 8192};
	uint64_t ino = create(k, "file", 06755, &in.fh);

	assert_int_equal(ask(k, FUSE_FALLOCATE, ino, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(get_attr(k, ino)->mode, S_IFREG | 06755);
	k->uid = 1000;
	assert_int_equal(ask(k, FUSE_FALLOCATE, ino, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(get_attr(k, ino)->mode, S_IFREG | 0755);
	k->uid = 0;
}

/* ------------------------------------------------------------------ parking and the end */

static void every_parked_request_is_answered_before_the_end(void **state)
{
	struct kernel *k = *state;
	struct fuse_fsync_in in = {0};
	uint64_t ino, unique, answered = 0;
	struct pollfd p = {.fd = k->fd, .events = POLLIN};

	ino = create(k, "file", 0644, &in.fh);
	assert_int_equal(write_at(k, ino, in.fh, 0, "x", 1, 0), 0);
	slu_simdisk_latency(k->disk, 5 * SLU_NS_PER_MS);
	for (int i = 0; i < 40; i++)
		post_raw(k, FUSE_FSYNC, ino, &in, sizeof(in), NULL, 0);
	/* This one comes after them and need not wait for them; all 40 are read before it. */
	post_raw(k, FUSE_STATFS, 1, NULL, 0, NULL, 0);
	assert_true(receive(k, &unique));
	assert_int_equal(k->error, 0);
	answered++;
	slu_session_stop(k->s);
	while (poll(&p, 1, 0) == 1 && receive(k, &unique)) {
		assert_int_equal(k->error, 0);
		answered++;
	}
	slu_simdisk_latency(k->disk, 0);
	/* What was read has been answered; what was not is still in the socket. */
	assert_int_equal(atomic_load(&slu_session_stats(k->s)->ops[FUSE_FSYNC].count) +
				 atomic_load(&slu_session_stats(k->s)->ops[FUSE_STATFS].count),
			 answered);
}

static void the_slowest_request_of_an_inode_is_told_to_who_watches(void **state)
{
	struct kernel *k = *state;
	struct slu_slow_request got[SLU_SLOW_MAX];
	struct fuse_fsync_in in = {0};
	struct slu_slow_watch w;
	uint64_t ino = create(k, "file", 0644, &in.fh);
	unsigned int n;

	slu_session_slow_watch(k->s, &w);
	assert_int_equal(write_at(k, ino, in.fh, 0, "12345", 5, 0), 0);
	assert_int_equal(read_at(k, ino, in.fh, 1, 3), 0);
	slu_simdisk_latency(k->disk, 20 * SLU_NS_PER_MS);
	assert_int_equal(ask(k, FUSE_FSYNC, ino, &in, sizeof(in), NULL, 0), 0);
	slu_simdisk_latency(k->disk, 0);
	/* It is counted when it has been answered. */
	slu_session_stop(k->s);
	assert_int_equal(atomic_load(&slu_session_stats(k->s)->read_bytes), 3);
	n = slu_session_slow_take(k->s, &w, got);
	assert_true(n >= 1);
	assert_int_equal(got[0].ino, ino);
	assert_int_equal(got[0].opcode, FUSE_FSYNC);
	for (unsigned int i = 1; i < n; i++)
		assert_true(got[i].ino != ino);
	slu_session_slow_unwatch(k->s, &w);
}

/* More than the cache takes in at once, on a slow disk, as fast as the socket goes. */
static void writes_that_wait_are_parked_and_arrive_whole(void **state)
{
	enum { N = 300 };
	static char block[MAX_WRITE];
	struct kernel *k = *state;
	uint64_t fh, ino = create(k, "file", 0644, &fh), unique;
	struct fuse_write_in in = {.fh = fh, .size = MAX_WRITE};

	slu_simdisk_latency(k->disk, 20 * SLU_NS_PER_MS);
	for (unsigned int i = 0; i < N; i++) {
		memset(block, (int)(i % 251), sizeof(block));
		in.offset = (uint64_t)i * MAX_WRITE;
		post_raw(k, FUSE_WRITE, ino, &in, sizeof(in), block, sizeof(block));
	}
	for (unsigned int i = 0; i < N; i++) {
		assert_true(receive(k, &unique));
		assert_int_equal(k->error, 0);
		assert_int_equal(((const struct fuse_write_out *)k->buf)->size, MAX_WRITE);
	}
	slu_simdisk_latency(k->disk, 0);
	assert_true(atomic_load(&slu_session_stats(k->s)->parked) > 0);
	for (unsigned int i = 0; i < N; i++) {
		memset(block, (int)(i % 251), sizeof(block));
		assert_int_equal(read_at(k, ino, fh, (uint64_t)i * MAX_WRITE, MAX_WRITE), 0);
		assert_int_equal(k->len, MAX_WRITE);
		assert_memory_equal(k->buf, block, MAX_WRITE);
	}
}

static void the_end_of_the_device_ends_the_session(void **state)
{
	struct kernel *k = *state;
	int err = -1;

	shutdown(k->fd, SHUT_RDWR);
	for (int i = 0; i < 1000 && !atomic_load(&k->ended); i++)
		slu_sleep_ns(10 * SLU_NS_PER_MS);
	assert_int_equal(atomic_load(&k->ended), 1);
	assert_true(slu_session_ended(k->s, &err));
	assert_int_equal(err, 0);
}

static void destroy_is_answered_when_all_is_on_disk(void **state)
{
	struct kernel k;
	struct pollfd p;
	uint64_t unique, want;

	start(&k, &(struct slu_session_opts){.writeback = true});
	assert_int_equal(init_with(&k, 7, 45, KERNEL_FLAGS), 0);
	want = post_raw(&k, FUSE_DESTROY, 0, NULL, 0, NULL, 0);
	p = (struct pollfd){.fd = k.fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 100), 0);
	assert_int_equal(atomic_load(&k.ended), 1);
	slu_session_stop(k.s);
	assert_int_equal(slu_fs_unmount(k.fs), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	slu_session_free(k.s);
	assert_true(receive(&k, &unique));
	assert_int_equal(unique, want);
	assert_int_equal(k.error, 0);
	close(k.fd);
	slu_simdisk_free(k.disk);
}

/* ------------------------------------------------------------------ anything at all */

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/*
 * Messages with a true header and random rest. Each must be answered exactly once (or not at all
 * where no answer is due), and the session must go on.
 */
static void random_messages_are_each_answered_once(void **state)
{
	struct kernel *k = *state;
	uint64_t x = 0x9e3779b97f4a7c15, fh;
	unsigned char arg[256];

	create(k, "victim", 0644, &fh);
	for (unsigned int i = 0; i < 5000; i++) {
		uint32_t opcode = (uint32_t)(next_random(&x) % SLU_OP_MAX);
		const struct op *op = op_find(opcode);
		size_t len = next_random(&x) % sizeof(arg);
		uint64_t node = next_random(&x) % 4;

		if (opcode == FUSE_DESTROY)
			continue;
		for (size_t j = 0; j < len; j++) {
			uint64_t r = next_random(&x);

			/* small numbers and letters get further than noise */
			arg[j] = r % 3 == 0 ? 0 : r % 3 == 1 ? (unsigned char)(r >> 8) % 8 : 'a';
		}
		if (op && (op->flags & OP_NOREPLY)) {
			/* a forget of what was never looked up is not ours to survive, but short */
			post_raw(k, opcode, node, arg, slu_min(len, (size_t)4), NULL, 0);
			continue;
		}
		(void)ask(k, opcode, node, arg, len, NULL, 0);
	}
	assert_int_equal(ask(k, FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
	assert_in_range(slu_session_nopen(k->s), 0, 5000);
}

/* With -o sync: what was written and is not durable is no success, however much it was. */
static void a_sync_write_that_fails_says_so(void **state)
{
	struct kernel *k = *state;
	struct slu_simdisk_fault fault = {.op = SLU_IO_WRITE, .nth = 1, .times = UINT64_MAX};
	static char block[4096];
	uint64_t fh, ino = create(k, "file", 0644, &fh);

	k->fs->sync = true;
	assert_int_equal(write_at(k, ino, fh, 0, block, sizeof(block), 0), 0);
	slu_simdisk_fault(k->disk, &fault);
	assert_int_equal(write_at(k, ino, fh, 0, block, sizeof(block), 0), -EIO);
	slu_simdisk_fault(k->disk, NULL);
	assert_int_equal(write_at(k, ino, fh, 0, block, sizeof(block), 0), 0);
}

/* And who waits for the disk with one keeps no worker. */
static void sync_writes_are_parked(void **state)
{
	struct kernel *k = *state;
	static char block[4096];
	uint64_t fh, ino = create(k, "file", 0644, &fh), unique, want;
	struct fuse_write_in in = {.fh = fh, .size = sizeof(block)};
	struct fuse_getattr_in get = {0};
	enum { N = 8 }; /* more than there are workers */

	k->fs->sync = true;
	slu_blockio_suspend(k->fs->bio);
	for (unsigned int i = 0; i < N; i++) {
		in.offset = i * sizeof(block);
		post_raw(k, FUSE_WRITE, ino, &in, sizeof(in), block, sizeof(block));
	}
	want = post_raw(k, FUSE_GETATTR, ino, &get, sizeof(get), NULL, 0);
	assert_true(receive(k, &unique)); /* or its time-out */
	assert_int_equal(unique, want);
	slu_blockio_resume(k->fs->bio);
	for (unsigned int i = 0; i < N; i++)
		assert_true(receive(k, &unique));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define BARE(f) cmocka_unit_test_setup_teardown(f, setup_bare, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BARE(init_asks_for_what_one_writer_allows),
		BARE(init_negotiates_a_newer_major_down),
		BARE(init_refuses_what_is_too_old),
		BARE(init_refuses_a_kernel_without_killpriv),
		BARE(nothing_is_served_before_init),
		CASE(unknown_requests_get_enosys),
		CASE(short_arguments_get_einval),
		CASE(names_are_checked),
		CASE(lengths_are_checked),
		CASE(a_message_that_lies_about_its_length_is_dropped),
		CASE(a_missing_name_is_kept_as_missing),
		CASE(a_created_file_is_found),
		CASE(create_opens_what_is_there_unless_exclusive),
		CASE(a_release_of_what_is_not_open_counts_nothing),
		CASE(of_many_releases_of_a_handle_one_counts),
		CASE(one_setattr_can_change_size_and_mode),
		CASE(statx_knows_the_birth_time),
		CASE(a_tmpfile_has_no_name_until_linked),
		CASE(readdirplus_counts_no_dots),
		CASE(readdirplus_makes_up_no_attributes),
		CASE(a_sync_write_that_fails_says_so),
		CASE(sync_writes_are_parked),
		CASE(a_small_buffer_takes_entries_one_by_one),
		CASE(flags_are_roots_where_they_protect),
		CASE(xattrs_come_whole_or_as_a_length),
		CASE(what_was_written_is_read),
		CASE(the_kernels_own_pages_need_no_handle),
		CASE(a_kill_flag_takes_setuid),
		CASE(an_open_that_truncates_takes_setuid),
		CASE(fallocate_takes_setuid_but_not_from_root),
		CASE(every_parked_request_is_answered_before_the_end),
		CASE(the_slowest_request_of_an_inode_is_told_to_who_watches),
		CASE(writes_that_wait_are_parked_and_arrive_whole),
		CASE(the_end_of_the_device_ends_the_session),
		cmocka_unit_test(destroy_is_answered_when_all_is_on_disk),
		CASE(random_messages_are_each_answered_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
