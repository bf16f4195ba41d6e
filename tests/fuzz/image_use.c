/* SPDX-License-Identifier: MIT */
/*
 * Uses a mounted volume as a stranger's would be used: looks at everything, then changes
 * everything. Any error is fine but one that is none.
 */
#include "image.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_DEPTH 8u
#define MAX_SEEN  96u
#define MAX_NAMES 40u
#define BUF_SIZE  (80u << 10)

struct name {
	uint64_t ino;
	char name[256];
};

struct seen {
	uint64_t parent, ino;
	uint32_t mode;
	uint64_t size;
	char name[256];
};

struct use {
	struct slu_fs *fs;
	struct slu_ctx ctx;
	bool eio;
	unsigned int nseen;
	struct seen seen[MAX_SEEN];
	uint8_t buf[BUF_SIZE];
};

static int note(struct use *u, int err)
{
	if (err > 0 || err < -4095)
		fuzz_fail("an error that is none: %d", err);
	if (err == -EAGAIN)
		fuzz_fail("-EAGAIN for a caller that may wait");
	if (err == -EIO)
		u->eio = true;
	return err;
}

/* ------------------------------------------------------------------ looking */

static void read_some(struct use *u, uint64_t ino, uint64_t fh, uint64_t pos)
{
	struct slu_read_vec vec;
	size_t n = 0;

	if (pos > INT64_MAX ||
	    note(u, slu_fs_read(u->fs, &u->ctx, ino, fh, pos, BUF_SIZE, false, &vec)))
		return;
	for (int i = 0; i < vec.niov; i++) {
		memcpy(u->buf + n, vec.iov[i].iov_base, vec.iov[i].iov_len);
		n += vec.iov[i].iov_len;
	}
	slu_read_done(&vec);
}

static void look_at_xattrs(struct use *u, uint64_t ino)
{
	char list[4096];
	ssize_t n = slu_ns_listxattr(u->fs->ns, &u->ctx, ino, NULL, 0);

	if (n < 0)
		note(u, (int)n);
	n = slu_ns_listxattr(u->fs->ns, &u->ctx, ino, list, sizeof(list));
	if (n < 0)
		note(u, (int)n);
	for (ssize_t i = 0; i < n; i += (ssize_t)strlen(list + i) + 1) {
		ssize_t len = slu_ns_getxattr(u->fs->ns, &u->ctx, ino, list + i, u->buf, BUF_SIZE);

		if (len < 0)
			note(u, (int)len);
	}
}

static void look_at_file(struct use *u, const struct seen *s)
{
	uint64_t fh, pos = 0;

	if (note(u, slu_fs_open(u->fs, &u->ctx, s->ino, O_RDONLY, &fh)))
		return;
	read_some(u, s->ino, fh, 0);
	read_some(u, s->ino, fh, s->size > 5000 ? s->size - 5000 : 0);
	for (int i = 0; i < 8; i++) {
		int whence = i % 2 ? SEEK_HOLE : SEEK_DATA;

		if (note(u, slu_fs_seek(u->fs, &u->ctx, s->ino, pos, whence, &pos)))
			break;
	}
	slu_fs_release(u->fs, s->ino, fh);
}

static void look_at(struct use *u, struct seen *s)
{
	struct slu_inode *inode;
	struct slu_attr attr;
	int n;

	if (note(u, slu_inode_get(u->fs->ns, s->ino, &inode)))
		return;
	slu_inode_attr(inode, &attr);
	slu_inode_put(inode);
	s->mode = attr.mode;
	s->size = attr.size;
	look_at_xattrs(u, s->ino);
	if (S_ISLNK(attr.mode)) {
		n = slu_ns_readlink(u->fs->ns, &u->ctx, s->ino, (char *)u->buf, BUF_SIZE);
		note(u, slu_min(n, 0));
	}
	if (S_ISREG(attr.mode))
		look_at_file(u, s);
}

struct listing {
	unsigned int n;
	struct name names[MAX_NAMES];
};

static int list_name(void *ctx, const char *name, size_t len, uint64_t cookie,
		     const struct slu_attr *attr)
{
	struct listing *l = ctx;

	if (!len || len > 255 || !cookie)
		fuzz_fail("a name of %zu bytes at cookie %llu", len, (unsigned long long)cookie);
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return 0;
	if (l->n == MAX_NAMES)
		return 1;
	l->names[l->n].ino = attr->ino;
	memcpy(l->names[l->n].name, name, len);
	l->names[l->n++].name[len] = '\0';
	return 0;
}

static void look_into(struct use *u, uint64_t dir, unsigned int depth)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (!l)
		fuzz_fail("no memory");
	note(u, slu_ns_readdir(u->fs->ns, &u->ctx, dir, 0, depth % 2, list_name, l));
	for (unsigned int i = 0; i < l->n && u->nseen < MAX_SEEN; i++) {
		struct seen *s = &u->seen[u->nseen];
		struct slu_attr attr;

		if (note(u, slu_ns_lookup(u->fs->ns, &u->ctx, dir, l->names[i].name, &attr)))
			continue;
		*s = (struct seen){.parent = dir, .ino = attr.ino};
		memcpy(s->name, l->names[i].name, sizeof(s->name));
		u->nseen++;
		look_at(u, s);
		if (S_ISDIR(s->mode) && depth < MAX_DEPTH)
			look_into(u, s->ino, depth + 1);
		slu_ns_forget(u->fs->ns, attr.ino, 1);
	}
	free(l);
}

