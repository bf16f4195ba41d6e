/* SPDX-License-Identifier: MIT */
/*
 * Windows: private mappings that show the pages of files, served by userfaultfd.
 *
 * UFFD_USER_MODE_ONLY, which needs no privilege: a fault of a thread's own sends a message and
 * waits; a fault from inside the kernel, as of process_vm_readv(2), fails at once. That is what
 * makes a copy that never faults: no look beforehand, which could be untrue a moment later, but a
 * copy that takes the pages that are there and comes up short at the first that is not.
 *
 * One thread serves the faults. Like the kernel's fault handler it takes the page lock of the page
 * it brings; unlike it, it may not sleep on it, being the only one: a fault whose page is locked is
 * put aside and tried again, and the graph is told who waits for whom.
 *
 * Waits of the lab's own are those for pages of windows. Bringing a page wakes every waiter on it,
 * also who has faulted but whose message nobody has read yet (the kernel keeps both in one list for
 * the purpose; Andrea Arcangeli's userfaultfd, 2015). Who is woken without cause, since the page
 * has been dropped again, faults again.
 */
#include "lab_private.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Writers, and who fills the windows beforehand. */
#define MAX_PENDING (SLU_LAB_MAX_THREADS + 1u)
#define RETRY_NS    (50 * 1000)

struct fault {
	struct lab_thread *thread; /* NULL: not a writer */
	uint32_t file, page;
	bool looked_at;
};

struct handler {
	struct slu_lab *lab;
	struct fault pending[MAX_PENDING];
	uint32_t npending;
};

static uint8_t *page_address(struct slu_lab *lab, uint32_t file, uint32_t page)
{
	return lab->files[file].window + page * LAB_PAGE;
}

/* ------------------------------------------------------------------ copying and dropping */

size_t window_copy_nofault(void *dst, const uint8_t *src, size_t len)
{
	struct iovec local = {.iov_base = dst, .iov_len = len};
	struct iovec remote = {.iov_base = (void *)src, .iov_len = len};
	ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	return n < 0 ? 0 : (size_t)n;
}

void window_drop(struct slu_lab *lab, uint32_t file, uint64_t first, uint64_t n)
{
	int err = madvise(lab->files[file].window + first * LAB_PAGE, n * LAB_PAGE, MADV_DONTNEED);

	slu_assert(!err);
}

void window_drop_all(struct slu_lab *lab)
{
	int err = madvise(lab->windows, lab->windows_len, MADV_DONTNEED);

	slu_assert(!err);
}

void *window_adversary(void *arg)
{
	struct slu_lab *lab = arg;
	uint64_t random = 1, n = 0;

	while (!atomic_load_explicit(&lab->stop_adversary, memory_order_relaxed)) {
		window_drop(lab, (uint32_t)(lab_random(&random) % lab->nthreads),
			    lab_random(&random) % lab->opts.npages, 1);
		n++;
	}
	pthread_mutex_lock(&lab->lock);
	lab->stats.drops += n;
	pthread_mutex_unlock(&lab->lock);
	return NULL;
}

/* ------------------------------------------------------------------ answering a fault */

/* Puts the frame's bytes, or zeros, into the window. Nobody is woken yet. */
static void bring(struct slu_lab *lab, const struct fault *f, const void *data)
{
	uint64_t dst = (uint64_t)(uintptr_t)page_address(lab, f->file, f->page);
	struct uffdio_copy copy = {.dst = dst,
				   .src = (uint64_t)(uintptr_t)data,
				   .len = LAB_PAGE,
				   .mode = UFFDIO_COPY_MODE_DONTWAKE};
	int err;

	do {
		copy.copy = 0;
		err = ioctl(lab->uffd, UFFDIO_COPY, &copy) ? errno : 0;
	} while (err == EAGAIN);
	/* It may be there by now: two faults on one page. */
	slu_assert(!err || err == EEXIST);
}

