# sets: short
# -d: a line for each request, with what it was, of which inode, how it ended and how long it took.
make_volume 32M
sluicefs -d -o "$(options)" "$IMG" "$MNT" 2>"$SLU_WORK/log" &
daemon=$!
wait_for 20 mountpoint -q "$MNT"
mkdir "$MNT/folder"
echo content >"$MNT/folder/file"
sync "$MNT/folder/file"
! rmdir "$MNT/folder" 2>/dev/null || fail "a folder was removed with a file in it"
folder=$(stat -c %i "$MNT/folder") file=$(stat -c %i "$MNT/folder/file")
umount_volume
wait "$daemon" || fail "status $?"

# seen PATTERN: among the requests
seen() {
	grep -qE "^sluicefs: request [0-9]+: $1, [0-9]+ µs\$" "$SLU_WORK/log" || {
		cat "$SLU_WORK/log"
		fail "no request like \"$1\""
	}
}
seen 'INIT \(26\), inode 0, [0-9]+ bytes: ok'
seen 'MKDIR \(9\), inode 1, [0-9]+ bytes: ok'
seen "CREATE \\(35\\), inode $folder, [0-9]+ bytes: ok"
seen "WRITE \\(16\\), inode $file, [0-9]+ bytes: ok"
seen "FSYNC \\(20\\), inode $file, [0-9]+ bytes: ok"
seen 'RMDIR \(11\), inode 1, [0-9]+ bytes: ENOTEMPTY'
# Each once: the kernel gives no number twice (to those without an answer, FORGET, it gives 0 or one).
twice=$(sed -n 's/^sluicefs: request \([1-9][0-9]*\):.*/\1/p' "$SLU_WORK/log" | sort | uniq -d)
expect_eq "requests with more than one line" "" "$twice"
# Everything that it says is a whole line.
! grep -vE '^sluicefs: ' "$SLU_WORK/log" || fail "lines that are not ours"
fsck_clean
