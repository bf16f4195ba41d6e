/* SPDX-License-Identifier: MIT */
/*
 * copy_file_range: reads pages of one file and writes them to another, without the kernel in
 * between. Holes stay holes where the target has nothing there yet.
 */
#include "fs_private.h"

#define COPY_STEP (1u << 20) /* bytes */

static bool ranges_overlap(uint64_t a, uint64_t b, uint64_t len)
{
	return a < b + len && b < a + len;
}

static int copy_step(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino_in, uint64_t pos_in,
		     uint64_t ino_out, uint64_t pos_out, uint64_t len, uint64_t *ret_done)
{
	struct slu_write_result written;
	struct slu_source_buffer src;
	struct slu_read_vec vec;
	int err = slu_fs_read(fs, ctx, ino_in, UINT64_MAX, pos_in, len, false, &vec);

	*ret_done = 0;
	if (err)
		return err;
	if (vec.len) {
		slu_source_buffer_init(&src, vec.iov, vec.niov);
		err = slu_fs_write(fs, ctx, ino_out, UINT64_MAX, &src.source, pos_out, vec.len, 0,
				   false, &written);
		*ret_done = written.done;
	}
	slu_read_done(&vec);
	return err;
}

/* Where the data of the source goes on; a hole is skipped only over nothing in the target. */
static int skip_hole(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino_in, uint64_t pos_in,
		     struct slu_inode *out, uint64_t pos_out, uint64_t len, uint64_t *ret_skip)
{
	uint64_t data;
	int err;

	*ret_skip = 0;
	if (pos_out < slu_aspace_size(&out->data))
		return 0;
	err = slu_fs_seek(fs, ctx, ino_in, pos_in, SEEK_DATA, &data);
	if (err == -ENXIO)
		data = pos_in + len;
	else if (err)
		return err;
	*ret_skip = slu_min(data - pos_in, len);
	return 0;
}

static int copy(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino_in, uint64_t pos_in,
		struct slu_inode *out, uint64_t pos_out, uint64_t len, uint64_t *ret_done)
{
	uint64_t done = 0, skip, step;
	int err = 0;

	while (done < len) {
		err = skip_hole(fs, ctx, ino_in, pos_in + done, out, pos_out + done, len - done,
				&skip);
		if (err)
			break;
		done += skip;
		if (skip) {
			err = resize_grow(fs, ctx, out, pos_out + done);
			if (err)
				break;
			continue;
		}
		err = copy_step(fs, ctx, ino_in, pos_in + done, out->data.ino, pos_out + done,
				slu_min(len - done, COPY_STEP), &step);
		done += step;
		if (err || !step)
			break;
	}
	*ret_done = done;
	return done ? 0 : err;
}

int slu_fs_copy_range(struct slu_fs *fs, struct slu_ctx *ctx, uint64_t ino_in, uint64_t pos_in,
		      uint64_t ino_out, uint64_t pos_out, uint64_t len, uint64_t *ret_done)
{
	struct slu_inode *in, *out;
	int err;

	*ret_done = 0;
	if (pos_in > INT64_MAX || pos_out > INT64_MAX || len > INT64_MAX - pos_out)
		return -EINVAL;
	err = fs_may_wait(ctx, "copy");
	if (err)
		return err;
	err = slu_inode_get(fs->ns, ino_in, &in);
	if (err)
		return err;
	uint64_t size = slu_aspace_size(&in->data);
	len = pos_in < size ? slu_min(len, size - pos_in) : 0;
	slu_inode_put(in);
	if (ino_in == ino_out && ranges_overlap(pos_in, pos_out, len))
		return -EINVAL;
	err = slu_inode_get(fs->ns, ino_out, &out);
	if (err)
		return err;
	err = copy(fs, ctx, ino_in, pos_in, out, pos_out, len, ret_done);
	slu_inode_put(out);
	return err;
}
