# sets: user engine short cache
# limit: 300
# sqlite3 in rollback and WAL mode, several processes at once, with PRAGMA integrity_check.
make_volume 1G
mount_volume
for journal in delete wal; do
	db=$MNT/$journal.db
	sqlite3 "$db" "PRAGMA journal_mode=$journal; CREATE TABLE t(w INT, i INT, v BLOB); CREATE INDEX ti ON t(w, i);" >/dev/null
	pids=()
	for w in 1 2 3; do
		{
			for i in $(seq 1 40); do
				echo "BEGIN IMMEDIATE; INSERT INTO t VALUES($w,$i,randomblob(3000)); UPDATE t SET v=randomblob(100) WHERE w=$w AND i=$((i / 2)); COMMIT;"
			done
		} | sqlite3 -cmd ".timeout 60000" "$db" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid"; done
	expect_eq "$journal: rows" 120 "$(sqlite3 "$db" 'SELECT count(*) FROM t')"
	expect_eq "$journal: integrity_check" ok "$(sqlite3 "$db" 'PRAGMA integrity_check')"
done
# Large transactions and a vacuum, through a mapping
sqlite3 "$MNT/delete.db" "PRAGMA mmap_size=268435456; INSERT INTO t SELECT 9, value, randomblob(1000) FROM generate_series(1,20000); VACUUM;" >/dev/null 2>&1 ||
	sqlite3 "$MNT/delete.db" "PRAGMA mmap_size=268435456; WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<20000) INSERT INTO t SELECT 9, x, randomblob(1000) FROM c; VACUUM;" >/dev/null
expect_eq "rows after a large transaction" 20120 "$(sqlite3 "$MNT/delete.db" 'SELECT count(*) FROM t')"
sums=$(sha1sum "$MNT"/*.db)
remount_volume
expect_eq "checksums after a remount" "$sums" "$(sha1sum "$MNT"/*.db)"
for journal in delete wal; do
	expect_eq "$journal: integrity_check after a remount" ok "$(sqlite3 "$MNT/$journal.db" 'PRAGMA integrity_check')"
done
umount_volume
fsck_clean
