/* SPDX-License-Identifier: MIT */
/*
 * The frame in which every change of the namespace runs, so that each operation is a short function
 * of what to check and what to put.
 *
 *	for (;;) {
 *		find the inodes		names are read with no lock held; short reads are waited for
 *		find			what the operation has to do before any lock is taken
 *		get the ticket		room for the batch; the one wait that may be long
 *		lock			rwlocks ascending, then meta locks ascending
 *		look the names up again	whatever has changed since: start over
 *		change			checks, and one batch
 *		apply			whole or not at all
 *		update memory		the copies in the slots become the inodes' attributes
 *		unlock
 *	}
 *
 * Under the locks nothing waits: what would is answered with -EAGAIN, every lock is dropped, the
 * need is satisfied and the round begins again. A slow need is handed up instead if the caller may
 * not wait.
 *
 * On any error nothing has changed, in memory or in the store.
 */
#include "namespace_private.h"

/* ------------------------------------------------------------------ slots */

struct ns_slot *op_slot(struct ns_op *op, uint64_t ino)
{
	for (unsigned int i = 0; i < op->nslots; i++)
		if (op->slots[i].inode->ino == ino)
			return &op->slots[i];
	return NULL;
}

static int add_slot(struct ns_op *op, uint64_t ino)
{
	struct slu_inode *inode;
	unsigned int i;
	int err;

	if (op_slot(op, ino))
		return 0;
	err = slu_inode_get(op->ns, ino, &inode);
	if (err)
		return err;
	slu_assert(op->nslots < NS_OP_SLOTS);
	for (i = op->nslots++; i > 0 && op->slots[i - 1].inode->ino > ino; i--)
		op->slots[i] = op->slots[i - 1];
	op->slots[i] = (struct ns_slot){.inode = inode};
	return 0;
}

static void drop_slots(struct ns_op *op)
{
	for (unsigned int i = 0; i < op->nslots; i++)
		slu_inode_put(op->slots[i].inode);
	op->nslots = 0;
}

/*
 * A name led to an inode that is gone: either the name has gone as well by now (begin again), or
 * the volume is damaged.
 */
static int dangling(struct ns_op *op, unsigned int i)
{
	struct ns_dirent again;
	int err = dir_find(op->ns, op->dir[i], &op->name[i], &again, NULL);

	if (err)
		return err;
	if (again.ino != op->ent[i].ino || again.off != op->ent[i].off)
		return NS_RESTART;
	return ns_bad_record(op->ns, again.ino, "entry of an inode that does not exist");
}

static int find_inodes(struct ns_op *op)
{
	int err = op->ino ? add_slot(op, op->ino) : 0;

	for (unsigned int i = 0; !err && i < op->nnames; i++) {
		err = add_slot(op, op->dir[i]);
		if (!err && !S_ISDIR(op_slot(op, op->dir[i])->inode->type))
			err = -ENOTDIR;
		/* An unnamed file's directory is a name of length 0. */
		if (!err && op->name[i].len)
			err = dir_find(op->ns, op->dir[i], &op->name[i], &op->ent[i], NULL);
		if (!err && op->ent[i].ino) {
			err = add_slot(op, op->ent[i].ino);
			if (err == -ENOENT || err == -ESTALE)
				err = dangling(op, i);
		}
	}
	if (err)
		return err;
	op->target = op->ino ? op_slot(op, op->ino) : NULL;
	for (unsigned int i = 0; i < op->nnames; i++) {
		op->parent[i] = op_slot(op, op->dir[i]);
		op->child[i] = op->ent[i].ino ? op_slot(op, op->ent[i].ino) : NULL;
	}
	return 0;
}

/* ------------------------------------------------------------------ locks */

static void lock_slots(struct ns_op *op) SLU_NO_TSA
{
	for (unsigned int i = 0; i < op->nslots; i++)
		slu_rwlock_wrlock(&op->slots[i].inode->data.lock);
	for (unsigned int i = 0; i < op->nslots; i++) {
		struct ns_slot *slot = &op->slots[i];

		slu_mutex_lock(&slot->inode->vol.iomap.lock);
		slot->attr = slot->inode->attr;
		slot->orphan_truncate = slot->inode->orphan_truncate;
		slot->changed = false;
	}
}

