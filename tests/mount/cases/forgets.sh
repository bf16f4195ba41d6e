# sets: none
# needs: root
# limit: 400
# Names looked up and forgotten again and again: the daemon's memory is about what it was, and every
# name is still what it was.
files=4000 rounds=$((${SLU_ROUNDS:-3} * 5)) # 20,000 forgets for each of --rounds
make_volume 1G
mount_logged
pid=$(daemon_pid)
mkdir "$MNT/d"
for ((i = 0; i < files; i++)); do echo "$i" >"$MNT/d/file-$i"; done
expected=$(find "$MNT/d" -type f -printf '%f %s %i\n' | sort | sha1sum)
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"; }

sync -f "$MNT"
for ((round = 1; round <= rounds; round++)); do
	echo 2 >/proc/sys/vm/drop_caches
	expect_eq "names, round $round" "$expected" "$(find "$MNT/d" -type f -printf '%f %s %i\n' | sort | sha1sum)"
	# The first rounds fill what the daemon keeps for itself.
	[ $round != 4 ] || before=$(rss)
done
echo 2 >/proc/sys/vm/drop_caches
after=$(rss)
figures "$((files * rounds)) forgets, $before KiB before, $after KiB after"
[ $after -lt $((before + before / 8 + 1024)) ] || fail "the daemon has grown from $before KiB to $after KiB"
for ((i = 0; i < files; i += 97)); do expect_eq "file-$i" "$i" "$(cat "$MNT/d/file-$i")"; done
umount_volume
fsck_clean
