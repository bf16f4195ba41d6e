/* SPDX-License-Identifier: MIT */
/*
 * A file against a byte array: random writes, reads, truncates, punches, syncs, with a cache
 * smaller than the file, a source that is short at random, a disk that is slow and sometimes fails.
 * On threads of their own and in simulations.
 *
 * Beside the array there is a history: every value that each byte has ever been given. At any
 * moment, what a power cut would leave (the blocks below the size on disk) may hold nothing else.
 */
#include "pages_rig.h"

#define FILE_PAGES 400u
#define FILE_BYTES (FILE_PAGES * PAGE)
#define NVALUES    64u

struct model {
	struct rig r;
	uint64_t seed;
	uint64_t size;
	unsigned char *bytes;
	uint64_t *history; /* a bit for each value */
	unsigned char *buf;
	unsigned int value;
	bool faults;
	bool again; /* the backend sends everybody round once */
};

static uint64_t model_random(struct model *m)
{
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return m->seed;
}

static uint64_t below(struct model *m, uint64_t n)
{
	return model_random(m) % n;
}

static void history_add(struct model *m, uint64_t pos, uint64_t end)
{
	for (; pos < end; pos++)
		m->history[pos] |= 1ull << m->bytes[pos];
}

/* ------------------------------------------------------------------ a source that is short at
 * random */

struct short_source {
	struct slu_source source;
	struct model *m;
	const unsigned char *data;
	size_t len, at, ready;
};

static size_t short_copy(struct slu_source *src, void *dst, size_t len)
{
	struct short_source *s = slu_container_of(src, struct short_source, source);
	size_t n = slu_min(len, s->ready - s->at);

	memcpy(dst, s->data + s->at, n);
	s->at += n;
	return n;
}

static int short_fault_in(struct slu_source *src, size_t len)
{
	struct short_source *s = slu_container_of(src, struct short_source, source);

	slu_assert_no_locks("the source of the test");
	if (s->at == s->len)
		return -ENODATA;
	s->ready = slu_min(s->len, s->at + 1 + below(s->m, 1 + 2 * below(s->m, 10000)));
	slu_yield();
	return 0;
}

static const struct slu_source_ops short_ops = {short_copy, short_fault_in};

/* ------------------------------------------------------------------ operations */

static void range(struct model *m, uint64_t *pos, uint64_t *len)
{
	switch (below(m, 4)) {
	case 0: /* whole pages */
		*pos = below(m, FILE_PAGES - 64) * PAGE;
		*len = (1 + below(m, 64)) * PAGE;
		break;
	case 1: /* small */
		*pos = below(m, FILE_BYTES - 600);
		*len = 1 + below(m, 600);
		break;
	case 2: /* at the end */
		*pos = slu_min(m->size, FILE_BYTES - 9000);
		*len = 1 + below(m, 9000);
		break;
	default:
		*pos = below(m, FILE_BYTES - 40000);
		*len = 1 + below(m, 40000);
		break;
	}
}

static void faults_off(struct model *m)
{
	slu_simdisk_fault(m->r.disk, NULL);
	slu_mutex_lock(&m->r.mem.lock);
	m->r.mem.fail_complete_nth = m->r.mem.fail_allocate_nth = 0;
	slu_mutex_unlock(&m->r.mem.lock);
}

static void op_write(struct model *m)
{
	uint64_t pos, len, done = 0;
	struct short_source src = {.source.ops = &short_ops, .m = m, .data = m->buf};
	struct slu_write_result res;
	struct slu_need need;
	bool kernel = below(m, 5) == 0;
	int err;

	range(m, &pos, &len);
	m->value = m->value % (NVALUES - 1) + 1;
	memset(m->buf, (int)m->value, len);
	src.len = len;
	src.ready = kernel || below(m, 2) ? len : below(m, len + 1);
	/* The history first: writeback may be faster than we are. */
	if (pos > m->size) {
		memset(m->bytes + m->size, 0, pos - m->size);
		history_add(m, m->size, pos);
	}
	memset(m->bytes + pos, (int)m->value, len);
	history_add(m, pos, pos + len);
	m->size = slu_max(m->size, pos + len);
	do {
		err = slu_write(&m->r.as, &src.source, pos + done, len - done,
				kernel ? SLU_WRITE_KERNEL_CACHE : 0, &res, &need);
		done += res.done;
		if (err == -EIO && m->faults) {
			/* Too many failed pages: the disk recovers. */
			faults_off(m);
			if (rig_sync(&m->r))
				must_eq(rig_sync(&m->r), 0);
			err = 0;
		} else if (err == -EAGAIN) {
			err = slu_need_wait(&need);
		} else if (err || done == len) {
			break;
		}
	} while (!err);
	if (err)
		fprintf(stderr, "write %" PRIu64 "+%" PRIu64 ": %d\n", pos, len, err);
	must_eq(err, 0);
	must_eq(done, len);
	must_eq(slu_aspace_size(&m->r.as), m->size);
}

