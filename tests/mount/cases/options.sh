# sets: user short
# The words of -o do what they say, alone and as mount(8) hands them on.
make_volume 64M
mount_volume
mkdir "$MNT/dir"
echo x >"$MNT/dir/file"
umount_volume

# moved OPTION: which access times move when a directory and a file are read
moved() {
	mount_volume "$1"
	touch -a -d 2001-01-01 "$MNT/dir" "$MNT/dir/file"
	umount_volume
	mount_volume "$1"
	ls "$MNT/dir" >/dev/null
	cat "$MNT/dir/file" >/dev/null
	umount_volume
	mount_volume ro
	local result=
	[ "$(stat -c %x "$MNT/dir" | cut -c 1-4)" = 2001 ] || result=directory
	[ "$(stat -c %x "$MNT/dir/file" | cut -c 1-4)" = 2001 ] || result=${result:+$result,}file
	umount_volume
	echo "$result"
}
expect_eq "relatime" directory,file "$(moved relatime)"
expect_eq "nodiratime" file "$(moved nodiratime)"
expect_eq "noatime" "" "$(moved noatime)"
expect_eq "noatime,nodiratime" "" "$(moved noatime,nodiratime)"
expect_eq "strictatime" directory,file "$(moved strictatime)"

mount_volume noexec,nodiratime,sync,commit=1,cache_size=16M,max_write=64K,errors=remount-ro,fsname=name
expect_eq "source" name "$(findmnt -n -o SOURCE "$MNT")"
findmnt -n -o OPTIONS "$MNT" | grep -q noexec || fail "noexec was lost: $(findmnt -n -o OPTIONS "$MNT")"
echo y >"$MNT/dir/file"
umount_volume
expect_match "the mount helper's --help" '^usage: ' "$(mount.fuse.sluicefs --help)"
expect_match "the umount helper's --version" '^sluicefs [0-9]' "$(umount.fuse.sluicefs --version)"
fsck_clean
