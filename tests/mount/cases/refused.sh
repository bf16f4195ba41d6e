# sets: user short cache
# A WRITE that is refused on a full volume: the call or fsync says so, and afterwards the file has its
# old bytes, at once where the error came from the call, and at the latest after a remount. The pages
# are in the kernel's cache beforehand, as a hole and as data.
make_volume 32M
mount_logged
head -c 65536 /dev/urandom >"$SLU_WORK/new"
head -c 24576 /dev/urandom >"$SLU_WORK/old"
# Pages 6 to 13 are a hole.
cp "$SLU_WORK/old" "$MNT/f"
truncate -s 57344 "$MNT/f"
truncate -s 57344 "$SLU_WORK/old"
sync "$MNT/f"

# Everything else is taken, with nothing in the kernel's cache.
size=$((4 << 20)) at=0
while [ $size -ge 4096 ]; do
	if fallocate -o $at -l $size "$MNT/filler" 2>/dev/null; then
		at=$((at + size))
	else
		size=$((size / 2))
	fi
done

# refused_write NAME BLOCK COUNT: a write of whole pages, of which the last ones at least have no space
refused_write() {
	local what=$1 from=$2 count=$3 status=0
	cmp "$SLU_WORK/old" "$MNT/f" || fail "$what: not the old bytes before it"
	dd if="$SLU_WORK/new" of="$MNT/f" bs=$((count * 4096)) count=1 seek=$((from * 4096)) oflag=seek_bytes conv=notrunc,fsync 2>"$SLU_WORK/dd.err" || status=$?
	[ $status != 0 ] || fail "$what: neither write nor fsync failed"
	grep -q 'No space left on device' "$SLU_WORK/dd.err" || fail "$what: expected ENOSPC, got $(cat "$SLU_WORK/dd.err")"
	[ "$SLU_MODE" != nowriteback ] || cmp "$SLU_WORK/old" "$MNT/f" || fail "$what: refused bytes can be read"
	[ -e "$SLU_WORK/told" ] || [ "$SLU_MODE" = nowriteback ] || wait_for 5 grep -q "cache were refused" "$SLU_WORK/daemon.log"
	touch "$SLU_WORK/told" # later mounts say it to the system's log
	remount_volume
	cmp "$SLU_WORK/old" "$MNT/f" || fail "$what: not the old bytes after a remount"
}

refused_write "a page in a hole" 8 1
refused_write "pages in a hole" 7 5
refused_write "a page behind the end" 14 1
refused_write "far behind the end" 1000 2

# What has blocks is written over, full or not.
dd if="$SLU_WORK/new" of="$MNT/f" bs=4096 count=6 conv=notrunc,fsync 2>"$SLU_WORK/dd.err" || fail "a write over data: $(cat "$SLU_WORK/dd.err")"
head -c 24576 "$SLU_WORK/new" >"$SLU_WORK/want"
truncate -s 57344 "$SLU_WORK/want"
cmp "$SLU_WORK/want" "$MNT/f"
umount_volume
fsck_clean
