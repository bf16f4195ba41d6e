# sets: short
# needs: root
# The journal: entries with fields where it is what stderr or syslog(3) lead to, lines elsewhere. A
# program of the tests listens where journald would, in a mount namespace of this case's own.
ldd "$SLU_BIN/sluicefs" >"$SLU_WORK/libraries" # a script, which a pipe that grep closes would end
grep -q libsystemd "$SLU_WORK/libraries" || skip "a build without libsystemd"
private_mounts
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal "$SLU_WORK/dev"
mount -t tmpfs -o dev tmpfs "$SLU_WORK/dev"
cp -a /dev/{fd,fuse,null,random,stdin,stdout,stderr,urandom,zero} "$SLU_WORK/dev/"
mount --move "$SLU_WORK/dev" /dev
make_volume 32M

sent=$SLU_WORK/sent errors=$SLU_WORK/errors
listen() {
	rm -f /run/systemd/journal/socket
	mount_notify /run/systemd/journal/socket >"$sent" &
	listener=$!
	wait_for 10 grep -q listening "$sent"
}

quiet() {
	kill "$listener"
	wait "$listener" 2>/dev/null || true
	rm /run/systemd/journal/socket
}

# serve [JOURNAL_STREAM]: in the foreground, with stderr in a file
serve() {
	: >"$errors"
	env ${1:+"JOURNAL_STREAM=$1"} sluicefs -f -o "$(options commit=1)" "$IMG" "$MNT" 2>"$errors" &
	daemon=$!
	wait_for 20 mountpoint -q "$MNT"
}

ended() {
	umount_volume
	wait "$daemon" || fail "status $?"
}

# entry EVENT FIELD...: an entry of that event has these fields; it is printed
entry() {
	local event=$1 field found
	shift
	# An entry begins with MESSAGE.
	found=$(awk -v e="SLUICEFS_EVENT=$event" '
		function flush() { if (hit) printf "%s", text; hit = 0; text = "" }
		/^MESSAGE=/ { flush() }
		{ text = text $0 "\n" }
		$0 == e { hit = 1 }
		END { flush() }' "$sent")
	[ -n "$found" ] || fail "no entry of $event in: $(cat "$sent")"
	for field in "$@"; do
		grep -qE "^$field\$" <<<"$found" || fail "$event: no $field in: $found"
	done
}

touch "$errors"
stream=$(stat -c %d:%i "$errors")
listen
serve "$stream"
wait_for 10 grep -q '^SLUICEFS_EVENT=mounted$' "$sent"
entry mounted "MESSAGE=$MNT: mounted from $IMG" PRIORITY=6 SYSLOG_IDENTIFIER=sluicefs \
	'MESSAGE_ID=[0-9a-f]{32}' "SLUICEFS_VOLUME=$MNT" "SLUICEFS_IMAGE=$IMG"
# Its id is what journalctl -x looks for.
grep -qx -- "-- $(sed -n 's/^MESSAGE_ID=//p' "$sent" | head -n 1)" "$SLU_TESTS/../lib/sluicefs.catalog" ||
	fail "an id that the catalog does not have"
sluicectl -m "$MNT" freeze -t 30
sluicectl -m "$MNT" thaw
wait_for 10 grep -q '^SLUICEFS_EVENT=thawed$' "$sent"
entry frozen SLUICEFS_DURATION_USEC=30000000 PRIORITY=5
head -c 60000000 /dev/zero >"$MNT/full" 2>/dev/null || true
sync "$MNT/full" 2>/dev/null || true
wait_for 20 grep -q '^SLUICEFS_EVENT=no-space$' "$sent"
entry no-space PRIORITY=3
ended
grep -q "^MESSAGE=$MNT: unmounted, everything is on disk\$" "$sent" || fail "the end: $(tail "$sent")"
expect_eq "what went to stderr as well" "" "$(cat "$errors")"

# stderr has been redirected to somewhere else than JOURNAL_STREAM says
: >"$sent"
serve "1:1"
wait_for 10 grep -q "^sluicefs: mounted from $IMG\$" "$errors"
ended
expect_eq "what went to the journal" "" "$(cat "$sent")"

# In the background, where syslog(3) leads to the journal
ln -s /run/systemd/journal/dev-log /dev/log
mount_volume ro
wait_for 10 grep -q "^MESSAGE=$MNT: mounted from $IMG, read-only\$" "$sent"
umount_volume
quiet

# A journal that is not there gets lines, with the priority where systemd looks for it.
serve "$stream"
wait_for 10 grep -q "^<6>sluicefs: mounted from $IMG\$" "$errors"
ended
# The same for what is said before anything is served.
if JOURNAL_STREAM=$stream sluicefs "$IMG.missing" "$MNT" 2>"$errors"; then fail "an image that is not there"; fi
grep -q '^<3>sluicefs: .*No such file' "$errors" || fail "$(cat "$errors")"
fsck_clean
