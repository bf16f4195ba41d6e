# sets: cache
# limit: 400
# SIGKILL of the daemon under load, time after time: the volume mounts at once, fsck is clean, and what
# was fsynced is there.
make_volume 1G
promises=0 rounds=${SLU_ROUNDS:-20}
for i in $(seq 1 "$rounds"); do
	start=$EPOCHREALTIME
	mount_logged commit=1
	took=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print int((b - a) * 1000) }')
	[ "$took" -lt 2000 ] || fail "round $i: mounting after a crash took $took ms"
	if [ "$i" -gt 1 ]; then # what the round before was promised
		load_kept $((i - 1))
		rm -rf "$MNT/r$((i - 1))"
	fi
	mkdir "$MNT/r$i"
	mount_load run "$MNT/r$i" "$SLU_WORK/log.$i" 30 3 2>"$SLU_WORK/load.err" &
	load=$!
	(cp -a /usr/include "$MNT/r$i/" >/dev/null 2>&1 || true) &
	noise=$!
	sleep "0.$((RANDOM % 8 + 2))"
	kill_daemon
	wait "$load" || {
		cat "$SLU_WORK/load.err"
		fail "round $i: the load ended with status $?"
	}
	wait "$noise" || true
	fsck_clean
done
mount_logged
load_kept "$rounds"
figures "$rounds kills, $promises promises kept, 0 lost"
[ "$promises" -ge $((5 * rounds)) ] || fail "only $promises promises in $rounds rounds: the load does not load"
umount_volume
fsck_clean
