/* SPDX-License-Identifier: MIT */
/*
 * One workload over the whole stack, run again and again, each time with another request to the
 * disk, another allocation, or the room on the host going wrong. Promised is, whatever fails: what
 * fsync accepted stays; what it did not accept is reported to every handle; what is in memory can
 * be read; the volume is sound afterwards.
 *
 * All of it in a simulation, so that the n-th request is the same one in every run and delays take
 * no time.
 */
#include "fs_faults_world.h"

/* ------------------------------------------------------------------ writes and flushes */

static void disk_fault(void *arg)
{
	struct world *w = arg;

	world_begin(w);
	slu_simdisk_fault(w->disk, &w->fault);
	world_workload(w);
	w->hit = slu_simdisk_fault_hits(w->disk) > 0;
	world_check_memory(w);
	if (w->hit && (w->fault.op == SLU_IO_FLUSH || w->fault.nblocks))
		must(w->readonly && w->worst);
	world_end(w);
	world_check(w);
	world_check_after(w);
	slu_simdisk_free(w->disk);
}

/* Every n-th one, until there are no more; of thousands (a mount fills its pools) not each. */
static void every_request(void (*fn)(void *), const struct slu_simdisk_fault *fault,
			  unsigned int least)
{
	for (unsigned int ending = 0; ending < NENDINGS; ending++) {
		uint64_t nth = 0;
		bool hit;

		do {
			struct world *w = calloc(1, sizeof(*w));

			w->fault = *fault;
			nth += nth < 64 ? 1 : nth / 8;
			w->fault.nth = nth;
			w->ending = ending;
			w->kernel = (nth + ending) % 2;
			world_run_in_sim(fn, w);
			hit = w->hit;
			free(w);
		} while (hit);
		assert_in_range(nth, least, 10000);
	}
}

static void a_failed_write_loses_nothing(void **state)
{
	static const int kinds[] = {SLU_FAULT_ERROR, SLU_FAULT_SUBMIT_ERROR, SLU_FAULT_SHORT};

	for (size_t i = 0; i < slu_array_size(kinds); i++)
		every_request(disk_fault,
			      &(struct slu_simdisk_fault){.op = SLU_IO_WRITE, .kind = kinds[i]},
			      15);
}

static void a_failed_flush_turns_the_volume_readonly(void **state)
{
	every_request(disk_fault,
		      &(struct slu_simdisk_fault){.op = SLU_IO_FLUSH, .kind = SLU_FAULT_ERROR}, 8);
}

static void a_failed_superblock_write_turns_the_volume_readonly(void **state)
{
	static const int kinds[] = {SLU_FAULT_ERROR, SLU_FAULT_SUBMIT_ERROR, SLU_FAULT_SHORT};

	for (size_t i = 0; i < slu_array_size(kinds); i++)
		every_request(disk_fault,
			      &(struct slu_simdisk_fault){.op = SLU_IO_WRITE,
							  .kind = kinds[i],
							  .nblocks = 2},
			      5);
}

/* ------------------------------------------------------------------ silent damage */

/* How many bits differ from what was written, where the file can be read. */
static unsigned int wrong_bits(struct world *w, const struct file *f, const char *name)
{
	uint8_t *buf = malloc(FILE_MAX);
	unsigned int v = f->nversions - 1, bits = 0;
	struct slu_attr attr;
	int64_t n;

	if (!slu_ns_lookup(w->fs->ns, &w->ctx, SLU_INO_ROOT, name, &attr)) {
		n = world_read_file(w, attr.ino, buf);
		must(n == -EIO || n == (int64_t)f->size[v]);
		for (int64_t p = 0; p < n; p++)
			bits += (unsigned int)__builtin_popcount(buf[p] ^ f->data[v][p]);
		slu_ns_forget(w->fs->ns, attr.ino, 1);
	}
	free(buf);
	return bits;
}

/* File data has no checksums, so a bit may be wrong; of nodes and superblocks none is believed. */
static void silent_fault(void *arg)
{
	struct world *w = arg;
	unsigned int bits;

	world_begin(w);
	slu_simdisk_fault(w->disk, &w->fault);
	world_workload(w);
	w->hit = slu_simdisk_fault_hits(w->disk) > 0;
	world_end(w);
	if (world_mount(w) == 0) {
		bits = wrong_bits(w, &w->files[0], "a") + wrong_bits(w, &w->files[1], "c") +
		       wrong_bits(w, &w->files[2], "late");
		must(w->fault.kind != SLU_FAULT_BITFLIP || bits <= 1);
		slu_fs_unmount(w->fs);
	} else {
		must(w->hit);
	}
	slu_simdisk_free(w->disk);
}

static void silent_damage_is_never_worse_than_what_was_damaged(void **state)
{
	static const int kinds[] = {SLU_FAULT_LOST, SLU_FAULT_MISDIRECTED, SLU_FAULT_BITFLIP};

	for (size_t i = 0; i < slu_array_size(kinds); i++)
		every_request(silent_fault,
			      &(struct slu_simdisk_fault){.op = SLU_IO_WRITE, .kind = kinds[i]},
			      15);
}

/* ------------------------------------------------------------------ reads */

