# sets: cache user short
# limit: 400
# A frozen volume: a copy of its image is whole, and who uses the volume notices little; every end of
# a freeze.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run # where an ordinary user's sockets are
mkdir -p "$SLU_WORK/run" "$SLU_WORK/copy"
make_volume 512M
mount_logged cache_size=32M,commit=1
ctl() {
	sluicectl -m "$MNT" "$@"
}
image_sum() { sha1sum <"$IMG"; }
image_time() { stat -c '%y %z %b' "$IMG"; }

# copy_is_whole FILE...: fsck has nothing to say to a copy made now, and it mounts and has these files
copy_is_whole() {
	local name
	cp --sparse=always "$IMG" "$SLU_WORK/copy.img"
	fsck.sluicefs -n -f "$SLU_WORK/copy.img" >"$SLU_WORK/fsck.out" || fail "fsck: $(cat "$SLU_WORK/fsck.out")"
	expect_eq "lines of fsck ($(cat "$SLU_WORK/fsck.out"))" 1 "$(wc -l <"$SLU_WORK/fsck.out")"
	sluicefs "$SLU_WORK/copy.img" "$SLU_WORK/copy"
	for name in "$@"; do cmp "$SLU_WORK/$name" "$SLU_WORK/copy/$name"; done
	sluicefs --unmount "$SLU_WORK/copy"
}

head -c 20000000 /dev/urandom >"$SLU_WORK/data"
head -c 60000000 /dev/urandom >"$SLU_WORK/large"
cp "$SLU_WORK/data" "$MNT/data"
expect_match "freeze" '^frozen; thaws by itself after 300 s$' "$(ctl freeze --timeout 300)"
before=$(image_sum) time_before=$(image_time)
copy_is_whole data

# While it is frozen: reading, looking, small changes; a large write, an fsync and a sync wait.
expect_match "status" 'frozen +for [0-9]+ s more; to end it: sluicectl thaw' "$(ctl status)"
expect_match "the JSON" '"frozen":\{"secondsLeft":[0-9.]+\}' "$(ctl -j status)"
expect_match "list" "$MNT +[0-9.]+ [A-Z]iB +[0-9.]+ [A-Z]iB +frozen +$IMG" "$(sluicectl list)"
expect_match "the JSON of list" "\"mountpoint\":\"$MNT\".*\"frozen\":\{\"secondsLeft\":" "$(sluicectl -j list | grep -F "\"$MNT\"")"
expect_match "metrics" 'sluicefs_frozen\{[^}]*\} 1' "$(ctl metrics)"
cmp "$SLU_WORK/data" "$MNT/data"
mkdir "$MNT/new"
echo small >"$MNT/new/file"
rm "$MNT/data"
cp "$SLU_WORK/large" "$MNT/large" &
writer=$!
dd if=/dev/zero of="$MNT/synced" bs=4096 count=1 conv=fsync 2>/dev/null &
syncer=$!
ctl sync &
syncing=$!
sleep 3
kill -0 "$syncer" || fail "an fsync of a frozen volume has returned"
kill -0 "$syncing" || fail "a sync of a frozen volume has returned"
for ((i = 0; i < 200; i++)); do
	[ "$(timeout 5 stat -c %s "$MNT/new/file")" = 6 ] || fail "getattr waits"
done
timeout 5 ls -l "$MNT" >/dev/null || fail "ls waits"
timeout 5 cat "$MNT/new/file" >/dev/null || fail "read waits"
refused 1 'is frozen already, for [0-9]+ s more' sluicectl -m "$MNT" freeze
expect_eq "the image" "$before" "$(image_sum)"
expect_eq "its time stamps and blocks" "$time_before" "$(image_time)"
expect_match "thaw" '^thawed after [0-9.]+ s$' "$(ctl thaw)"
expect_match "list after the thaw" "$MNT +[0-9.]+ [A-Z]iB +[0-9.]+ [A-Z]iB +writable +$IMG" "$(sluicectl list)"
wait "$writer" && wait "$syncer" && wait "$syncing" || fail "who waited has failed"
cmp "$SLU_WORK/large" "$MNT/large"
refused 1 'is not frozen$' sluicectl -m "$MNT" thaw
[ "$(image_sum)" != "$before" ] || fail "nothing was written after the thaw"

# More writers than there are threads, in writes that find no memory: all wait, and reading goes on.
ctl freeze --timeout 300 >/dev/null
for ((i = 0; i < 40; i++)); do
	dd if="$SLU_WORK/large" of="$MNT/w$i" bs=1M count=4 iflag=fullblock 2>"$SLU_WORK/dd.$i" &
	writers[i]=$!
done
sleep 3
for ((i = 0; i < 50; i++)); do
	timeout 5 stat "$MNT/large" "$MNT/new/file" >/dev/null || fail "getattr waits behind writers"
done
timeout 5 cat "$MNT/new/file" >/dev/null || fail "read waits behind writers"
ctl thaw >/dev/null
for ((i = 0; i < 40; i++)); do wait "${writers[i]}" || fail "a writer: $(cat "$SLU_WORK/dd.$i")"; done
head -c 4194304 "$SLU_WORK/large" >"$SLU_WORK/four"
for ((i = 0; i < 40; i++)); do cmp "$SLU_WORK/four" "$MNT/w$i"; done
rm "$MNT"/w*

