# sets: user short
# limit: 200
# A volume becomes longer while it is in use, in a file and on a device.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run
mkdir -p "$SLU_WORK/run"
ctl() { sluicectl -m "$MNT" "$@"; }
blocks() { stat -f -c %b "$MNT"; }
make_volume 64M
mount_logged commit=1
ctl watch >"$SLU_WORK/events" &
watcher=$!

# It is full; then it is not, and who was refused goes on, through the same descriptor.
head -c 50000000 /dev/urandom >"$SLU_WORK/data"
cp "$SLU_WORK/data" "$MNT/kept"
sync "$MNT/kept"
exec 7>"$MNT/goes-on"
dd if=/dev/zero bs=64K count=2000 conv=fsync 2>"$SLU_WORK/err" >&7 && fail "125 MiB went into 64 MiB"
expect_match "a full volume" 'No space left on device' "$(cat "$SLU_WORK/err")"
had=$(blocks)
expect_eq "what is said" "the volume has grown from 64 MiB to 256 MiB" "$(ctl grow 256M)"
[ "$(blocks)" -gt $((had + 40000)) ] || fail "statfs: $had blocks before, $(blocks) after"
expect_eq "the length of the file" $((256 << 20)) "$(stat -c %s "$IMG")"
dd if="$SLU_WORK/data" bs=64K conv=fsync 2>"$SLU_WORK/err" >&7 || fail "after growing: $(cat "$SLU_WORK/err")"
exec 7>&-
tail -c 50000000 "$MNT/goes-on" | cmp - "$SLU_WORK/data"
cmp "$SLU_WORK/data" "$MNT/kept"
expect_eq "JSON" '{"from":268435456,"to":272629760}' "$(ctl -j grow +4M)"
expect_eq "grow again" "the volume has 260 MiB already" "$(ctl grow 260M)"
expect_eq "grow to what the file has" "the volume has 260 MiB already" "$(ctl grow)"
truncate -s 300M "$IMG"
expect_eq "grow without a size" "the volume has grown from 260 MiB to 300 MiB" "$(ctl grow)"
wait_for 5 grep -q 'grown: the volume has grown from 260 MiB to 300 MiB' "$SLU_WORK/events"
wait_for 5 grep -q 'grown from 64 MiB to 256 MiB' "$SLU_WORK/daemon.log"

# What cannot be is one line, and changes nothing.
refused 1 'has 300 MiB and cannot become smaller; 100 MiB would be' sluicectl -m "$MNT" grow 100M
refused 2 'not a size' sluicectl -m "$MNT" grow much
refused 2 'too small' sluicectl -m "$MNT" grow +1
refused 2 'usage: sluicectl grow' sluicectl -m "$MNT" grow 1G 2G
echo behind >>"$IMG"
refused 1 'may hold something behind the volume .* from byte 314572800 on' sluicectl -m "$MNT" grow 400M
expect_eq "what was behind" behind "$(tail -c 7 "$IMG")"
truncate -s 300M "$IMG"
umount_volume
fsck_clean
wait "$watcher"

# The size that a file may have: the daemon is told EFBIG and lives.
mount_volume
prlimit --pid "$(daemon_pid)" --fsize=$((400 << 20)):
refused 1 'File too large' sluicectl -m "$MNT" grow 500M
expect_eq "the length of the file" $((300 << 20)) "$(stat -c %s "$IMG")"
ctl grow 350M >/dev/null
umount_volume
mount_volume ro
refused 1 'read-only' sluicectl -m "$MNT" grow 400M
umount_volume
fsck_clean

# Beside load, step by step; every promise is kept, and what is written then is there after a crash.
mount_volume commit=1
mkdir "$MNT/r1"
mount_load run "$MNT/r1" "$SLU_WORK/log.1" 60 2 &
load=$!
for size in 351M 352M 400M 401M 512M 1G; do
	ctl grow $size >/dev/null
	sleep 0.5
