/* SPDX-License-Identifier: MIT */
/* The words of the command line: what they do, and that nonsense is one clear line. */
#include "daemon_private.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Splits at blanks. */
static bool parse(struct daemon_opts *o, const char *line, GError **error)
{
	g_auto(GStrv) argv = g_strsplit(line, " ", -1);

	options_init(o);
	return options_parse(o, (int)g_strv_length(argv), argv, error);
}

static void parse_ok(struct daemon_opts *o, const char *line)
{
	g_autoptr(GError) error = NULL;

	if (!parse(o, line, &error))
		fail_msg("%s: %s", line, error->message);
}

/* The complaint has `words` in it, is one line, and has the status of wrong usage. */
static void parse_bad(const char *line, const char *words)
{
	g_autoptr(GError) error = NULL;
	struct daemon_opts o;

	if (parse(&o, line, &error))
		fail_msg("%s was accepted", line);
	if (!strstr(error->message, words))
		fail_msg("%s: \"%s\" does not say \"%s\"", line, error->message, words);
	assert_null(strchr(error->message, '\n'));
	assert_int_equal(error->code, STATUS_USAGE);
	options_fini(&o);
}

static void plain_mount_has_defaults(void **state)
{
	struct daemon_opts o;

	parse_ok(&o, "sluicefs a.img /mnt");
	assert_int_equal(o.action, ACTION_MOUNT);
	assert_string_equal(o.image, "a.img");
	assert_string_equal(o.mountpoint, "/mnt");
	assert_false(o.readonly || o.sync || o.nowriteback || o.foreground || o.allow_other);
	assert_true(o.nosuid && o.nodev && !o.noexec);
	assert_int_equal(o.atime, ATIME_RELATIVE);
	assert_int_equal(o.wait_ns, 5 * SLU_NS_PER_SEC);
	assert_int_equal(o.ready_fd, -1);
	assert_int_equal(o.cache_size + o.commit_ns + o.max_write + o.image_offset, 0);
	assert_int_equal(o.busy_poll_ns, 30 * 1000);
	options_fini(&o);
}

static void every_word_sets_its_field(void **state)
{
	struct daemon_opts o;

	parse_ok(&o, "sluicefs -f a b -o ro,sync,nowriteback,allow_other,commit=7,cache_size=64M "
		     "-o io=threads,image_offset=1M,image_size=2G,max_write=4096,errors=remount-ro "
		     "-o busy_poll=7 "
		     "-o suid,dev,noexec,noatime,nodiratime,fsname=x\\,y,subtype=sluicefs "
		     "--wait=0.5 --replace-stale --ready-fd 7");
	assert_true(o.foreground && o.readonly && o.sync && o.nowriteback && o.allow_other);
	assert_int_equal(o.commit_ns, 7 * SLU_NS_PER_SEC);
	assert_int_equal(o.cache_size, 64 << 20);
	assert_string_equal(o.engine, "threads");
	assert_int_equal(o.image_offset, 1 << 20);
	assert_int_equal(o.image_size, 2ull << 30);
	assert_int_equal(o.max_write, 4096);
	assert_int_equal(o.busy_poll_ns, 7000);
	assert_false(o.nosuid || o.nodev);
	assert_true(o.noexec && o.nodiratime);
	assert_int_equal(o.atime, ATIME_NEVER);
	assert_string_equal(o.fsname, "x,y");
	assert_int_equal(o.wait_ns, SLU_NS_PER_SEC / 2);
	assert_true(o.replace_stale);
	assert_int_equal(o.ready_fd, 7);
	options_fini(&o);
}

static void the_last_word_wins(void **state)
{
	struct daemon_opts o;

	parse_ok(&o, "sluicefs a b -o ro,sync,rw,async,noexec,exec,noatime,strictatime");
	assert_false(o.readonly || o.sync || o.noexec);
	assert_int_equal(o.atime, ATIME_STRICT);
	options_fini(&o);
}

static void words_for_others_are_accepted(void **state)
{
	struct daemon_opts o;

	parse_ok(&o, "sluicefs a b -o defaults,nofail,_netdev,x-systemd.automount,x-foo=1,user,"
		     "user=joe,noauto,auto,comment=hello,default_permissions,rw,X-mount.mkdir");
	assert_int_equal(o.action, ACTION_MOUNT);
	options_fini(&o);
}

static void options_may_follow_the_arguments(void **state)
{
	struct daemon_opts o;

	/* as mount.fuse3 calls */
	parse_ok(&o, "sluicefs a b -o rw,dev,suid,commit=9");
	assert_int_equal(o.commit_ns, 9 * SLU_NS_PER_SEC);
	options_fini(&o);
}

