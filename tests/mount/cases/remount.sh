# sets: short cache
# needs: root
# remount,ro and remount,rw on a busy mount; other options are refused with one line.
private_sbin sluicefs mount.fuse.sluicefs umount.fuse.sluicefs
[ -e "$IMG" ] || make_volume 256M
mount_volume
pid=$(daemon_pid)
head -c 30000000 /dev/urandom >"$SLU_WORK/data"
cp "$SLU_WORK/data" "$MNT/data"
mount -o remount,ro "$MNT"
findmnt -n -o OPTIONS "$MNT" | grep -qE '(^|,)ro(,|$)' || fail "not ro: $(findmnt -n -o OPTIONS "$MNT")"
expect_eq "the daemon" "$pid" "$(daemon_pid)"
expect_match "status" $'\nstate +read-only: remounted with ro\n' "$(sluicectl -m "$MNT" status)"
! touch "$MNT/new" 2>"$SLU_WORK/err" || fail "writing went through after remount,ro"
expect_match "touch" 'Read-only file system' "$(cat "$SLU_WORK/err")"
cmp "$SLU_WORK/data" "$MNT/data"
# Everything is on disk: a copy of the image taken now is whole.
cp --sparse=always "$IMG" "$SLU_WORK/copy.img"
fsck.sluicefs -n -f "$SLU_WORK/copy.img" || fail "the image after remount,ro is damaged"
mkdir "$SLU_WORK/copy"
sluicefs -o ro "$SLU_WORK/copy.img" "$SLU_WORK/copy"
cmp "$SLU_WORK/data" "$SLU_WORK/copy/data" || fail "remount,ro did not write everything out"
sluicefs --unmount "$SLU_WORK/copy"

mount -o remount,rw "$MNT"
findmnt -n -o OPTIONS "$MNT" | grep -qE '(^|,)rw(,|$)' || fail "not rw: $(findmnt -n -o OPTIONS "$MNT")"
expect_match "status" $'\nstate +writable\n' "$(sluicectl -m "$MNT" status)"
echo again >"$MNT/new"
# Open for writing: the kernel refuses, and the mount goes on.
exec 7>"$MNT/open"
! mount -o remount,ro "$MNT" 2>/dev/null || fail "remount,ro with a file open for writing"
echo still >&7
exec 7>&-
expect_eq "content" still "$(cat "$MNT/open")"
status=0
mount -o remount,commit=1 "$MNT" 2>"$SLU_WORK/err" || status=$?
[ $status != 0 ] || fail "remount,commit=1 was taken"
expect_eq "lines for a refused remount ($(cat "$SLU_WORK/err"))" 1 "$(grep -c 'cannot be changed' "$SLU_WORK/err")"
for _ in 1 2 3; do
	mount -o remount,ro "$MNT"
	mount -o remount,rw "$MNT"
	echo x >>"$MNT/new"
done
umount_volume
fsck_clean
