/* SPDX-License-Identifier: MIT */
/*
 * The arena: one memfd with the header, the open-handle table, the page descriptors and the frames.
 *
 * Owns the descriptor and the mapping. Called when a cache begins and ends. Takes no lock. The file
 * is sparse: what was never touched costs nothing, and nothing here touches more than the header.
 */
#include "cache_private.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static void header_fill(struct arena_header *h, uint32_t nframes)
{
	uint64_t at = SLU_BLOCK_SIZE;

	*h = (struct arena_header){
		.version = ARENA_VERSION,
		.header_size = sizeof(*h),
		.nframes = nframes,
		.nhandles = HANDLE_MAX,
		.handle_size = sizeof(struct slu_handle),
		.page_size = sizeof(struct slu_page),
	};
	h->handles_offset = at;
	at = slu_round_up(at + h->nhandles * h->handle_size, SLU_BLOCK_SIZE);
	h->pages_offset = at;
	at = slu_round_up(at + h->nframes * h->page_size, SLU_BLOCK_SIZE);
	h->frames_offset = at;
	h->size = at + h->nframes * SLU_BLOCK_SIZE;
}

int arena_new(uint32_t nframes, struct arena *ret)
{
	struct arena_header header;
	struct arena a = {0};
	int err;

	header_fill(&header, nframes);
	a.size = header.size;
	a.fd = memfd_create("sluice-cache", MFD_CLOEXEC);
	if (a.fd < 0)
		return -errno;
	if (ftruncate(a.fd, (off_t)a.size) < 0) {
		err = -errno;
		goto close_fd;
	}
	a.base = mmap(NULL, a.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, a.fd, 0);
	if (a.base == MAP_FAILED) {
		err = -errno;
		goto close_fd;
	}
	a.header = (struct arena_header *)a.base;
	a.handles = (struct slu_handle *)(a.base + header.handles_offset);
	a.pages = (struct slu_page *)(a.base + header.pages_offset);
	a.frames = a.base + header.frames_offset;
	*a.header = header;
	/* The magic last, as with every descriptor. */
	atomic_thread_fence(memory_order_release);
	a.header->magic = ARENA_MAGIC;
	*ret = a;
	return 0;

close_fd:
	close(a.fd);
	return err;
}

int arena_back_frames(struct arena *a, uint32_t nframes, uint32_t n)
{
	off_t start = (off_t)(a->header->frames_offset + (uint64_t)(nframes - n) * SLU_BLOCK_SIZE);

	if (n && fallocate(a->fd, 0, start, (off_t)n * SLU_BLOCK_SIZE) < 0)
		return -errno;
	return 0;
}

void arena_free(struct arena *a)
{
	if (!a->base)
		return;
	munmap(a->base, a->size);
	close(a->fd);
	*a = (struct arena){.fd = -1};
}