static void unlock_slots(struct ns_op *op) SLU_NO_TSA
{
	for (unsigned int i = op->nslots; i-- > 0;)
		slu_mutex_unlock(&op->slots[i].inode->vol.iomap.lock);
	for (unsigned int i = op->nslots; i-- > 0;)
		slu_rwlock_wrunlock(&op->slots[i].inode->data.lock);
}

static int names_unchanged(struct ns_op *op, struct slu_need *need)
{
	for (unsigned int i = 0; i < op->nnames; i++) {
		struct ns_dirent now;
		int err;

		if (!op->name[i].len)
			continue;
		err = dir_find(op->ns, op->dir[i], &op->name[i], &now, need);
		if (err)
			return err;
		if (now.ino != op->ent[i].ino)
			return NS_RESTART;
		op->ent[i] = now; /* the place of a new entry may have moved */
	}
	return 0;
}

/* ------------------------------------------------------------------ the round */

static void take_over(struct ns_op *op)
{
	for (unsigned int i = 0; i < op->nslots; i++) {
		struct ns_slot *slot = &op->slots[i];
		struct slu_inode *inode = slot->inode;

		if (!slot->changed)
			continue;
		inode->attr = slot->attr;
		inode->orphan_truncate = slot->orphan_truncate;
		inode->last_txid = op->txid;
		inode_recorded(inode, slot->record_size);
	}
}

static int locked_round(struct ns_op *op, struct slu_need *need)
{
	int err = slu_mutant(NO_SECOND_LOOK) ? 0 : names_unchanged(op, need);

	if (err)
		return err;
	slu_batch_reset(&op->batch);
	op->now = slu_clock_realtime();
	err = op->change(op, need);
	if (err)
		return err;
	for (unsigned int i = 0; i < op->nslots; i++) {
		struct ns_slot *slot = &op->slots[i];

		if (!slot->changed)
			continue;
		slot->record_size = inode_record_size(slot->inode, &slot->attr);
		inode_put_record(&op->batch, &slot->attr, slot->record_size);
	}
	/*
	 * -ENOENT here would mean that a record we have just seen is gone: it is not the caller's.
	 */
	err = slu_store_apply(op->ns->store, &op->ticket, &op->batch, &op->txid, need);
	if (err)
		return err == -ENOENT ? ns_bad_record(op->ns, op->dir[0], "record vanished") : err;
	take_over(op);
	if (op->done)
		op->done(op);
	return 0;
}

/* What was unlinked and is not freed yet is space that can be had by waiting. */
static int wait_for_reclaim(struct slu_need *need)
{
	struct slu_ns *ns = need->owner;
	int more;

	do {
		more = slu_ns_reclaim(ns);
	} while (more > 0);
	itable_wait_reclaim(ns); /* what another thread is at */
	/*
	 * Errors are those of the inodes being freed; whether there is room now, the caller finds
	 * out.
	 */
	return slu_store_commit(ns->store, slu_store_txid(ns->store), false);
}

static int get_ticket(struct ns_op *op, struct slu_need *need)
{
	int err;

	if (op->ticket.store && op->got_records >= op->records && op->got_bytes >= op->bytes)
		return 0;
	slu_ticket_put(&op->ticket);
	op->got_records = op->records;
	op->got_bytes = op->bytes;
	err = slu_ticket_get(op->ns->store, &op->ticket, op->records, op->bytes, op->ticket_flags,
			     need);
	if (err != -ENOSPC || op->made_room || !itable_reclaim_pending(op->ns))
		return err;
	op->made_room = true;
	*need = (struct slu_need){.wait = wait_for_reclaim,
				  .what = "space of deleted files",
				  .owner = op->ns,
				  .slow = true};
	return -EAGAIN;
}