static void nonsense_is_refused_with_one_line(void **state)
{
	parse_bad("sluicefs", "no image and no mount point");
	parse_bad("sluicefs a", "no mount point");
	parse_bad("sluicefs a b c", "unexpected argument c");
	parse_bad("sluicefs a b -x", "unknown option -x");
	parse_bad("sluicefs a b --bogus", "unknown option --bogus");
	parse_bad("sluicefs a b --lazy=1", "takes no value");
	parse_bad("sluicefs -z a b", "goes with --unmount");
	parse_bad("sluicefs a b -o subtype=other", "only sluicefs");
	parse_bad("sluicefs a b -o subtype=", "only sluicefs");
	parse_bad("sluicefs a b -o fsname=", "needs a name");
	parse_bad("sluicefs a b --wait", "needs a value");
	parse_bad("sluicefs a b --wait=soon", "--wait=soon");
	parse_bad("sluicefs a b --wait=-1", "--wait=-1");
	parse_bad("sluicefs a b --wait=nan", "--wait=nan");
	parse_bad("sluicefs a b --ready-fd=x", "--ready-fd=x");
	parse_bad("sluicefs a b -o bogus", "unknown option bogus");
	parse_bad("sluicefs a b -o bogus=1", "unknown option bogus");
	parse_bad("sluicefs a b -o ro=1", "option ro takes no value");
	parse_bad("sluicefs a b -o commit", "option commit needs a value");
	parse_bad("sluicefs a b -o commit=", "commit=");
	parse_bad("sluicefs a b -o commit=-1", "commit=-1");
	parse_bad("sluicefs a b -o commit=1e9", "commit=1e9");
	parse_bad("sluicefs a b -o commit=99999", "commit=99999");
	parse_bad("sluicefs a b -o cache_size=lots", "cache_size=lots is not a size");
	parse_bad("sluicefs a b -o cache_size=1K", "at least 16M");
	parse_bad("sluicefs a b -o cache_size=99999999E", "too large");
	parse_bad("sluicefs a b -o io=magic", "io=magic");
	parse_bad("sluicefs a b -o errors=ignore", "errors=ignore");
	parse_bad("sluicefs a b -o image_offset=100", "multiple of 4096");
	parse_bad("sluicefs a b -o image_size=0", "image_size=0");
	parse_bad("sluicefs a b -o max_write=5000", "max_write=5000");
	parse_bad("sluicefs a b -o max_write=2M", "max_write=2M");
	parse_bad("sluicefs a b -o busy_poll=1001", "busy_poll=1001");
	parse_bad("sluicefs a b -o busy_poll=", "busy_poll=");
	parse_bad("sluicefs a b -o offset=4096", "image_offset=");
	parse_bad("sluicefs --unmount", "one mount point");
}

static void unmount_takes_one_mount_point(void **state)
{
	struct daemon_opts o;

	parse_ok(&o, "sluicefs --unmount /mnt --lazy");
	assert_int_equal(o.action, ACTION_UNMOUNT);
	assert_string_equal(o.mountpoint, "/mnt");
	assert_true(o.lazy);
	options_fini(&o);
	parse_ok(&o, "/sbin/umount.fuse.sluicefs --help");
	assert_int_equal(o.action, ACTION_HELP);
	options_fini(&o);
	parse_ok(&o, "/sbin/mount.fuse.sluicefs --version");
	assert_int_equal(o.action, ACTION_VERSION);
	options_fini(&o);
	parse_ok(&o, "/sbin/umount.fuse.sluicefs /mnt -nfv -t fuse.sluicefs");
	assert_int_equal(o.action, ACTION_UNMOUNT);
	assert_true(o.force && !o.lazy);
	options_fini(&o);
}

static void mount_helper_reads_its_letters_otherwise(void **state)
{
	struct daemon_opts o;

	parse_ok(&o, "/sbin/mount.fuse.sluicefs a b -n -v -t fuse.sluicefs -o rw,commit=3");
	assert_int_equal(o.action, ACTION_MOUNT);
	assert_false(o.foreground);
	assert_int_equal(o.commit_ns, 3 * SLU_NS_PER_SEC);
	/* what mount(8) grants root everywhere else */
	assert_int_equal(o.nosuid, geteuid() != 0);
	options_fini(&o);
	parse_ok(&o, "mount.fuse.sluicefs a b -f");
	assert_int_equal(o.action, ACTION_NOTHING);
	options_fini(&o);
	parse_ok(&o, "mount.fuse.sluicefs a b -s -o bogus,ro");
	assert_true(o.readonly);
	options_fini(&o);
	parse_bad("mount.fuse.sluicefs a b -o bogus,ro", "unknown option bogus");
}

