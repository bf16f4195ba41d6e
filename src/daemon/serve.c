/* SPDX-License-Identifier: MIT */
/*
 * The life of a mount, in the order that keeps every failure clean: the mounter process first (it
 * is forked), then the image and the volume, then the mount, then the threads that serve it; and
 * down again: no more requests, everything on disk, the lock given up, the kernel let go.
 *
 * All of it in the main thread, which in between waits for signals, the end of the session and
 * events to log. Takes no lock.
 */
#include "daemon_private.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#define READY_WAIT_NS (30 * SLU_NS_PER_SEC)
/* How long files may stay open after a signal has taken the mount out of sight. */
#define GRACE_NS      (5 * SLU_NS_PER_SEC)
#define GRACE_POLL_NS (20 * SLU_NS_PER_MS)
#define LEFT_MOUNTED  "the mount is left dead where it is: unmount it there"

struct daemon {
	const struct daemon_opts *o;
	const char *image, *mountpoint;
	int status_fd;
	int signal_fd, wake_fd;
	struct slu_mounter *mounter;
	struct stack stack;
	struct slu_event_stream stream;
	struct report_events events;
	struct slu_session *session;
	struct slu_control *control; /* NULL: none */
	struct slu_control_interface interface;
	struct served served;
	struct notifier notifier;
	bool mounted;
	bool visible; /* the mount can be looked at from here: its device number is device */
	dev_t device;
	char *found; /* where what was mounted before us is, if that can be told */
	bool stop_asked;

	/* the thread that unmounts: see detach() */
	struct slu_thread detacher;
	bool detacher_started;
	unsigned int detach_flags;
	_Atomic bool detach_done;
	int detach_err;
	char detach_why[256];
};

/* ------------------------------------------------------------------ ready */

/*
 * A session of its own only now: systemd's automount lets nobody but its own process group pass the
 * mount point until it is mounted.
 */
static void to_background(struct daemon *d)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char ok = 0;

	setsid();
	report_to_syslog();
	fflush(NULL);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
	(void)!write(d->status_fd, &ok, 1);
	close(d->status_fd);
	d->status_fd = -1;
}

static void tell_ready(struct daemon *d)
{
	if (d->o->ready_fd >= 0) {
		(void)!write(d->o->ready_fd, "READY=1\n", strlen("READY=1\n"));
		close(d->o->ready_fd);
	}
	notify_send("READY=1\nMAINPID=%d\n", (int)getpid());
	notifier_serve(&d->notifier, &d->served);
	if (d->status_fd >= 0)
		to_background(d);
}

/* ------------------------------------------------------------------ going up */

static void session_ended(void *ctx)
{
	struct daemon *d = ctx;
	uint64_t one = 1;

	(void)!write(d->wake_fd, &one, sizeof(one));
}

static void post_mounted(struct daemon *d)
{
	struct slu_event_sink sink = slu_event_stream_sink(&d->stream);
	struct slu_event ev = {
		.kind = SLU_EVENT_MOUNTED,
		.text = d->image,
		.pos = d->stack.readonly,
	};

	slu_event_post(&sink, &ev);
}

static void session_says(void *ctx, int priority, const char *line)
{
	report(priority, "%s", line);
}

static bool open_signals(struct daemon *d, GError **error)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* EFBIG says as much */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	d->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->signal_fd >= 0 && d->wake_fd >= 0)
		return true;
	g_set_error(error, DAEMON_ERROR, STATUS_SYSTEM, "%s", g_strerror(errno));
	return false;
}

static bool start_session(struct daemon *d, int fd, GError **error)
{
	struct slu_session_opts opts = {
		.writeback = !d->o->nowriteback && !d->o->sync && !d->stack.readonly,
		.debug = d->o->debug,
		.max_write = d->o->max_write,
		.busy_poll_ns = d->o->busy_poll_ns,
		.ended = session_ended,
		.log = session_says,
		.ctx = d,
	};
	int err;

	err = slu_session_new(d->stack.fs, fd, &opts, &d->session);
	if (err)
		close(fd);
	if (!err)
		err = slu_session_start(d->session);
	if (!err)
		err = slu_session_wait_ready(d->session, slu_clock_ns() + READY_WAIT_NS);
	if (!err)
		return true;
	g_set_error(error, DAEMON_ERROR, STATUS_FAILED, "%s cannot be served: %s", d->mountpoint,
		    err == -ETIMEDOUT ? "the kernel does not talk to us" : g_strerror(-err));
	return false;
}

static bool is_preopened(const struct daemon *d)
{
	return check_preopened(d->mountpoint);
}

/*
 * Where a device that was handed to us is mounted, if the kernel says which connection a descriptor
 * has (Linux 6.18 does), and the mount is in our namespace; g_free.
 */
