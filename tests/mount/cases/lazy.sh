# sets: user short cache
# limit: 200
# Unmounted lazily with dirty pages and a file open: out of sight at once; who has the file open goes on
# until it is closed; until then the image is in use; then the daemon ends, with everything on disk.
make_volume 1G
head -c 20000000 /dev/urandom >"$SLU_WORK/data"
head -c 3000000 "$SLU_WORK/data" >"$SLU_WORK/part"
gone() { ! kill -0 "$pid" 2>/dev/null; }
unmounted() { ! mountpoint -q "$MNT"; }

try() {
	local name=$1 pid i
	shift
	mount_logged commit=60
	pid=$(daemon_pid)
	exec 7<>"$MNT/$name.open" 8<>"$MNT/$name.deleted"
	rm "$MNT/$name.deleted"
	cat "$SLU_WORK/part" >&7
	cp "$SLU_WORK/data" "$MNT/$name.dirty"
	"$@"
	unmounted || fail "$name: still in sight"
	for i in 1 2 3; do
		cat "$SLU_WORK/part" >&7 || fail "$name: write $i after it"
		cat "$SLU_WORK/part" >&8
		refused 8 "in use by .*$pid" fsck.sluicefs --wait 0 -n "$IMG"
	done
	cmp <(cat "$SLU_WORK"/{part,part,part}) /proc/self/fd/8 || fail "$name: the deleted file"
	# A second one cannot get at the image, and waits for it.
	refused 32 "in use" sluicefs --wait 0 -o "$(options)" "$IMG" "$MNT"
	kill -0 "$pid" || fail "$name: the daemon ended while a file was open"
	exec 8>&-
	cat "$SLU_WORK/part" >&7
	exec 7>&-
	wait_for 20 gone
	fsck_clean --wait 0
	mount_volume
	cmp "$SLU_WORK/data" "$MNT/$name.dirty" || fail "$name: dirty pages were lost"
	cat "$SLU_WORK"/{part,part,part,part,part} | cmp - "$MNT/$name.open" || fail "$name: what was written after it"
	[ ! -e "$MNT/$name.deleted" ] || fail "$name: a deleted file is back"
	rm "$MNT/$name".*
	umount_volume
}
try long sluicefs --unmount --lazy "$MNT"
try short sluicefs -u -z "$MNT"
try fusermount fusermount3 -u -z "$MNT"
! is_root || try umount umount -l "$MNT"
fsck_clean
