# sets: short
# sluicectl metrics: the text in every detail, and the server for it: what it answers, to whom, and for
# how long, whatever clients and the daemon do.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run
mkdir -p "$SLU_WORK/run"
command -v curl >/dev/null || skip "no curl"
lib=$(dirname "$(dirname "$SLU_CASE")")

# parse FILE [LEAST]: at least so many families
parse() {
	awk -v least="${2:-60}" -f "$lib/prometheus.awk" "$1" || fail "$1 is not Prometheus's text format"
}

# ---------------------------------------------------------------- the text

make_volume 512M
mount_volume commit=1
head -c 20000000 /dev/urandom >"$MNT/file"
sync "$MNT/file"
remount_volume commit=1
cat "$MNT/file" >/dev/null
mkdir -p "$MNT/dir/full"
! rmdir "$MNT/dir" 2>/dev/null || fail "a full directory was removed"
echo more >>"$MNT/file"
sync "$MNT/file"
text=$SLU_WORK/text
sluicectl -m "$MNT" metrics >"$text"
parse "$text"
value() {
	awk -v m="$1" 'index($0, m) == 1 && !n++ { print $NF }' "${2:-$text}"
}
# at_least NAME NUMBER
at_least() {
	awk -v a="$(value "$1")" -v b="$2" 'BEGIN { exit !(a != "" && a + 0 >= b + 0) }' ||
		fail "$1 is \"$(value "$1")\", not $2 or more"
}
expect_eq up 1 "$(value sluicefs_up)"
at_least sluicefs_read_bytes_total 20000000
at_least sluicefs_disk_read_bytes_total 20000000
at_least sluicefs_commit_duration_seconds_count 1
at_least "sluicefs_disk_duration_seconds_count{volume=\"$MNT\",op=\"flush\"}" 1
at_least "sluicefs_disk_duration_seconds_count{volume=\"$MNT\",op=\"read\"}" 1
at_least "sluicefs_request_errors_total{volume=\"$MNT\",op=\"RMDIR\",errno=\"ENOTEMPTY\"}" 1
at_least sluicefs_process_resident_memory_bytes 1000000
at_least sluicefs_node_cache_bytes 4096
at_least sluicefs_data_bytes 20000000
at_least sluicefs_control_calls_total 2
at_least sluicefs_control_received_bytes_total 60
expect_eq "clients, with us" 1 "$(value sluicefs_control_clients)"
expect_eq "watchers: the log" 1 "$(value sluicefs_event_watchers)"
# As many requests as bytes and times, in every kind of disk request.
for op in read write flush; do
	expect_eq "$op: begun and ended" \
		"$(value "sluicefs_disk_$([ $op = flush ] && echo flushe || echo $op)s_total")" \
		"$(value "sluicefs_disk_duration_seconds_count{volume=\"$MNT\",op=\"$op\"}")"
done

# What is told is in the manual, and what is in the manual is told.
sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' "$text" | sort -u >"$SLU_WORK/told"
sed -n '/^### Every metric/,/^## /s/^| `\(sluicefs_[a-z_]*\)[`{].*/\1/p' "$lib/operations.md" | sort -u >"$SLU_WORK/written"
diff "$SLU_WORK/told" "$SLU_WORK/written" || fail "metrics (<) and docs/operations.md (>) differ"

# The parser sees what is wrong, so it means something that it is content.
# spoilt SED: the text with one mistake in it
spoilt() {
	sed "$1" "$text" >"$SLU_WORK/spoilt"
	! cmp -s "$text" "$SLU_WORK/spoilt" || fail "\"$1\" changes nothing"
	! awk -v least=60 -f "$lib/prometheus.awk" "$SLU_WORK/spoilt" >/dev/null ||
		fail "the parser does not see: $1"
}
spoilt 's/^\(sluicefs_files{.*} \)\(.*\)/\1\2,5/'
spoilt '/^# TYPE sluicefs_files/d'
spoilt 's/^sluicefs_files{\(.*\)/&\n&/'
spoilt 's/^\(sluicefs_uptime_seconds\){.*}/\1{volume="a"b"}/'
spoilt '/commit_duration_seconds_bucket.*+Inf/d'
spoilt 's/^\(sluicefs_commit_duration_seconds_count.*\) .*/\1 4711/'
spoilt 's/commits_total/commits/'
spoilt '5,$d'