static int op_round(struct ns_op *op, struct slu_need *need) SLU_NO_TSA
{
	int err = find_inodes(op);

	*need = (struct slu_need){0};
	if (!err && op->find)
		err = op->find(op, need);
	if (!err)
		err = get_ticket(op, need);
	if (!err) {
		lock_slots(op);
		err = locked_round(op, need);
		unlock_slots(op);
	}
	if (op->rename_locked) {
		op->rename_locked = false;
		slu_mutex_unlock(&op->ns->rename);
	}
	drop_slots(op);
	return err;
}

int op_run(struct ns_op *op)
{
	struct slu_need need;
	int err;

	if (ns_readonly(op->ns))
		return -EROFS;
	slu_batch_init(&op->batch);
	for (;;) {
		err = op_round(op, &need);
		if (err == NS_RESTART) {
			ns_count(op->ns, restarts);
			continue;
		}
		if (err != -EAGAIN)
			break;
		if (need.slow && !op->ctx->may_wait) {
			ns_count(op->ns, parks);
			op->ctx->need = need;
			break;
		}
		/* A long wait may be for the very room that the ticket holds. */
		if (need.slow)
			slu_ticket_put(&op->ticket);
		err = slu_need_wait(&need);
		if (err)
			break;
	}
	slu_ticket_put(&op->ticket);
	slu_batch_fini(&op->batch);
	return err;
}

/* ------------------------------------------------------------------ what changes are made of */

int op_room(struct ns_op *op, uint32_t records, uint64_t bytes)
{
	if (records <= op->records && bytes <= op->bytes)
		return 0;
	op->records = slu_max(op->records, records);
	op->bytes = slu_max(op->bytes, bytes);
	return NS_RESTART;
}

void op_touch_dir(struct ns_op *op, struct ns_slot *slot)
{
	slot->attr.mtime = slot->attr.ctime = op->now;
	slot->changed = true;
}

int op_check_parent(const struct ns_slot *parent, bool removes)
{
	uint32_t forbidden = SLU_INODE_IMMUTABLE | (removes ? SLU_INODE_APPEND : 0);

	if (!S_ISDIR(parent->attr.mode))
		return -ENOTDIR;
	if (parent->attr.nlink == 0)
		return -ENOENT;
	return parent->attr.flags & forbidden ? -EPERM : 0;
}

void op_put_orphan(struct ns_op *op, uint64_t ino, enum slu_orphan what, uint64_t size)
{
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, ino);
	struct slu_disk_orphan orphan = {.what = (uint8_t)what};

	slu_put_le64(&orphan.size, size);
	slu_batch_put(&op->batch, &key, &orphan, sizeof(orphan));
}

void op_undo_orphan(struct ns_op *op, struct ns_slot *slot)
{
	struct slu_inode *inode = slot->inode;
	struct slu_key key = SLU_KEY(SLU_INO_VOLUME, SLU_REC_ORPHAN, inode->ino);
	uint64_t size = inode_record_size(inode, &slot->attr);

	slot->orphan_truncate = inode_needs_orphan(inode, slot->attr.nlink, size);
	if (slot->orphan_truncate)
		op_put_orphan(op, inode->ino, SLU_ORPHAN_TRUNCATE, size);
	else
		slu_batch_del(&op->batch, &key);
}

void op_drop_link(struct ns_op *op, struct ns_slot *slot)
{
	/* A directory has its one name, and loses with it the link from itself. */
	slot->attr.nlink = S_ISDIR(slot->attr.mode) ? 0 : slot->attr.nlink - 1;
	slot->attr.ctime = op->now;
	slot->changed = true;
	if (slot->attr.nlink)
		return;
	/* In place of one of the other kind. */
	op_put_orphan(op, slot->inode->ino, SLU_ORPHAN_UNLINKED, 0);
	slot->orphan_truncate = false;
}

void op_mark_orphan(struct ns_slot *slot)
{
	if (slot->attr.nlink == 0)
		itable_set_orphan(slot->inode, true);
}