/* Whatever goes wrong once is asked again by the next who needs it. */
static void read_fault(void *arg)
{
	struct world *w = arg;
	uint8_t *buf = malloc(FILE_MAX);
	struct slu_attr attr;
	int64_t n;

	world_begin(w);
	world_workload(w);
	world_close_all(w);
	must(slu_fs_unmount(w->fs) == 0);
	slu_simdisk_fault(w->disk, &w->fault);
	if (world_mount(w) == 0) {
		for (unsigned int i = 0; i < NFILES; i++) {
			const char *name = i == 1 ? "c" : w->files[i].name;

			if (world_note(w, slu_ns_lookup(w->fs->ns, &w->ctx, SLU_INO_ROOT, name,
							&attr)))
				continue;
			n = world_read_file(w, attr.ino, buf);
			world_note(w, n < 0 ? (int)n : 0);
			slu_ns_forget(w->fs->ns, attr.ino, 1);
		}
		must(!w->worst || w->worst == -EIO);
		slu_simdisk_fault(w->disk, NULL);
		must(slu_fs_unmount(w->fs) == 0);
	}
	w->hit = slu_simdisk_fault_hits(w->disk) > 0 || w->worst;
	slu_simdisk_fault(w->disk, NULL);
	world_check(w);
	world_check_after(w);
	free(buf);
	slu_simdisk_free(w->disk);
}

static void a_failed_read_is_an_error_once(void **state)
{
	static const int kinds[] = {SLU_FAULT_ERROR, SLU_FAULT_SUBMIT_ERROR, SLU_FAULT_SHORT,
				    SLU_FAULT_LOST,  SLU_FAULT_MISDIRECTED,  SLU_FAULT_BITFLIP};

	for (size_t i = 0; i < slu_array_size(kinds); i++)
		every_request(read_fault,
			      &(struct slu_simdisk_fault){.op = SLU_IO_READ, .kind = kinds[i]}, 3);
}

/* ------------------------------------------------------------------ all at once */

static void device_gone(void *arg)
{
	struct world *w = arg;
	struct slu_simdisk *after;
	int err;

	world_begin(w);
	w->gone_at = w->fault.nth;
	world_workload(w);
	w->hit = w->step >= w->gone_at;
	world_check_memory(w);
	world_close_all(w);
	err = slu_fs_unmount(w->fs);
	must(!w->hit || err);
	after = slu_simdisk_clone(w->disk);
	slu_simdisk_free(w->disk);
	w->disk = after;
	world_check(w);
	world_check_after(w);
	slu_simdisk_free(w->disk);
}

static void a_device_that_goes_takes_only_what_was_not_accepted(void **state)
{
	every_request(device_gone, &(struct slu_simdisk_fault){0}, 10);
}

static void host_full(void *arg)
{
	struct world *w = arg;

	world_begin(w);
	slu_simdisk_host_space(w->disk, (w->fault.nth - 1) * (w->fault.nth - 1));
	world_workload(w);
	w->hit = w->worst != 0;
	must(!w->worst || w->worst == -ENOSPC || w->worst == -ENOENT);
	must(!w->readonly);
	world_check_memory(w);
	slu_simdisk_host_space(w->disk, UINT64_MAX);
	/* It heals when room returns, without being mounted anew. */
	slu_sleep_ns(60 * SLU_NS_PER_SEC);
	must(slu_fs_sync(w->fs) == 0);
	world_sync_all(w);
	world_check_memory(w);
	must(!w->files[0].exists || w->files[0].acked == w->files[0].nversions - 1);
	world_end(w);
	world_check(w);
	world_check_after(w);
	slu_simdisk_free(w->disk);
}

static void a_full_host_is_enospc_until_room_returns(void **state)
{
	every_request(host_full, &(struct slu_simdisk_fault){0}, 3);
}

/* ------------------------------------------------------------------ memory */

static void no_memory(void *arg)
{
	struct world *w = arg;

	world_begin(w);
	slu_alloc_fail_nth(w->fault.nth);
	world_workload(w);
	w->hit = slu_alloc_count() >= w->fault.nth;
	slu_alloc_fail_nth(0);
	must(!w->worst || w->worst == -ENOMEM || w->worst == -ENOENT);
	must(!w->readonly);
	world_check_memory(w);
	world_sync_all(w);
	must(w->files[0].acked == w->files[0].nversions - 1);
	world_end(w);
	world_check(w);
	world_check_after(w);
	slu_simdisk_free(w->disk);
}

static void no_memory_breaks_nothing(void **state)
{
	every_request(no_memory, &(struct slu_simdisk_fault){0}, 40);
}

static void no_memory_mount(void *arg)
{
	struct world *w = arg;
	int err;

	world_begin(w);
	world_workload(w);
	world_close_all(w);
	must(slu_fs_unmount(w->fs) == 0);
	w->mount_nth = w->fault.nth;
	err = world_mount(w);
	must(!err || err == -ENOMEM);
	w->hit = slu_alloc_count() >= w->fault.nth;
	w->mount_nth = 0;
	slu_alloc_fail_nth(0);
	if (!err)
		must(slu_fs_unmount(w->fs) == 0);
	world_check_after(w);
	slu_simdisk_free(w->disk);
}

static void no_memory_to_mount_is_an_error(void **state)
{
	every_request(no_memory_mount, &(struct slu_simdisk_fault){0}, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failed_write_loses_nothing),
		cmocka_unit_test(a_failed_flush_turns_the_volume_readonly),
		cmocka_unit_test(a_failed_superblock_write_turns_the_volume_readonly),
		cmocka_unit_test(silent_damage_is_never_worse_than_what_was_damaged),
		cmocka_unit_test(a_failed_read_is_an_error_once),
		cmocka_unit_test(a_device_that_goes_takes_only_what_was_not_accepted),
		cmocka_unit_test(a_full_host_is_enospc_until_room_returns),
		cmocka_unit_test(no_memory_breaks_nothing),
		cmocka_unit_test(no_memory_to_mount_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
