# sets: none
# limit: 240
# A service on a disk that is slow, or that hangs: the manager is asked for time as long as a start or a
# stop gets on, and is not told that the daemon lives when its commits do not come back.
mkdir "$SLU_WORK/disk"
mount_disk 64 "$SLU_WORK/disk" 2>"$SLU_WORK/disk.log" &
wait_for 20 mountpoint -q "$SLU_WORK/disk"
IMG=$SLU_WORK/disk/disk
mkfs.sluicefs -q --force "$IMG"
disk() { echo "$*" >"$SLU_WORK/disk/power"; }
mount_notify "$SLU_WORK/notify" >"$SLU_WORK/told" &
listener=$!
wait_for 10 grep -q listening "$SLU_WORK/told"
export NOTIFY_SOCKET=$SLU_WORK/notify

# begin [VARIABLE=VALUE]: in the background; not yet ready
begin() {
	env "$@" sluicefs -f -o "$(options commit=1)" "$IMG" "$MNT" 2>>"$SLU_WORK/daemon.log" &
	daemon=$!
}
ready() { [ "$(grep -c '^READY=1$' "$SLU_WORK/told")" = "$1" ]; }
lives() { grep -c '^WATCHDOG=1$' "$SLU_WORK/told" || true; }
asked() { grep -A1 '^EXTEND_TIMEOUT_USEC=60000000$' "$SLU_WORK/told" | grep -c "^STATUS=$1$" || true; }
told_watchers() {
	{ timeout 2 sluicectl -m "$MNT" --json watch -n 50 || true; } >"$SLU_WORK/events"
	grep -qF "\"kind\":\"$1\"" "$SLU_WORK/events"
}

begin WATCHDOG_USEC=900000
wait_for 20 ready 1
mkdir "$MNT/d"
seq -f "$MNT/d/a-file-with-a-long-name-%06.0f" 6000 | xargs touch
sync "$MNT/d"
n=$(lives)
wait_for 10 eval '[ "$(lives)" -gt $((n + 1)) ]'
expect_eq "asked for time while it serves" 0 "$(asked '.*')"

# A commit that is slow is an event; it is a sign of life all the same.
disk slow 700
touch "$MNT/slow"
n=$(lives)
wait_for 20 eval '[ "$(lives)" -gt $((n + 1)) ]'
disk on
told_watchers slow-commit || fail "a commit that took seconds is no event"

# One that never ends is none.
disk slow 1000000
touch "$MNT/held"
sleep 1
n=$(lives)
sleep 2
expect_eq "signs of life of a daemon whose disk hangs" "$n" "$(lives)"
disk on
wait_for 20 eval '[ "$(lives)" -gt "$n" ]'

# What went wrong last is in the status. The disk fails for less than what turns a volume read-only.
disk off 0
! dd if=/dev/zero of="$MNT/failed" bs=64K count=4 conv=fsync status=none 2>/dev/null || fail "fsync onto a disk without power"
wait_for 20 grep -qE '^STATUS=.*; last: .*(cannot be written|read-only)' "$SLU_WORK/told"
disk on
kill -TERM "$daemon"
wait "$daemon" || true

# Half of a superblock is enough to mount, but first every node is read.
dd if=/dev/zero of="$IMG" bs=4096 count=1 conv=notrunc status=none
sync "$IMG"
disk slow 25
begin
wait_for 60 ready 2
disk on
[ "$(asked 'Reading the volume')" -ge 1 ] || fail "nobody was asked for time while it started"
expect_eq "the first file" "$MNT/d/a-file-with-a-long-name-000001" "$(find "$MNT/d" -name '*-000001')"

# A stop that has much to write. How fast the disk is makes it last for more than one asking.
head -c 24000000 /dev/urandom >"$SLU_WORK/data"
disk slow 700
cp "$SLU_WORK/data" "$MNT/data"
kill -TERM "$daemon"
wait "$daemon" || fail "SIGTERM: status $?: $(cat "$SLU_WORK/daemon.log")"
disk on
[ "$(asked 'Writing everything out')" -ge 1 ] || fail "nobody was asked for time while it stopped"
kill "$listener"
wait "$listener" 2>/dev/null || true
unset NOTIFY_SOCKET
fsck_clean
mount_volume
cmp "$SLU_WORK/data" "$MNT/data"
umount_volume
fusermount3 -u "$SLU_WORK/disk"
