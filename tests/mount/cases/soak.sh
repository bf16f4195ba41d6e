# limit: 240
# Everything that an administrator may do with a volume, beside programs that work hard on it: memory
# does not grow, no event is lost uncounted, and the volume is whole. 8 seconds for each of --rounds.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run
mkdir -p "$SLU_WORK/run"
seconds=$((${SLU_ROUNDS:-4} * 8))
make_volume 1G
mount_logged cache_size=64M,commit=1
pid=$(daemon_pid)
ctl() {
	sluicectl -m "$MNT" "$@"
}
number() { # NAME <object: of a member
	sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"
}
rss() {
	sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status"
}

# ---------------------------------------------------------------- who watches

sluicectl -m "$MNT" --json watch >"$SLU_WORK/events" &
watching=$!
sluicectl -m "$MNT" --json watch >"$SLU_WORK/late" & # reads nothing until the end
late=$!
wait_for 10 eval '[ "$(ctl metrics | sed -n "s/^sluicefs_event_watchers.* //p")" = 3 ]'
kill -STOP "$late"
sluicectl -m "$MNT" --json top -d 1 >"$SLU_WORK/top" 2>&1 &
top=$!
sluicectl -m "$MNT" metrics --listen 127.0.0.1:0 >"$SLU_WORK/listen" 2>&1 &
listening=$!
wait_for 10 grep -q http "$SLU_WORK/listen"
url=$(sed -n 's/.*\(http[^ ]*\).*/\1/p' "$SLU_WORK/listen")

# ---------------------------------------------------------------- who works

# again COMMAND...: until the load has ended; how often is in a file of that name
again() {
	local name=$1 n=0
	shift
	while [ -e "$SLU_WORK/working" ]; do
		"$@" || fail "$*: status $?"
		n=$((n + 1))
		echo $n >"$SLU_WORK/count.$name"
	done
}
scrape() {
	curl -fsS "$url" >"$SLU_WORK/scrape" && grep -q '^sluicefs_up.* 1$' "$SLU_WORK/scrape" && sleep 1
}
grow() {
	ctl grow +4M >/dev/null && sleep 3
}
sync_all() {
	ctl sync && sleep 0.5
}
scrub() {
	ctl scrub --rate 0 >/dev/null && sleep 0.2
}
touch "$SLU_WORK/working"
again scrape scrape &
jobs=($!)
again grow grow &
jobs+=($!)
again sync sync_all &
jobs+=($!)
again scrub scrub &
jobs+=($!)
# load SECONDS
load() {
	stress-ng --temp-path "$MNT" --timeout "$1" --oomable --dentry 1 --dentries 500 --rename 1 --link 1 \
		--fallocate 1 --fallocate-bytes 32M --hdd 1 --hdd-bytes 64M --mmap 1 --mmap-bytes 16M --mmap-file \
		--xattr 1 --verify >"$SLU_WORK/stress.out" 2>&1 || {
		cat "$SLU_WORK/stress.out"
		fail "stress-ng"
	}
}
# Every table as large as it may become: inodes that nobody uses (16,384 stay), nodes, pages.
mkdir "$MNT/many"
(cd "$MNT/many" && seq 20000 | xargs touch && ls -l >/dev/null)
head -c 100M /dev/zero >"$MNT/large"
sync "$MNT/large"
load $((seconds / 4)) # what is set up once is there
before=$(rss)
load $((seconds * 3 / 4))
after=$(rss)
rm "$SLU_WORK/working"
for job in "${jobs[@]}"; do
	wait "$job" || fail "beside the load something failed"
done
kill -TERM "$listening"
wait "$listening" || fail "metrics --listen: status $?"
[ "$after" -le $((before + 12288)) ] || fail "memory grew from $before to $after KiB"

# ---------------------------------------------------------------- what was seen

total=$(ctl metrics | awk '/^sluicefs_events_total/ { n += $NF } END { print n }')
# account NAME: all events up to the total are in what that watcher has printed, or counted there as
# lost; a full ring keeps the older ones, so the last that one reads may be a number. Those before the
# watch are no loss.
account() {
	awk -v total="$total" -v name="$1" '
	function member(m) { return match($0, "\"" m "\":[0-9]+") ? substr($0, RSTART + length(m) + 3, RLENGTH - length(m) - 3) + 0 : -1 }
	{ seq = member("seq"); lost = member("lost"); all_lost += lost
	  if (seq == 0) { gap += lost; next }
	  if (last && seq - last - 1 != lost + gap) { print name ": from " last " to " seq ", " lost + gap " lost"; bad = 1 }
	  last = seq; gap = 0; n++ }
	END { if (last + gap < total) { print name ": ended at " last ", with " gap " lost, of " total; bad = 1 }
	      print name ": " n " events, " all_lost " lost and counted"; exit bad }' "$SLU_WORK/$1"
}
kill -CONT "$late"
caught_up() { # it is not waited for when the volume is unmounted
	account late >"$SLU_WORK/caught_up"
}
wait_for 30 caught_up
umount_volume
for watcher in "$watching" "$late"; do
	wait "$watcher" || fail "watch: status $?"
done
wait "$top" && fail "top did not see that the daemon has ended"
for name in events late; do
	account $name >>"$SLU_WORK/watched" || fail "$(cat "$SLU_WORK/watched")"
done
intervals=$(grep -c '"operations"' "$SLU_WORK/top")
[ "$intervals" -ge $((seconds / 2)) ] || fail "top has shown $intervals intervals"
fsck_clean
figures "$seconds s: $(cat "$SLU_WORK/count.sync") syncs, $(cat "$SLU_WORK/count.scrub") scrubs," \
	"grown $(cat "$SLU_WORK/count.grow") times, $(cat "$SLU_WORK/count.scrape") scrapes, $intervals intervals of top;" \
	"memory $before to $after KiB; $(paste -sd';' "$SLU_WORK/watched")"
[ "$(cat "$SLU_WORK/count.scrub")" -ge 2 ] || fail "no scrubs"
