# sets: short
# needs: root
# A block device: fuseblk, where umount waits by itself.
truncate -s 256M "$IMG"
loop=$(losetup -f --show "$IMG") || skip "no loop device on this machine"
mkfs.sluicefs -q "$loop"
sluicefs -o "$(options)" "$loop" "$MNT"
expect_eq "type" fuseblk.sluicefs "$(findmnt -n -o FSTYPE "$MNT" | sed 's/^fuseblk$/fuseblk.sluicefs/')"
cp -a /usr/include/linux "$MNT/"
head -c 50000000 /dev/urandom >"$SLU_WORK/data"
cp "$SLU_WORK/data" "$MNT/data"
refused 1 'in use' mkfs.sluicefs --wait 0 --force "$loop"
umount "$MNT"
fsck.sluicefs --wait 0 -n -f "$loop" || fail "umount of a block device returned before the daemon was done"
sluicefs -o "$(options)" "$loop" "$MNT"
cmp "$SLU_WORK/data" "$MNT/data"
same_tree /usr/include/linux "$MNT/linux"
# sync(2) and syncfs(2) come to the daemon of a device, from kernels that say so, and are a commit: what
# is killed right after it has everything.
umount "$MNT"
sluicefs -o "$(options commit=60)" "$loop" "$MNT"
head -c 3000000 "$SLU_WORK/data" >"$MNT/synced"
mkdir "$MNT/dir"
sync -f "$MNT/data"
came=$(sluicectl -m "$MNT" metrics | sed -nE 's/^sluicefs_request_duration_seconds_count\{.*"SYNCFS".*\} //p')
IMG=$loop kill_daemon
sluicefs -o "$(options)" "$loop" "$MNT"
if [ "${came:-0}" -gt 0 ]; then
	cmp <(head -c 3000000 "$SLU_WORK/data") "$MNT/synced" || fail "what was synced is not there"
	[ -d "$MNT/dir" ] || fail "the directory is not there"
	figures "$came times SYNCFS"
else
	figures "0 times SYNCFS: this kernel does not send it"
fi
umount "$MNT"
refused 1 'contains a sluicefs volume' mkfs.sluicefs "$loop"
mkfs.sluicefs -q --force --size 64M "$loop"
fsck.sluicefs -n -f "$loop"
refused 1 'the device has 256 MiB' mkfs.sluicefs --force --size 1G "$loop"
losetup -d "$loop"
# A file that a loop device is attached to is in use as well.
loop=$(losetup -f --show "$IMG")
refused 1 'in use' mkfs.sluicefs --wait 0 --force "$IMG"
losetup -d "$loop"
# A volume is one under each of its names: file and devices keep each other out.
mkfs.sluicefs -q --force "$IMG"
loop=$(losetup -f --show "$IMG")
second=$(losetup -f --show "$IMG")
mkdir "$SLU_WORK/other"
sluicefs -o "$(options)" "$loop" "$MNT"
refused 32 'in use by process [0-9]+ \(sluicefs\)' sluicefs --wait=0 -o "$(options)" "$IMG" "$SLU_WORK/other"
refused 32 'in use by process [0-9]+ \(sluicefs\)' sluicefs --wait=0 -o "$(options)" "$second" "$SLU_WORK/other"
refused 8 'in use' fsck.sluicefs --wait 0 "$IMG"
umount "$MNT"
mount_volume
refused 32 'in use by process [0-9]+ \(sluicefs\)' sluicefs --wait=0 -o "$(options)" "$loop" "$SLU_WORK/other"
refused 1 'in use' mkfs.sluicefs --wait 0 --force "$loop"
refused 8 'in use' fsck.sluicefs --wait 0 "$loop"
umount_volume
losetup -d "$second"
losetup -d "$loop"
# A device that is set read-only
loop=$(losetup -r -f --show "$IMG")
sluicefs -o "$(options)" "$loop" "$MNT" 2>"$SLU_WORK/err"
expect_match "what is said of a read-only device" 'mounting read-only' "$(cat "$SLU_WORK/err")"
! touch "$MNT/new" 2>/dev/null || fail "a read-only device was written"
umount "$MNT"
refused 1 'cannot be opened for writing' mkfs.sluicefs --force "$loop"
fsck.sluicefs -n -f "$loop"
losetup -d "$loop"
# Two parts of a file are two volumes.
loop=$(losetup -f --show --sizelimit 64M "$IMG")
second=$(losetup -f --show --offset 128M "$IMG")
mkfs.sluicefs -q --force "$loop"
mkfs.sluicefs -q --force "$second"
sluicefs -o "$(options)" "$loop" "$MNT"
sluicefs -o "$(options)" "$second" "$SLU_WORK/other"
echo first >"$MNT/file"
echo second >"$SLU_WORK/other/file"
umount "$MNT" "$SLU_WORK/other"
fsck.sluicefs -n -f --wait 0 "$loop"
fsck.sluicefs -n -f --wait 0 "$second"
losetup -d "$loop"
losetup -d "$second"
