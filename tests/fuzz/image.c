/* SPDX-License-Identifier: MIT */
/*
 * An image from a stranger: the input's patches on the sample volume, checked, mounted, used to
 * the full and unmounted. At worst it may not be mounted, or answer with EIO. One that is not sound is
 * repaired too: then it is sound, and all of it works.
 *
 * Check and mount have to agree: where check finds nothing wrong, everything works, and check finds
 * nothing wrong afterwards either.
 */
#include "image.h"

struct run {
	const uint8_t *data;
	size_t size;
};

/* Whether check finds nothing to complain of. */
static bool is_sound(struct slu_simdisk *disk, bool print)
{
	struct slu_check_result result;

	return !fuzz_check(disk, print, &result) && !result.problems && !result.incomplete;
}

/* Whether all of it worked. */
static bool mount_and_use(struct slu_simdisk *disk, bool readonly)
{
	struct slu_fs_opts opts = {.readonly = readonly, .cache_size = 16 << 20};
	struct slu_blockio *bio = fuzz_open_disk(disk, readonly);
	const char *why = NULL;
	struct slu_fs *fs;
	bool eio;
	int err;

	err = slu_fs_mount(bio, &opts, &fs, &why);
	if (err) {
		if (err > 0 || !why)
			fuzz_fail("mount: %d, without a reason", err);
		slu_blockio_close(bio);
		return false;
	}
	eio = image_use(fs);
	err = slu_fs_unmount(fs);
	return !eio && !err;
}

static void repair(const struct run *r)
{
	struct slu_simdisk *disk = slu_simdisk_new(IMAGE_BLOCKS, 1);
	struct slu_repair_opts opts = {0};
	struct slu_repair_result result;
	struct slu_blockio *bio;
	const char *why = NULL;
	int err;

	slu_simdisk_inline(disk, true);
	volume_write(disk, r->data, r->size);
	bio = fuzz_open_disk(disk, false);
	err = slu_repair(bio, &opts, &result, &why);
	slu_blockio_close(bio);
	if (!err) {
		if (!is_sound(disk, true))
			fuzz_fail("a repaired volume is not sound");
		if (!mount_and_use(disk, false))
			fuzz_fail("something of a repaired volume does not work");
		if (!is_sound(disk, true))
			fuzz_fail("a repaired volume was damaged by being used");
	}
	slu_simdisk_free(disk);
}

static void run(void *arg)
{
	const struct run *r = arg;
	struct slu_simdisk *disk = slu_simdisk_new(IMAGE_BLOCKS, 1);
	bool sound, worked;

	slu_simdisk_inline(disk, true);
	volume_write(disk, r->data, r->size);
	sound = is_sound(disk, !r->size);
	if (!sound && !r->size)
		fuzz_fail("the sample volume itself is not sound");
	worked = mount_and_use(disk, false);
	if (sound && !worked)
		fuzz_fail("check finds nothing wrong, and yet something does not work");
	if (sound && !is_sound(disk, true))
		fuzz_fail("a sound volume was damaged by being used");
	/* What that has made of it, once more, by somebody who may not change it. */
	worked = mount_and_use(disk, true);
	if (sound && !worked)
		fuzz_fail("a sound volume cannot be read");
	slu_simdisk_free(disk);
	if (!sound)
		repair(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run r = {data, size};

	fuzz_simulate(1, 0, run, &r);
	return 0;
}
