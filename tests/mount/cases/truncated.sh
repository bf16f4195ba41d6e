# sets: short cache
# limit: 120
# The image is cut off behind the daemon's back, to a half and to nothing: what is gone is EIO, what is
# left can be read, nothing more is promised, the log says why, and unmounting ends. What is mounted or
# checked after that is refused in one line.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run # where an ordinary user's sockets are
mkdir -p "$SLU_WORK/run"
whole=$SLU_WORK/whole.img
make_volume 64M
mount_volume
for i in $(seq 15); do
	head -c 3000000 /dev/urandom >"$SLU_WORK/copy.$i"
	cp "$SLU_WORK/copy.$i" "$MNT/file.$i"
done
umount_volume
cp --sparse=always "$IMG" "$whole"

begin() {
	cp --sparse=always "$whole" "$IMG"
	: >"$SLU_WORK/daemon.log"
	mount_logged "$@"
	pid=$(daemon_pid)
	sluicectl -m "$MNT" watch --last 1 >"$SLU_WORK/events" &
	watcher=$!
	wait_for 10 grep -q ' mounted: ' "$SLU_WORK/events"
}
# not_promised COMMAND...: fails, for one of the reasons there are
not_promised() {
	! timeout 30 "$@" 2>"$SLU_WORK/err" || fail "\"$*\" went through on an image that was cut off"
	expect_match "\"$*\"" 'Input/output error|Read-only file system' "$(cat "$SLU_WORK/err")"
}
# shows_readonly WHY: whoever asks is told
shows_readonly() {
	local status
	status=$(sluicectl -m "$MNT" status)
	expect_match "status" $'\nstate +read-only: '"$1"$'\n' "$status"
	expect_match "status" $'\nlast error +[0-9: -]+ [^\n]+\n' "$status"
	status=$(sluicectl -m "$MNT" -j status)
	expect_match "the JSON of status" '"readOnly":true,"why":"'"$1"'"' "$status"
	expect_match "list" "$MNT +[0-9.]+ [A-Z]iB +[0-9.]+ ([A-Z]i)?B +read-only +$IMG" "$(sluicectl list)"
	wait_for 10 grep -qE "^[0-9: -]+ CRITICAL read-only: the volume has turned read-only: $1: " "$SLU_WORK/events"
}
gone() { ! kill -0 "$pid" 2>/dev/null; }
# finish PATTERN: unmounts, and neither mount nor fsck takes what is left; PATTERN is what they say
finish() {
	wait_for 10 grep -q 'turned read-only: the image has become shorter than the volume' "$SLU_WORK/daemon.log"
	shows_readonly 'the image has become shorter than the volume in it'
	not_promised touch "$MNT/new"
	timeout 30 sluicefs --unmount "$MNT" || fail "--unmount: status $?"
	wait_for 10 gone
	wait "$watcher" || fail "watch: status $?"
	! grep -qi 'assert' "$SLU_WORK/daemon.log" || fail "the daemon has crashed"
	refused 33 "$1" sluicefs -o "$(options)" "$IMG" "$MNT"
	refused 8 "$1" fsck.sluicefs -n "$IMG"
}
# read_all: what can be read is right; the rest is EIO. Sets lost.
read_all() {
	local i
	lost=0
	for i in $(seq 15); do
		if ! timeout 30 cat "$MNT/file.$i" >"$SLU_WORK/seen" 2>"$SLU_WORK/err"; then
			expect_match "reading what is gone" 'Input/output error' "$(cat "$SLU_WORK/err")"
			lost=$((lost + 1))
		fi
		cmp -n "$(stat -c %s "$SLU_WORK/seen")" "$SLU_WORK/copy.$i" "$SLU_WORK/seen" || fail "file.$i has other bytes than it had"
	done
}

# Reading shows it.
begin
truncate -s 32M "$IMG"
read_all
[ $lost -gt 2 ] && [ $lost -lt 13 ] || fail "$lost of 15 files were lost with half of the image"
finish 'shorter than the volume'

# Writing shows it: with data that is dirty when it happens, and with what comes after.
begin commit=1
cp "$SLU_WORK/copy.1" "$MNT/dirty"
truncate -s 32M "$IMG"
not_promised sync "$MNT/dirty"
not_promised dd if="$SLU_WORK/copy.2" of="$MNT/file.2" bs=64K conv=notrunc,fsync
read_all
finish 'shorter than the volume'

# Nothing but a commit shows it.
begin commit=1
truncate -s 63M "$IMG"
touch "$MNT/file.1"
finish 'shorter than the volume'

# Nothing is left.
begin commit=1
echo dirty >"$MNT/dirty"
truncate -s 0 "$IMG"
not_promised sync "$MNT/dirty"
ls -l "$MNT" >"$SLU_WORK/ls" 2>&1 || true
read_all
finish 'not|short|no '
begin
truncate -s 0 "$IMG"
read_all
expect_eq "files that are lost with everything" 15 "$lost"
finish 'not|short|no '

# What was there before is whole when the image is.
begin
read_all
expect_eq "files lost in a whole image" 0 "$lost"
umount_volume
wait "$watcher"
fsck_clean