static char *find_preopened(int fd)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fdinfo/%d", fd), *text = NULL;
	struct slu_mount_entry *e;
	const char *at;
	char *target;
	guint64 dev;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return NULL;
	at = strstr(text, "\nfuse_connection:");
	if (!at)
		return NULL;
	/* In the kernel's own encoding of device numbers. */
	dev = g_ascii_strtoull(at + strlen("\nfuse_connection:"), NULL, 10);
	e = slu_mountinfo_by_device((unsigned int)(dev >> 20), (unsigned int)(dev & 0xfffff));
	target = e ? g_strdup(e->target) : NULL;
	slu_mount_entry_free(e);
	return target;
}

/* The proof that it works: a stat that goes through the kernel and comes back from us. */
static bool prove(struct daemon *d, GError **error)
{
	struct statx stx;

	if (is_preopened(d) && !d->found)
		return true;
	if (!statx(AT_FDCWD, d->found ? d->found : d->mountpoint, AT_STATX_FORCE_SYNC,
		   STATX_BASIC_STATS, &stx)) {
		d->visible = true;
		d->device = makedev(stx.stx_dev_major, stx.stx_dev_minor);
		return true;
	}
	if (is_preopened(d)) /* another user's */
		return true;
	g_set_error(error, DAEMON_ERROR, STATUS_FAILED, "%s was mounted but does not answer: %s",
		    d->mountpoint, g_strerror(errno));
	return false;
}

static bool go_up(struct daemon *d, const struct slu_mount_opts *mount, GError **error)
{
	struct slu_event_sink sink = slu_event_stream_sink(&d->stream);
	char why[256];
	int err, fd;

	err = slu_mounter_start(mount, &d->mounter);
	if (err) {
		g_set_error(error, DAEMON_ERROR, STATUS_SYSTEM, "cannot start the mounter: %s",
			    g_strerror(-err));
		return false;
	}
	if (!open_signals(d, error))
		return false;
	d->events.wake_fd = d->wake_fd;
	notifier_start(&d->notifier, &d->stack.progress);
	if (!stack_open(&d->stack, d->o, d->image, &sink, error))
		return false;
	d->events.fs = d->stack.fs;
	err = slu_mounter_mount(d->mounter, d->stack.readonly, &fd, why, sizeof(why));
	if (err) {
		g_set_error(error, DAEMON_ERROR, STATUS_FAILED, "%s cannot be mounted: %s",
			    d->mountpoint, why);
		return false;
	}
	d->mounted = true;
	slu_mounter_free(d->mounter);
	d->mounter = NULL;
	if (is_preopened(d))
		d->found = find_preopened(fd);
	if (d->found)
		report_about(d->found, d->image);
	return start_session(d, fd, error) && prove(d, error);
}

/* ------------------------------------------------------------------ control */

/* Without a directory for it, and so without a socket, the volume serves all the same. */
static void open_control(struct daemon *d)
{
	struct slu_control_opts opts = {.interface = &d->interface};
	g_autofree char *path = NULL;
	int err;

	d->served = (struct served){
		.o = d->o,
		.image = d->image,
		.mountpoint = d->found ? d->found : d->mountpoint,
		.visible = d->visible,
		.stack = &d->stack,
		.session = d->session,
		.stream = &d->stream,
		.start_ns = slu_clock_ns(),
		.readonly = d->stack.readonly,
	};
	if (!d->visible)
		return;
	d->served.connection = slu_fuse_connection(major(d->device), minor(d->device));
	d->interface = methods_interface(&d->served);
	path = slu_control_path_of(geteuid(), major(d->device), minor(d->device));
	opts.path = path;
	err = slu_control_start(&opts, &d->control);
	if (err)
		report(LOG_WARNING,
		       "sluicectl and remount will not reach it, for want of a socket at %s: %s",
		       path, g_strerror(-err));
}

static void close_control(struct daemon *d)
{
	slu_control_stop(d->control);
	d->control = NULL;
}

/* ------------------------------------------------------------------ unmounting it ourselves */

static bool has_ended(struct daemon *d)
{
	int err;

	return !d->session || slu_session_ended(d->session, &err);
}

static bool wait_ended(struct daemon *d, uint64_t deadline)
{
	while (!has_ended(d)) {
		if (slu_clock_ns() >= deadline)
			return false;
		slu_sleep_ns(GRACE_POLL_NS);
	}
	return true;
}

static void detach_main(void *arg)
{
	struct daemon *d = arg;

	d->detach_err = slu_mount_detach(d->mountpoint, d->detach_flags, d->detach_why,
					 sizeof(d->detach_why));
	atomic_store(&d->detach_done, true);
}

static void detach_join(struct daemon *d)
{
	if (d->detacher_started)
		slu_thread_join(&d->detacher);
	d->detacher_started = false;
}

