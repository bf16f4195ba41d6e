# sets: engine
# limit: 300
# Mounted and unmounted many times (--rounds), in every way in turn: no process, mount, descriptor,
# loop device or file in /tmp or /run more than before.
# Root does it where /tmp and /run are empty to begin with, and nobody else's files come and go.
if is_root && [ -z "${SLU_PRIVATE:-}" ]; then
	SLU_PRIVATE=1 exec unshare --mount --propagation private bash -E "${BASH_SOURCE[0]%/cases/*}/lib.sh"
fi
export TMPDIR=$SLU_WORK/tmp XDG_RUNTIME_DIR=$SLU_WORK/run
mkdir "$TMPDIR" "$XDG_RUNTIME_DIR"
places=("$TMPDIR" "$XDG_RUNTIME_DIR")
if is_root; then
	for dir in /tmp /run /dev/shm; do
		mount -t tmpfs none "$dir"
		places+=("$dir")
	done
fi
rounds=${SLU_ROUNDS:-25}
make_volume 64M
ours() {
	echo "processes: $(pgrep -a -f "^sluicefs .*$SLU_WORK" | tr '\n' ' ' || true)"
	echo "mounts: $(grep -F "$SLU_WORK" /proc/self/mountinfo || true)"
	echo "descriptors: $(find "/proc/$$/fd" -mindepth 1 | wc -l)"
	echo "loop devices: $(losetup -n -O NAME,BACK-FILE 2>/dev/null | grep -F "$SLU_WORK" || true)"
	# The directories for mount(8)'s notes and the control sockets stay.
	echo "files: $(find "${places[@]}" -mindepth 1 ! -path '*/run/mount*' ! -path '*/run/sluicefs' | tr '\n' ' ')"
	echo "beside the image: $(find "$SLU_WORK" -mindepth 1 -maxdepth 1 | sort | tr '\n' ' ')"
}
# One that nobody has waited for yet has no command line any more.
gone() { ! pgrep -f "^sluicefs .*$IMG" >/dev/null; }
touch "$SLU_WORK"/{daemon.log,before,after}
ours >"$SLU_WORK/before"
for ((i = 1; i <= rounds; i++)); do
	if [ $((i % 5)) = 0 ]; then mount_logged; else mount_volume; fi
	pid=$(pgrep -f "^sluicefs .*$IMG")
	[ "$i" = 1 ] || expect_eq "what the mount before has left" "$((i - 1))" "$(cat "$MNT/file")"
	echo "$i" >"$MNT/file"
	case $((i % 4)) in
	0) sluicefs --unmount "$MNT" ;;
	1) fusermount3 -u "$MNT" ;;
	2) kill -TERM "$pid" ;;
	3)
		exec 7<"$MNT/file"
		sluicefs --unmount --lazy "$MNT"
		exec 7<&-
		;;
	esac
	wait_for 20 gone
done
wait
ours >"$SLU_WORK/after"
diff "$SLU_WORK/before" "$SLU_WORK/after" || fail "left after $rounds mounts"
figures "$rounds mounts, nothing left"
fsck_clean
