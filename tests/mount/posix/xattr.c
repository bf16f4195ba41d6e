/* SPDX-License-Identifier: MIT */
/* Extended attributes: names, sizes, flags, how many; and ACLs as the attributes they are. */
#include "posix.h"
#include <sys/xattr.h>

#define MAX_VALUE 65536

static void values_of_every_size_up_to_64_kib(void)
{
	static const size_t sizes[] = {0,    1,    100,  900,  1000,  1023,  1024,     1025,
				       2048, 4096, 4097, 8192, 40000, 65535, MAX_VALUE};
	uint8_t *value = malloc(MAX_VALUE + 1), *seen = malloc(MAX_VALUE + 1);

	posix_put("f", "x", 1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		posix_fill(value, sizes[i], i + 1);
		OK(setxattr("f", "user.value", value, sizes[i], 0));
		EQ(sizes[i], OK(getxattr("f", "user.value", NULL, 0)));
		EQ(sizes[i], OK(getxattr("f", "user.value", seen, MAX_VALUE)));
		SAME(value, seen, sizes[i]);
		if (sizes[i] > 1)
			FAILS(ERANGE, getxattr("f", "user.value", seen, sizes[i] - 1));
	}
	/* And down again, with another one beside it. */
	OK(setxattr("f", "user.other", "beside", 6, 0));
	for (size_t i = sizeof(sizes) / sizeof(sizes[0]); i-- > 0;) {
		posix_fill(value, sizes[i], i + 100);
		OK(setxattr("f", "user.value", value, sizes[i], XATTR_REPLACE));
		EQ(sizes[i], OK(getxattr("f", "user.value", seen, MAX_VALUE)));
		SAME(value, seen, sizes[i]);
	}
	EQ(6, OK(getxattr("f", "user.other", seen, MAX_VALUE)));
	SAME("beside", seen, 6);
	FAILS(E2BIG, setxattr("f", "user.value", value, MAX_VALUE + 1, 0));
}

static void flags_and_errors_are_those_of_the_manual(void)
{
	char name[258] = "user.", buf[16];

	posix_put("f", "x", 1);
	OK(mkdir("d", 0755));
	OK(setxattr("d", "user.on-dir", "1", 1, 0));
	FAILS(ENODATA, getxattr("f", "user.a", buf, sizeof(buf)));
	FAILS(ENODATA, setxattr("f", "user.a", "1", 1, XATTR_REPLACE));
	OK(setxattr("f", "user.a", "1", 1, XATTR_CREATE));
	FAILS(EEXIST, setxattr("f", "user.a", "2", 1, XATTR_CREATE));
	OK(setxattr("f", "user.a", "22", 2, XATTR_REPLACE));
	EQ(2, OK(getxattr("f", "user.a", buf, sizeof(buf))));
	OK(removexattr("f", "user.a"));
	FAILS(ENODATA, removexattr("f", "user.a"));
	FAILS(EOPNOTSUPP, setxattr("f", "nonsense.a", "1", 1, 0));
	FAILS(EOPNOTSUPP, setxattr("f", "noprefix", "1", 1, 0));
	memset(name + 5, 'n', 250);
	OK(setxattr("f", name, "long", 4, 0));
	EQ(4, OK(getxattr("f", name, buf, sizeof(buf))));
	name[255] = 'n';
	FAILS(ERANGE, setxattr("f", name, "long", 4, 0));
	OK(symlink("f", "l"));
	FAILS(EPERM, lsetxattr("l", "user.a", "1", 1, 0)); /* the kernel's rule */
}

