# sets: user short cache
# Read-only mounts: nothing changes, several at once, and where writing is denied they come by themselves.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run # where an ordinary user's sockets are
mkdir -p "$SLU_WORK/run"
make_volume 64M
mount_volume
echo hello >"$MNT/file"
mkdir "$MNT/dir"
umount_volume
sum=$(sha1sum <"$IMG")

mount_volume ro
expect_eq "content" hello "$(cat "$MNT/file")"
findmnt -n -o OPTIONS "$MNT" | grep -qE '(^|,)ro(,|$)' || fail "the mount is not ro: $(findmnt -n -o OPTIONS "$MNT")"
for command in "touch $MNT/new" "rm $MNT/file" "mkdir $MNT/d" "chmod 600 $MNT/file" "truncate -s 0 $MNT/file" "ln -s x $MNT/l"; do
	! $command 2>"$SLU_WORK/err" || fail "$command: went through on a read-only mount"
	expect_match "$command" 'Read-only file system' "$(cat "$SLU_WORK/err")"
done
expect_match "status" $'\nstate +read-only: mounted with ro\n' "$(sluicectl -m "$MNT" status)"
# A second one beside it, and fsck
mkdir "$SLU_WORK/second"
sluicefs -o "$(options ro)" "$IMG" "$SLU_WORK/second"
expect_eq "content of the second mount" hello "$(cat "$SLU_WORK/second/file")"
fsck_clean --wait 0
sluicefs --unmount "$SLU_WORK/second"
umount_volume
expect_eq "the image after read-only mounts" "$sum" "$(sha1sum <"$IMG")"

# Where only writing is denied it falls back, and says so.
if ! is_root; then
	chmod 444 "$IMG"
	sluicefs -o "$(options)" "$IMG" "$MNT" 2>"$SLU_WORK/err"
	expect_match "what it says" 'read-only' "$(cat "$SLU_WORK/err")"
	expect_match "status" $'\nstate +read-only: no permission to write the image\n' "$(sluicectl -m "$MNT" status)"
	expect_eq "content" hello "$(cat "$MNT/file")"
	! touch "$MNT/new" 2>/dev/null || fail "writing went through"
	umount_volume
	expect_eq "the image" "$sum" "$(sha1sum <"$IMG")"
	chmod 644 "$IMG"
fi
mount_volume
touch "$MNT/new"
umount_volume
fsck_clean
