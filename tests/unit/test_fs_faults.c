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

/* ------------------------------------------------------------------ silent damage of nodes */

#define MAX_NODE_WRITES 512u

/* Names with an attribute each, and a commit for each: leaves and inner nodes, again and again. */
#define NRECORDS   48u
#define RECORD_LEN 1000u

static void record_value(unsigned int i, unsigned int version, uint8_t *value)
{
	for (unsigned int k = 0; k < RECORD_LEN; k++)
		value[k] = (uint8_t)(i * 31 + k / 100 + version * 13);
}

static void set_record(struct world *w, unsigned int i, unsigned int version)
{
	uint8_t value[RECORD_LEN];
	struct slu_attr attr;
	char name[16];

	snprintf(name, sizeof(name), "record%u", i);
	record_value(i, version, value);
	if (version == 0)
		must(!slu_ns_mknod(w->fs->ns, &w->ctx, SLU_INO_ROOT, name, S_IFREG | 0644, 0,
				   &attr));
	else
		must(!slu_ns_lookup(w->fs->ns, &w->ctx, SLU_INO_ROOT, name, &attr));
	must(!slu_ns_setxattr(w->fs->ns, &w->ctx, attr.ino, "user.x", value, RECORD_LEN, 0, false));
	slu_ns_forget(w->fs->ns, attr.ino, 1);
	must(!slu_fs_sync(w->fs));
}

/* Whether it failed with -EIO. No other answer than that and the truth will do. */
static bool eio(int64_t result, int64_t truth)
{
	must(result == truth || result == -EIO);
	return result == -EIO;
}

static bool record_true(struct world *w, unsigned int i, unsigned int version)
{
	uint8_t value[RECORD_LEN], truth[RECORD_LEN];
	struct slu_attr attr;
	char name[16];
	bool failed;

	snprintf(name, sizeof(name), "record%u", i);
	if (eio(slu_ns_lookup(w->fs->ns, &w->ctx, SLU_INO_ROOT, name, &attr), 0))
		return true;
	failed = eio(slu_ns_getxattr(w->fs->ns, &w->ctx, attr.ino, "user.x", value, RECORD_LEN),
		     RECORD_LEN);
	record_value(i, version, truth);
	must(failed || !memcmp(value, truth, RECORD_LEN));
	slu_ns_forget(w->fs->ns, attr.ino, 1);
	return failed;
}

static void mount_again(struct world *w, unsigned int version)
{
	must(!slu_fs_unmount(w->fs));
	must(!world_mount(w));
	for (unsigned int i = 0; i < NRECORDS; i++)
		must(!record_true(w, i, version));
}

static void set_records(struct world *w, unsigned int version)
{
	for (unsigned int i = 0; i < NRECORDS; i++)
		set_record(w, i, version);
}

/*
 * The same is done in each mount, so nodes are written to where they were written in the one before:
 * what a lost write leaves there is sound, of the same place in the tree, and old. All nodes are in
 * memory before any goes wrong, so that the mount in which that happens does not meet it.
 */
static void node_world_begin(struct world *w)
{
	world_begin(w);
	set_records(w, 0);
	mount_again(w, 0);
	set_records(w, 1);
	mount_again(w, 1);
}

static void node_workload(struct world *w)
{
	set_records(w, 2);
	world_workload(w);
	must(!w->worst && !w->readonly);
}

/* Which of all writes from node_world_begin to the unmount are nodes, counted from 1. */
static struct {
	uint64_t nth[MAX_NODE_WRITES];
	unsigned int n;
} node_writes;

static bool is_node(const struct slu_disk_node *node)
{
	return !slu_node_check(node, node->volume_id, slu_get_le64(&node->blkno), 0, -1, NULL,
			       NULL);
}

static void find_node_writes(void *arg)
{
	struct world *w = arg;
	uint64_t nth = 0;

	node_world_begin(w);
	slu_simdisk_record(w->disk, true);
	node_workload(w);
	world_end(w);
	node_writes.n = 0;
	for (size_t i = 0; i < slu_simdisk_nrecords(w->disk); i++) {
		struct slu_simdisk_record r;
		struct slu_simdisk *then;
		struct slu_disk_node node;

		slu_simdisk_record_at(w->disk, i, &r);
		if (r.op != SLU_IO_WRITE)
			continue;
		nth++;
		then = slu_simdisk_replay(w->disk, i + 1, 0);
		slu_simdisk_peek(then, r.blkno, &node);
		slu_simdisk_free(then);
		if (!is_node(&node) || slu_get_le64(&node.blkno) != r.blkno)
			continue;
		must(node_writes.n < MAX_NODE_WRITES);
		node_writes.nth[node_writes.n++] = nth;
	}
	slu_simdisk_free(w->disk);
}

/*
 * A node that went to a block of data has taken its place there, and data has no checksums: that
 * page is that node, whole. All else is as it was written.
 */
static bool read_true(struct world *w, const struct file *f, const char *name)
{
	unsigned int v = f->nversions - 1;
	uint8_t *buf = calloc(1, FILE_MAX);
	struct slu_attr attr;
	bool failed = eio(slu_ns_lookup(w->fs->ns, &w->ctx, SLU_INO_ROOT, name, &attr), 0);

	if (!failed) {
		failed = eio(world_read_file(w, attr.ino, buf), (int64_t)f->size[v]);
		for (uint64_t p = 0; p < f->size[v] && !failed; p += SLU_BLOCK_SIZE) {
			uint64_t n = slu_min(f->size[v] - p, SLU_BLOCK_SIZE);

			must(!memcmp(buf + p, f->data[v] + p, n) ||
			     (w->fault.kind == SLU_FAULT_MISDIRECTED && n == SLU_BLOCK_SIZE &&
			      is_node((const struct slu_disk_node *)(buf + p))));
		}
		slu_ns_forget(w->fs->ns, attr.ino, 1);
	}
	free(buf);
	return failed;
}

