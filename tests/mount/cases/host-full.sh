# sets: cache engine
# needs: root
# limit: 200
# The host's filesystem is filled by somebody else: ENOSPC, and nothing worse, from what needs room;
# reading and deleting go on, no promise is broken, and when there is room again it heals by itself.
# So on a host that sets blocks aside for the image (tmpfs), and on one that cannot (ext2).
mkdir "$SLU_WORK/host"
export IMG=$SLU_WORK/host/volume.img
head -c 8000000 /dev/urandom >"$SLU_WORK/data"
head -c 40000000 /dev/urandom >"$SLU_WORK/large"
head -c 3000000 "$SLU_WORK/large" >"$SLU_WORK/part"
host_full() { dd if=/dev/zero of="$SLU_WORK/host/other" bs=64K oflag=append conv=notrunc 2>/dev/null || true; }
host_free() { rm -f "$SLU_WORK/host/other"; }

# no_space WHAT COMMAND...: must fail, and say why
no_space() {
	local what=$1
	shift
	! "$@" 2>"$SLU_WORK/err" || fail "$what: went through on a full host"
	expect_match "$what" 'No space left on device' "$(cat "$SLU_WORK/err")"
}
# may_lack_space WHAT COMMAND...: if it fails, then for that reason
may_lack_space() {
	local what=$1
	shift
	"$@" 2>"$SLU_WORK/err" || expect_match "$what" 'No space left on device' "$(cat "$SLU_WORK/err")"
}
has_space() {
	local what=$1
	shift
	"$@" 2>"$SLU_WORK/err" || fail "$what: $(cat "$SLU_WORK/err")"
}
is_writable() {
	! grep -q 'read-only' "$SLU_WORK/daemon.log" || fail "the volume has turned read-only"
}
write_synced() { dd if="$SLU_WORK/data" of="$1" bs=1M conv=fsync 2>"$SLU_WORK/err"; }
synced() { sync "$MNT/dirty.$round" "$MNT/open.$round" 2>/dev/null; }
same() {
	local name
	for name in promised instead.1 instead.2 dirty.1 dirty.2 old.3 old.4; do
		cmp "$SLU_WORK/data" "$MNT/$name" || fail "$name, $1"
	done
	cmp "$SLU_WORK/part" "$MNT/open.1"
	cmp "$SLU_WORK/part" "$MNT/open.2"
}

# on_host NAME HOW: HOW is what is expected where no new block is needed
on_host() {
	local round i
	echo "on $1"
	: >"$SLU_WORK/daemon.log"
	make_volume 1G
	mount_logged commit=1
	write_synced "$MNT/promised"
	for i in 1 2 3 4 5; do write_synced "$MNT/old.$i"; done
	for round in 1 2; do
		# Somebody else takes what is left.
		host_full
		no_space "a file of 40 MB, round $round" dd if="$SLU_WORK/large" of="$MNT/large" bs=1M conv=fsync
		no_space "O_DIRECT, round $round" dd if="$SLU_WORK/large" of="$MNT/direct" bs=1M iflag=fullblock count=38 oflag=direct
		cmp "$SLU_WORK/data" "$MNT/promised"
		is_writable
		# Over what is there already, there is room.
		"$2" "over what is there, round $round" \
			dd if="$SLU_WORK/data" of="$MNT/promised" bs=1M conv=notrunc,fsync
		# Deleting works, and what it gives back can be used again.
		rm "$MNT/old.$round" "$MNT/large" "$MNT/direct"
		[ "$1" = ext2 ] || wait_for 10 write_synced "$MNT/instead.$round"
		is_writable
		host_free
		wait_for 15 write_synced "$MNT/instead.$round"

		# The space goes while dirty data lies in the daemon.
		cp "$SLU_WORK/data" "$MNT/dirty.$round"
		exec 7>>"$MNT/open.$round"
		cat "$SLU_WORK/part" >&7
		host_full
		may_lack_space "sync, round $round" sync "$MNT/dirty.$round"
		may_lack_space "sync, round $round" sync "$MNT/open.$round"
		ls -l "$MNT" >"$SLU_WORK/ls"
		cmp "$SLU_WORK/data" "$MNT/dirty.$round"
		is_writable
		# As soon as there is room it is as if nothing had been.
		host_free
		wait_for 15 synced
		exec 7>&-
		is_writable
	done
	same "while mounted"
	umount_volume
	mount_logged
	same "after a remount"
	umount_volume
	fsck_clean
	! grep 'LOST' "$SLU_WORK/daemon.log" || fail "data was lost"
}

mount -t tmpfs -o size=96M,mode=755 none "$SLU_WORK/host"
on_host tmpfs has_space
umount "$SLU_WORK/host"

losetup -f >/dev/null 2>&1 || skip "no loop devices"
truncate -s 110M "$SLU_WORK/ext2"
mkfs.ext2 -q -m 0 -F "$SLU_WORK/ext2"
mount -o loop "$SLU_WORK/ext2" "$SLU_WORK/host"
# A commit needs new blocks of the host, and so does a promise.
on_host ext2 may_lack_space

# Who waits for room lives, and says so to the service manager, which else would end it with all it keeps.
mount_notify "$SLU_WORK/notify" >"$SLU_WORK/told" &
listener=$!
wait_for 10 grep -q listening "$SLU_WORK/told"
lives() { grep -c '^WATCHDOG=1$' "$SLU_WORK/told" || true; }
: >"$SLU_WORK/daemon.log"
NOTIFY_SOCKET=$SLU_WORK/notify WATCHDOG_USEC=900000 mount_logged commit=1
write_synced "$MNT/promised"
host_full
mkdir "$MNT/names"
(cd "$MNT/names" && seq 3000 | xargs touch)
wait_for 20 grep -q 'no room for a commit' "$SLU_WORK/daemon.log"
n=$(lives)
lives_on() { [ "$(lives)" -gt $((n + 5)) ]; }
wait_for 20 lives_on
host_free
wait_for 15 sync -f "$MNT/names"
expect_eq "names" 3000 "$(ls "$MNT/names" | wc -l)"
umount_volume
fsck_clean
kill "$listener"
wait "$listener" 2>/dev/null || true
umount "$SLU_WORK/host"
