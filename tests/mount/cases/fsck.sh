# sets: user short
# fsck finds damage wherever it is, says what and where, and has fsck(8)'s statuses; without -y it
# changes nothing, with -y it brings back all that is not in the damaged blocks.
make_volume 64M
mount_volume
cp -a /usr/include/linux "$MNT/"
setfattr -n user.large -v "$(head -c 5000 /dev/zero | tr '\0' v)" "$MNT/linux"
umount_volume
out=$(fsck.sluicefs -v "$IMG")
expect_match "a healthy volume" 'clean, [0-9]+ inodes, [0-9]+/16384 blocks' "$out"
expect_match "what -v counts" "$(find /usr/include/linux -type d | wc -l) directories|$(($(find /usr/include/linux -type d | wc -l) + 1)) directories" "$out"
fsck.sluicefs -a "$IMG" >/dev/null
fsck.sluicefs -p -f -y "$IMG" >/dev/null
cp "$IMG" "$SLU_WORK/good.img"

# damaged PATTERN [OPTION...]: exit status 4, a line that matches, and the image as it was
damaged() {
	local pattern=$1 status=0 sum
	shift
	sum=$(sha1sum <"$IMG")
	fsck.sluicefs -n "$@" "$IMG" >"$SLU_WORK/out" 2>&1 || status=$?
	expect_eq "status ($(head -n 3 "$SLU_WORK/out"))" 4 "$status"
	expect_match "what it says" "$pattern" "$(cat "$SLU_WORK/out")"
	expect_match "the last line" 'DAMAGED: [0-9]+ problem' "$(tail -n 1 "$SLU_WORK/out")"
	expect_eq "the image" "$sum" "$(sha1sum <"$IMG")"
}
# all_is_there: after a repair; and the volume can be used
all_is_there() {
	mount_volume
	same_tree /usr/include/linux "$MNT/linux"
	expect_eq "an attribute of 5,000 bytes" 5000 "$(getfattr --absolute-names --only-values -n user.large "$MNT/linux" | wc -c)"
	echo new >"$MNT/new"
	umount_volume
	fsck_clean
}

restore() { cp "$SLU_WORK/good.img" "$IMG"; }
zero() { dd if=/dev/zero of="$IMG" bs=4096 seek="$1" count=1 conv=notrunc 2>/dev/null; }

zero 0
damaged 'superblock 0'
restore
zero 1
damaged 'superblock 1'
expect_match "what it advises" '; -y repairs$' "$(tail -n 1 "$SLU_WORK/out")"
zero 0
damaged 'superblock 0: has no magic number'
expect_match "what is left" 'spare superblock in block 16383: is sound' "$(cat "$SLU_WORK/out")"
zero 16383
refused 8 'not a sluicefs volume' fsck.sluicefs "$IMG"
restore
zero 16383
damaged 'spare superblock in block 16383: has no magic number'
restore

# A byte in a superblock's label; a count with the right checksum
printf 'X' | dd of="$IMG" bs=1 seek=170 conv=notrunc 2>/dev/null
damaged 'superblock 0: its checksum is wrong'
restore
mount_patch "$IMG" 136 0500000000000000
damaged 'the superblock counts 5 inodes, there are'
restore
mount_patch "$IMG" 112 0500000000000000
damaged 'the superblock counts 5 blocks owned by files'
restore

# Nodes, one after the other: found by their checksum, named by their block. Some of the blocks were
# nodes once and the tree does not reach them any more; damage there is none.
nodes=0
for block in $(mount_patch "$IMG" nodes | sed -n 1,60p); do
	printf '\377\376\375' | dd of="$IMG" bs=1 seek=$((block * 4096 + 3000)) conv=notrunc 2>/dev/null
	status=0
	fsck.sluicefs -n "$IMG" >"$SLU_WORK/out" 2>&1 || status=$?
	if [ $status != 0 ]; then
		expect_eq "status for a damaged node in block $block" 4 $status
		grep -qE "node in block $block |the tree cannot be opened" "$SLU_WORK/out" ||
			fail "a damaged node in block $block: $(head -n 3 "$SLU_WORK/out")"
		nodes=$((nodes + 1))
	fi
	dd if="$SLU_WORK/good.img" of="$IMG" bs=4096 skip="$block" seek="$block" count=1 conv=notrunc 2>/dev/null
done
[ $nodes -ge 5 ] || fail "only $nodes nodes found to damage"
cmp "$IMG" "$SLU_WORK/good.img"
echo "$nodes nodes damaged and found"

# repaired [PATTERN]: fsck -y mends it and says so, and there is nothing left to mend
repaired() {
	local status=0
	fsck.sluicefs -y "$IMG" >"$SLU_WORK/out" 2>&1 || status=$?
	expect_eq "status of -y ($(tail -n 3 "$SLU_WORK/out"))" 1 "$status"
	expect_match "what -y does" "repaired: ${1:-}" "$(cat "$SLU_WORK/out")"
	expect_match "the last line" 'clean, [0-9]+ inodes' "$(tail -n 1 "$SLU_WORK/out")"
	fsck_clean
}
zero 1
repaired 'the superblocks are written anew'
cmp <(head -c 4096 "$IMG") <(head -c 8192 "$IMG" | tail -c 4096)
restore
zero 16383
repaired 'the spare superblock in block 16383 is written anew'
cmp "$IMG" "$SLU_WORK/good.img" --ignore-initial=8192
restore
mount_patch "$IMG" 136 0500000000000000
repaired 'the superblock counts [0-9]+ inodes, not 5'
restore

