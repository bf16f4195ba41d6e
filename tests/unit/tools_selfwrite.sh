#!/bin/bash
# SPDX-License-Identifier: MIT
#
# tools_selfwrite.sh PROGRAM BAD_WRITE_LIBRARY: sluice-selfwrite must pass where writes are right and
# must notice every kind of wrong write. No mount: runs on whatever lies below TMPDIR.
set -euo pipefail
program=$1 library=$2
work=$(mktemp -d "${TMPDIR:-/var/tmp}/slu-selfwrite.XXXXXX")
trap 'rm -rf "$work"' EXIT

fail() {
	echo "FAILED: $*"
	exit 1
}

"$program" "$work/file" >"$work/out" || fail "on a filesystem that is right: status $? $(cat "$work/out")"
grep -q '^pass: [1-9][0-9]* passed, 0 failed' "$work/out" || fail "no summary: $(cat "$work/out")"
[ ! -e "$work/file" ] || fail "the file was left behind"

# The first write is the reproducer's; 2,000 lies among the offsets; 4,098 is the large one.
for case in flip:1 before:1 short:1 error:1 flip:2000 short:2000 flip:4098 error:4098; do
	what=${case%:*} at=${case#*:}
	status=0
	BAD_WRITE=$what BAD_WRITE_AT=$at LD_PRELOAD=$library "$program" "$work/file" >"$work/out" 2>&1 || status=$?
	[ $status = 1 ] || fail "$what in write $at: expected status 1, got $status: $(cat "$work/out")"
	[ "$(grep -c '^FAILED ' "$work/out")" = 1 ] || fail "$what in write $at: expected one FAILED line: $(cat "$work/out")"
	tail -n 1 "$work/out" | grep -q '^fail: .* 1 failed' || fail "$what in write $at: $(tail -n 1 "$work/out")"
done

# A writer that dies, and one that does not get on
"$program" --timeout 1 "$work/file" >"$work/out" &
pid=$!
for _ in $(seq 100); do
	writer=$(pgrep -P "$pid" | head -n 1 || true)
	[ -z "$writer" ] || break
	sleep 0.01
done
kill -STOP "$writer"
status=0
wait "$pid" || status=$?
[ $status = 3 ] || fail "a writer that hangs: expected status 3, got $status"
grep -q '^DEADLOCK .* is in state T' "$work/out" || fail "a writer that hangs: $(cat "$work/out")"
rm -f "$work/file"
"$program" "$work/file" >"$work/out" &
pid=$!
for _ in $(seq 100); do
	writer=$(pgrep -P "$pid" | head -n 1 || true)
	[ -z "$writer" ] || break
	sleep 0.01
done
kill -SEGV "$writer"
status=0
wait "$pid" || status=$?
[ $status = 1 ] || fail "a writer that dies: expected status 1, got $status"
grep -q 'died of signal 11' "$work/out" || fail "a writer that dies: $(cat "$work/out")"
# The lab's policies, by their exit status
lab() { # STATUS PATTERN ARGUMENT...
	local expected=$1 pattern=$2
	shift 2
	status=0
	"$program" --lab "$@" >"$work/out" 2>&1 || status=$?
	[ $status = "$expected" ] || fail "--lab $*: expected status $expected, got $status: $(cat "$work/out")"
	grep -q "$pattern" "$work/out" || fail "--lab $*: no \"$pattern\" in: $(cat "$work/out")"
}
lab 3 'a writer waits for a page that it has locked itself' --policy hold-all
lab 3 'writer 1 ── waits for ──▶ page 1 of file 2 ── held by ──▶ writer 2' --policy hold-all --threads 2
lab 3 'in .* slu_write > .* > (page fault)' --policy tail-faulting
lab 0 '^pass: policy tail-nofault' --policy tail-nofault --threads 3 --runs 20
lab 2 'needs --policy'
for case in nouffd:'userfaultfd is forbidden here' oldkernel:CONFIG_USERFAULTFD; do
	status=0
	BAD_WRITE=${case%%:*} LD_PRELOAD=$library "$program" --lab --policy hold-all >"$work/out" 2>"$work/err" || status=$?
	[ $status = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q "${case#*:}" "$work/err" ||
		fail "${case%%:*}: status $status: $(cat "$work/err")"
done
lab 2 'no policy "none"' --policy none
lab 2 '4 to 64' --policy hold-all --pages 65
echo "sluice-selfwrite notices what is wrong"