# A comma is what the decimal point is elsewhere; not here.
if localedef -i de_DE -f UTF-8 --no-archive "$SLU_WORK/de_DE.UTF-8" 2>/dev/null; then
	# LOCPATH: glibc keeps a copy of it that it never frees.
	ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 LOCPATH=$SLU_WORK LC_ALL=de_DE.UTF-8 \
		sluicectl -m "$MNT" metrics >"$SLU_WORK/german"
	parse "$SLU_WORK/german"
fi
if [ -w /dev/full ]; then
	refused 1 'No space left on device' sh -c 'sluicectl -m "$0" metrics >/dev/full' "$MNT"
fi

# ---------------------------------------------------------------- served

# serve ADDRESS OPTIONS...: sets url and server
serve() {
	local where=$1
	shift
	: >"$SLU_WORK/serve.out"
	sluicectl "$@" metrics --listen "$where" >"$SLU_WORK/serve.out" 2>"$SLU_WORK/serve.err" &
	server=$!
	wait_for 10 grep -q '^listening on http://.*/metrics$' "$SLU_WORK/serve.out"
	url=$(sed -n 's/^listening on //p' "$SLU_WORK/serve.out")
}
stop_server() {
	kill -TERM "$server"
	wait "$server" || fail "SIGTERM: status $?"
	[ "$(curl -s -o "$SLU_WORK/answer" -w '%{http_code}' "$url")" = 000 ] || fail "still served after SIGTERM"
}
# http EXPECTED-STATUS CURL-ARGUMENTS...: the answer in the file `answer`
http() {
	local expected=$1
	shift
	expect_eq "HTTP status of $*" "$expected" \
		"$(curl -sS --max-time 15 -o "$SLU_WORK/answer" -D "$SLU_WORK/headers" -w '%{http_code}' "$@")"
}
is_up() { # EXPECTED
	http 200 "$url"
	[ "$(value sluicefs_up "$SLU_WORK/answer")" = "$1" ]
}