/* Everybody who waits for that page, whether their message has been read or not. */
static void wake(struct handler *h, uint32_t file, uint32_t page)
{
	struct slu_lab *lab = h->lab;
	struct uffdio_range range = {.start = (uint64_t)(uintptr_t)page_address(lab, file, page),
				     .len = LAB_PAGE};
	uint32_t kept = 0, read = 0, touching = 0;
	int err;

	pthread_mutex_lock(&lab->lock);
	for (uint32_t i = 0; i < h->npending; i++) {
		struct fault *f = &h->pending[i];

		if (f->file != file || f->page != page) {
			h->pending[kept++] = *f;
			continue;
		}
		read++;
		if (f->thread)
			f->thread->s.faulting = false;
	}
	h->npending = kept;
	for (uint32_t i = 0; i < lab->nthreads; i++)
		touching += lab->threads[i].s.touching == lab_page_id(file, page);
	lab->stats.wakeups += slu_max(read, touching);
	lab->stats.saved += touching > read ? touching - read : 0;
	pthread_mutex_unlock(&lab->lock);
	err = ioctl(lab->uffd, UFFDIO_WAKE, &range);
	slu_assert(!err);
}

/* The page is locked by somebody: true if the wait for it would be for ever. */
static bool must_break(struct slu_lab *lab, struct fault *f)
{
	bool cycle = false;

	pthread_mutex_lock(&lab->lock);
	if (!f->looked_at)
		lab->stats.lock_waits++;
	f->looked_at = true;
	if (f->thread && graph_wait(f->thread, f->file, f->page)) {
		cycle = true;
		lab->error = -EDEADLK;
	}
	pthread_mutex_unlock(&lab->lock);
	if (cycle)
		atomic_store(&lab->broken, true);
	return cycle;
}

/* The fault handler proper. False: not yet. */
static bool answer(struct slu_lab *lab, struct fault *f)
{
	struct slu_aspace *as = &lab->files[f->file].as;
	const void *zeros = slu_cache_zeros(lab->cache);
	bool done = false;
	struct slu_page *page;

	if (atomic_load(&lab->broken)) {
		bring(lab, f, zeros);
		return true;
	}
	page = slu_page_find(as, f->page);
	if (!page) {
		bring(lab, f, zeros);
		return true;
	}
	if (!slu_page_trylock(page)) {
		done = must_break(lab, f);
		if (done)
			bring(lab, f, zeros);
	} else {
		/* Gone, or the tail of a copy that came up short: look again. */
		if ((slu_page_state(page) & (SLU_PAGE_UPTODATE | SLU_PAGE_GONE)) ==
		    SLU_PAGE_UPTODATE) {
			bring(lab, f, slu_frame_data(lab->cache, atomic_load(&page->frame)));
			done = true;
		}
		slu_page_unlock(page);
	}
	slu_page_put(lab->cache, page);
	return done;
}

/* ------------------------------------------------------------------ the handler's thread */

static struct lab_thread *thread_of(struct slu_lab *lab, pid_t tid)
{
	for (uint32_t i = 0; i < lab->nthreads; i++)
		if (lab->threads[i].s.tid == tid)
			return &lab->threads[i];
	return NULL;
}

static void take_message(struct handler *h, const struct uffd_msg *msg)
{
	struct slu_lab *lab = h->lab;
	uint64_t off = msg->arg.pagefault.address - (uint64_t)(uintptr_t)lab->windows;
	uint32_t page = (uint32_t)(off / LAB_PAGE);
	struct fault f = {.file = page / lab->opts.npages, .page = page % lab->opts.npages};
	struct lab_thread *t;

	slu_assert(msg->event == UFFD_EVENT_PAGEFAULT && off < lab->windows_len);
	slu_assert(h->npending < MAX_PENDING);
	pthread_mutex_lock(&lab->lock);
	f.thread = t = thread_of(lab, (pid_t)msg->arg.pagefault.feat.ptid);
	lab->stats.faults++;
	if (t) {
		lab->stats.spurious += t->s.last_fault == lab_page_id(f.file, f.page) &&
				       t->s.last_progress == t->s.progress;
		t->s.last_fault = lab_page_id(f.file, f.page);
		t->s.last_progress = t->s.progress;
	}
	h->pending[h->npending++] = f;
	pthread_mutex_unlock(&lab->lock);
}

