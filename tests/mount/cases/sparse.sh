# sets: short cache
# Sparse files: cp --sparse=always of a file just written and still open copies every byte; holes stay holes.
make_volume 1G
mount_volume
cd "$MNT"
for round in 1 2 3; do
	exec 7<>"open.$round"
	for i in $(seq 0 40); do
		head -c $((RANDOM % 30000 + 1)) /dev/urandom | dd of="/proc/self/fd/7" bs=64K seek="$((i * 3))" conv=notrunc 2>/dev/null
	done
	cp --sparse=always "open.$round" "copy.$round"
	cmp "open.$round" "copy.$round" || fail "cp --sparse=always lost bytes of an open file"
	cp --sparse=always "open.$round" "$SLU_WORK/outside"
	cmp "open.$round" "$SLU_WORK/outside"
	cat "open.$round" >"$SLU_WORK/plain"
	cmp "$SLU_WORK/plain" "copy.$round"
	exec 7>&-
	cmp "open.$round" "copy.$round"
done

truncate -s 100M hole
expect_eq "blocks of a hole" 0 "$(stat -c %b hole)"
cp --sparse=auto hole hole.2
expect_eq "blocks of a copied hole" 0 "$(stat -c %b hole.2)"
cp --sparse=never "copy.1" dense
cp --sparse=always dense again
cmp dense again
[ "$(stat -c %b again)" -lt "$(stat -c %b dense)" ] || fail "cp --sparse=always made no holes"
tar -Scf "$SLU_WORK/sparse.tar" hole copy.1
mkdir out
tar -C out -xSf "$SLU_WORK/sparse.tar"
cmp copy.1 out/copy.1
expect_eq "size of an unpacked hole" $((100 << 20)) "$(stat -c %s out/hole)"
fallocate -d dense
cmp dense again
cd /
remount_volume
cd "$MNT"
for round in 1 2 3; do
	cmp "open.$round" "copy.$round" || fail "after a remount"
done
cd /
umount_volume
fsck_clean
