# sets: short
# needs: root
# mount(8) and /etc/fstab, through our own helper and through mount.fuse3.
private_sbin sluicefs mount.fuse.sluicefs umount.fuse.sluicefs
[ -e "$IMG" ] || make_volume 256M
fstab=$SLU_WORK/fstab

try() {
	echo "$1: mount -t"
	mount -t fuse.sluicefs "$IMG" "$MNT" -o "$(options commit=2)"
	expect_eq "type" fuse.sluicefs "$(findmnt -n -o FSTYPE "$MNT")"
	expect_eq "source" "$IMG" "$(findmnt -n -o SOURCE "$MNT")"
	echo "$1" >"$MNT/$1"
	umount "$MNT"
	echo "$1: fstab"
	echo "$IMG $MNT fuse.sluicefs $(options),noauto,nofail,allow_other,x-systemd.automount,_netdev 0 2" >"$fstab"
	mount --fstab "$fstab" "$MNT"
	expect_eq "content" "$1" "$(cat "$MNT/$1")"
	findmnt -n -o OPTIONS "$MNT" | grep -q allow_other || fail "allow_other was lost on the way"
	umount "$MNT"
	fsck_clean
	status=0
	mount -t fuse.sluicefs "$SLU_WORK/missing" "$MNT" 2>"$SLU_WORK/err" || status=$?
	[ $status != 0 ] || fail "$1: mounting a missing image succeeded"
	expect_match "what mount says" 'missing' "$(cat "$SLU_WORK/err")"
	status=0
	mount -t fuse.sluicefs "$IMG" "$MNT" -o nonsense 2>"$SLU_WORK/err" || status=$?
	[ $status != 0 ] || fail "$1: a nonsense option was taken"
}
try helper
# Where our umount helper is called, umount returns when all is on disk.
mount_volume
head -c 20000000 /dev/urandom >"$MNT/data"
umount "$IMG"
fsck.sluicefs --wait 0 -n "$IMG" >/dev/null || fail "umount SOURCE returned while the image was in use"
# fsck(8) finds our fsck
ln -s "$SLU_BIN/fsck.sluicefs" "$SLU_WORK/sbin/fsck.sluicefs"
ln -s fsck.sluicefs "$SLU_WORK/sbin/fsck.fuse.sluicefs"
fsck -t fuse.sluicefs -n "$IMG" || fail "fsck -t fuse.sluicefs: status $?"

rm "$SLU_WORK/sbin/mount.fuse.sluicefs" "$SLU_WORK/sbin/umount.fuse.sluicefs"
[ -e /sbin/mount.fuse3 ] || fail "no mount.fuse3 on this machine"
try mount.fuse3
