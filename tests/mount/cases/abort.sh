# sets: cache
# needs: root
# limit: 200
# The connection to the kernel is aborted under load, time after time: the daemon ends by itself, with
# everything on disk that it had accepted, and the dead mount can be taken away in each of the ways.
rounds=${SLU_ROUNDS:-4}
make_volume 1G
mkdir "$SLU_WORK/connections"
mount -t fusectl none "$SLU_WORK/connections"

# O_DIRECT, and without the kernel's write-back cache every write, is accepted when the call returns.
direct_writer() {
	local i
	for ((i = 0; ; i++)); do
		dd if="$SLU_WORK/block" of="$1" bs=4096 count=1 seek="$i" conv=notrunc oflag=direct 2>/dev/null || return 0
		echo "$((i + 1))" >>"$SLU_WORK/direct.log"
	done
}
plain_writer() {
	local i
	exec 7>"$1"
	for ((i = 0; ; i++)); do
		printf '%011d\n' "$i" >&7 2>/dev/null || return 0
		echo "$((i + 1))" >>"$SLU_WORK/plain.log"
	done
}
abort_connection() {
	local dev
	dev=$(mountpoint -d "$MNT")
	echo 1 >"$SLU_WORK/connections/${dev#*:}/abort"
}
gone() { ! kill -0 "$pid" 2>/dev/null; }

verify() {
	local accepted
	load_kept "$1"
	accepted=$(tail -n 1 "$SLU_WORK/direct.log")
	cmp -n $((accepted * 4096)) "$MNT/r$1/direct" <(for ((i = 0; i < accepted; i++)); do cat "$SLU_WORK/block"; done) ||
		fail "round $1: of $accepted blocks accepted by O_DIRECT"
	accepted_blocks=$((accepted_blocks + accepted))
	[ "$SLU_MODE" = nowriteback ] || return 0
	accepted=$(tail -n 1 "$SLU_WORK/plain.log")
	cmp -n $((accepted * 12)) "$MNT/r$1/plain" <(seq -f %011.0f 0 $((accepted - 1))) ||
		fail "round $1: of $accepted writes accepted"
}

promises=0 accepted_blocks=0
head -c 4096 /dev/urandom >"$SLU_WORK/block"
for i in $(seq 1 "$rounds"); do
	mount_logged commit=60
	[ "$i" = 1 ] || verify $((i - 1))
	pid=$(daemon_pid)
	rm -rf "$MNT"/r*
	mkdir "$MNT/r$i"
	echo 0 >"$SLU_WORK/direct.log"
	echo 0 >"$SLU_WORK/plain.log"
	mount_load run "$MNT/r$i" "$SLU_WORK/log.$i" 30 3 2>"$SLU_WORK/load.err" &
	load=$!
	direct_writer "$MNT/r$i/direct" &
	direct=$!
	# With it, writes go on into the kernel's pages after the abort, and never end.
	plain=
	if [ "$SLU_MODE" = nowriteback ]; then
		plain_writer "$MNT/r$i/plain" 2>/dev/null &
		plain=$!
	fi
	sleep "0.$((RANDOM % 5 + 4))"
	abort_connection
	wait "$load" || {
		cat "$SLU_WORK/load.err"
		fail "round $i: the load ended with status $?"
	}
	wait "$direct" ${plain:+"$plain"} || fail "round $i: a writer ended with status $?"
	wait_for 20 gone
	! stat "$MNT" >/dev/null 2>"$SLU_WORK/err" || fail "an aborted mount answers"
	expect_match "what an aborted mount says" 'not connected|aborted' "$(cat "$SLU_WORK/err")"
	fsck_clean --wait 0
	case $((i % 4)) in
	1) umount "$MNT" ;;
	2) sluicefs --unmount "$MNT" ;;
	3) fusermount3 -u "$MNT" ;;
	0)
		refused 32 'is a dead mount' sluicefs -o "$(options)" "$IMG" "$MNT"
		sluicefs --replace-stale -o "$(options)" "$IMG" "$MNT"
		verify "$i"
		umount_volume
		;;
	esac
	! mountpoint -q "$MNT" || fail "round $i: still mounted"
done
mount_logged
verify "$rounds"
umount_volume
fsck_clean
expect_eq "aborted connections that the daemon names" "$rounds" \
	"$(grep -c 'the connection to the kernel ended: .*abort' "$SLU_WORK/daemon.log")"
umount "$SLU_WORK/connections"
figures "$rounds times aborted, $promises promises kept, 0 lost; $accepted_blocks blocks accepted"
[ "$promises" -ge $((4 * rounds)) ] || fail "only $promises promises in $rounds rounds: the load does not load"
