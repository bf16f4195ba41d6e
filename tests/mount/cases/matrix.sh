# sets: cache
# A file is written into itself in every combination that a program can choose, and nothing is refused.
make_volume 256M
mount_volume
mkdir "$MNT/dir"
sluice-selfwrite --matrix --json --seed "$(date +%s)" "$MNT/dir" >"$SLU_WORK/matrix.json" || {
	grep -B 12 -E '"verdict" : "(failed|deadlock)"' "$SLU_WORK/matrix.json"
	fail "sluice-selfwrite --matrix: $(head -n 12 "$SLU_WORK/matrix.json")"
}
out=$(head -n 12 "$SLU_WORK/matrix.json")
echo "$out"
expect_match "the whole" '"verdict" : "passed"' "$out"
expect_match "what passed" '"passed" : [12][0-9][0-9][0-9],' "$out"
expect_match "what was refused" '"refused" : 0,' "$out"
rmdir "$MNT/dir" || fail "sluice-selfwrite --matrix left its file behind"
refused 1 'missing: cannot make a file there: No such file or directory' sluice-selfwrite --matrix "$MNT/missing"
refused 2 'expected one DIR' sluice-selfwrite --matrix
refused 2 '--json goes with --matrix' sluice-selfwrite --json "$MNT/file"

# A filesystem that does not answer any more: the verdict comes from outside of it.
sluice-selfwrite --matrix --timeout 1 "$MNT" >"$SLU_WORK/out" &
pid=$!
wait_for 20 grep -q ^ok "$SLU_WORK/out"
# Else it would wait in exit(2), for the dirty pages.
! find "/proc/$pid/fd" -lname "$MNT/*" | grep . || fail "the watcher has a file of the filesystem open"
daemon=$(daemon_pid)
kill -STOP "$daemon"
status=0
wait "$pid" || status=$?
kill -CONT "$daemon"
expect_eq "exit status for a filesystem that hangs" 3 "$status"
expect_match "the verdict" 'DEADLOCK .* has not moved for 1 s; process [0-9]+ is in state .*; again with: ' "$(cat "$SLU_WORK/out")"
rm "$MNT"/sluice-selfwrite.*
umount_volume
fsck_clean
