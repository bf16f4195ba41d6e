/* SPDX-License-Identifier: MIT */
/*
 * sluicectl map: a file's extents as they come, and where in the volume they lie. Memory does not
 * grow with the number of extents.
 */
#include "ctl_private.h"
#include "sluice/units.h"
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define WIDTH_LEAST   20u
#define WIDTH_DEFAULT 80u
#define WIDTH_MOST    1000u

static gchar *opt_inode;

const GOptionEntry ctl_map_options[] = {
	{"inode", 'i', 0, G_OPTION_ARG_STRING, &opt_inode,
	 "The file with this inode number, instead of FILE", "N"},
	{NULL},
};

struct map {
	bool json;
	const char *name; /* for people */
	uint64_t nextents, pos, size, volume;
	/* blocks of the file in each part of the volume */
	uint64_t mapped[WIDTH_MOST], unwritten[WIDTH_MOST];
	unsigned int width;
};

/* ------------------------------------------------------------------ the picture */

static unsigned int terminal_width(void)
{
	struct winsize w;

	if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col)
		return slu_min(slu_max((unsigned int)w.ws_col, WIDTH_LEAST), WIDTH_MOST);
	return WIDTH_DEFAULT;
}

static bool wants_colours(void)
{
	const char *no = g_getenv("NO_COLOR"), *term = g_getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

/* Where a part of the volume begins, in blocks. */
static uint64_t part_start(const struct map *m, unsigned int part)
{
	return (uint64_t)((unsigned __int128)(m->volume / SLU_BLOCK_SIZE) * part / m->width);
}

static void count(struct map *m, uint64_t *parts, uint64_t blkno, uint64_t n)
{
	unsigned int part = 0, end = m->width;

	while (end - part > 1) {
		unsigned int middle = part + (end - part) / 2;

		if (part_start(m, middle) <= blkno)
			part = middle;
		else
			end = middle;
	}
	for (; n && part < m->width; part++) {
		uint64_t here = slu_min(n, part_start(m, part + 1) - blkno);

		parts[part] += here;
		blkno += here;
		n -= here;
	}
}

static void print_picture(const struct map *m)
{
	static const char *const blocks[] = {"\u00b7", "\u2591", "\u2592", "\u2593", "\u2588"};
	static const char *const ascii[] = {".", "-", "+", "*", "#"};
	const char *const *shades = g_get_charset(NULL) ? blocks : ascii;
	bool colours = wants_colours();
	char volume[SLU_SIZE_STR];

	slu_format_size(m->volume, volume);
	printf("\nin the volume of %s, from start to end:\n", volume);
	for (unsigned int i = 0; i < m->width; i++) {
		uint64_t has = m->mapped[i] + m->unwritten[i];
		uint64_t room = part_start(m, i + 1) - part_start(m, i);
		uint64_t shade = has ? slu_min(1 + 4 * has / (room + 1), (uint64_t)4) : 0;

		if (colours && has)
			fputs(m->mapped[i] ? "\033[32m" : "\033[33m", stdout);
		fputs(shades[shade], stdout);
		if (colours && has)
			fputs("\033[0m", stdout);
	}
	putchar('\n');
}

/* ------------------------------------------------------------------ the table */

static void print_extent(struct map *m, uint64_t pos, uint64_t len, int64_t blkno, const char *type)
{
	char block[24] = "-";

	if (m->json) {
		JsonObject *o = json_object_new();

		json_object_set_int_member(o, "position", (gint64)pos);
		json_object_set_int_member(o, "length", (gint64)len);
		if (blkno >= 0)
			json_object_set_int_member(o, "block", blkno);
		json_object_set_string_member(o, "type", type);
		ctl_print_json(o);
		json_object_unref(o);
		return;
	}
	if (blkno >= 0)
		snprintf(block, sizeof(block), "%lld", (long long)blkno);
	printf("%14llu %12llu %14s  %s\n", (unsigned long long)(pos / SLU_BLOCK_SIZE),
	       (unsigned long long)slu_bytes_to_blocks(len), block, type);
}

/* What lies between the last extent and pos. */
static void print_hole(struct map *m, uint64_t pos)
{
	if (pos > m->pos)
		print_extent(m, m->pos, pos - m->pos, -1, "hole");
}

static bool take_extent(struct map *m, JsonObject *e)
{
	int64_t pos = json_object_get_int_member_with_default(e, "position", -1);
	int64_t len = json_object_get_int_member_with_default(e, "length", -1);
	int64_t blkno = json_object_get_int_member_with_default(e, "block", -1);
	const char *type = json_object_get_string_member_with_default(e, "type", "");

	if (pos < (int64_t)m->pos || len <= 0 || len > INT64_MAX - pos)
		return false;
	print_hole(m, (uint64_t)pos);
	print_extent(m, (uint64_t)pos, (uint64_t)len, blkno, type);
	m->pos = (uint64_t)(pos + len);
	m->nextents++;
	if (blkno >= 0)
		count(m, strcmp(type, "unwritten") ? m->mapped : m->unwritten, (uint64_t)blkno,
		      (uint64_t)len / SLU_BLOCK_SIZE);
	return true;
}

static void begin(struct map *m, JsonObject *reply)
{
	char size[SLU_SIZE_STR];

	m->width = terminal_width();
	m->volume =
		(uint64_t)json_object_get_int_member_with_default(reply, "volume", SLU_BLOCK_SIZE);
	if (m->json)
		return;
	slu_format_size(m->size, size);
	printf("%s: inode %lld, %s (%llu bytes); blocks are of %u bytes\n", m->name,
	       (long long)json_object_get_int_member_with_default(reply, "inode", 0), size,
	       (unsigned long long)m->size, (unsigned int)SLU_BLOCK_SIZE);
	printf("%14s %12s %14s  %s\n", "OFFSET", "LENGTH", "BLOCK", "TYPE");
}

static bool take_batch(void *ctx, JsonObject *reply)
{
	struct map *m = ctx;
	JsonNode *node = json_object_get_member(reply, "extents");
	JsonArray *extents = node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;

	m->size = (uint64_t)json_object_get_int_member_with_default(reply, "size", 0);
	if (!m->width)
		begin(m, reply);
	for (guint i = 0; extents && i < json_array_get_length(extents); i++)
		if (!take_extent(m, json_array_get_object_element(extents, i)))
			break;
	return !ferror(stdout);
}

/* ------------------------------------------------------------------ which file */

/* A descriptor of a regular file, or -1 after a line. */
static int open_file(const char *name, struct stat *st)
{
	int fd = -1;

	/* Looks first, since opening a tape or a FIFO does something. */
	if (!stat(name, st) && S_ISREG(st->st_mode))
		fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	else if (!access(name, F_OK)) {
		slu_tool_error("%s is not a regular file, and has no map", name);
		return -1;
	}
	if (fd >= 0 && !fstat(fd, st))
		return fd;
	slu_tool_error("%s: %s", name, g_strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The daemon of the mount that the file is on, unless another was asked for. */
static bool connect_to(struct ctl *c, const char *name, const struct stat *st)
{
	g_autoptr(GPtrArray) all = slu_mountinfo_ours();
	g_autoptr(GError) error = NULL;

	if (c->mountpoint || c->socket || c->config) {
		c->client = ctl_connect(c);
		return c->client != NULL;
	}
	for (guint i = 0; i < all->len; i++) {
		const struct slu_mount_entry *e = g_ptr_array_index(all, i);

		if (e->major != major(st->st_dev) || e->minor != minor(st->st_dev))
			continue;
		c->client = slu_control_ask_mount(e, &error);
		if (!c->client)
			slu_tool_error("%s", error->message);
		return c->client != NULL;
	}
	slu_tool_error("%s is not on a mounted sluicefs volume", name);
	return false;
}

static bool parse_inode(const char *text, JsonObject *parameters)
{
	gint64 ino;

	if (!g_ascii_string_to_signed(text, 10, 1, G_MAXINT64, &ino, NULL)) {
		slu_tool_error("--inode: \"%s\" is not the number of an inode", text);
		return false;
	}
	json_object_set_int_member(parameters, "inode", ino);
	return true;
}

static int show(struct ctl *c, const char *name, JsonObject *parameters)
{
	g_autofree struct map *m = g_new0(struct map, 1);
	g_autoptr(GError) error = NULL;

	m->json = c->json;
	m->name = name;
	if (!slu_control_stream(c->client, VOLUME "Map", parameters, take_batch, m, &error)) {
		slu_tool_error("%s", error->message);
		return CTL_FAILED;
	}
	if (ferror(stdout))
		return CTL_FAILED;
	print_hole(m, m->size);
	if (!c->json) {
		printf("%llu extent%s\n", (unsigned long long)m->nextents,
		       m->nextents == 1 ? "" : "s");
		print_picture(m);
	}
	return fflush(stdout) ? CTL_FAILED : CTL_OK;
}

int ctl_map(struct ctl *c, char **args)
{
	JsonObject *parameters;
	struct stat st;
	int fd, status = CTL_FAILED;

	if (!opt_inode == !*args) {
		slu_tool_error("usage: sluicectl map FILE, or -m MOUNTPOINT map --inode N");
		return CTL_USAGE;
	}
	parameters = json_object_new();
	if (opt_inode && !parse_inode(opt_inode, parameters)) {
		json_object_unref(parameters);
		return CTL_USAGE;
	}
	if (opt_inode) {
		c->client = ctl_connect(c);
	} else {
		fd = open_file(*args, &st);
		if (fd < 0) {
			json_object_unref(parameters);
			return CTL_FAILED;
		}
		if (connect_to(c, *args, &st)) {
			json_object_set_int_member(parameters, "fileDescriptor", 0);
			slu_control_send_fd(c->client, fd);
		} else {
			close(fd);
		}
	}
	if (c->client)
		status = show(c, *args ? *args : opt_inode, parameters);
	else
		json_object_unref(parameters);
	return status;
}