done
kill_daemon
wait "$load" || true
fsck.sluicefs -n -f "$IMG" >"$SLU_WORK/fsck.out" 2>&1 || fail "fsck after a crash: $(cat "$SLU_WORK/fsck.out")"
mount_volume
expect_eq "size after a crash" "the volume has 1 GiB already" "$(ctl grow)"
promises=0
load_kept 1
[ $promises -gt 0 ] || fail "the load was promised nothing"
cmp "$SLU_WORK/data" "$MNT/kept"
umount_volume
fsck_clean

# At an offset: the file becomes longer, unless something follows; image_size says where it ends.
rm "$IMG"
head -c 1048576 /dev/urandom >"$IMG"
mkfs.sluicefs -q --offset 1M --size 64M "$IMG"
mount_volume image_offset=1M
ctl grow 80M >/dev/null
expect_eq "the length of the file" $((81 << 20)) "$(stat -c %s "$IMG")"
umount_volume
head -c 1048576 /dev/urandom >"$SLU_WORK/tail"
cat "$SLU_WORK/tail" >>"$IMG"
mount_volume image_offset=1M
refused 1 'behind the volume .* from byte 84934656 on' sluicectl -m "$MNT" grow 100M
refused 1 'behind the volume .* from byte 84934656 on' sluicectl -m "$MNT" grow
umount_volume
mount_volume image_offset=1M,image_size=80M
expect_eq "grow to what it may have" "the volume has 80 MiB already" "$(ctl grow)"
refused 1 'image_size= allows it 80 MiB' sluicectl -m "$MNT" grow 81M
umount_volume
cmp <(tail -c 1048576 "$IMG") "$SLU_WORK/tail" || fail "bytes behind the volume were changed"
mount_volume image_offset=1M,image_size=100M
expect_eq "grow over it when told so" "the volume has grown from 80 MiB to 100 MiB" "$(ctl grow 100M)"
umount_volume
fsck_clean --offset 1M

is_root || exit 0
# A full host: nothing has changed, and it goes when there is room.
mkdir "$SLU_WORK/host"
mount -t tmpfs -o size=40M,mode=755 none "$SLU_WORK/host"
IMG=$SLU_WORK/host/volume.img
make_volume 64M
mount_volume
dd if=/dev/zero of="$SLU_WORK/host/other" bs=64K 2>/dev/null || true
dd if=/dev/zero of="$SLU_WORK/host/other" bs=4K oflag=append conv=notrunc 2>/dev/null || true
refused 1 'cannot grow: the host has no room for .*; nothing was changed' sluicectl -m "$MNT" grow 128M
expect_eq "the length of the file" $((64 << 20)) "$(stat -c %s "$IMG")"
rm "$SLU_WORK/host/other"
ctl grow 128M >/dev/null
umount_volume
fsck_clean
umount "$SLU_WORK/host"

# A device: as far as it reaches, which it may learn while it is in use.
IMG=$SLU_WORK/device.img
truncate -s 64M "$IMG"
loop=$(losetup -f --show "$IMG") || skip "no loop device on this machine"
mkfs.sluicefs -q "$loop"
sluicefs -o "$(options)" "$loop" "$MNT"
cp -a /usr/include/linux "$MNT/"
refused 1 'it may have 64 MiB of /dev/loop.*; make the device larger first' sluicectl -m "$MNT" grow 128M
truncate -s 200M "$IMG"
losetup -c "$loop"
expect_eq "a larger device" "the volume has grown from 64 MiB to 200 MiB" "$(ctl grow)"
head -c 150000000 /dev/urandom >"$SLU_WORK/data"
dd if="$SLU_WORK/data" of="$MNT/data" bs=1M conv=fsync 2>/dev/null
refused 1 'it may have 200 MiB' sluicectl -m "$MNT" grow +1M
umount "$MNT"
fsck.sluicefs -n -f --wait 5 "$loop"
sluicefs -o "$(options)" "$loop" "$MNT"
cmp "$SLU_WORK/data" "$MNT/data"
same_tree /usr/include/linux "$MNT/linux"
umount "$MNT"
losetup -d "$loop"
