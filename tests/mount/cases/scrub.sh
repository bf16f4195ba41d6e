# sets: user short
# sluicectl scrub: a sound volume in use, its progress and its ends, and damage of every kind.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run # where an ordinary user's sockets are
mkdir -p "$SLU_WORK/run"
make_volume 256M
mount_logged
ctl() {
	sluicectl -m "$MNT" "$@"
}
# Some hundred nodes: names fill them well.
mkdir "$MNT/many"
for ((i = 0; i < 6000; i++)); do echo "$MNT/many/$i.a-name-that-takes-some-room-in-a-node-of-the-tree"; done | xargs touch
ctl sync
expect_match "a sound volume" '^clean: [0-9]+ nodes were read$' "$(ctl scrub --rate 0)"
nodes=$(ctl -j scrub --rate 0 | sed -n 's/.*"nodes":\([0-9]*\).*/\1/p')
[ "$nodes" -gt 200 ] || fail "$nodes nodes"
expect_match "status" 'last scrub +2[0-9-]+ [0-9:]+ clean, '"$nodes"' nodes' "$(ctl status)"
expect_match "metrics" "sluicefs_scrub_nodes_total\{[^}]*\} $((2 * nodes))" "$(ctl metrics)"

# One at a time, with a rate; how far it is; and its ends.
ctl scrub --rate 256K/s >"$SLU_WORK/out" 2>"$SLU_WORK/err" &
slow=$!
wait_for 10 eval 'ctl status | grep -qE "last scrub .* and still running, [0-9]+ of about [0-9]+ nodes"'
refused 1 'is being scrubbed already \([0-9]+ of about [0-9]+ nodes\)' sluicectl -m "$MNT" scrub
refused 1 'is being scrubbed already' sluicectl -m "$MNT" scrub --no-wait
ctl scrub --cancel
status=0
wait "$slow" || status=$?
expect_eq "the status of a scrub that was cancelled" 1 $status
expect_match "what it says" 'the scrub was cancelled after [0-9]+ nodes' "$(cat "$SLU_WORK/err")"
refused 1 'is not being scrubbed' sluicectl -m "$MNT" scrub --cancel
sluicectl -m "$MNT" scrub --rate 256K &
slow=$!
wait_for 10 eval 'ctl status | grep -q "still running"'
kill -TERM "$slow"
wait "$slow" 2>/dev/null || true
wait_for 10 eval 'ctl status | grep -qE "last scrub .* cancelled, "'
ctl scrub --no-wait --rate 256K
expect_match "one that nobody waits for" 'still running' "$(ctl status)"
ctl scrub --cancel
refused 2 'is not a size' sluicectl -m "$MNT" scrub --rate fast
refused 2 'begins none' sluicectl -m "$MNT" scrub --cancel --no-wait

# Beside a load, again and again: what is freed and written anew is not damage.
mkdir "$MNT/r1"
mount_load run "$MNT/r1" "$SLU_WORK/log.1" 8 3 >/dev/null 2>&1 &
load=$!
n=0
wait_for 10 eval 'ctl status | grep -q cancelled'
while kill -0 "$load" 2>/dev/null; do
	ctl scrub --rate 0 >/dev/null
	n=$((n + 1))
done
wait "$load" 2>/dev/null || true
figures "$n scrubs beside a load"
ctl sync

# Every leaf and all superblocks, damaged under the daemon, which has them in memory.
damage() { # BLOCK
	printf '\x5a' | dd of="$IMG" bs=1 seek=$(($1 * 4096 + 2000)) conv=notrunc 2>/dev/null
}
umount_volume
cp "$IMG" "$SLU_WORK/sound.img"
mount_logged noatime
ls -lR "$MNT/many" >/dev/null # its nodes are in memory
blocks=$(mount_patch "$IMG" leaves)
sluicectl -m "$MNT" watch >"$SLU_WORK/events" &
watcher=$!
wait_for 10 eval 'ctl metrics | grep -q uptime'
for block in 0 1 $((256 * 256 - 1)) $blocks; do damage "$block"; done
status=0
ctl scrub >"$SLU_WORK/out" 2>"$SLU_WORK/err" || status=$?
expect_eq "the status of damage" 4 $status
expect_match "what it says" 'DAMAGED: [0-9]+ of [0-9]+ nodes and superblocks; unmount and run fsck' "$(cat "$SLU_WORK/err")"
for block in 0 1 $((256 * 256 - 1)); do
	grep -q "^block $block: " "$SLU_WORK/out" || fail "block $block is not named: $(cat "$SLU_WORK/out")"
done
damaged=$(ctl -j status | sed -n 's/.*"damaged":\([0-9]*\).*/\1/p')
[ "$damaged" -gt 200 ] || fail "only $damaged were found"
grep -qx "and $((damaged - 32)) more" "$SLU_WORK/out" || fail "more than are named: $(cat "$SLU_WORK/out")"
expect_match "status" "last scrub .* damaged, [0-9]+ nodes, $damaged damaged" "$(ctl status)"
expect_match "the JSON" '"outcome":"damaged"' "$(ctl -j status)"
grep -q ' superblock-corrupt: a bad superblock in block 0 ' "$SLU_WORK/events" || fail "events: $(cat "$SLU_WORK/events")"
grep -q ' node-corrupt: the metadata in block ' "$SLU_WORK/events" || fail "events: $(cat "$SLU_WORK/events")"
grep -qE " scrub-finished: scrubbed [0-9]+ nodes: $damaged damaged; run fsck" "$SLU_WORK/events" || fail "events: $(cat "$SLU_WORK/events")"
grep -qE "scrubbed [0-9]+ nodes: $damaged damaged" "$SLU_WORK/daemon.log" || fail "the log: $(cat "$SLU_WORK/daemon.log")"
kill "$watcher" 2>/dev/null || true
umount_volume || true

# A volume that is mounted read-only is scrubbed like any other, and a scrub ends with its volume.
cp "$SLU_WORK/sound.img" "$IMG"
mount_logged ro
ctl scrub --rate 0 >/dev/null
ctl scrub --no-wait --rate 64K
SECONDS=0
umount_volume
[ $SECONDS -lt 20 ] || fail "the unmount waited for a scrub"
fsck_clean
