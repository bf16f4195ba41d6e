# sets: user short cache
# sluicectl top: intervals whose numbers are those of what was done, as text and as JSON, until the end
# of the daemon.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run
mkdir -p "$SLU_WORK/run"
make_volume 512M
mount_volume commit=1
top() {
	sluicectl -m "$MNT" top "$@"
}
# watchers: how many look at this moment, with who asks
clients() {
	sluicectl -m "$MNT" metrics | sed -n 's/^sluicefs_control_clients.* //p'
}
# number NAME: the first one of that name in $json
number() {
	grep -oE "\"$1\":[0-9.e+-]+" "$json" | sed -n '1s/.*://p'
}

# One interval, in which this is done and nothing else.
json=$SLU_WORK/json
top --json -n 1 -d 3 >"$json" &
top=$!
wait_for 10 eval '[ "$(clients)" = 2 ]'
mkdir "$MNT/dir"
for i in 1 2 3 4 5 6 7; do mkdir "$MNT/dir/$i"; done
! rmdir "$MNT/dir" 2>/dev/null || fail "a full directory was removed"
head -c 3000000 /dev/urandom >"$MNT/file"
sync "$MNT/file"
ino=$(stat -c %i "$MNT/file")
wait "$top" || fail "top -n 1: status $?"
expect_eq "objects" 1 "$(wc -l <"$json")"
expect_match "directories that were made" '"operation":"MKDIR","count":8,"errors":0,' "$(cat "$json")"
expect_match "a request that failed" '"operation":"RMDIR","count":1,"errors":1,' "$(cat "$json")"
expect_match "the slowest" "\"slowest\":\[.*\{\"inode\":$ino,\"path\":\"/file\",\"operation\":\"[A-Z]+\",\"seconds\":[0-9.e-]+\}" "$(cat "$json")"
expect_eq "bytes written" 3000000 "$(number writtenBytes)"
[ "$(number diskWrittenBytes)" -ge 3000000 ] || fail "written to the disk: $(number diskWrittenBytes)"
[ "$(number commits)" -ge 1 ] || fail "a sync without a commit"
[ "$(number diskFlushes)" -ge 2 ] || fail "a commit without two flushes"
awk -v s="$(number seconds)" 'BEGIN { exit !(s >= 3 && s < 6) }' || fail "an interval of $(number seconds) s"
# The slowest comes first, and its time is within what all of its kind took together.
awk '{
	n = split(substr($0, index($0, "\"slowest\"")), part, "\"seconds\":")
	for (i = 2; i <= n; i++) { if (i > 2 && part[i] + 0 > part[i - 1] + 0) exit 1 }
	exit !(n > 1)
}' "$json" || fail "not the slowest first: $(cat "$json")"
awk '{
	n = split($0, op, "\"operation\":")
	for (i = 2; i <= n; i++) {
		if (op[i] !~ /"count"/) continue
		split(op[i], f, /"count":|,"errors":|"total":|,"p99":|}/)
		if (f[2] < 1 || f[4] <= 0 || f[5] <= 0 || f[5] > 2 * f[4]) { print op[i]; exit 1 }
	}
}' "$json" || fail "operations that cannot be"

# What is read, by a mount that has nothing of it in memory.
remount_volume
top --json -n 1 -d 1.5 >"$json" &
top=$!
wait_for 10 eval '[ "$(clients)" = 2 ]'
cat "$MNT/file" >/dev/null
wait "$top"
[ "$(number readBytes)" -ge 3000000 ] || fail "read: $(number readBytes)"
[ "$(number diskReadBytes)" -ge 3000000 ] || fail "read from the disk: $(number diskReadBytes)"
# And an interval in which nothing is done says so.
wait_for 10 eval '[ "$(clients)" = 1 ]'
top --json -n 3 -d 0.2 >"$json"
expect_eq "objects" 3 "$(grep -c '^{"mountpoint":.*}$' "$json")"
expect_match "the last interval" '"readBytes":0,"writtenBytes":0,' "$(tail -n 1 "$json")"

# As text: at once in a pipe, sorted as one likes.
touch "$SLU_WORK/loaded"
keep_busy "$SLU_WORK/loaded" &
load=$!
top -n 2 -d 0.7 >"$SLU_WORK/text"
expect_eq "intervals" 2 "$(grep -cE "^$MNT: [0-9:]{8}, up .*, the last 0\.[0-9] s$" "$SLU_WORK/text")"
expect_match "text" $'\nrequests +[0-9.]+/s .* waiting .* open\nvolume .* commits/s\ndisk .* flushes/s\nmemory .* failed\n\nOPERATION ' "$(cat "$SLU_WORK/text")"
grep -qE '^FSYNC +[0-9]+\.[0-9] +0\.0 +[0-9.]+ (us|ms|s) +[0-9.]+ (us|ms|s) +[0-9.]+$' "$SLU_WORK/text" || fail "no FSYNC in $(cat "$SLU_WORK/text")"
grep -qE '^SLOWEST +TIME +INODE +PATH$' "$SLU_WORK/text" || fail "none is the slowest"
# sorted KEY SORT-ARGUMENTS...: the table is in the order that sort(1) gives it
sorted() {
	local key=$1
	shift
	top -n 1 -d 0.7 --sort "$key" >"$SLU_WORK/text"
	sed -n '/^OPERATION/,/^$/p' "$SLU_WORK/text" | grep -v -e '^OPERATION' -e '^$' >"$SLU_WORK/rows"
	[ "$(wc -l <"$SLU_WORK/rows")" -gt 4 ] || fail "few operations: $(cat "$SLU_WORK/text")"
	sort -c -s "$@" "$SLU_WORK/rows" 2>/dev/null || fail "not sorted by $key: $(cat "$SLU_WORK/rows")"
}
sorted operation -k1,1
sorted rate -k2,2gr
sorted load -k8,8gr
rm "$SLU_WORK/loaded"
wait "$load"

# Two who look do not take from each other; a reader that goes away is no longer counted.
sluicectl -m "$MNT" top --json -d 0.3 >"$SLU_WORK/one" &
one=$!
top --json -d 0.3 -n 4 >"$SLU_WORK/two"
wait_for 10 eval '[ "$(wc -l <"$SLU_WORK/one")" -ge 4 ]'
kill "$one"
wait "$one" || true
wait_for 10 eval '[ "$(clients)" = 1 ]'

# What is wrong is one line.
refused 2 '0.1 to 3600' sluicectl -m "$MNT" top -d 0.05
refused 2 '0.1 to 3600' sluicectl -m "$MNT" top -d nan
refused 2 '0.1 to 3600' sluicectl -m "$MNT" top -d 1e9
refused 2 'see --help' sluicectl -m "$MNT" top -d soon
refused 2 'not below 0' sluicectl -m "$MNT" top -n -1
refused 2 'none of rate, errors' sluicectl -m "$MNT" top --sort size
refused 2 'usage: sluicectl top$' sluicectl -m "$MNT" top now
refused 2 'Unknown option' sluicectl -m "$MNT" status --interval 3
refused 1 'nothing more can be written' sh -c 'sluicectl -m "$0" top -d 0.1 >/dev/full' "$MNT"

# The end of the daemon is an error: whoever looks wants to know.
rm "$SLU_WORK/text"
top -b -d 0.2 >"$SLU_WORK/text" 2>"$SLU_WORK/err" &
top=$!
wait_for 10 test -s "$SLU_WORK/text"
umount_volume
status=0
wait "$top" || status=$?
expect_eq "status at the end of the daemon" 1 $status
expect_match "what is said" 'the daemon has ended' "$(cat "$SLU_WORK/err")"
fsck_clean
