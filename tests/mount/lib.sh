# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What the cases share. Run by tests/mount/run as `bash lib.sh`, which then loads the case named by
# SLU_CASE. A case ends at its first failing command; what is left is taken down by the runner.
set -euo pipefail
shopt -s inherit_errexit

export PATH="$SLU_BIN:$SLU_TESTS:$PATH:/usr/sbin:/sbin"
IMG=$SLU_WORK/volume.img
MNT=$SLU_WORK/mnt
mkdir -p "$MNT"

on_error() {
	echo "FAILED: \"$BASH_COMMAND\" (status $1) at"
	local i
	for ((i = 1; i < ${#BASH_LINENO[@]}; i++)); do
		echo "    ${BASH_SOURCE[$i]##*/}:${BASH_LINENO[$((i - 1))]} ${FUNCNAME[$i]:-}"
	done
}
trap 'on_error $?' ERR

fail() {
	trap - ERR
	echo "FAILED: $*"
	exit 1
}

# What a case has counted, for whoever looks at the run.
figures() {
	echo "figures: $*"
}

# Not run, and why. Under CI=true that is a failure.
skip() {
	echo "skipped: $*"
	exit 77
}

# expect_eq WHAT EXPECTED SEEN
expect_eq() {
	[ "$2" = "$3" ] || fail "$1: expected \"$2\", got \"$3\""
}

# expect_match WHAT PATTERN SEEN: PATTERN is an extended regular expression
expect_match() {
	[[ $3 =~ $2 ]] || fail "$1: expected something like \"$2\", got \"$3\""
}

is_root() {
	[ "$(id -u)" = 0 ]
}

# refused STATUS PATTERN COMMAND...: the command must fail with this exit status, with one line on
# stderr that matches, and nothing on stdout.
refused() {
	local expected=$1 pattern=$2 status=0 out err
	shift 2
	"$@" >"$SLU_WORK/stdout" 2>"$SLU_WORK/stderr" </dev/null || status=$?
	out=$(cat "$SLU_WORK/stdout")
	err=$(cat "$SLU_WORK/stderr")
	expect_eq "exit status of \"$*\" (which said \"$err\")" "$expected" "$status"
	expect_eq "output of \"$*\"" "" "$out"
	expect_eq "lines on stderr of \"$*\" (\"$err\")" 1 "$(wc -l <"$SLU_WORK/stderr")"
	expect_match "what \"$*\" says" "$pattern" "$err"
}

# ---------------------------------------------------------------- volumes and mounts

# The options of this run, with more after them: options [WORD,WORD...]
options() {
	local o=
	[ "$SLU_MODE" = writeback ] || o=nowriteback
	[ -z "$SLU_IO" ] || o=${o:+$o,}io=$SLU_IO
	[ -z "${1:-}" ] || o=${o:+$o,}$1
	echo "${o:-rw}"
}

# make_volume [SIZE [MKFS OPTION...]]
make_volume() {
	local size=${1:-2G}
	[ $# = 0 ] || shift
	mkfs.sluicefs -q --size "$size" "$@" "$IMG"
}

# mount_volume [OPTIONS]: returns when the mount can be used
mount_volume() {
	sluicefs -o "$(options "${1:-}")" "$IMG" "$MNT"
	mountpoint -q "$MNT" || fail "sluicefs returned 0, but nothing is mounted on $MNT"
}

# mount_logged [OPTIONS]: the same with a daemon in the foreground, whose last words are in daemon.log,
# which the runner shows when the case fails.
mount_logged() {
	sluicefs -f -o "$(options "${1:-}")" "$IMG" "$MNT" >>"$SLU_WORK/daemon.log" 2>&1 &
	wait_for 20 mountpoint -q "$MNT"
}

# Returns when everything is on disk and the daemon has let go of the image.
umount_volume() {
	sluicefs --unmount "$MNT"
	! mountpoint -q "$MNT" || fail "still mounted after sluicefs --unmount"
}

remount_volume() {
	umount_volume
	mount_volume "${1:-}"
}

# The pid of the daemon that serves the image
daemon_pid() {
	local pid exe
	for pid in /proc/[0-9]*; do
		exe=$(readlink "$pid/exe" 2>/dev/null) || continue
		if [ "$exe" = "$SLU_BIN/sluicefs" ] && tr '\0' '\n' <"$pid/cmdline" 2>/dev/null | grep -qxF "$IMG"; then
			echo "${pid#/proc/}"
			return 0
		fi
	done
	return 1
}

# fsck_clean [OPTION...]: every invariant holds
fsck_clean() {
	local status=0
	fsck.sluicefs -n -f "$@" "$IMG" >"$SLU_WORK/fsck.out" 2>&1 || status=$?
	[ $status = 0 ] || {
		head -n 50 "$SLU_WORK/fsck.out"
		fail "fsck.sluicefs: status $status"
	}
}

# kill_daemon: SIGKILL, and the dead mount goes away
kill_daemon() {
	local pid
	pid=$(daemon_pid)
	kill -KILL "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
	unmount_dead
}

unmount_dead() {
	if is_root; then umount -l "$MNT"; else fusermount3 -u -z "$MNT"; fi
}

# load_kept ROUND: every promise that "mount_load run" noted of a round, in $MNT/rROUND and
# log.ROUND, was kept. Counts them in $promises.
load_kept() {
	local out
	out=$(mount_load verify "$MNT/r$1" "$SLU_WORK/log.$1") || {
		echo "$out"
		fail "round $1: promises broken"
	}
	promises=$((promises + ${out%% *}))
}

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || fail "waited in vain for \"$*\""
		sleep 0.05
	done
}

# keep_busy FILE: requests of several kinds, without an end as long as the file is there
keep_busy() {
	while [ -e "$1" ]; do
		mkdir -p "$MNT/x"
		rmdir "$MNT/x"
		ls -l "$MNT" >/dev/null
		echo "$RANDOM" >"$MNT/small"
		sync "$MNT/small"
	done
}

# This case goes on, from its beginning, in a mount namespace of its own. Nothing outside changes.
private_mounts() {
	if [ -z "${SLU_PRIVATE:-}" ]; then
		SLU_PRIVATE=1 exec unshare --mount --propagation private bash -E "${BASH_SOURCE[0]}"
	fi
}

# private_sbin PROGRAM...: the same, and /usr/sbin also has these programs, since mount(8) looks for its
# helpers there and nowhere else.
private_sbin() {
	private_mounts
	rm -rf "$SLU_WORK/sbin"
	mkdir "$SLU_WORK/sbin"
	cp -a /usr/sbin/. "$SLU_WORK/sbin/"
	rm -f "$SLU_WORK"/sbin/{sluicefs,mount.fuse.sluicefs,umount.fuse.sluicefs}
	local program
	for program in "$@"; do
		ln -s "$SLU_BIN/sluicefs" "$SLU_WORK/sbin/$program"
	done
	mount --bind "$SLU_WORK/sbin" /usr/sbin
}

# ---------------------------------------------------------------- trees

# real_tree_list FILE: names of at least 20,000 real files (not too large), one per line, below /
real_tree_list() {
	local dir n=0
	: >"$1"
	for dir in /usr/include /usr/share/doc /usr/share /usr/lib; do
		[ -d "$dir" ] || continue
		find "$dir" -xdev \( -type f -size -200k -o -type l -o -type d \) -readable -print 2>/dev/null |
			grep -v '[[:cntrl:]]' | head -n $((22000 - n)) >>"$1" || true
		sort -u -o "$1" "$1"
		n=$(wc -l <"$1")
		[ "$n" -lt 22000 ] || break
	done
	echo "a tree of $n entries from /usr"
}

# copy_tree LIST TO: as tar does it
copy_tree() {
	tar -C / --no-recursion -cf - -T <(sed 's,^/,,' "$1") 2>/dev/null | tar -C "$2" -xf -
}

# checksums DIR: every file's content, every symlink's target, every mode, in a stable order
checksums() {
	(
		cd "$1"
		find . -type f -print0 | sort -z | xargs -0 -r sha1sum
		find . -printf '%y %m %n %l %P\n' | LC_ALL=C sort -k5
	)
}

# same_tree A B
same_tree() {
	checksums "$1" >"$SLU_WORK/sums.a"
	checksums "$2" >"$SLU_WORK/sums.b"
	cmp -s "$SLU_WORK/sums.a" "$SLU_WORK/sums.b" || {
		diff "$SLU_WORK/sums.a" "$SLU_WORK/sums.b" | head -n 20
		fail "$1 and $2 differ"
	}
}

# shellcheck disable=SC1090
. "$SLU_CASE"
