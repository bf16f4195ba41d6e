# sets: user short
# sluicectl: every command, on a volume that is used, fills up.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run # where an ordinary user's sockets are
mkdir -p "$SLU_WORK/run"
mkfs.sluicefs -q --size 64M --label "a name" "$IMG"
mount_volume
ctl() {
	sluicectl -m "$MNT" "$@"
}
socket=$(find "${XDG_RUNTIME_DIR:-/run}/sluicefs" -name "$(mountpoint -d "$MNT")")
[ -S "$socket" ] || fail "no socket for $(mountpoint -d "$MNT")"
expect_eq "the socket's mode" 600 "$(stat -c %a "$socket")"

# status, in words and in JSON, by mount point and by socket
status=$(ctl status)
expect_match status "mounted on +$MNT" "$status"
expect_match status "image +$IMG" "$status"
expect_match status 'volume +[0-9a-f-]{36} a name' "$status"
expect_match status 'state +writable' "$status"
expect_match status "process +$(daemon_pid) " "$status"
expect_match "the JSON" '^\{.*"label":"a name".*"readOnly":false.*\}$' "$(sluicectl -s "$socket" -j status)"
exec 7>"$MNT/open"
expect_match "an open file" 'open files +1' "$(ctl status)"
exec 7>&-

[[ $(ctl -j status) != *lastError* ]] || fail "an error before there was one: $(ctl status)"

# list
expect_match list "$MNT +[0-9.]+ MiB +[0-9.]+ MiB +writable +$IMG" "$(sluicectl list)"
# Others may have volumes here too, so grep is not to close a pipe before their lines.
sluicectl -j list >"$SLU_WORK/list"
grep -q "\"mountpoint\":\"$MNT\"" "$SLU_WORK/list" || fail "list -j"

# sync: a copy of the image taken after it is whole
head -c 10000000 /dev/urandom >"$SLU_WORK/data"
cp "$SLU_WORK/data" "$MNT/data"
ctl sync
cp --sparse=always "$IMG" "$SLU_WORK/copy.img"
mkdir "$SLU_WORK/copy"
sluicefs -o ro "$SLU_WORK/copy.img" "$SLU_WORK/copy"
cmp "$SLU_WORK/data" "$SLU_WORK/copy/data" || fail "sync did not write everything out"
# Two volumes: which?
if is_root || [ "$(findmnt -n -t fuse.sluicefs | wc -l)" -gt 1 ]; then
	refused 1 'say which with -m' sluicectl status
fi
sluicefs --unmount "$SLU_WORK/copy"

# metrics: what Prometheus's parser takes, and numbers that move
metric() {
	ctl metrics | awk -v m="$1" 'index($0, m) == 1 && !n++ { print $NF }'
}
ctl metrics | awk '
	/^# (HELP|TYPE) sluicefs_[a-z_]+ / { next }
	/^sluicefs_[a-z_]+\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\} [0-9.e+-]+$/ { n++; next }
	{ print "not in the text format: " $0; bad = 1 }
	END { exit bad || n < 100 }' || fail "metrics"
before=$(metric 'sluicefs_request_duration_seconds_count{volume="'"$MNT"'",op="CREATE"}')
for i in 1 2 3; do echo "$i" >"$MNT/small$i"; done
after=$(metric 'sluicefs_request_duration_seconds_count{volume="'"$MNT"'",op="CREATE"}')
expect_eq "files that were created" 3 $((after - before))
commits=$(metric sluicefs_commits_total)
ctl sync
[ "$(metric sluicefs_commits_total)" -gt "$commits" ] || fail "a sync without a commit"
# In a histogram the counts add up, and the last bucket is all of them.
ctl metrics | awk '
	/_bucket/ { if ($NF + 0 < last && $0 !~ /le="0.000001"/) exit 1; last = $NF + 0 }
	/_count/ { if ($NF + 0 != last) exit 1 }' || fail "a histogram that does not add up"

# watch: what was before, on demand
past() { # OPTION...: what watch begins with, in a second
	timeout 1 sluicectl -m "$MNT" "$@" || [ $? = 124 ]
}
expect_match "the first event" '^[0-9: -]+ mounted: mounted from .*volume.img$' "$(past watch -n 1)"
expect_match "the first event" '"kind":"mounted"' "$(past -j watch --last=9)"
expect_eq "what is told of the past without -n" "" "$(past watch)"
refused 2 'number of events' sluicectl -m "$MNT" watch -n -1
expect_match "the event of the mount" 'last event .* mounted from ' "$(ctl status)"

# watch: the volume fills up
ctl watch >"$SLU_WORK/events" &
watcher=$!
ctl -j watch >"$SLU_WORK/events.json" &
watcher_json=$!
wait_for 10 test "$(metric sluicefs_uptime_seconds)" != ""
head -c 100000000 /dev/zero >"$MNT/full" 2>/dev/null || true
sync "$MNT/full" 2>/dev/null || true
wait_for 20 grep -q 'no-space: ' "$SLU_WORK/events"
grep -q '"kind":"no-space"' "$SLU_WORK/events.json" || fail "watch -j: $(cat "$SLU_WORK/events.json")"
expect_match "the last event" 'last event .* no space' "$(ctl status)"
# What comes after it does not hide an error.
rm "$MNT/full"
ctl sync 2>/dev/null || true # the kernel tells once more of what it could not write
ctl freeze >/dev/null
ctl thaw >/dev/null
status=$(ctl status)
expect_match "the last error" $'\nlast error +[0-9: -]+ no space' "$status"
expect_match "the last event" $'\nlast event +[0-9: -]+ thawed' "$status"
expect_match "the last error" '"lastError":\{[^{}]*"kind":"no-space"[^{}]*\}' "$(ctl -j status)"
[ "$(metric 'sluicefs_events_total{volume="'"$MNT"'",kind="no-space"}')" -ge 1 ] || fail "the event was not counted"

# Peers that send garbage or do not read hold up nobody.
sent_away=$(metric sluicefs_control_dropped_total)
head -c 200000 /dev/urandom | tr -d '\0' >"$SLU_WORK/garbage"
! timeout 10 curl -s --unix-socket "$socket" --data-binary "@$SLU_WORK/garbage" http://sluicefs/ >/dev/null ||
	fail "garbage was answered"
ctl status >/dev/null
expect_eq "clients that were sent away" $((sent_away + 1)) "$(metric sluicefs_control_dropped_total)"

# What is wrong is one line.
refused 2 'no command' sluicectl
refused 2 'not a command' sluicectl -m "$MNT" stauts
refused 2 'usage: sluicectl sync$' sluicectl -m "$MNT" sync now
refused 2 'same thing twice' sluicectl -m "$MNT" -s "$socket" status
refused 1 'not a mounted sluicefs volume' sluicectl -m / status
refused 1 'No such file' sluicectl -m "$SLU_WORK/nowhere" status
refused 1 'No such file' sluicectl -s "$SLU_WORK/nowhere" status

umount_volume
# The end of the volume is the end of what there is to watch.
wait "$watcher" || fail "watch ended with status $?"
wait "$watcher_json" || fail "watch -j ended with status $?"
[ ! -e "$socket" ] || fail "the socket is left"
refused 1 'not a mounted sluicefs volume' sluicectl -m "$MNT" status
fsck_clean