/*
 * Unmounts from a thread of its own: umount of a fuseblk mount returns when DESTROY has been
 * answered, and that is the last thing this thread does. 0 also when the session has ended while
 * the call goes on.
 */
static int detach(struct daemon *d, unsigned int flags)
{
	int err;

	detach_join(d);
	d->detach_flags = flags;
	atomic_store(&d->detach_done, false);
	err = slu_thread_start(&d->detacher, "slu-umount", detach_main, d);
	if (err) {
		snprintf(d->detach_why, sizeof(d->detach_why), "%s", strerror(-err));
		return err;
	}
	d->detacher_started = true;
	while (!atomic_load(&d->detach_done)) {
		if (d->session && has_ended(d))
			return 0;
		slu_sleep_ns(GRACE_POLL_NS / 4);
	}
	return d->detach_err;
}

/*
 * Files are open. The mount goes out of sight at once; who has files open gets a few seconds to
 * close them. What the kernel holds back is written out before (through a descriptor that keeps
 * the filesystem reachable), so that nothing is lost when the connection ends under them.
 */
static void detach_busy(struct daemon *d)
{
	uint64_t deadline = slu_clock_ns() + GRACE_NS;
	int root = open(d->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	report(LOG_NOTICE, "files are open; unmounting lazily");
	if (root >= 0)
		(void)syncfs(root);
	if (detach(d, SLU_DETACH_LAZY))
		report(LOG_ERR, "%s", d->detach_why);
	while (root >= 0 && slu_session_nopen(d->session) && !has_ended(d) &&
	       slu_clock_ns() < deadline)
		slu_sleep_ns(GRACE_POLL_NS);
	if (root >= 0) {
		(void)syncfs(root);
		close(root);
	}
	if (!wait_ended(d, slu_max(deadline, slu_clock_ns() + SLU_NS_PER_SEC)))
		report(LOG_WARNING, "the mount is still in use (%llu open files); it ends here",
		       (unsigned long long)slu_session_nopen(d->session));
}

/*
 * Whether it is not our mount that umount would take away: another lies on it, or ours has been taken
 * away (lazily, since we still serve). why: which, g_free. The kernel answers from memory, so this
 * waits for no other filesystem's daemon, nor for our own.
 */
static bool is_out_of_reach(const struct daemon *d, char **why)
{
	struct slu_mount_entry *ours, *top;
	struct statx stx;

	if (!d->visible ||
	    statx(AT_FDCWD, d->mountpoint, AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, 0, &stx) ||
	    makedev(stx.stx_dev_major, stx.stx_dev_minor) == d->device)
		return false;
	ours = slu_mountinfo_by_device(major(d->device), minor(d->device));
	top = slu_mountinfo_by_device(stx.stx_dev_major, stx.stx_dev_minor);
	if (!ours)
		*why = g_strdup("unmounted already, but still in use; it ends here");
	else
		*why = g_strdup_printf("%s of type %s is mounted over us; " LEFT_MOUNTED,
				       top ? top->source : "something",
				       top ? top->type : "unknown");
	slu_mount_entry_free(ours);
	slu_mount_entry_free(top);
	return true;
}

/* Its end comes by the connection's; what the kernel holds back is written before. */
static void end_unreached(const char *why)
{
	report(LOG_ERR, "%s", why);
	sync();
}

/*
 * SIGTERM and friends. Afterwards the session is stopped, whether the kernel has ended it or not.
 */
static void unmount_on_signal(struct daemon *d)
{
	g_autofree char *why = NULL;
	int err = 0;

	/* What the kernel still has to write may need the disk. */
	slu_fs_end_freezes(d->stack.fs);
	/* Its probes would keep the mount busy. */
	notifier_stop(&d->notifier);
	if (is_preopened(d)) {
		/* Not ours to unmount; what the kernel holds back is written to us while we are there. */
		if (d->visible && methods_syncfs(&d->served))
			report(LOG_ERR, "what the kernel had not yet written is lost");
	} else if (is_out_of_reach(d, &why)) {
		end_unreached(why);
	} else {
		err = detach(d, 0);
		if (err == -EBUSY) {
			detach_busy(d);
		} else if (err && !wait_ended(d, slu_clock_ns() + SLU_NS_PER_SEC)) {
			why = g_strconcat(d->detach_why, "; " LEFT_MOUNTED, NULL);
			end_unreached(why);
		}
		/* A copy of the mount in another namespace keeps it alive. */
		if (!err && !wait_ended(d, slu_clock_ns() + GRACE_NS))
			report(LOG_WARNING, "the mount is in use elsewhere; it ends here");
	}
	d->stop_asked = true;
}

/* ------------------------------------------------------------------ serving */

static void drain(int fd)
{
	uint64_t n;

	while (read(fd, &n, sizeof(n)) > 0)
		;
}

static bool got_signal(struct daemon *d)
{
	struct signalfd_siginfo info;

	return read(d->signal_fd, &info, sizeof(info)) == sizeof(info);
}

static void main_loop(struct daemon *d)
{
	while (!has_ended(d) && !d->stop_asked) {
		struct pollfd fds[] = {
			{.fd = d->signal_fd, .events = POLLIN},
			{.fd = d->wake_fd, .events = POLLIN},
		};

		if (poll(fds, G_N_ELEMENTS(fds), -1) < 0 && errno != EINTR)
			return;
		if (fds[1].revents) {
			drain(d->wake_fd);
			report_events_flush(&d->events);
		}
		if (fds[0].revents && got_signal(d))
			unmount_on_signal(d);
	}
}

/* ------------------------------------------------------------------ going down */

/*
 * Takes down whatever is up. The device is closed last: until then the kernel waits, and umount of
 * a fuseblk mount with it. Returns the first error of what had to reach the disk.
 */
static int go_down(struct daemon *d)
{
	int err = 0;

	if (d->stack.fs)
		slu_fs_end_freezes(d->stack.fs); /* a call under way may wait for the disk */
	notifier_stop(&d->notifier);
	close_control(d);
	if (d->session)
		slu_session_stop(d->session);
	if (d->stack.fs) {
		(void)slu_fs_stop(d->stack.fs);
		/* What is lost is named while there is somebody to ask for its name. */
		d->events.may_wait = true;
		report_events_flush(&d->events);
		d->events.fs = NULL;
		err = slu_fs_unmount(d->stack.fs);
	}
	d->stack.fs = NULL;
	slu_session_free(d->session);
	d->session = NULL;
	detach_join(d);
	slu_mounter_free(d->mounter);
	report_events_flush(&d->events);
	notifier_end(&d->notifier);
	if (d->signal_fd >= 0)
		close(d->signal_fd);
	if (d->wake_fd >= 0)
		close(d->wake_fd);
	return err;
}

static bool has_lost(struct daemon *d)
{
	return atomic_load(&d->stream.counts[SLU_EVENT_DATA_LOST]) > 0;
}

static int report_end(struct daemon *d, int end_error, int err)
{
	if (end_error)
		report(LOG_WARNING, "the connection to the kernel ended: %s",
		       g_strerror(-end_error));
	if (err)
		report(LOG_CRIT, "not everything could be written to %s: %s", d->image,
		       g_strerror(-err));
	else if (has_lost(d))
		report(LOG_CRIT, "data was lost; see above");
	else
		report(LOG_INFO, "unmounted, everything is on disk");
	return err || has_lost(d) ? STATUS_LOST : STATUS_OK;
}

/* A mount that did not become usable is taken away again. */
static void undo_mount(struct daemon *d)
{
	if (d->mounted && !is_preopened(d) && detach(d, SLU_DETACH_LAZY))
		report(LOG_ERR, "%s", d->detach_why);
}

int serve(const struct daemon_opts *o, const char *image, bool device, const char *mountpoint,
	  int status_fd)
{
	g_autofree char *flags = options_kernel_flags(o);
	g_autoptr(GError) error = NULL;
	struct slu_mount_opts mount = {
		.mountpoint = mountpoint,
		.source = o->fsname ? o->fsname : image,
		.subtype = "sluicefs",
		.flags = flags,
		.allow_other = o->allow_other,
		.blkdev = device && geteuid() == 0,
	};
	struct daemon d = {
		.o = o,
		.image = image,
		.mountpoint = mountpoint,
		.status_fd = status_fd,
		.signal_fd = -1,
		.wake_fd = -1,
	};
	int status, end_error = 0, err;

	report_about(mountpoint, image);
	slu_event_stream_init(&d.stream);
	if (report_events_init(&d.events, &d.stream)) {
		report(LOG_ERR, "%s", g_strerror(ENOMEM));
		slu_event_stream_fini(&d.stream);
		return STATUS_SYSTEM;
	}
	/* So that writing back our own pages never waits for memory that we have to free. */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	if (!go_up(&d, &mount, &error)) {
		report(LOG_ERR, "%s", error->message);
		status = error->code;
		undo_mount(&d);
		(void)go_down(&d);
		goto fini;
	}
	post_mounted(&d);
	open_control(&d);
	tell_ready(&d);
	main_loop(&d);
	(void)slu_session_ended(d.session, &end_error);
	err = go_down(&d);
	status = report_end(&d, end_error, err);
fini:
	report_events_fini(&d.events);
	report_about(mountpoint, image);
	g_free(d.found);
	slu_event_stream_fini(&d.stream);
	return status;
}