static void take_messages(struct handler *h)
{
	struct uffd_msg msg;

	while (read(h->lab->uffd, &msg, sizeof(msg)) == sizeof(msg))
		take_message(h, &msg);
}

static void answer_all(struct handler *h)
{
	for (uint32_t i = 0; i < h->npending;) {
		struct fault f = h->pending[i];

		if (answer(h->lab, &h->pending[i])) {
			wake(h, f.file, f.page); /* and so off the list */
			i = 0;
		} else {
			i++;
		}
	}
}

static void *handler_main(void *arg)
{
	struct handler h = {.lab = arg};
	struct pollfd fds[2] = {{.fd = h.lab->uffd, .events = POLLIN},
				{.fd = h.lab->stop_fd, .events = POLLIN}};
	const struct timespec retry = {.tv_nsec = RETRY_NS};

	for (;;) {
		int n = ppoll(fds, 2, h.npending ? &retry : NULL, NULL);

		slu_assert(n >= 0 || errno == EINTR);
		if (fds[1].revents & POLLIN)
			return NULL;
		take_messages(&h);
		answer_all(&h);
	}
}

/* ------------------------------------------------------------------ life */

static int open_uffd(const char **why)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd >= 0)
		return fd;
	if (errno == ENOSYS)
		*why = "this kernel has no userfaultfd (CONFIG_USERFAULTFD)";
	else if (errno == EINVAL)
		*why = "userfaultfd without privilege (UFFD_USER_MODE_ONLY) needs Linux 5.11";
	else if (errno == EPERM)
		*why = "userfaultfd is forbidden here: by a container's seccomp filter, or before "
		       "Linux 5.11 by sysctl vm.unprivileged_userfaultfd=0";
	else
		*why = "userfaultfd failed";
	return -errno;
}

static int check_copy(const char **why)
{
	char from[8] = "abcdefg", to[8] = "";

	if (window_copy_nofault(to, (const uint8_t *)from, sizeof(from)) == sizeof(from) &&
	    !memcmp(from, to, sizeof(to)))
		return 0;
	*why = "process_vm_readv is forbidden here: by a container's seccomp filter, or the kernel "
	       "was built without CONFIG_CROSS_MEMORY_ATTACH";
	return -EPERM;
}

static int register_windows(struct slu_lab *lab, const char **why)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	*why = "userfaultfd cannot say which thread has faulted, or cannot serve private memory";
	if (ioctl(lab->uffd, UFFDIO_API, &api))
		return -errno;
	lab->windows = mmap(NULL, lab->windows_len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (lab->windows == MAP_FAILED) {
		lab->windows = NULL;
		return -ENOMEM;
	}
	/* A page at a time. */
	madvise(lab->windows, lab->windows_len, MADV_NOHUGEPAGE);
	reg.range.start = (uint64_t)(uintptr_t)lab->windows;
	reg.range.len = lab->windows_len;
	return ioctl(lab->uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

int window_init(struct slu_lab *lab, const char **why)
{
	size_t each = lab->opts.npages * LAB_PAGE;
	int err = check_copy(why);

	if (err)
		return err;
	lab->windows_len = each * lab->opts.nthreads;
	lab->uffd = open_uffd(why);
	if (lab->uffd < 0)
		return lab->uffd;
	err = register_windows(lab, why);
	if (err)
		return err;
	for (uint32_t i = 0; i < lab->opts.nthreads; i++)
		lab->files[i].window = lab->windows + i * each;
	*why = "no descriptor or thread for the fault handler";
	lab->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (lab->stop_fd < 0)
		return -errno;
	err = -pthread_create(&lab->handler, NULL, handler_main, lab);
	lab->have_handler = !err;
	return err;
}

void window_fini(struct slu_lab *lab)
{
	uint64_t one = 1;

	if (lab->have_handler) {
		ssize_t n = write(lab->stop_fd, &one, sizeof(one));

		slu_assert(n == sizeof(one));
		pthread_join(lab->handler, NULL);
	}
	if (lab->windows)
		munmap(lab->windows, lab->windows_len);
	if (lab->stop_fd >= 0)
		close(lab->stop_fd);
	if (lab->uffd >= 0)
		close(lab->uffd);
}