static void compare(struct model *m, uint64_t pos, const unsigned char *got, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++) {
		if (got[i] == m->bytes[pos + i])
			continue;
		fprintf(stderr,
			"byte %" PRIu64 " (page %" PRIu64 "+%" PRIu64 "): %u, should be %u\n",
			pos + i, (pos + i) / PAGE, (pos + i) % PAGE, got[i], m->bytes[pos + i]);
		slu_cache_print(m->r.cache, stderr);
		must(!"as above");
	}
}

static void op_read(struct model *m)
{
	uint64_t pos, len;
	int64_t n;

	range(m, &pos, &len);
	n = rig_read_ahead(&m->r, pos, m->buf, len, below(m, 3) ? 0 : (unsigned int)below(m, 40));
	must_eq(n, pos < m->size ? slu_min(len, m->size - pos) : 0);
	compare(m, pos, m->buf, (uint64_t)n);
}

static void op_truncate(struct model *m)
{
	uint64_t size = below(m, 3) ? below(m, FILE_BYTES) : slu_min(m->size + 1000, FILE_BYTES);

	if (size > m->size) {
		memset(m->bytes + m->size, 0, size - m->size);
		history_add(m, m->size, size);
	}
	must_eq(rig_truncate(&m->r, size), 0);
	m->size = size;
}

static void op_punch(struct model *m)
{
	uint64_t pos, len, end;

	range(m, &pos, &len);
	end = slu_min(pos + len, m->size);
	if (pos >= end)
		return;
	memset(m->bytes + pos, 0, end - pos);
	history_add(m, pos, end);
	must_eq(rig_punch(&m->r, pos, pos + len), 0);
}

static void op_sync(struct model *m)
{
	int err = rig_sync(&m->r);

	if (m->faults)
		return;
	must_eq(err, 0);
	must(!slu_aspace_dirty(&m->r.as));
	if (!below(m, 4))
		rig_drop_clean(&m->r);
}

static void op_sync_range(struct model *m)
{
	uint64_t pos, len;
	int err;

	range(m, &pos, &len);
	err = slu_writeback_range(m->r.wb, &m->r.as, pos, pos + len);
	if (!m->faults)
		must_eq(err, 0);
}

static void op_fault(struct model *m)
{
	struct slu_simdisk_fault f = {
		.op = SLU_IO_WRITE,
		.nth = 1 + below(m, 5),
		.times = 1 + below(m, 3),
		.kind = below(m, 2) ? SLU_FAULT_ERROR : SLU_FAULT_SUBMIT_ERROR,
		.error = -EIO,
	};

	if (!m->faults)
		return;
	switch (below(m, 4)) {
	case 0:
		slu_simdisk_fault(m->r.disk, &f);
		break;
	case 1:
		slu_mutex_lock(&m->r.mem.lock);
		m->r.mem.fail_complete_nth = 1 + below(m, 4);
		slu_mutex_unlock(&m->r.mem.lock);
		break;
	case 2:
		slu_mutex_lock(&m->r.mem.lock);
		m->r.mem.fail_allocate_nth = 1 + below(m, 4);
		slu_mutex_unlock(&m->r.mem.lock);
		break;
	default:
		slu_simdisk_fault(m->r.disk, NULL);
	}
}

/* What a power cut would leave: below the size on disk nothing that was never there. */
static void op_power_view(struct model *m)
{
	uint64_t size = slu_min(rig_disk_size(&m->r), m->size);
	unsigned char page[SLU_BLOCK_SIZE];

	for (uint64_t pos = 0; pos < size; pos += PAGE) {
		uint64_t blkno, len = slu_min(PAGE, size - pos);
		enum slu_iomap_type type = slu_mem_inode_type(m->r.inode, pos / PAGE, &blkno);

		memset(page, 0, sizeof(page));
		if (type == SLU_IOMAP_MAPPED)
			slu_simdisk_peek(m->r.disk, blkno, page);
		for (uint64_t i = 0; i < len; i++) {
			if (page[i] < NVALUES && m->history[pos + i] & (1ull << page[i]))
				continue;
			fprintf(stderr,
				"byte %" PRIu64 " (page %" PRIu64 "+%" PRIu64
				"), size on disk %" PRIu64 ": %u, was never there (%s)\n",
				pos + i, pos / PAGE, i, size, page[i], slu_iomap_type_name(type));
			must(!"as above");
		}
	}
}

static void model_step(struct model *m)
{
	uint64_t n = below(m, 100);

	if (n < 45)
		op_write(m);
	else if (n < 75)
		op_read(m);
	else if (n < 81)
		op_truncate(m);
	else if (n < 89)
		op_punch(m);
	else if (n < 93)
		op_sync_range(m);
	else if (n < 96)
		op_sync(m);
	else if (n < 98)
		op_fault(m);
	else
		op_power_view(m);
}

