# sets: short user cache
# The reproducer of the 2020 deadlock, and its verdicts.
make_volume 256M
mount_volume
out=$(sluice-selfwrite "$MNT/file")
echo "$out"
expect_match "the summary" '(^|
)pass: 8 passed, 0 failed, 0 refused' "$out"
[ ! -e "$MNT/file" ] || fail "sluice-selfwrite left its file behind"
echo old >"$MNT/existing"
sluice-selfwrite "$MNT/existing" >/dev/null
[ -e "$MNT/existing" ] || fail "sluice-selfwrite removed a file that it did not make"

# A writer that does not get on is a deadlock: here it is stopped from outside.
status=0
sluice-selfwrite --timeout 1 "$MNT/stopped" >"$SLU_WORK/out" &
pid=$!
writer=
has_writer() { writer=$(pgrep -P "$pid" | head -n 1) && [ -n "$writer" ]; }
wait_for 5 has_writer
kill -STOP "$writer"
wait "$pid" || status=$?
expect_eq "exit status for a writer that hangs" 3 "$status"
expect_match "the verdict" 'DEADLOCK .* has not moved for 1 s' "$(cat "$SLU_WORK/out")"

refused 1 'mnt/missing/file: No such file or directory' sluice-selfwrite "$MNT/missing/file"
refused 2 'expected one FILE' sluice-selfwrite
refused 1 'Is a directory' sluice-selfwrite "$MNT"
umount_volume
fsck_clean
