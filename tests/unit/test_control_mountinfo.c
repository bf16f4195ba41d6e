/* SPDX-License-Identifier: MIT */
/* Lines of mountinfo, and which of them are ours. */
#include "sluice/control.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void a_line_is_taken_apart(void **state)
{
	struct slu_mount_entry *e = slu_mountinfo_parse(
		"36 35 0:98 / /mnt/a\\040b rw,nosuid,noatime shared:1 master:2 - fuse.sluicefs "
		"/data/my\\134\\040vol.img rw,user_id=1000,group_id=100,allow_other\n");

	assert_non_null(e);
	assert_int_equal(e->major, 0);
	assert_int_equal(e->minor, 98);
	assert_true(e->whole);
	assert_string_equal(e->target, "/mnt/a b");
	assert_string_equal(e->source, "/data/my\\ vol.img");
	assert_true(slu_mount_entry_is_ours(e));
	assert_true(slu_mount_entry_is_fuse(e));
	assert_int_equal(slu_mount_entry_uid(e), 1000);
	assert_true(slu_mount_has_word(e->vfs_opts, "noatime"));
	assert_false(slu_mount_has_word(e->vfs_opts, "atime"));
	assert_true(slu_mount_has_word(e->super_opts, "allow_other"));
	slu_mount_entry_free(e);
}

static void optional_fields_may_be_missing(void **state)
{
	struct slu_mount_entry *e = slu_mountinfo_parse("1 1 8:1 / / rw - ext4 /dev/sda1 rw");

	assert_non_null(e);
	assert_string_equal(e->type, "ext4");
	assert_false(slu_mount_entry_is_fuse(e) || slu_mount_entry_is_ours(e));
	assert_int_equal(slu_mount_entry_uid(e), 0);
	slu_mount_entry_free(e);
}

static void other_fuse_mounts_are_not_ours(void **state)
{
	struct slu_mount_entry *e = slu_mountinfo_parse("1 1 0:1 / /x rw - fuse.sshfs a:b rw");

	assert_true(slu_mount_entry_is_fuse(e) && !slu_mount_entry_is_ours(e));
	slu_mount_entry_free(e);
	e = slu_mountinfo_parse("1 1 0:1 /folder /x rw - fuse.sluicefs a rw"); /* bound */
	assert_false(e->whole);
	slu_mount_entry_free(e);
	e = slu_mountinfo_parse("1 1 0:1 / /x rw - fuseblk.sluicefs /dev/loop0 rw");
	assert_true(slu_mount_entry_is_fuse(e) && slu_mount_entry_is_ours(e));
	slu_mount_entry_free(e);
}

static void rubbish_is_no_entry(void **state)
{
	static const char *const lines[] = {
		"",
		"\n",
		"a b c",
		"1 1 0:1 / /x rw",
		"1 1 0:1 / /x rw shared:1 - fuse",
		"1 1 x:y / /x rw - fuse a rw",
		"1 1 0:1 / /x rw a b c d e f g",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
		assert_null(slu_mountinfo_parse(lines[i]));
}

static void the_root_is_found_and_alive(void **state)
{
	struct slu_mount_entry *e = slu_mountinfo_by_target("/"), *proc;

	assert_non_null(e);
	assert_false(slu_mount_entry_is_dead(e));
	slu_mount_entry_free(e);
	assert_null(slu_mountinfo_by_target("/no/such/mount"));
	assert_null(slu_mountinfo_by_source("/no/such/image"));
	assert_null(slu_mountinfo_by_device(4095, 1048575));
	e = slu_mountinfo_by_target("/proc");
	assert_non_null(e);
	proc = slu_mountinfo_by_device(e->major, e->minor);
	assert_non_null(proc);
	assert_string_equal(proc->type, "proc");
	slu_mount_entry_free(proc);
	slu_mount_entry_free(e);
}

static void paths_become_canonical(void **state)
{
	g_autofree char *usr = slu_path_canonical("/usr/../usr//bin/..");

	assert_string_equal(usr, "/usr");
	assert_null(slu_path_canonical("/no/such/dir"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_taken_apart),
		cmocka_unit_test(optional_fields_may_be_missing),
		cmocka_unit_test(other_fuse_mounts_are_not_ours),
		cmocka_unit_test(rubbish_is_no_entry),
		cmocka_unit_test(the_root_is_found_and_alive),
		cmocka_unit_test(paths_become_canonical),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