serve 127.0.0.1:0 -m "$MNT"
port=${url##*:} port=${port%/metrics}
http 200 "$url"
parse "$SLU_WORK/answer"
grep -qi '^content-type: text/plain; version=0.0.4' "$SLU_WORK/headers" || fail "$(cat "$SLU_WORK/headers")"
http 200 "$url?collect=all"
http 404 "${url%metrics}"
http 404 "${url}s"
http 405 -X POST --data-binary "@$text" "$url"
grep -qi '^allow: GET' "$SLU_WORK/headers" || fail "405 without Allow: $(cat "$SLU_WORK/headers")"
http 405 -X DELETE "$url"
http 405 -I "$url"
refused 1 'Address already in use' sluicectl -m "$MNT" metrics --listen "127.0.0.1:$port"

# One that sends nothing, some that send half a request, one that sends a byte now and then: they get
# their end (10 s of silence, 20 s in all), and the others meanwhile what they ask for.
slow=()
for i in 1 2 3; do
	( exec 9<>"/dev/tcp/127.0.0.1/$port"; [ $i = 1 ] || printf 'GET /metrics HTT' >&9; timeout 40 cat <&9 >/dev/null ) &
	slow+=($!)
done
(
	trap '' PIPE
	exec 9<>"/dev/tcp/127.0.0.1/$port"
	printf 'GET /metrics HTTP/1.1\r\nHost: a\r\nX: ' >&9
	while printf x >&9; do sleep 1; done 2>/dev/null
) &
dribble=$!
slow_since=$SECONDS

# All at once.
rm -f "$SLU_WORK"/at-once.*
pids=()
for i in 1 2 3 4; do
	( for j in 1 2 3 4 5 6 7 8 9 10; do curl -sS --max-time 15 -f "$url" >"$SLU_WORK/at-once.$i.$j" || exit 1; done ) &
	pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || fail "a scrape beside others failed"; done
for file in "$SLU_WORK"/at-once.*; do
	parse "$file"
	expect_eq "up in $file" 1 "$(value sluicefs_up "$file")"
done

# Garbage
for i in 1 2 3; do
	head -c 300000 /dev/urandom | timeout 10 bash -c "cat >/dev/tcp/127.0.0.1/$port" 2>/dev/null || true
done
printf 'GET /metrics HTTP/9.9\r\n\r\n' | timeout 10 bash -c "exec 9<>/dev/tcp/127.0.0.1/$port; cat >&9; cat <&9" >/dev/null || true
http 200 "$url"
status=$(curl -s --max-time 15 -o "$SLU_WORK/answer" -w '%{http_code}' -H "X: $(head -c 60000 /dev/zero | tr '\0' x)" "$url" || true)
expect_match "too long a header" '^(4..|000)$' "$status"
is_up 1 || fail "not up after garbage"

# The daemon stands still: it is told as down, and what needs no daemon is answered.
pid=$(daemon_pid)
kill -STOP "$pid"
wait_for 20 is_up 0 # a thread that is on its way may still answer
http 404 "${url}s"
kill -CONT "$pid"
wait_for 10 is_up 1
# It ends, and another comes.
kill_daemon
is_up 0 || fail "a daemon that was killed is up"
expect_eq "what is told without a daemon" 3 "$(wc -l <"$SLU_WORK/answer")"
parse "$SLU_WORK/answer" 1
is_up 0 || fail "a daemon that was killed is up"
mount_volume
is_up 1 || fail "a daemon that is back is down"
expect_eq "lines about that" 2 "$(tail -n 2 "$SLU_WORK/serve.err" | grep -cE 'is not a mounted|answers again')"

for pid in "${slow[@]}"; do wait "$pid" || fail "a silent client was not sent away (status $?)"; done
wait "$dribble" || true
took=$((SECONDS - slow_since))
[ $took -le 32 ] || fail "a client that sends a byte a second was there for $took s"
stop_server

# By socket, by IPv6
socket=$(find "${XDG_RUNTIME_DIR:-/run}/sluicefs" -name "$(mountpoint -d "$MNT")")
if [ -e /proc/net/if_inet6 ] && grep -q ' lo$' /proc/net/if_inet6; then
	serve '[::1]:0' -s "$socket"
	expect_match "where" '^http://\[::1\]:[0-9]+/metrics$' "$url"
else
	serve localhost:0 -s "$socket"
fi
is_up 1 || fail "not up"
grep -q "^sluicefs_up{volume=\"$MNT\"} 1" "$SLU_WORK/answer" || fail "the volume's name: $(head -n 3 "$SLU_WORK/answer")"
stop_server

# What is wrong is one line.
for where in 9 127.0.0.1 127.0.0.1: 127.0.0.1:x 127.0.0.1:65536 :9 '[::1]' '[]:9' '[::1:9'; do
	refused 2 'ADDRESS:PORT|in brackets' sluicectl -m "$MNT" metrics --listen "$where"
done
refused 2 'in brackets' sluicectl -m "$MNT" metrics --listen ::1:9
refused 2 'cannot be together' sluicectl -m "$MNT" -j metrics --listen 127.0.0.1:0
refused 1 'Cannot assign' sluicectl -m "$MNT" metrics --listen 192.0.2.1:0
umount_volume
# Not mounted yet is no reason not to serve.
serve 127.0.0.1:0 -m "$MNT"
is_up 0 || fail "up, and not mounted"
mount_volume
is_up 1 || fail "mounted, and not up"
stop_server
umount_volume
fsck_clean
