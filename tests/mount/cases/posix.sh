# sets: short user cache
# limit: 400
# What a shell cannot do: the checks of mount_posix, then file handles across a remount.
opts=
other=()
if is_root; then
	opts=allow_other,dev,suid
	other=(--other-users)
fi
[ "$SLU_MODE" = writeback ] || other+=(--nowriteback)

make_volume 2G
mount_logged "$opts"
before=$(stat -f -c '%f %d' "$MNT")
mkdir "$MNT/checks"
chmod 755 "$MNT/checks"
mount_posix "${other[@]}" "$MNT/checks"
if is_root; then # open_by_handle_at is for root
	mount_posix --handles write "$SLU_WORK/handles" "$MNT"
	remount_volume "$opts"
	mount_posix --handles read "$SLU_WORK/handles" "$MNT"
fi
rmdir "$MNT/checks"
space_is_back() { [ "$(stat -f -c '%f %d' "$MNT")" = "$before" ]; }
wait_for 20 space_is_back
umount_volume
fsck_clean