static bool names_true(struct world *w)
{
	static const char *const no_more[] = {"b", "gone"};
	struct slu_attr attr;
	char value[8];
	bool failed = eio(slu_ns_getxattr(w->fs->ns, &w->ctx, SLU_INO_ROOT, "user.x", value,
					  sizeof(value)),
			  5);

	must(failed || !memcmp(value, "value", 5));
	for (size_t i = 0; i < slu_array_size(no_more); i++)
		failed |= eio(slu_ns_lookup(w->fs->ns, &w->ctx, SLU_INO_ROOT, no_more[i], &attr),
			      -ENOENT);
	for (unsigned int i = 0; i < NRECORDS; i++)
		failed |= record_true(w, i, 2);
	return failed;
}

/* False: the mount was refused. *ret_failed: that, or something there is answered with -EIO. */
static bool mount_true(struct world *w, bool *ret_failed)
{
	int err = world_mount(w);

	*ret_failed = true;
	must(!err || err == -EIO);
	if (err)
		return false;
	*ret_failed = names_true(w) | read_true(w, &w->files[0], "a") |
		      read_true(w, &w->files[1], "c") | read_true(w, &w->files[2], "late");
	return true;
}

/* New data goes to no place that somebody has. */
static void write_more(struct world *w)
{
	static uint8_t bytes[FILE_MAX];
	struct iovec iov = {bytes, sizeof(bytes)};
	struct slu_source_buffer src;
	struct slu_write_result res;
	struct slu_attr attr;

	if (slu_ns_mknod(w->fs->ns, &w->ctx, SLU_INO_ROOT, "more", S_IFREG | 0644, 0, &attr))
		return;
	memset(bytes, 0xee, sizeof(bytes));
	slu_source_buffer_init(&src, &iov, 1);
	(void)slu_fs_write(w->fs, &w->ctx, attr.ino, UINT64_MAX, &src.source, 0, sizeof(bytes), 0,
			   false, &res);
	(void)slu_fs_sync(w->fs);
	slu_ns_forget(w->fs->ns, attr.ino, 1);
}

static void count_problem(void *ctx, const struct slu_problem *p)
{
	*(unsigned int *)ctx += !p->note;
}

static bool check_finds_it(struct world *w)
{
	unsigned int problems = 0;
	struct slu_check_opts opts = {.problem = count_problem, .ctx = &problems};
	struct slu_check_result result;
	struct slu_blockio *bio = world_open_disk(w, true);
	const char *why;
	int err = slu_check(bio, &opts, &result, &why);

	slu_blockio_close(bio);
	return err || problems;
}

static void node_fault(void *arg)
{
	struct world *w = arg;
	bool found, failed, again;

	node_world_begin(w);
	slu_simdisk_fault(w->disk, &w->fault);
	node_workload(w);
	world_end(w);
	must(w->ending != UNMOUNT || slu_simdisk_fault_hits(w->disk));
	found = check_finds_it(w);
	if (mount_true(w, &failed)) {
		write_more(w);
		(void)slu_fs_unmount(w->fs);
		if (mount_true(w, &again))
			(void)slu_fs_unmount(w->fs);
	}
	must(found || !failed);
	w->worst = failed ? -EIO : 0;
	slu_simdisk_free(w->disk);
}

/* Each node that is written, one after the other; how often it showed. */
static unsigned int damage_each_node(int kind, enum ending ending, bool kernel)
{
	unsigned int shown = 0;

	for (unsigned int i = 0; i < node_writes.n; i++) {
		struct world *w = calloc(1, sizeof(*w));

		w->fault = (struct slu_simdisk_fault){.op = SLU_IO_WRITE,
						      .kind = kind,
						      .nth = node_writes.nth[i]};
		w->ending = ending;
		w->kernel = kernel;
		world_run_in_sim(node_fault, w);
		shown += w->worst != 0;
		free(w);
	}
	return shown;
}

static void silent_damage_of_a_node_is_never_believed(void **state)
{
	static const int kinds[] = {SLU_FAULT_LOST, SLU_FAULT_MISDIRECTED, SLU_FAULT_BITFLIP};

	for (unsigned int kernel = 0; kernel < 2; kernel++) {
		struct world *w = calloc(1, sizeof(*w));

		w->kernel = kernel;
		world_run_in_sim(find_node_writes, w);
		free(w);
		assert_in_range(node_writes.n, NRECORDS, MAX_NODE_WRITES);
		for (size_t i = 0; i < slu_array_size(kinds); i++) {
			for (unsigned int ending = 0; ending < NENDINGS; ending++) {
				assert_true(damage_each_node(kinds[i], ending, kernel) > 0);
			}
		}
	}
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
		cmocka_unit_test(silent_damage_of_a_node_is_never_believed),
		cmocka_unit_test(a_failed_read_is_an_error_once),
		cmocka_unit_test(a_device_that_goes_takes_only_what_was_not_accepted),
		cmocka_unit_test(a_full_host_is_enospc_until_room_returns),
		cmocka_unit_test(no_memory_breaks_nothing),
		cmocka_unit_test(no_memory_to_mount_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
