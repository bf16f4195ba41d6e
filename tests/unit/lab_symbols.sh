#!/bin/bash
# SPDX-License-Identifier: MIT
#
# lab_symbols.sh DAEMON SELFWRITE: the deadlock lab, with its faulty policies, is in sluice-selfwrite
# and not in the daemon.
set -euo pipefail
symbols() {
	nm "$1" | grep -cE ' [tTdDbBrR] (slu_lab_|hold_all_|window_copy_|source_copy_faulting|graph_wait)' || true
}
in_daemon=$(symbols "$1") in_tool=$(symbols "$2")
[ "$in_tool" -ge 5 ] || { echo "FAILED: the lab cannot be seen in $2 ($in_tool symbols)"; exit 1; }
[ "$in_daemon" = 0 ] || { echo "FAILED: $1 has $in_daemon symbols of the lab"; exit 1; }
# and no option leads there
! "$1" --help | grep -qiE 'lab|policy' || { echo "FAILED: $1 --help speaks of the lab"; exit 1; }
echo "the faulty policies are in the lab alone"
