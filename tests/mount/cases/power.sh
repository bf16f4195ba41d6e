# sets: none
# limit: 400
# The power of the disk goes while files are written: what fsync promised is there, and fsck is clean.
# The disk is a filesystem of its own, below sluicefs, that forgets what was not flushed: sometimes
# all of it, mostly a random half of its sectors.
mkdir "$SLU_WORK/disk"
mount_disk 256 "$SLU_WORK/disk" 2>"$SLU_WORK/disk.log" &
wait_for 20 mountpoint -q "$SLU_WORK/disk"
IMG=$SLU_WORK/disk/disk
mkfs.sluicefs -q --force "$IMG"
promises=0 rounds=${SLU_ROUNDS:-4}
for i in $(seq 1 "$rounds"); do
	seed=$((i % 4 == 0 ? 0 : RANDOM + 1))
	mount_logged commit=1
	if [ "$i" -gt 1 ]; then # what the round before was promised
		load_kept $((i - 1))
		rm -rf "$MNT/r$((i - 1))"
	fi
	mkdir "$MNT/r$i"
	mount_load run "$MNT/r$i" "$SLU_WORK/log.$i" 30 3 2>"$SLU_WORK/load.err" &
	load=$!
	sleep "1.$((RANDOM % 9))"
	# Whoever has written to the disk is as dead as the disk, and has not seen it die.
	kill -STOP "$(daemon_pid)"
	echo "off $seed" >"$SLU_WORK/disk/power"
	kill_daemon
	wait "$load" || {
		cat "$SLU_WORK/load.err"
		fail "round $i: the load ended with status $?"
	}
	echo on >"$SLU_WORK/disk/power"
	fsck_clean
done
mount_logged
load_kept "$rounds"
umount_volume
fsck_clean
figures "$rounds times without power, $promises promises kept, 0 lost"
[ "$promises" -ge $((2 * rounds)) ] || fail "only $promises promises in $rounds rounds: the load does not load"

# A disk that goes while the daemon lives: nothing is promised from then on, what was read stays
# readable, and the volume can be unmounted; what was promised before is there when the disk is back.
mount_logged commit=1
head -c 1000000 /dev/urandom >"$SLU_WORK/data"
mkdir "$MNT/a dir"
cp "$SLU_WORK/data" "$MNT/promised"
sync "$MNT/promised"
cat "$MNT/promised" >/dev/null
echo "off 0" >"$SLU_WORK/disk/power"
! dd if=/dev/zero of="$MNT/a dir"/$'with a\nline' bs=64K count=4 conv=fsync 2>"$SLU_WORK/err" || fail "fsync onto a disk without power"
cmp "$SLU_WORK/data" "$MNT/promised" || fail "what was in memory cannot be read any more"
wait_for 20 grep -q 'metadata cannot be written: Input/output error; kept, will be retried' "$SLU_WORK/daemon.log"
says() { grep -qE "$1"'inode [0-9]+ \(/a dir/with a\\012line\), bytes [0-9]+\+[0-9]+'"$2" "$SLU_WORK/daemon.log"; }
wait_for 20 says '' ' cannot be written'
{ timeout 5 sluicectl -m "$MNT" --json watch -n 50 || true; } >"$SLU_WORK/events"
grep -F '"kind":"writeback-error"' "$SLU_WORK/events" | grep -qF '"path":"/a dir/with a\\012line"' ||
	fail "no watcher is told of which file: $(cat "$SLU_WORK/events")"
sluicefs --unmount "$MNT" || true
wait_unused() { ! daemon_pid >/dev/null; }
wait_for 20 wait_unused
says 'DATA LOST: ' ': ' || fail "it is not said which file has lost data: $(cat "$SLU_WORK/daemon.log")"
echo on >"$SLU_WORK/disk/power"
fsck_clean
mount_volume
cmp "$SLU_WORK/data" "$MNT/promised"
umount_volume
fusermount3 -u "$SLU_WORK/disk"
