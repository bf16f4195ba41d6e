#!/bin/bash
# SPDX-License-Identifier: MIT
#
# tools_selfwrite_matrix.sh PROGRAM BAD_WRITE_LIBRARY: sluice-selfwrite --matrix must pass where writes
# are right and must notice every kind of wrong write. No mount: runs on whatever lies below TMPDIR.
set -euo pipefail
program=$1 library=$2
work=$(mktemp -d "${TMPDIR:-/var/tmp}/slu-matrix.XXXXXX")
trap 'rm -rf "$work"' EXIT

fail() {
	echo "FAILED: $*"
	exit 1
}

# matrix STATUS ARGUMENT...: runs it on $work/dir; what it says is in $out
matrix() {
	local expected=$1 status=0
	shift
	rm -rf "$work/dir"
	mkdir "$work/dir"
	out=$("$program" --matrix "$work/dir" "$@" 2>&1) || status=$?
	[ $status = "$expected" ] || fail "$*: expected status $expected, got $status: $out"
	[ "$expected" = 3 ] || [ -z "$(ls "$work/dir")" ] || fail "$*: a file was left behind"
}

# says PATTERN: what was said matches
says() {
	grep -qE "$1" <<<"$out" || fail "expected something like \"$1\", got: $out"
}

# Right writes, of every kind
matrix 0 --only 'writev/buffered/*'
says '^pass: [1-9][0-9]+ passed, 0 failed, 0 refused'
for only in '*/65536/threads*' '*/4095/truncate' '*/buffered/*/12/every-offset' '*/4194304/0-12289'; do
	matrix 0 --only "$only"
	says '^pass: [1-9][0-9]* passed, 0 failed'
done
matrix 0 --only '*/direct/partly/65536/4096-0' --seed 7
says '^pass: '
matrix 1 --only 'no/such/name'
says 'no combination is called "no/such/name"'

# wrong WHAT AT NAME PATTERN: such a write is noticed, with these words, and can be had again
wrong() {
	BAD_WRITE=$1 BAD_WRITE_AT=$2 LD_PRELOAD=$library matrix 1 --seed 5 --only "$3"
	says "^FAILED  $3: $4.*; again with: sluice-selfwrite --matrix .*/dir' --seed 5 --only '$3'$"
	says '^fail: 0 passed, 1 failed, 0 refused'
}
for way in writev pwritev2 sendfile splice; do
	wrong foreign 1 $way/buffered/resident/65536/0-4096 'byte [0-9]+ is 0xee when read, a foreign byte'
	wrong before 1 $way/buffered/resident/4096/0-4097 'byte 4096, which was not written, is 0x21'
	wrong tail 1 $way/buffered/dropped/4096/0-4095 'the file has 8190 bytes, expected 8191'
	wrong tail 1 $way/buffered/dropped/4096/4096-0 'byte 4095 is 0x.. when read, which neither'
	wrong error 1 $way/buffered/partly/65536/4096-4097 "$way of 65536 bytes at 4097: Input/output error"
	# Several writers: whichever is the last
	wrong foreign 0 $way/buffered/resident/65536/threads 'byte [0-9]+ is 0xee'
done
wrong flip 1 writev/buffered/resident/1048576/0-4096 '(byte|the eight bytes at) [0-9]+'
wrong short 1 pwritev2/buffered/readonly/12/0-1 'byte 9 is 0x.. when read, which neither'
wrong flip 1234 writev/buffered/resident/12/every-offset 'byte [0-9]+ is 0x.. when read, which neither'
# With this seed it writes to the start of the file, which is never truncated.
wrong first 0 writev/buffered/resident/65536/truncate 'byte [0-9]+ is 0xee'
wrong error 3 splice/buffered/dropped/65536/threads-truncate 'splice of [0-9]+ bytes at [0-9]+: Input/output error'

# One that hangs: alone, and one of several
for only in writev/buffered/resident/4096/0-1 sendfile/buffered/dropped/65536/threads \
	pwritev2/buffered/dropped/4095/truncate; do
	BAD_WRITE=hang LD_PRELOAD=$library matrix 3 --timeout 1 --only "$only"
	says "^DEADLOCK $only: the write at [0-9]+ has not moved for 1 s; process [0-9]+ is in state .*; again with: "
	says '^deadlock: 0 passed, 0 failed, 0 refused by the filesystem, 1 deadlocked'
done
BAD_WRITE=hang BAD_WRITE_AT=3 LD_PRELOAD=$library matrix 3 --timeout 1 --json --only 'writev/buffered/*'
says '"verdict" : "deadlock"'
says '"passed" : 2,'
says '"deadlock" : 1,'

# A bad one does not keep the others from running.
BAD_WRITE=foreign BAD_WRITE_AT=2 LD_PRELOAD=$library matrix 1 --json --only 'writev/buffered/*/4096/*'
says '"failed" : 1,'
[ "$(grep -c '"verdict" : "passed"' <<<"$out")" -gt 20 ] || fail "not all were run: $out"
says '"reason" : "byte [0-9]+ is 0xee when read, a foreign byte'
echo "sluice-selfwrite --matrix notices what is wrong"
