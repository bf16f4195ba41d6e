# sets: user short
# What the daemon answers is what org.sluicefs.Volume.varlink says: every method, and every field of
# every type at least once, on a volume that is used, frozen, scrubbed, damaged and cut off.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run # where an ordinary user's sockets are
mkdir -p "$SLU_WORK/run"
make_volume 64M --label "a name"

begin() {
	mount_logged commit=1
	socket=$(find "${XDG_RUNTIME_DIR:-/run}/sluicefs" -name "$(mountpoint -d "$MNT")")
	wait_for 10 mount_varlink "$socket" >"$SLU_WORK/all"
}
# ask METHOD [PARAMETERS [REPLIES]]
ask() {
	timeout 30 mount_varlink "$socket" "$@" >>"$SLU_WORK/seen" 2>"$SLU_WORK/err" ||
		fail "$*: status $?: $(cat "$SLU_WORK/err")"
}
# refuses PATTERN METHOD [PARAMETERS]: that the method fails, and says why
refuses() {
	! mount_varlink "$socket" "${@:2}" >/dev/null 2>"$SLU_WORK/err" || fail "${*:2}: went through"
	expect_match "${*:2}" "$1" "$(cat "$SLU_WORK/err")"
}

begin
ask Status
ask Metrics
head -c 5000000 /dev/urandom >"$MNT/file"
sync "$MNT/file"
inode=$(stat -c %i "$MNT/file")
ask Map "{\"inode\":$inode}" 0
ask Watch '{"last":9}' 1
{ sleep 0.5; cat "$MNT/file" "$MNT/nothing" >"$SLU_WORK/out" 2>&1 || true; } &
ask Top '{"interval":1.0}' 2
wait $!
ask Sync
ask CheckRemount '{"options":"ro"}'
ask Remount '{"readOnly":true}'
ask Status
ask Remount '{"readOnly":false}'
ask Freeze '{"timeout":60.5}'
ask Status
head -c 9000 "$MNT/file" >"$MNT/promised" # and not on disk, so without a block
ask Map "{\"inode\":$(stat -c %i "$MNT/promised")}" 0
ask Thaw
refuses 'Thaw\(\): .* is not frozen' Thaw
for ((i = 0; i < 300; i++)); do echo "$MNT/$i.a-name-that-takes-some-room-in-a-node-of-the-tree"; done | xargs touch
ask Sync # nodes enough for a scrub that takes its time
ask Grow '{"by":16777216}'
ask Scrub '{"rate":1}'
ask Status
ask CancelScrub
wait_for 10 ask Scrub '{"rate":0}' 0
ask Status
refuses 'Map\(\): .* there is no inode' Map '{"inode":999999}' 0

# The spare superblock is damaged, and a scrub says so.
dd if=/dev/urandom of="$IMG" bs=4096 seek=$((80 * 256 - 1)) count=1 conv=notrunc 2>/dev/null
ask Scrub '{"rate":0}' 0
umount_volume

# Half of the image goes: reading fails, with an inode and a path, and the volume turns read-only.
begin
truncate -s 2M "$IMG"
! cat "$MNT/file" >/dev/null 2>&1 || fail "what is gone was read"
ask Watch '{"last":99}' 2
ask Status
timeout 30 sluicefs --unmount "$MNT"

missing=$(comm -23 <(sort -u "$SLU_WORK/all") <(sort -u "$SLU_WORK/seen"))
[ -z "$missing" ] || fail "never answered: $missing"
figures "$(sort -u "$SLU_WORK/all" | wc -l) fields of $(wc -l <"$SLU_WORK/seen") that were looked at"