# The root of the tree: nothing is lost with it. It can be mounted, and every file is there.
root=$(od -An -t u8 -j 88 -N 8 "$IMG" | tr -d ' ')
zero "$root"
damaged 'the tree cannot be opened'
refused_status=0
fsck.sluicefs -y "$IMG" >/dev/full 2>/dev/null || refused_status=$?
expect_eq "status when the output is lost" 8 $refused_status
restore
zero "$root"
repaired
all_is_there
restore

# The beginning of the image is written over: both superblocks are gone, and no node with them
dd if=/dev/zero of="$IMG" bs=1M count=1 conv=notrunc 2>/dev/null
damaged 'spare superblock in block 16383: is sound, and enough to repair the volume'
refused 32 'both superblocks are lost; fsck.sluicefs -y repairs' sluicefs -o "$(options)" "$IMG" "$MNT"
repaired 'the superblocks are written anew, from the spare one in block 16383'
! grep -qE 'are lost|out of date' "$SLU_WORK/out" || fail "something is lost: $(cat "$SLU_WORK/out")"
all_is_there
restore
dd if=/dev/urandom of="$IMG" bs=1M count=1 conv=notrunc 2>/dev/null
root=$(od -An -t u8 -j 88 -N 8 "$SLU_WORK/good.img" | tr -d ' ')
zero "$root"
repaired 'the superblocks are written anew, from the spare one in block 16383'
all_is_there

# In an image that has become longer since; by more than is looked through, --size tells
restore
dd if=/dev/zero of="$IMG" bs=1M count=1 conv=notrunc 2>/dev/null
truncate -s 100M "$IMG"
damaged 'spare superblock in block 16383: is sound'
truncate -s 3G "$IMG"
refused 8 'not a sluicefs volume' fsck.sluicefs "$IMG"
refused 16 'within the file' fsck.sluicefs --size 100 "$IMG"
status=0
fsck.sluicefs -y --size 64M "$IMG" >"$SLU_WORK/out" 2>&1 || status=$?
expect_eq "status with --size ($(tail -n 3 "$SLU_WORK/out"))" 1 "$status"
fsck_clean
all_is_there

# A volume that began at the same place and was longer has left nothing to be mistaken for
mkfs.sluicefs -q --force --no-discard "$IMG"
mkfs.sluicefs -q --force --no-discard --size 64M "$IMG"
dd if=/dev/zero of="$IMG" bs=1M count=1 conv=notrunc 2>/dev/null
refused 8 'not a sluicefs volume' fsck.sluicefs "$IMG"
status=0
fsck.sluicefs -y --size 64M "$IMG" >"$SLU_WORK/out" 2>&1 || status=$?
expect_eq "status with --size ($(tail -n 3 "$SLU_WORK/out"))" 1 "$status"
expect_match "the new volume" 'clean, 1 inodes, [0-9]+/16384 blocks' "$(tail -n 1 "$SLU_WORK/out")"
rm "$IMG"
restore

# One node after the other: most files are there, under their names or in lost+found, and have the
# bytes that they had, but for one whose own record is lost while the next leaf has its extents; and
# the volume takes new files.
find /usr/include/linux -type f -exec sha1sum {} + | cut -d' ' -f1 | sort -u >"$SLU_WORK/sums.known"
files=$(find /usr/include/linux -type f | wc -l)
repairs=0
for block in $(mount_patch "$IMG" nodes | sed -n '1,80{p;n;n}'); do
	zero "$block"
	status=0
	fsck.sluicefs -n "$IMG" >/dev/null || status=$?
	if [ $status != 0 ]; then
		repaired
		mount_volume
		find "$MNT" -type f -exec sha1sum {} + | cut -d' ' -f1 | sort >"$SLU_WORK/sums.left"
		left=$(wc -l <"$SLU_WORK/sums.left")
		changed=$(grep -vcxFf "$SLU_WORK/sums.known" "$SLU_WORK/sums.left" || true)
		[ "$left" -ge $((files - 60)) ] || fail "$left of $files files left without node $block"
		[ "$changed" -le 1 ] || fail "$changed files have changed without node $block"
		echo new >"$MNT/new"
		umount_volume
		fsck_clean
		repairs=$((repairs + 1))
	fi
	restore
done
[ $repairs -ge 5 ] || fail "only $repairs nodes found to repair"
echo "$repairs nodes lost and repaired"

# A volume that was not unmounted cleanly is clean all the same, and -a looks through it
mount_volume
echo x >"$MNT/new"
sync "$MNT/new"
kill_daemon
out=$(fsck.sluicefs -a "$IMG")
expect_match "after SIGKILL" 'clean' "$out"
fsck_clean

# Cancelled in the middle
status=0
timeout --preserve-status -s INT 0.001 fsck.sluicefs -n "$IMG" >/dev/null 2>&1 || status=$?
[ $status = 32 ] || [ $status = 0 ] || [ $status = 130 ] || fail "cancelled: status $status"
! fsck.sluicefs -n "$IMG" >/dev/full 2>/dev/null || fail "fsck did not notice that its output was lost"
