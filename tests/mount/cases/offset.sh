# sets: user short
# A volume inside a larger file: nothing before or behind it is touched.
head -c 1048576 /dev/urandom >"$SLU_WORK/head"
head -c 1048576 /dev/urandom >"$SLU_WORK/tail"
offset=1048576 size=67108864
{
	cat "$SLU_WORK/head"
	head -c $size /dev/zero
	cat "$SLU_WORK/tail"
} >"$IMG"
mkfs.sluicefs -q --offset 1M --size 64M "$IMG"
mount_volume "image_offset=1M"
copy_some() { cp -a /usr/include/linux "$MNT/"; }
copy_some
checksums "$MNT/linux" >"$SLU_WORK/before"
umount_volume
mount_volume "image_offset=$offset"
checksums "$MNT/linux" >"$SLU_WORK/after"
cmp "$SLU_WORK/before" "$SLU_WORK/after"
umount_volume
fsck_clean --offset 1M
cmp -n 1048576 "$SLU_WORK/head" "$IMG" || fail "bytes before the volume were changed"
cmp "$SLU_WORK/tail" <(tail -c 1048576 "$IMG") || fail "bytes behind the volume were changed"
expect_eq "size of the file" $((size + 2 * 1048576)) "$(stat -c %s "$IMG")"
refused 8 'not a sluicefs volume' fsck.sluicefs "$IMG"
refused 2 'multiple of 4096' mkfs.sluicefs --offset 100 --size 64M "$IMG"
refused 16 'multiple of 4096' fsck.sluicefs --offset 100 "$IMG"
