# sets: cache
# What a write to a descriptor opened with O_SYNC or O_DSYNC has put in a file is there when the power
# of the disk goes right after it; so is what O_DIRECT with O_DSYNC has. Nothing else is flushed here.
mkdir "$SLU_WORK/disk"
mount_disk 64 "$SLU_WORK/disk" 2>"$SLU_WORK/disk.log" &
wait_for 20 mountpoint -q "$SLU_WORK/disk"
IMG=$SLU_WORK/disk/disk
mkfs.sluicefs -q --force "$IMG"
head -c 300000 /dev/urandom >"$SLU_WORK/data"
head -c 300000 /dev/zero | tr '\0' 'x' >"$SLU_WORK/old"

# put FILE DD-OPTION...: the data, in eight writes
put() {
	local file=$1
	shift
	dd if="$SLU_WORK/data" of="$MNT/$file" bs=40000 conv=notrunc status=none "$@"
}
power_off() {
	kill -STOP "$(daemon_pid)"
	echo "off 0" >"$SLU_WORK/disk/power" # all that was not flushed is forgotten
	kill_daemon
	echo on >"$SLU_WORK/disk/power"
}
kept() { cmp "$SLU_WORK/data" "$MNT/$1" || fail "$1: what was written through $2 is not there"; }

flags=(sync dsync)
mount_logged commit=60
for flag in "${flags[@]}"; do cp "$SLU_WORK/old" "$MNT/over-$flag"; done
cp "$SLU_WORK/old" "$MNT/over-direct"
cp "$SLU_WORK/old" "$MNT/forgotten"
sync "$MNT"/*
sync "$MNT"
for flag in "${flags[@]}"; do
	put "over-$flag" oflag=$flag
	put "new-$flag" oflag=$flag
	# Where the last one has ended, and over a hole.
	put "append-$flag" oflag=$flag,append
	truncate -s 300000 "$MNT/hole-$flag"
	put "hole-$flag" oflag=$flag
done
dd if="$SLU_WORK/data" of="$MNT/over-direct" bs=4096 count=73 oflag=direct,dsync conv=notrunc status=none
put forgotten
power_off
fsck_clean
mount_logged
for flag in "${flags[@]}"; do
	for name in over new append hole; do kept $name-$flag "O_${flag^^}"; done
done
cmp -n $((73 * 4096)) "$SLU_WORK/data" "$MNT/over-direct" || fail "what was written with O_DIRECT and O_DSYNC is not there"
# The disk does forget, or all this would show nothing.
cmp -s "$SLU_WORK/old" "$MNT/forgotten" || fail "what nobody wanted flushed is there: the power did not go"
umount_volume
fsck_clean
fusermount3 -u "$SLU_WORK/disk"
