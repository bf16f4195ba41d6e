# needs: root
# What is mounted over a volume is not unmounted in its place: SIGTERM ends the daemon, what the kernel
# held back for it is on disk, and both mounts can be taken away afterwards.
make_volume 64M
mount_logged
head -c 3000000 /dev/urandom >"$SLU_WORK/data"
cp "$SLU_WORK/data" "$MNT/data"
mount -t tmpfs cover "$MNT"
echo above >"$MNT/file"
pid=$(daemon_pid)
kill -TERM "$pid"
wait_for 30 eval '! kill -0 "$pid" 2>/dev/null'
expect_eq "the file on what lies above" above "$(cat "$MNT/file")"
grep -q 'cover of type tmpfs is mounted over us; the mount is left dead' "$SLU_WORK/daemon.log" ||
	fail "it is not said why the mount stays: $(cat "$SLU_WORK/daemon.log")"
grep -q 'everything is on disk' "$SLU_WORK/daemon.log" || fail "not everything is on disk: $(cat "$SLU_WORK/daemon.log")"
fsck_clean
umount "$MNT"
sluicefs --cleanup "$MNT"
! mountpoint -q "$MNT" || fail "the dead mount is left"
mount_volume
cmp "$SLU_WORK/data" "$MNT/data"
umount_volume

# The same where what lies above hides the folder that the volume is mounted in.
MNT=$SLU_WORK/deep/mnt
mkdir -p "$MNT"
mount_logged
echo more >"$MNT/more"
pid=$(daemon_pid)
mount -t tmpfs cover "$SLU_WORK/deep"
kill -TERM "$pid"
wait_for 30 eval '! kill -0 "$pid" 2>/dev/null'
umount "$SLU_WORK/deep"
expect_eq "how often it is said that the mount stays" 2 "$(grep -c 'the mount is left dead' "$SLU_WORK/daemon.log")"
sluicefs --cleanup "$MNT"
mount_volume
expect_eq "the file written last" more "$(cat "$MNT/more")"
umount_volume

# Unmounted lazily by somebody, with a file open: nothing lies over it, and nothing is unmounted in its place.
mount_logged
exec 8>"$MNT/open"
echo written >&8
pid=$(daemon_pid)
umount -l "$MNT"
mount -t tmpfs another "$MNT" # not over us: we are gone from there
kill -TERM "$pid"
wait_for 30 eval '! kill -0 "$pid" 2>/dev/null'
exec 8>&- || true
findmnt -n -o SOURCE "$MNT" | grep -qx another || fail "what was mounted after us is gone"
umount "$MNT"
grep -q 'unmounted already, but still in use; it ends here' "$SLU_WORK/daemon.log" ||
	fail "it is not said that it was unmounted: $(cat "$SLU_WORK/daemon.log")"
expect_eq "how often it is said that the mount stays" 2 "$(grep -c 'the mount is left dead' "$SLU_WORK/daemon.log")"
fsck_clean
mount_volume
expect_eq "what was written before" written "$(cat "$MNT/open")"
umount_volume
fsck_clean