static void remount_is_an_action_of_its_own(void **state)
{
	struct daemon_opts o;

	parse_ok(&o, "mount.fuse.sluicefs a b -o remount,ro,user_id=0,group_id=0,relatime");
	assert_int_equal(o.action, ACTION_REMOUNT);
	assert_true(o.readonly);
	assert_true(o.given & GIVEN_MODE);
	options_fini(&o);
}

static void blanks_around_commas_do_not_count(void **state)
{
	g_autoptr(GError) error = NULL;
	struct daemon_opts o;

	options_init(&o);
	assert_true(options_parse_list(&o, " ro , noexec,\tcommit=7 ,, fsname=a b\\, c\\ , ", false,
				       NULL));
	assert_true(o.readonly && o.noexec);
	assert_int_equal(o.commit_ns, 7 * SLU_NS_PER_SEC);
	assert_string_equal(o.fsname, "a b, c "); /* what is escaped does */
	assert_false(options_parse_list(&o, "commit= 7", false, &error));
	assert_non_null(strstr(error->message, "commit= 7"));
	options_fini(&o);
}

static bool remount_allowed(const char *have_list, const char *want_list, const char *names)
{
	g_autoptr(GError) error = NULL;
	struct daemon_opts have, want;
	bool ok;

	options_init(&have);
	options_init(&want);
	assert_true(options_parse_list(&have, have_list, false, NULL));
	assert_true(options_parse_list(&want, want_list, false, NULL));
	ok = options_same(&have, &want, &error);
	if (!ok)
		assert_non_null(strstr(error->message, names));
	options_fini(&have);
	options_fini(&want);
	return ok;
}

static void remount_may_change_the_mode_only(void **state)
{
	assert_true(remount_allowed("rw", "remount,ro", ""));
	assert_true(remount_allowed("ro,commit=5", "remount,rw,commit=5", ""));
	assert_true(remount_allowed("strictatime", "remount,ro,relatime", ""));
	assert_true(remount_allowed("io=uring", "remount,ro,io=uring", ""));
	assert_false(remount_allowed("commit=5", "remount,ro,commit=6", "commit"));
	assert_false(remount_allowed("", "remount,sync", "sync"));
	assert_false(remount_allowed("", "remount,nowriteback", "nowriteback"));
	assert_false(remount_allowed("io=uring", "remount,io=threads", "io"));
	assert_false(remount_allowed("", "remount,noatime", "noatime"));
	assert_false(remount_allowed("", "remount,noexec", "exec"));
	assert_false(remount_allowed("", "remount,allow_other", "allow_other"));
	assert_false(remount_allowed("", "remount,cache_size=1G", "cache_size"));
}

static void kernel_flags_follow_the_words(void **state)
{
	g_autofree char *plain = NULL, *all = NULL;
	struct daemon_opts o;

	options_init(&o);
	plain = options_kernel_flags(&o);
	assert_string_equal(plain, "nosuid,nodev");
	assert_true(options_parse_list(&o, "suid,dev,noexec,noatime,nodiratime", false, NULL));
	all = options_kernel_flags(&o);
	assert_string_equal(all, "suid,dev,noexec,noatime"); /* libfuse has no nodiratime */
	options_fini(&o);
}

static void help_fits_one_screen(void **state)
{
	char *text = NULL;
	size_t size = 0;
	unsigned int lines = 0;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	options_print_help(f);
	fclose(f);
	for (size_t i = 0, col = 0; i < size; i++) {
		col = text[i] == '\n' ? 0 : col + 1;
		lines += text[i] == '\n';
		assert_true(col <= 80);
	}
	assert_true(lines <= 24);
	free(text); /* open_memstream's */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_mount_has_defaults),
		cmocka_unit_test(every_word_sets_its_field),
		cmocka_unit_test(the_last_word_wins),
		cmocka_unit_test(words_for_others_are_accepted),
		cmocka_unit_test(options_may_follow_the_arguments),
		cmocka_unit_test(nonsense_is_refused_with_one_line),
		cmocka_unit_test(unmount_takes_one_mount_point),
		cmocka_unit_test(mount_helper_reads_its_letters_otherwise),
		cmocka_unit_test(remount_is_an_action_of_its_own),
		cmocka_unit_test(blanks_around_commas_do_not_count),
		cmocka_unit_test(remount_may_change_the_mode_only),
		cmocka_unit_test(kernel_flags_follow_the_words),
		cmocka_unit_test(help_fits_one_screen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
