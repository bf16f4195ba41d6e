# sets: cache
# limit: 400
# SIGKILL of the daemon at random moments under sqlite3, fio and stress-ng, in turn: fsck is clean,
# the database has every transaction that was acknowledged, a file that was written over has no byte
# that nobody wrote there, and one that grew has none either, wherever it ends.
rounds=${SLU_ROUNDS:-3}
make_volume 2G

# Transactions numbered from the argument on; sqlite3 says "ok N" when COMMIT has returned.
transactions() {
	local i
	for ((i = $1; ; i++)); do
		echo "BEGIN; INSERT INTO t VALUES($i, randomblob(2000)); UPDATE t SET v = randomblob(3000) WHERE i = $((i - 7)); COMMIT; SELECT 'ok $i';"
	done
}
sqlite_load() {
	local next
	next=$(sqlite3 "$MNT/db" "SELECT coalesce(max(i), 0) + 1 FROM t")
	transactions "$next" 2>/dev/null | sqlite3 -bail -cmd "PRAGMA synchronous=FULL" "$MNT/db" >>"$SLU_WORK/acknowledged" 2>/dev/null || true
}
sqlite_verify() {
	local promised rows
	expect_eq "round $i: integrity_check" ok "$(sqlite3 "$MNT/db" 'PRAGMA integrity_check')"
	promised=$(sed -n 's/^ok //p' "$SLU_WORK/acknowledged" | tail -n 1)
	rows=$(sqlite3 "$MNT/db" "SELECT count(*) || ' ' || coalesce(max(i), 0) FROM t")
	[ "${rows% *}" = "${rows#* }" ] || fail "round $i: rows are missing: $rows"
	[ "${rows% *}" -ge "${promised:-0}" ] || fail "round $i: $promised transactions were acknowledged, ${rows% *} are there"
}

# Every block says where it lies. One job writes over a file of 64 MiB, one lets a file grow.
fio_job() {
	fio --output=/dev/null --minimal --directory="$MNT" --ioengine=psync --bs=4k --verify=pattern --verify_pattern=%o "$@"
}
fio_load() {
	rm -f "$MNT/grows"
	fio_job --name=over --filename=over --rw=randwrite --size=64M --do_verify=0 --fsync=100 --time_based --runtime=5 \
		--name=grows --filename=grows --rw=write --size=1G --do_verify=0 --file_append=0 --fallocate=none >/dev/null 2>&1 || true
}
fio_verify() {
	local size
	fio_job --name=over --filename=over --rw=read --size=64M --verify_only=1 2>"$SLU_WORK/fio.err" || {
		cat "$SLU_WORK/fio.err"
		fail "round $i: bytes that nobody wrote in a file that was written over"
	}
	size=$(stat -c %s "$MNT/grows" 2>/dev/null || echo 0)
	[ $((size / 4096)) = 0 ] ||
		fio_job --name=grows --filename=grows --rw=read --size=$((size / 4096 * 4096)) --verify_only=1 2>"$SLU_WORK/fio.err" || {
		cat "$SLU_WORK/fio.err"
		fail "round $i: bytes that nobody wrote in the $size bytes of a file that grew"
	}
	grown=$((grown + size / 1048576))
}

stress_load() {
	rm -rf "$MNT"/stress/*
	stress-ng --temp-path "$MNT/stress" --timeout 5 --oomable --dentry 1 --dentries 200 --rename 1 --link 1 --hdd 1 \
		--hdd-bytes 16M --hdd-opts wr-rnd --fallocate 1 --fallocate-bytes 16M --xattr 1 --mmap 1 --mmap-bytes 8M --mmap-file \
		>/dev/null 2>&1 || true
}
# Every name leads somewhere, and every file can be read to its end.
stress_verify() {
	find "$MNT/stress" -xdev -type f -exec cat {} + >/dev/null || fail "round $i: what stress-ng left cannot be read"
}

mount_logged commit=1
for journal in delete wal; do
	sqlite3 "$MNT/db" "PRAGMA journal_mode=$journal; CREATE TABLE IF NOT EXISTS t(i INTEGER PRIMARY KEY, v BLOB)" >/dev/null
done
fio_job --name=over --filename=over --rw=write --size=64M --do_verify=0 --end_fsync=1
mkdir "$MNT/stress"
sync "$MNT/db" "$MNT"
umount_volume
: >"$SLU_WORK/acknowledged"
grown=0
loads=(sqlite fio stress)
for i in $(seq 1 "$rounds"); do
	load=${loads[$((i % 3))]}
	mount_logged commit=1
	# The mount may be dead before the load has well begun.
	("${load}_load" 2>/dev/null || true) &
	pid=$!
	sleep "$((RANDOM % 2)).$((RANDOM % 9 + 1))"
	kill_daemon
	# Where stress-ng stands is lost; the others end by themselves.
	[ "$load" != stress ] || pkill -INT -P "$pid" || true
	wait "$pid" || fail "round $i: $load ended with status $?"
	fsck_clean
	mount_volume
	"${load}_verify"
	umount_volume
done
mount_volume
i=last
for load in "${loads[@]}"; do "${load}_verify"; done
umount_volume
fsck_clean
acknowledged=$(wc -l <"$SLU_WORK/acknowledged")
figures "$rounds kills, $acknowledged transactions acknowledged, $grown MiB grown, 0 lost"
[ "$acknowledged" -ge "$rounds" ] || fail "only $acknowledged transactions: the load does not load"