static void model_init(struct model *m, uint64_t seed, const struct rig_opts *o, bool faults)
{
	memset(m, 0, sizeof(*m));
	m->seed = seed * 0x9e3779b97f4a7c15ull + 1;
	m->faults = faults;
	m->bytes = calloc(1, FILE_BYTES);
	m->history = calloc(FILE_BYTES, sizeof(*m->history));
	m->buf = malloc(FILE_BYTES);
	must(m->bytes && m->history && m->buf);
	rig_init(&m->r, o);
	m->r.mem.max_run = below(m, 2) ? 0 : 1 + below(m, 20);
	m->r.mem.max_map = below(m, 2) ? 0 : 1 + below(m, 20);
	m->r.mem.again_once = below(m, 2);
}

static void model_fini(struct model *m)
{
	int err;

	faults_off(m);
	/* A pass that was under way may still have met a fault. */
	err = rig_sync(&m->r);
	if (err && m->faults)
		err = rig_sync(&m->r);
	must_eq(err, 0);
	must(!slu_aspace_dirty(&m->r.as));
	op_power_view(m);
	rig_check(&m->r);
	rig_drop_clean(&m->r);
	must_eq(rig_read(&m->r, 0, m->buf, FILE_BYTES / 2), slu_min(m->size, FILE_BYTES / 2));
	compare(m, 0, m->buf, slu_min(m->size, FILE_BYTES / 2));
	must_eq(rig_fini(&m->r), 0);
	free(m->bytes);
	free(m->history);
	free(m->buf);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

/* ------------------------------------------------------------------ on threads */

static void model_run(uint64_t seed, uint64_t nops, const struct rig_opts *o, bool faults)
{
	struct model m;

	model_init(&m, seed, o, faults);
	for (uint64_t i = 0; i < nops; i++)
		model_step(&m);
	model_fini(&m);
}

static void a_hundred_thousand_operations_agree_with_the_model(void **state)
{
	uint64_t nops = env_number("SLU_MODEL_OPS", 100000 / RIG_SLOW) / 4;

	for (uint64_t seed = 1; seed <= 4; seed++)
		model_run(seed, nops,
			  &(struct rig_opts){.cache_bytes = 1u << 20, .is_inline = seed & 1},
			  false);
}

static void with_writeback_beside_it(void **state)
{
	struct rig_opts o = {.cache_bytes = 1u << 20,
			     .age_ns = SLU_NS_PER_MS,
			     .latency_ns = 100000};

	for (uint64_t seed = 10; seed < 14; seed++)
		model_run(seed, env_number("SLU_MODEL_OPS", 100000 / RIG_SLOW) / 40, &o, false);
}

static void with_writes_that_fail_and_are_retried(void **state)
{
	struct rig_opts o = {.cache_bytes = 2u << 20, .age_ns = SLU_NS_PER_MS};

	for (uint64_t seed = 20; seed < 24; seed++)
		model_run(seed, env_number("SLU_MODEL_OPS", 100000 / RIG_SLOW) / 80, &o, true);
}

/* ------------------------------------------------------------------ in simulations */

struct sim_run {
	uint64_t seed, nops;
	bool faults;
};

static void sim_main(void *arg)
{
	struct sim_run *s = arg;
	struct rig_opts o = {.cache_bytes = 1u << 20,
			     .age_ns = 1 + s->seed % 7 * SLU_NS_PER_MS,
			     .latency_ns = s->seed % 3 * SLU_NS_PER_MS,
			     .nthreads = 1 + (unsigned int)(s->seed % 3)};

	model_run(s->seed, s->nops, &o, s->faults);
}

static void run_seeds(uint64_t first, uint64_t n, uint64_t nops, bool faults)
{
	uint64_t only = env_number("SLU_SEED", 0);

	if (only) {
		first = only;
		n = 1;
	}
	for (uint64_t seed = first; seed < first + n; seed++) {
		struct sim_run s = {.seed = seed, .nops = nops, .faults = faults};
		struct slu_sim *sim = slu_sim_new(seed);
		int err;

		must(sim);
		slu_sim_hurry(sim, seed % 2 ? 50 : 0);
		slu_sim_limit(sim, 200000000);
		fflush(NULL);
		err = slu_sim_run(sim, sim_main, &s, stderr);
		if (err)
			fprintf(stderr, "SLU_SEED=%" PRIu64 ": %d\n", seed, err);
		must_eq(err, 0);
		slu_sim_free(sim);
	}
}

static void simulations_agree_with_the_model(void **state)
{
	run_seeds(100, env_number("SLU_SEEDS", 20), 200, false);
}

static void simulations_with_failing_writes_agree_with_the_model(void **state)
{
	run_seeds(1000, env_number("SLU_SEEDS", 20), 200, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_hundred_thousand_operations_agree_with_the_model),
		cmocka_unit_test(with_writeback_beside_it),
		cmocka_unit_test(with_writes_that_fail_and_are_retried),
		cmocka_unit_test(simulations_agree_with_the_model),
		cmocka_unit_test(simulations_with_failing_writes_agree_with_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
