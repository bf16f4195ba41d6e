# sets: cache
# limit: 600
# Real programs on a real tree of 20,000 files; everything compared after a remount.
make_volume 4G
mount_volume
list=$SLU_WORK/list
real_tree_list "$list"
[ "$(wc -l <"$list")" -ge 20000 ] || fail "/usr of this machine has no 20,000 files"
files=$(grep -c . "$list")

mkdir "$MNT/tree"
copy_tree "$list" "$MNT/tree"
checksums "$MNT/tree" >"$SLU_WORK/before"
expect_eq "entries unpacked" "$files" "$(wc -l < <(sed 's,^/,,' "$list" | while IFS= read -r f; do
	{ [ -e "$MNT/tree/$f" ] || [ -L "$MNT/tree/$f" ]; } && echo x
done))"
tar -C / --no-recursion -cf "$SLU_WORK/tree.tar" -T <(sed 's,^/,,' "$list") 2>/dev/null
tar -C "$MNT/tree" -df "$SLU_WORK/tree.tar" >"$SLU_WORK/tar.d" 2>&1 || {
	# Owners and devices of an ordinary user's copy differ; contents, sizes, modes and times may not.
	! grep -vE 'Uid differs|Gid differs|Exiting with failure|: (Not linked to|Mode differs)' "$SLU_WORK/tar.d" |
		head -n 20 | grep . || fail "tar d sees differences"
}

# cp -a and rsync, within the volume
mkdir "$MNT/part"
cp -a "$MNT/tree/usr/include" "$MNT/part/include"
same_tree "$MNT/tree/usr/include" "$MNT/part/include"
rsync -a --checksum "$MNT/part/include/" "$MNT/part/rsynced/"
same_tree "$MNT/part/include" "$MNT/part/rsynced"
expect_eq "what rsync still wants to copy" "" "$(rsync -ani --checksum "$MNT/part/include/" "$MNT/part/rsynced/")"
expect_eq "files that find counts" "$(find "$MNT/tree/usr/include" -type f | wc -l)" \
	"$(find "$MNT/part/include" -type f | wc -l)"
rm -rf "$MNT/part/rsynced"
[ ! -e "$MNT/part/rsynced" ] || fail "rm -rf left something of a copied tree"
rsync -a "$MNT/part/include/" "$MNT/part/rsynced/"

remount_volume
checksums "$MNT/tree" >"$SLU_WORK/after"
cmp "$SLU_WORK/before" "$SLU_WORK/after" || fail "the tree has changed over a remount"
same_tree "$MNT/part/include" "$MNT/part/rsynced"
rm -rf "$MNT/part"
umount_volume
fsck_clean