/* ------------------------------------------------------------------ changing */

static void write_some(struct use *u, uint64_t ino, uint64_t fh, uint64_t pos, size_t len)
{
	struct iovec iov = {u->buf, len};
	struct slu_write_result res = {0};
	struct slu_source_buffer src;

	slu_source_buffer_init(&src, &iov, 1);
	note(u, slu_fs_write(u->fs, &u->ctx, ino, fh, &src.source, pos, len, 0, true, &res));
}

static void change_file(struct use *u, const struct seen *s)
{
	struct slu_attr attr;
	uint64_t fh;

	if (note(u, slu_fs_open(u->fs, &u->ctx, s->ino, O_RDWR, &fh)))
		return;
	write_some(u, s->ino, fh, 100, 6000);
	write_some(u, s->ino, fh, slu_min(s->size, (uint64_t)INT64_MAX - BUF_SIZE), 5000);
	write_some(u, s->ino, fh, 40960, 20000);
	note(u, slu_fs_fallocate(u->fs, &u->ctx, s->ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 3000, 9000));
	note(u, slu_fs_fallocate(u->fs, &u->ctx, s->ino, 0, 30000, 70000));
	note(u, slu_fs_fallocate(u->fs, &u->ctx, s->ino, FALLOC_FL_ZERO_RANGE, 50000, 10000));
	note(u, slu_fs_fsync(u->fs, &u->ctx, s->ino, fh, false));
	write_some(u, s->ino, fh, 0, 100);
	note(u, slu_fs_truncate(u->fs, &u->ctx, s->ino, s->size / 2, true, &attr));
	slu_fs_release(u->fs, s->ino, fh);
}

static void change_attributes(struct use *u, const struct seen *s)
{
	static const char name[] = "user.small";
	struct slu_attr attr = {.mode = 02755, .uid = 7, .mtime = {.tv_sec = 1}};

	note(u, slu_ns_setattr(u->fs->ns, &u->ctx, s->ino, &attr,
			       SLU_SET_MODE | SLU_SET_UID | SLU_SET_MTIME, &attr));
	note(u, slu_ns_setxattr(u->fs->ns, &u->ctx, s->ino, name, u->buf, 3000, 0, false));
	note(u, slu_ns_setxattr(u->fs->ns, &u->ctx, s->ino, name, "x", 1, XATTR_REPLACE, false));
	note(u, slu_ns_removexattr(u->fs->ns, &u->ctx, s->ino, "user.large"));
}

static void change_names(struct use *u, const struct seen *s, unsigned int i)
{
	const struct seen *other = &u->seen[(i * 7 + 3) % u->nseen];
	struct slu_ns *ns = u->fs->ns;
	struct slu_attr attr;

	switch (i % 4) {
	case 0:
		note(u, slu_ns_rename(ns, &u->ctx, s->parent, s->name, other->parent, other->name,
				      i % 8 ? 0 : RENAME_EXCHANGE));
		break;
	case 1:
		if (!note(u, slu_ns_link(ns, &u->ctx, s->ino, SLU_INO_ROOT, "linked", &attr)))
			slu_ns_forget(ns, attr.ino, 1);
		note(u, slu_ns_unlink(ns, &u->ctx, SLU_INO_ROOT, "linked"));
		break;
	case 2:
		note(u, S_ISDIR(s->mode) ? slu_ns_rmdir(ns, &u->ctx, s->parent, s->name)
					 : slu_ns_unlink(ns, &u->ctx, s->parent, s->name));
		break;
	default:
		if (!S_ISDIR(s->mode))
			break;
		if (!note(u, slu_ns_mknod(ns, &u->ctx, s->ino, "new", S_IFREG | 0644, 0, &attr)))
			slu_ns_forget(ns, attr.ino, 1);
		if (!note(u, slu_ns_mknod(ns, &u->ctx, s->ino, "dir", S_IFDIR | 0755, 0, &attr)))
			slu_ns_forget(ns, attr.ino, 1);
		note(u, slu_ns_rename(ns, &u->ctx, s->parent, s->name, SLU_INO_ROOT, "moved", 0));
	}
}

bool image_use(struct slu_fs *fs)
{
	struct use *u = calloc(1, sizeof(*u));
	struct slu_statfs st;
	bool eio;

	if (!u)
		fuzz_fail("no memory");
	u->fs = fs;
	u->ctx.may_wait = true;
	look_into(u, SLU_INO_ROOT, 0);
	slu_fs_statfs(fs, &st);
	for (unsigned int i = 0; i < u->nseen; i++) {
		/* A few of many alike are enough. */
		if (S_ISREG(u->seen[i].mode) && (i < 12 || i % 8 == 0))
			change_file(u, &u->seen[i]);
		if (i < 16)
			change_attributes(u, &u->seen[i]);
		if (i == u->nseen / 2)
			note(u, slu_fs_sync(fs));
		change_names(u, &u->seen[i], i);
	}
	note(u, slu_fs_sync(fs));
	eio = u->eio;
	free(u);
	return eio;
}
