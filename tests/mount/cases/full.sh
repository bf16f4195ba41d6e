# sets: engine short cache
# limit: 300
# A full volume: ENOSPC where it belongs, what was accepted stays, everything can be read and deleted,
# and free space comes back to the same number.
make_volume 64M
mount_logged
free() { stat -f -c '%f %d' "$MNT"; }
empty=$(free)

# Large files until it is full; fsync is where write-back shows it at the latest.
accepted=0
for i in $(seq 1 200); do
	head -c 1000000 /dev/urandom >"$SLU_WORK/data"
	cp "$SLU_WORK/data" "$SLU_WORK/copy.$i"
	if dd if="$SLU_WORK/data" of="$MNT/large.$i" bs=1000000 conv=fsync 2>"$SLU_WORK/dd.err"; then
		accepted=$i
	else
		grep -q 'No space left on device' "$SLU_WORK/dd.err" || fail "expected ENOSPC, got $(cat "$SLU_WORK/dd.err")"
		break
	fi
done
[ "$accepted" -ge 30 ] && [ "$accepted" -lt 100 ] || fail "$accepted files of 1 MB went into 64 MiB"
rm -f "$MNT/large.$((accepted + 1))"

# Small ones until nothing goes any more
small=0
while [ $small -lt 5000 ]; do
	(echo "small file $small" >"$MNT/small.$small" && sync "$MNT/small.$small") 2>/dev/null || break
	small=$((small + 1))
done
[ $small -lt 5000 ] || fail "5000 small files went into a full volume"
rm -f "$MNT/small.$small"
for i in $(seq 1 "$accepted"); do
	cmp "$SLU_WORK/copy.$i" "$MNT/large.$i" || fail "large.$i is not what was accepted"
done
full=$(free)

remount_volume
expect_eq "free space of the full volume after a remount" "$full" "$(free)"
for i in $(seq 1 "$accepted"); do
	cmp "$SLU_WORK/copy.$i" "$MNT/large.$i" || fail "large.$i is not what was accepted, after a remount"
done
for ((i = 0; i < small; i++)); do
	expect_eq "small.$i" "small file $i" "$(cat "$MNT/small.$i")"
done
umount_volume
fsck_clean
mount_logged

# Fallocated space can be written although the volume is full.
rm "$MNT/large.1"
wait_for 10 fallocate -l 500000 "$MNT/mine"
dd if=/dev/zero of="$MNT/eater" bs=4096 count=2000 conv=fsync 2>/dev/null || true
head -c 500000 "$SLU_WORK/copy.2" >"$SLU_WORK/half"
dd if="$SLU_WORK/half" of="$MNT/mine" bs=4096 conv=notrunc,fsync 2>"$SLU_WORK/dd.err" || fail "a write into fallocated space: $(cat "$SLU_WORK/dd.err")"
cmp "$SLU_WORK/half" "$MNT/mine"

# O_DIRECT says it in the call.
! dd if=/dev/zero of="$MNT/direct" bs=1M count=64 oflag=direct 2>"$SLU_WORK/dd.err" || fail "64 MiB went into a full volume"
grep -q 'No space left on device' "$SLU_WORK/dd.err" || fail "expected ENOSPC, got $(cat "$SLU_WORK/dd.err")"

rm -rf "${MNT:?}"/*
space_is_back() { [ "$(free)" = "$empty" ]; }
wait_for 20 space_is_back || fail "free space: expected $empty, got $(free)"
remount_volume
expect_eq "free space after deleting everything and a remount" "$empty" "$(free)"
umount_volume
fsck_clean