# The time limit, and who is told.
sluicectl -m "$MNT" watch >"$SLU_WORK/events" &
watcher=$!
wait_for 10 eval 'ctl metrics | grep -q uptime'
ctl -j freeze --timeout 1.5 >/dev/null
dd if="$SLU_WORK/data" of="$MNT/data" bs=1M conv=fsync 2>/dev/null
refused 1 'time limit has passed: a copy that was not finished is not whole' sluicectl -m "$MNT" thaw
refused 1 'is not frozen$' sluicectl -m "$MNT" thaw
grep -q ' frozen: frozen: nothing changes the image for up to 2 s' "$SLU_WORK/events" || fail "events: $(cat "$SLU_WORK/events")"
grep -q ' thawed: thawed after 1.5 s, by the time limit' "$SLU_WORK/events" || fail "events: $(cat "$SLU_WORK/events")"
grep -q 'thawed after 1.5 s, by the time limit' "$SLU_WORK/daemon.log" || fail "the log: $(cat "$SLU_WORK/daemon.log")"

# Whose client has gone before it could be told is not frozen. sluicectl asks a daemon that is stopped for
# nothing, so curl hands over the call.
socket=$(find "${XDG_RUNTIME_DIR:-/run}/sluicefs" -name "$(mountpoint -d "$MNT")")
thaws() { grep -c ' thawed: ' "$SLU_WORK/events"; }
more_thaws() { [ "$(thaws)" -gt "$1" ]; }
before=$(thaws)
kill -STOP "$(daemon_pid)"
printf '{"method":"org.sluicefs.Volume.Freeze"}\0' |
	timeout 2 curl -s --unix-socket "$socket" telnet://sluicefs || expect_eq "status of the client" 124 $?
kill -CONT "$(daemon_pid)"
wait_for 20 more_thaws "$before"
refused 1 'is not frozen$' sluicectl -m "$MNT" thaw

# What is wrong is one line.
refused 2 'not a number of seconds' sluicectl -m "$MNT" freeze --timeout soon
refused 2 'for no time' sluicectl -m "$MNT" freeze --timeout 0
refused 2 'Unknown option --timeout' sluicectl -m "$MNT" thaw --timeout 5

# Copies beside a load that never stops.
mkdir "$MNT/r1"
mount_load run "$MNT/r1" "$SLU_WORK/log.1" 12 3 >/dev/null 2>&1 &
load=$!
for i in 1 2 3 4; do
	cp "$SLU_WORK/data" "$MNT/data"
	ctl freeze --timeout 100 >/dev/null
	copy_is_whole data
	ctl thaw >/dev/null
done
kill "$load" 2>/dev/null || true
wait "$load" 2>/dev/null || true

# Stopped while it is frozen, by a signal, with more in memory than was written and a writer for whom
# there is no memory; and unmounted.
ctl freeze --timeout 300 >/dev/null
cp "$SLU_WORK/data" "$MNT/last" &
writer=$!
sleep 1
echo last >"$MNT/new/file"
SECONDS=0
kill -TERM "$(daemon_pid)"
written=no
if wait "$writer"; then written=yes; fi
wait_for 100 eval '! mountpoint -q "$MNT"'
wait_for 100 eval '! daemon_pid >/dev/null'
[ $SECONDS -lt 100 ] || fail "SIGTERM waited for the freeze: $SECONDS s"
kill "$watcher" 2>/dev/null || true
fsck_clean
mount_logged cache_size=32M
expect_eq "what was written while it was frozen" last "$(cat "$MNT/new/file")"
[ $written = no ] || cmp "$SLU_WORK/data" "$MNT/last"
ctl freeze --timeout 300 >/dev/null
head -c 3000000 "$SLU_WORK/data" >"$SLU_WORK/part"
cp "$SLU_WORK/part" "$MNT/part"
SECONDS=0
umount_volume
[ $SECONDS -lt 100 ] || fail "the unmount waited for the freeze: $SECONDS s"
fsck_clean
mount_volume
cmp "$SLU_WORK/part" "$MNT/part"
cmp "$SLU_WORK/large" "$MNT/large"

umount_volume

# Whoever is watched over lives: its probe neither waits nor fails.
mount_notify "$SLU_WORK/notify" >"$SLU_WORK/told" &
listener=$!
wait_for 10 grep -q listening "$SLU_WORK/told"
WATCHDOG_USEC=900000 NOTIFY_SOCKET=$SLU_WORK/notify sluicefs -f -o "$(options)" "$IMG" "$MNT" >>"$SLU_WORK/daemon.log" 2>&1 &
daemon=$!
lives() { grep -c '^WATCHDOG=1$' "$SLU_WORK/told" || true; }
lives_on() { [ "$(lives)" -gt $(($1 + 5)) ]; }
wait_for 20 grep -q '^READY=1$' "$SLU_WORK/told"
ctl freeze --timeout 300 >/dev/null
echo more >"$MNT/new/file"
wait_for 10 lives_on "$(lives)"
ctl thaw >/dev/null
kill -TERM "$daemon"
wait "$daemon" || fail "SIGTERM: status $?"
kill "$listener"
wait "$listener" 2>/dev/null || true
fsck_clean
