/* SPDX-License-Identifier: MIT */
/*
 * Grow: the control socket's way to a longer volume. In a client's thread; takes no lock.
 */
#include "daemon_private.h"
#include "sluice/units.h"

/* False: answered. *ret: 0 for all that the image has. */
static bool wanted_size(struct served *v, struct slu_control_call *call, uint64_t *ret)
{
	int64_t size = 0, by = 0;
	struct slu_store_info info;

	if (!slu_control_int(call, "size", &size) || !slu_control_int(call, "by", &by))
		return false;
	if (size < 0 || by < 0 || (size && by) || (size && size < (int64_t)SLU_BLOCK_SIZE)) {
		slu_control_fail(call, "Failed", "%s: that is no size for a volume", v->mountpoint);
		return false;
	}
	*ret = (uint64_t)size >> SLU_BLOCK_SHIFT;
	if (!by)
		return true;
	slu_store_info(v->stack->fs->store, &info);
	*ret = info.nblocks + ((uint64_t)by >> SLU_BLOCK_SHIFT);
	return true;
}

static void fail_readonly(struct served *v, struct slu_control_call *call)
{
	struct slu_store_info info;

	slu_store_info(v->stack->fs->store, &info);
	if (info.readonly)
		slu_control_fail(call, "Failed", "%s cannot grow: it is read-only%s%s",
				 v->mountpoint, info.why_readonly ? ": " : "",
				 info.why_readonly ? info.why_readonly : "");
	else
		slu_control_fail(call, "Failed",
				 "%s cannot grow: it is mounted read-only; remount it writable",
				 v->mountpoint);
}

static void fail_range(struct served *v, struct slu_control_call *call,
		       const struct slu_fs_growth *g)
{
	const struct slu_blockio_info *info = slu_blockio_info(v->stack->fs->bio);
	char has[SLU_SIZE_STR];

	slu_format_size(g->image << SLU_BLOCK_SHIFT, has);
	if (info->image_size)
		slu_format_size(info->image_size, has);
	slu_control_fail(call, "Failed",
			 info->image_size ? "%s cannot grow so far: image_size= allows it %s of %s"
					  : "%s cannot grow so far: it may have %s of %s; make the "
					    "device larger first",
			 v->mountpoint, has, v->image);
}

static void fail(struct served *v, struct slu_control_call *call, uint64_t nblocks,
		 const struct slu_fs_growth *g, int err)
{
	char now[SLU_SIZE_STR], want[SLU_SIZE_STR];

	slu_format_size(g->from << SLU_BLOCK_SHIFT, now);
	slu_format_size(nblocks << SLU_BLOCK_SHIFT, want);
	if (g->to != g->from)
		slu_control_fail(call, "Failed",
				 "%s has grown, but that is not on disk yet: %s; it is tried again",
				 v->mountpoint, g_strerror(-err));
	else if (err == -EBUSY)
		slu_control_fail(call, "Failed",
				 "%s cannot grow: it is frozen; sluicectl thaw ends that",
				 v->mountpoint);
	else if (err == -EROFS)
		fail_readonly(v, call);
	else if (err == -ERANGE)
		fail_range(v, call, g);
	else if (err == -EINVAL && nblocks && nblocks < g->from)
		slu_control_fail(call, "Failed", "%s has %s and cannot become smaller; %s would be",
				 v->mountpoint, now, want);
	else if (err == -EINVAL)
		slu_control_fail(call, "Failed",
				 "%s would gain nothing: what it needs for itself takes so few "
				 "blocks; make it longer by more",
				 v->mountpoint);
	else if (err == -EEXIST)
		slu_control_fail(
			call, "Failed",
			"%s may hold something behind the volume on %s, from byte %llu on; "
			"if that may be overwritten, mount it with image_size= as far as "
			"the volume may go",
			v->image, v->mountpoint,
			(unsigned long long)((g->occupied << SLU_BLOCK_SHIFT) +
					     slu_blockio_info(v->stack->fs->bio)->image_offset));
	else if (err == -ENOSPC)
		slu_control_fail(call, "Failed",
				 "%s cannot grow: the host has no room for %s; nothing was changed",
				 v->mountpoint, v->image);
	else
		slu_control_fail(call, "Failed", "%s cannot grow: %s", v->mountpoint,
				 g_strerror(-err));
}

void methods_grow(void *ctx, struct slu_control_call *call)
{
	struct served *v = ctx;
	struct slu_fs_growth g = {0};
	uint64_t nblocks;
	JsonObject *o;
	int err;

	if (!wanted_size(v, call, &nblocks))
		return;
	/* While a remount drains nothing is to change, and it does not wait for long. */
	if (atomic_exchange(&v->changing, true)) {
		slu_control_fail(call, "Failed",
				 "%s cannot grow now: a remount, or another grow, is under way",
				 v->mountpoint);
		return;
	}
	err = slu_fs_grow(v->stack->fs, nblocks, &g);
	atomic_store(&v->changing, false);
	if (err) {
		fail(v, call, nblocks, &g, err);
		return;
	}
	o = json_object_new();
	json_object_set_int_member(o, "from", (gint64)(g.from << SLU_BLOCK_SHIFT));
	json_object_set_int_member(o, "to", (gint64)(g.to << SLU_BLOCK_SHIFT));
	slu_control_reply(call, o);
}
