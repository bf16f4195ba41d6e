# sets: none
# limit: 200
# A daemon that stands still (SLU_STOP_SECONDS): nothing else waits for it, and whoever uses its mount
# goes on where it was when it runs again.
seconds=${SLU_STOP_SECONDS:-$([ -n "${SLU_ROUNDS:-}" ] && echo 30 || echo 6)}
make_volume 256M
mount_logged commit=1
pid=$(daemon_pid)
mkdir "$MNT/dir"
seq 100000 >"$MNT/dir/file"
sync "$MNT/dir/file"
seq 50000 >"$SLU_WORK/numbers"
mkdir "$MNT/load"
mount_load run "$MNT/load" "$SLU_WORK/log" "$((seconds + 2))" 2 2>"$SLU_WORK/load.err" &
load=$!
sleep 0.5
kill -STOP "$pid"
# Not at once: a thread that is on its way may still answer.
stands_still() { [ -z "$(grep -L '^State:[[:space:]]*T' /proc/"$pid"/task/*/status)" ]; }
wait_for 10 stands_still
start=$SECONDS

# Those who wait for it.
waiting=()
df "$MNT" >"$SLU_WORK/df" 2>&1 &
waiting+=($!)
ls -l "$MNT/dir" "$MNT" >"$SLU_WORK/ls" 2>&1 &
waiting+=($!)
dd if="$SLU_WORK/numbers" of="$MNT/written" bs=4K conv=fsync 2>"$SLU_WORK/dd" &
waiting+=($!)

# Those who do not.
no_wait() { timeout 10 "$@" >"$SLU_WORK/out" 2>&1 || fail "beside a daemon that stands still: \"$*\": status $?, $(cat "$SLU_WORK/out")"; }
second=$SLU_WORK/second.img
mkdir "$SLU_WORK/second"
round=0
while [ $((SECONDS - start)) -lt "$seconds" ]; do
	round=$((round + 1))
	no_wait df "$SLU_WORK" /
	no_wait ls -l "$SLU_WORK/second" /
	no_wait mkfs.sluicefs -q --force --size 64M "$second"
	no_wait fsck.sluicefs -n "$second"
	no_wait sluicefs -o "$(options)" "$second" "$SLU_WORK/second"
	no_wait df "$SLU_WORK/second"
	no_wait cp "$SLU_WORK/numbers" "$SLU_WORK/second/"
	no_wait sync "$SLU_WORK/second/numbers"
	no_wait cmp "$SLU_WORK/numbers" "$SLU_WORK/second/numbers"
	no_wait sluicefs --unmount "$SLU_WORK/second"
	no_wait fsck.sluicefs -n -f "$second"
	# The image of the one that stands still is in use, and that is said at once.
	refused 8 "in use by .*$pid" timeout 10 fsck.sluicefs --wait 0 -n "$IMG"
	sleep 0.1
done
# An administrator is told that it hangs, and what can be done; who lists volumes sees the others.
sluicefs -o "$(options)" "$second" "$SLU_WORK/second"
connection=$(sed -nE "s|^[0-9]+ [0-9]+ 0:([0-9]+) / $MNT .*|\1|p" /proc/self/mountinfo)
asking=()
(refused 1 "process $pid, which serves it, does not answer.*echo 1 >/sys/fs/fuse/connections/$connection/abort" \
	timeout 20 sluicectl -m "$MNT" status) >"$SLU_WORK/asked.1" 2>&1 &
asking+=($!)
(timeout 20 sluicectl list) >"$SLU_WORK/listed" 2>&1 &
asking+=($!)
(timeout 20 sluicefs --cleanup "$MNT") >"$SLU_WORK/asked.2" 2>&1 &
asking+=($!)
for i in "${asking[@]}"; do wait "$i" || fail "asked about it: status $?: $(cat "$SLU_WORK"/asked.* "$SLU_WORK/listed")"; done
grep -qE "^$MNT .*no answer" "$SLU_WORK/listed" && grep -qE "^$SLU_WORK/second .*writable" "$SLU_WORK/listed" &&
	grep -qE "^sluicectl: $MNT: process $pid, which serves it, does not answer" "$SLU_WORK/listed" ||
	fail "list: $(cat "$SLU_WORK/listed")"
sluicefs --unmount "$SLU_WORK/second"
for i in "${waiting[@]}"; do
	kill -0 "$i" 2>/dev/null || fail "somebody did not wait: $(jobs -l), $(cat "$SLU_WORK"/{df,ls,dd})"
done

stopped=$((SECONDS - start))
kill -CONT "$pid"
for i in "${waiting[@]}"; do
	wait "$i" || fail "somebody who waited: status $?: $(cat "$SLU_WORK"/{df,ls,dd})"
done
wait "$load" || {
	cat "$SLU_WORK/load.err"
	fail "the load ended with status $?"
}
grep -q "$MNT" "$SLU_WORK/df"
grep -q file "$SLU_WORK/ls"
remount_volume
cmp "$SLU_WORK/numbers" "$MNT/written"
cmp <(seq 100000) "$MNT/dir/file"
out=$(mount_load verify "$MNT/load" "$SLU_WORK/log") || {
	echo "$out"
	fail "promises broken"
}
figures "$stopped s stopped, $out, $round rounds of a second volume meanwhile"
umount_volume
fsck_clean
