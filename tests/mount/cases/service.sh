# sets: user short
# What a service manager sees: a configuration file, readiness, status, proof of life, the end, and
# what is cleaned up after a daemon that was killed.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run
mkdir -p "$SLU_WORK/run"
make_volume 256M
conf=$SLU_WORK/volume.conf
blank=' '
cat >"$conf" <<END
# a comment
[Volume]
Image = $IMG
MountPoint=$MNT$blank
Options=ro
Options=
Options=$(options) ,\\
	commit=1
Options=noexec, noatime
END

# begin [VARIABLE=VALUE...]: as the unit starts it
begin() {
	rm -f "$SLU_WORK/notify"
	mount_notify "$SLU_WORK/notify" >"$SLU_WORK/told" &
	listener=$!
	wait_for 10 grep -q listening "$SLU_WORK/told"
	env "$@" NOTIFY_SOCKET="$SLU_WORK/notify" sluicefs --foreground --config="$conf" 2>"$SLU_WORK/log" &
	daemon=$!
	wait_for 20 grep -q '^READY=1$' "$SLU_WORK/told"
	# Ready means that it can be used.
	stat "$MNT" >/dev/null
	mountpoint -q "$MNT" || fail "ready and not mounted"
	expect_match "the mount's options" '^rw,.*noexec.*noatime' "$(findmnt -n -o OPTIONS "$MNT")"
}

end() {
	kill "$listener"
	wait "$listener" 2>/dev/null || true
}

lives() {
	grep -c '^WATCHDOG=1$' "$SLU_WORK/told" || true
}

begin WATCHDOG_USEC=900000
expect_eq MAINPID "$daemon" "$(sed -n 's/^MAINPID=//p' "$SLU_WORK/told")"
wait_for 10 grep -qE '^STATUS=[0-9.]+ MiB of [0-9.]+ MiB available, .* not yet written' "$SLU_WORK/told"
echo kept >"$MNT/file"
n=$(lives)
wait_for 10 eval '[ "$(lives)" -gt $((n + 2)) ]'
# Who hangs is not said to live.
kill -STOP "$daemon"
sleep 0.5
n=$(lives)
sleep 1.5
expect_eq "signs of life of a daemon that is stopped" "$n" "$(lives)"
kill -CONT "$daemon"
wait_for 10 eval '[ "$(lives)" -gt "$n" ]'
# The end, with much to write: everything is told and written.
head -c 60000000 /dev/urandom >"$SLU_WORK/data"
cp "$SLU_WORK/data" "$MNT/data"
kill -TERM "$daemon"
wait "$daemon" || fail "SIGTERM: status $?: $(cat "$SLU_WORK/log")"
grep -q '^STOPPING=1$' "$SLU_WORK/told" || fail "STOPPING was not told"
expect_eq "READY after the end" 1 "$(grep -c '^READY=1$' "$SLU_WORK/told")"
end
! mountpoint -q "$MNT" || fail "still mounted"

# Without a watchdog nothing claims to live.
begin
cmp "$SLU_WORK/data" "$MNT/data"
expect_eq "the file" kept "$(cat "$MNT/file")"
wait_for 10 grep -q '^STATUS=' "$SLU_WORK/told"
expect_eq "signs of life that nobody wants" 0 "$(lives)"
# Alive: cleaning up does nothing. sluicectl reads the same file.
expect_match "status by configuration" "mounted on +$MNT" "$(sluicectl -c "$conf" status)"
sluicefs --cleanup --config="$conf"
mountpoint -q "$MNT" || fail "cleanup unmounted a living mount"
kill -KILL "$daemon"
wait "$daemon" 2>/dev/null || true
! ls "$MNT" >/dev/null 2>&1 || fail "a dead mount that works"
sluicefs --cleanup --config="$conf"
! mountpoint -q "$MNT" 2>/dev/null || fail "the dead mount is left"
ls "$MNT" >/dev/null
sluicefs --cleanup "$MNT" # nothing there: nothing to do
end
begin
expect_eq "the file after the kill" kept "$(cat "$MNT/file")"
umount_volume
wait "$daemon" || fail "after --unmount: status $?"
end

# Mistakes: file, line, what was expected
# wrong LINE PATTERN: the configuration on stdin
wrong() {
	cat >"$SLU_WORK/bad.conf"
	refused 1 "bad.conf$1: .*$2" sluicefs --config="$SLU_WORK/bad.conf"
}
printf '[Volume]\nImage=/x\nMountPiont=/y\n' | wrong :3 'MountPiont= is not known'
printf '[Volume]\nImage=/x\n' | wrong '' 'MountPoint= is missing'
printf '[Volume]\nImage=x\nMountPoint=/y\n' | wrong :2 'an absolute path is expected'
printf '[Volume]\nImage=/x\nMountPoint=/y\n\nOptions=ro,colour=red\n' | wrong :5 'unknown option colour'
printf '[Volume]\nImage=/x\nMountPoint=/y\nOptions=ro\nOptions=sync, colour=red\n' | wrong :5 'unknown option colour'
printf '[Volume]\nImage=/x\nMountPoint=/y\nImage=/z\n' | wrong :4 'Image= is there already, in line 2: one is expected'
refused 1 'bad.conf:4: Image= is there already' sluicectl -c "$SLU_WORK/bad.conf" status
printf '[Volume]\nImage=/x\nMountPoint=/y\nMountPoint=/y\n' | wrong :4 'MountPoint= is there already, in line 3: one is expected'
printf '# nothing\n' | wrong '' 'no \[Volume\]'
# The clean-up after it, in ExecStopPost, does not say it again; after anything else it does.
refused 1 'no \[Volume\]' env EXIT_CODE=killed EXIT_STATUS=KILL sluicefs --cleanup --config="$SLU_WORK/bad.conf"
status=0
EXIT_CODE=exited EXIT_STATUS=1 sluicefs --cleanup --config="$SLU_WORK/bad.conf" 2>"$SLU_WORK/err" || status=$?
expect_eq "status of the clean-up" 1 $status
expect_eq "what the clean-up says" '' "$(cat "$SLU_WORK/err")"
printf '[Volume]\nImage=/x\n[Service]\nUser=me\n' | wrong :3 '\[Service\] is not known'
printf '[Volume]\nImage\n' | wrong :2 'expected Word=value, \[Volume\] or a comment'
head -c 5000 /dev/urandom | wrong '(:1)?' '.'
refused 1 'No such file' sluicefs --config="$SLU_WORK/nowhere.conf"
refused 1 'unexpected argument' sluicefs --config="$conf" "$IMG" "$MNT"
refused 1 'needs a value' sluicefs --config
fsck_clean