static void as_many_as_listxattr_can_show(void)
{
	enum { MANY = 300 };
	char name[256], *list = malloc(65536), *p;
	bool seen[MANY] = {false};
	ssize_t len;

	posix_put("f", "x", 1);
	EQ(0, OK(listxattr("f", NULL, 0)));
	for (int i = 0; i < MANY; i++) {
		memset(name, 'a', sizeof(name));
		snprintf(name, sizeof(name), "user.%03d.%.190s", i,
			 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			 "aaaaaaaaa"
			 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
		OK(setxattr("f", name, &i, sizeof(i), 0));
	}
	len = OK(listxattr("f", list, 65536));
	EQ(len, OK(listxattr("f", NULL, 0)));
	FAILS(ERANGE, listxattr("f", list, (size_t)len - 1));
	for (p = list; p < list + len; p += strlen(p) + 1) {
		int i = -1, value = -1;

		EQ(1, sscanf(p, "user.%03d.", &i));
		CHECK(i >= 0 && i < MANY && !seen[i]);
		EQ(sizeof(value), OK(getxattr("f", p, &value, sizeof(value))));
		EQ(i, value);
		seen[i] = true;
	}
	for (int i = 0; i < MANY; i++)
		CHECK(seen[i]);
	for (p = list; p < list + len; p += strlen(p) + 1)
		OK(removexattr("f", p));
	EQ(0, OK(listxattr("f", NULL, 0)));
}

static void trusted_and_security_are_kept_for_root(void)
{
	char buf[64];

	posix_put("f", "x", 1);
	OK(symlink("f", "l"));
	OK(setxattr("f", "trusted.t", "T", 1, 0));
	OK(setxattr("f", "security.s", "S", 1, 0));
	OK(lsetxattr("l", "trusted.t", "link", 4, 0));
	EQ(1, OK(getxattr("f", "trusted.t", buf, sizeof(buf))));
	EQ(1, OK(getxattr("f", "security.s", buf, sizeof(buf))));
	EQ(4, OK(lgetxattr("l", "trusted.t", buf, sizeof(buf))));
	EQ(strlen("trusted.t") + strlen("security.s") + 2, OK(listxattr("f", buf, sizeof(buf))));
}

static void lists_no_trusted(void *arg)
{
	char buf[64];

	(void)arg;
	FAILS(ENODATA, getxattr("f", "trusted.t", buf, sizeof(buf)));
	EQ(strlen("user.u") + 1, OK(listxattr("f", NULL, 0)));
	EQ(strlen("user.u") + 1, OK(listxattr("f", buf, sizeof(buf))));
	SAME("user.u", buf, strlen("user.u") + 1);
}

static void trusted_names_are_shown_to_nobody_else(void)
{
	OK(chmod(".", 0755));
	posix_put("f", "x", 1);
	OK(chmod("f", 0644));
	OK(setxattr("f", "trusted.t", "T", 1, 0));
	OK(setxattr("f", "user.u", "U", 1, 0));
	posix_as(POSIX_UID, POSIX_GID, lists_no_trusted, NULL);
}

/* ------------------------------------------------------------------ ACLs */

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

struct acl {
	uint32_t version; /* 2 */
	struct acl_entry entries[8];
};

#define ACL_USER_OBJ  0x01
#define ACL_USER      0x02
#define ACL_GROUP_OBJ 0x04
#define ACL_GROUP     0x08
#define ACL_MASK      0x10
#define ACL_OTHER     0x20
#define NO_ID         0xffffffffu

static const char access_acl[] = "system.posix_acl_access";
static const char default_acl[] = "system.posix_acl_default";

/* rwx owner, r-x another user, rwx its group, mask as given, nothing for others. */
static size_t make_acl(struct acl *acl, uint32_t uid, unsigned int mask)
{
	*acl = (struct acl){
		.version = 2,
		.entries = {{ACL_USER_OBJ, 7, NO_ID},
			    {ACL_USER, 5, uid},
			    {ACL_GROUP_OBJ, 7, NO_ID},
			    {ACL_MASK, (uint16_t)mask, NO_ID},
			    {ACL_OTHER, 0, NO_ID}},
	};
	return 4 + 5 * sizeof(struct acl_entry);
}

static void an_access_acl_is_the_mode_and_the_mode_is_its_mask(void)
{
	struct acl acl, seen;
	size_t len = make_acl(&acl, 1234, 5);

	posix_put("f", "x", 1);
	OK(setxattr("f", access_acl, &acl, len, 0));
	EQ(0750, posix_stat("f").st_mode & 07777);
	EQ(len, OK(getxattr("f", access_acl, &seen, sizeof(seen))));
	SAME(&acl, &seen, len);
	OK(chmod("f", 0720));
	EQ(len, OK(getxattr("f", access_acl, &seen, sizeof(seen))));
	EQ(2, seen.entries[3].perm); /* the mask */
	EQ(7, seen.entries[2].perm);
	/* One that says no more than a mode is stored as the mode. */
	acl.entries[1] = (struct acl_entry){ACL_GROUP_OBJ, 4, NO_ID};
	acl.entries[2] = (struct acl_entry){ACL_OTHER, 4, NO_ID};
	OK(setxattr("f", access_acl, &acl, 4 + 3 * sizeof(struct acl_entry), 0));
	EQ(0744, posix_stat("f").st_mode & 07777);
	FAILS(ENODATA, getxattr("f", access_acl, &seen, sizeof(seen)));
	FAILS(EACCES, setxattr("f", default_acl, &acl, 4 + 3 * sizeof(struct acl_entry), 0));
}

static void a_default_acl_is_inherited_and_replaces_the_umask(void)
{
	struct acl acl, seen;
	size_t len = make_acl(&acl, 1234, 7);
	int fd;

	OK(mkdir("d", 0755));
	OK(setxattr("d", default_acl, &acl, len, 0));
	EQ(0755, posix_stat("d").st_mode & 07777);
	umask(077);
	OK(mkdir("d/sub", 0777));
	EQ(len, OK(getxattr("d/sub", default_acl, &seen, sizeof(seen))));
	SAME(&acl, &seen, len);
	EQ(0770, posix_stat("d/sub").st_mode & 07777); /* not 0700: the ACL, not the umask */
	fd = (int)OK(open("d/file", O_CREAT | O_WRONLY, 0666));
	OK(close(fd));
	EQ(0660, posix_stat("d/file").st_mode & 07777);
	EQ(len, OK(getxattr("d/file", access_acl, &seen, sizeof(seen))));
	EQ(6, seen.entries[3].perm);
	FAILS(ENODATA, getxattr("d/file", default_acl, &seen, sizeof(seen)));
	/* Without one the umask counts. */
	fd = (int)OK(open("plain", O_CREAT | O_WRONLY, 0666));
	OK(close(fd));
	EQ(0600, posix_stat("plain").st_mode & 07777);
	OK(removexattr("d", default_acl));
	OK(mkdir("d/later", 0777));
	EQ(0700, posix_stat("d/later").st_mode & 07777);
}

static void can_read(void *arg)
{
	(void)arg;
	OK(close((int)OK(open("f", O_RDONLY))));
	FAILS(EACCES, open("f", O_WRONLY));
}

static void cannot_read(void *arg)
{
	(void)arg;
	FAILS(EACCES, open("f", O_RDONLY));
}

static void an_acl_decides_who_may_read(void)
{
	struct acl acl;
	size_t len = make_acl(&acl, POSIX_UID, 7);

	OK(chmod(".", 0755));
	posix_put("f", "x", 1);
	OK(chmod("f", 0600));
	posix_as(POSIX_UID, POSIX_GID, cannot_read, NULL);
	OK(setxattr("f", access_acl, &acl, len, 0));
	posix_as(POSIX_UID, POSIX_GID, can_read, NULL);
	posix_as(POSIX_UID + 1, POSIX_GID + 1, cannot_read, NULL);
	make_acl(&acl, POSIX_UID, 2); /* masked */
	OK(setxattr("f", access_acl, &acl, len, 0));
	posix_as(POSIX_UID, POSIX_GID, cannot_read, NULL);
}

const struct posix_check xattr_checks[] = {
	{"values_of_every_size_up_to_64_kib", values_of_every_size_up_to_64_kib, 0},
	{"flags_and_errors_are_those_of_the_manual", flags_and_errors_are_those_of_the_manual, 0},
	{"as_many_as_listxattr_can_show", as_many_as_listxattr_can_show, 0},
	{"trusted_and_security_are_kept_for_root", trusted_and_security_are_kept_for_root,
	 POSIX_ROOT},
	{"trusted_names_are_shown_to_nobody_else", trusted_names_are_shown_to_nobody_else,
	 POSIX_OTHER},
	{"an_access_acl_is_the_mode_and_the_mode_is_its_mask",
	 an_access_acl_is_the_mode_and_the_mode_is_its_mask, 0},
	{"a_default_acl_is_inherited_and_replaces_the_umask",
	 a_default_acl_is_inherited_and_replaces_the_umask, 0},
	{"an_acl_decides_who_may_read", an_acl_decides_who_may_read, POSIX_OTHER},
	{NULL, NULL, 0},
};
