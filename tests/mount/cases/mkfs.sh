# sets: user short
# mkfs makes volumes of files and leaves alone what looks like data.
out=$(mkfs.sluicefs --size 1G --label "my volume" "$IMG")
expect_match "the summary" '^[^ ]*volume.img: 1 GiB sluicefs volume "my volume", id [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' "$out"
expect_eq "size" $((1 << 30)) "$(stat -c %s "$IMG")"
[ "$(stat -c %b "$IMG")" -lt 200 ] || fail "a new image is not sparse: $(stat -c %b "$IMG") sectors"
fsck_clean
mount_volume
expect_eq "owner of the root directory" "$(id -u) $(id -g)" "$(stat -c '%u %g' "$MNT")"
expect_eq "links of the root directory" 2 "$(stat -c %h "$MNT")"
expect_eq "a new volume" "" "$(ls -A "$MNT")"
touch "$MNT/file"
umount_volume

# Again, only with --force; each volume has an id of its own
refused 1 'contains a sluicefs volume; --force' mkfs.sluicefs "$IMG"
refused 1 'contains a sluicefs volume; --force' mkfs.sluicefs --size 2G "$IMG"
expect_eq "size after a refusal" $((1 << 30)) "$(stat -c %s "$IMG")"
again=$(mkfs.sluicefs --force "$IMG")
expect_match "the size that is kept" ': 1 GiB sluicefs volume, id' "$again"
[ "${again##*id }" != "${out##*id }" ] || fail "two volumes have one id"
mount_volume
expect_eq "the volume made again" "" "$(ls -A "$MNT")"
umount_volume

# Larger and smaller than the file
mkfs.sluicefs -q --force --size 2G "$IMG"
expect_eq "size" $((2 << 30)) "$(stat -c %s "$IMG")"
mkfs.sluicefs -q --force --size 100M "$IMG"
fsck_clean
mount_volume
[ "$(stat -f -c %b "$MNT")" -le 25600 ] || fail "a volume of 100 MiB has $(stat -f -c %b "$MNT") blocks"
umount_volume
rm "$IMG"

# What other filesystems leave
mke2fs=$(PATH=$PATH:/sbin:/usr/sbin command -v mke2fs)
"$mke2fs" -q -F "$IMG" 64M
sum=$(sha1sum <"$IMG")
refused 1 'a filesystem of type ext2; --force' mkfs.sluicefs "$IMG"
expect_eq "an ext2 image" "$sum" "$(sha1sum <"$IMG")"
mkfs.sluicefs -q --force "$IMG"
fsck_clean
rm "$IMG"
truncate -s 64M "$IMG"
printf x | dd of="$IMG" bs=1 seek=1000000 conv=notrunc 2>/dev/null
refused 1 'not all zeros' mkfs.sluicefs "$IMG"
mkfs.sluicefs -q --force --no-discard "$IMG"
fsck_clean
rm "$IMG"

# Data anywhere in a file is somebody's
truncate -s 64M "$IMG"
printf x | dd of="$IMG" bs=1 seek=40000000 conv=notrunc 2>/dev/null
sum=$(sha1sum <"$IMG")
refused 1 'not all zeros' mkfs.sluicefs "$IMG"
refused 1 'not all zeros' mkfs.sluicefs --offset 1M --size 63M "$IMG"
expect_eq "a file with data in the middle" "$sum" "$(sha1sum <"$IMG")"
mkfs.sluicefs -q --size 16M "$IMG" # which ends before it
expect_eq "data behind the volume" x "$(dd if="$IMG" bs=1 skip=40000000 count=1 2>/dev/null)"
rm "$IMG"

# An empty or zero file is nobody's
dd if=/dev/zero of="$IMG" bs=1M count=64 2>/dev/null
mkfs.sluicefs -q "$IMG"
rm "$IMG"
truncate -s 64M "$IMG"
mkfs.sluicefs -q "$IMG"
fsck_clean
rm "$IMG"
: >"$IMG"
refused 1 'too small' mkfs.sluicefs "$IMG"
mkfs.sluicefs -q --size 16M "$IMG"
fsck_clean
mount_volume
echo x >"$MNT/x"
umount_volume
rm "$IMG"
# A new file may start with room for something else, and an old one may end before the offset
mkfs.sluicefs -q --size 32M --offset 1M "$IMG"
expect_eq "size" $((33 << 20)) "$(stat -c %s "$IMG")"
fsck_clean --offset 1M
refused 8 'ends before the offset' fsck.sluicefs --offset 1G "$IMG"
refused 1 'too small' mkfs.sluicefs --offset 64M "$IMG"
mkfs.sluicefs -q --size 16M --offset 64M "$IMG"
fsck_clean --offset 1M
fsck_clean --offset 64M
rm "$IMG"
# Labels are UTF-8 in every locale, and nothing that a terminal would obey
LC_ALL=C mkfs.sluicefs -q --size 16M --label größer "$IMG"
expect_match "the label" 'größer' "$(LC_ALL=C fsck.sluicefs -v "$IMG")"
rm "$IMG"
refused 2 'UTF-8' mkfs.sluicefs --size 16M --label $'\xff' "$IMG"
refused 2 'control character' mkfs.sluicefs --size 16M --label $'a\nb' "$IMG"
refused 2 'control character' mkfs.sluicefs --size 16M --label $'\e[31m' "$IMG"
ln -s nowhere "$SLU_WORK/dangling"
refused 1 'symbolic link' mkfs.sluicefs --size 16M "$SLU_WORK/dangling"
refused 2 'expected one IMAGE' mkfs.sluicefs --size 16M ''
[ ! -e "$IMG" ] || fail "a refused mkfs left a file behind"
# Large ones cost nothing
mkfs.sluicefs -q --size 8T "$IMG"
[ "$(stat -c %b "$IMG")" -lt 200 ] || fail "8 TiB are not sparse: $(stat -c %b "$IMG") sectors"
start=$SECONDS
fsck_clean
[ $((SECONDS - start)) -lt 5 ] || fail "checking an empty volume of 8 TiB took $((SECONDS - start)) s"
for program in mkfs.sluicefs fsck.sluicefs sluicefs sluice-selfwrite; do
	"$program" --help >"$SLU_WORK/help"
	grep -q -- --version "$SLU_WORK/help" || fail "$program --help does not name --version"
	expect_match "$program --version" "^$program [0-9]+\.[0-9]+" "$("$program" --version)"
done
