# sets: user short
# sluicectl top on a terminal: what is shown, at every size; keys; and a terminal that is as it was,
# whatever ends it.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run
mkdir -p "$SLU_WORK/run"
command -v tmux >/dev/null || skip "no tmux"
make_volume 256M
mount_volume
pid=$(daemon_pid)

# ---------------------------------------------------------------- a terminal

terminal() {
	TMUX_TMPDIR=$SLU_WORK tmux -L t "$@"
}
trap 'terminal kill-server 2>/dev/null || true' EXIT
terminal -f /dev/null new-session -d -x 80 -y 24 "env PS1='\\$ ' bash --norc --noprofile -i"
screen() {
	terminal capture-pane -p
}
shows() {
	[[ $(screen) =~ $1 ]]
}
# type TEXT: and Enter
type_line() {
	terminal send-keys -l "$1"
	terminal send-keys Enter
}
key() {
	terminal send-keys "$@"
}
# The shell waits for a line.
prompt() {
	[ "$(terminal display-message -p '#{pane_current_command}')" = bash ] && shows $'(^|\n)[$#] *$'
}
# begin COMMAND
begin() {
	rm -f "$SLU_WORK"/{before,after,status}
	type_line 'clear; stty -g >before'
	wait_for 10 test -s "$SLU_WORK/before"
	wait_for 10 prompt
	type_line "$1"
}
top="sluicectl -m $MNT top -d 0.3"
running() {
	shows 'q quit  sort by rate errors mean p99 load operation' && shows 'open'$'\n'
}
# ended STATUS: and the terminal, its screen and its cursor are the shell's again
ended() {
	wait_for 10 prompt
	! shows 'q quit' || fail "the last screen is left: $(screen)"
	expect_eq "the other screen" 0 "$(terminal display-message -p '#{alternate_on}')"
	expect_eq "the cursor" 1 "$(terminal display-message -p '#{cursor_flag}')"
	type_line 'echo $? >status.new; stty -g >after; mv status.new status'
	wait_for 10 test -e "$SLU_WORK/status"
	expect_eq "exit status" "$1" "$(cat "$SLU_WORK/status")"
	expect_eq "the terminal after it" "$(cat "$SLU_WORK/before")" "$(cat "$SLU_WORK/after")"
}

touch "$SLU_WORK/loaded"
keep_busy "$SLU_WORK/loaded" &
load=$!

# ---------------------------------------------------------------- shown, sorted, of every size

begin "$top"
wait_for 10 running
wait_for 10 shows "^$(printf '%.60s' "$MNT")"
wait_for 10 shows $'\nOPERATION .*\nFSYNC .*\nSLOWEST '
# sorted_by SORT-ARGUMENTS...: as the table is shown at this moment
sorted_by() {
	screen | sed -n '/^OPERATION/,/^$/p' | grep -v -e '^OPERATION' -e '^$' >"$SLU_WORK/rows"
	[ "$(wc -l <"$SLU_WORK/rows")" -gt 4 ] && sort -c -s "$@" "$SLU_WORK/rows" 2>/dev/null
}
# The key is chosen at once, and marked.
key o
wait_for 10 sorted_by -k1,1
key r
wait_for 10 sorted_by -k2,2gr
terminal capture-pane -p -e | tail -n 1 | grep -q $'\e\[7mrate' || fail "the key is not marked: $(terminal capture-pane -p -e | tail -n 1)"
for size in 50x10 200x60 20x3 1x1 80x24; do
	terminal resize-window -x "${size%x*}" -y "${size#*x}"
	sleep 0.5
	kill -0 "$pid"
done
wait_for 10 running
[ "$(screen | awk 'length > 80' | wc -l)" = 0 ] || fail "lines longer than the terminal"
expect_eq "sluicectl" sluicectl "$(terminal display-message -p '#{pane_current_command}')"
terminal resize-window -x 50 -y 10
wait_for 10 shows $'\nOPERATION .*\n[A-Z]+ .*\nq quit'
[ "$(screen | grep -c .)" -ge 9 ] || fail "a screen of 10 lines that is empty: $(screen)"
terminal resize-window -x 80 -y 24
wait_for 10 running

# ---------------------------------------------------------------- every end

key q
ended 0
begin "$top"
wait_for 10 running
key C-c
ended 130
begin "$top"
wait_for 10 running
key 'C-\'
ended 131
begin "$top"
wait_for 10 running
kill -TERM "$(pgrep -P "$(terminal display-message -p '#{pane_pid}')")"
ended 143
begin "$top -n 2"
wait_for 10 running
ended 0

# Stopped and taken up again; in between the terminal is the shell's.
begin "$top"
wait_for 10 running
key C-z
wait_for 10 shows 'Stopped'
wait_for 10 prompt
type_line 'stty -g >stopped'
wait_for 10 test -s "$SLU_WORK/stopped"
expect_eq "the terminal while it is stopped" "$(cat "$SLU_WORK/before")" "$(cat "$SLU_WORK/stopped")"
type_line fg
wait_for 10 running
key q
ended 0

# A daemon that stands still: said so, and q works.
begin "$top"
wait_for 10 running
rm "$SLU_WORK/loaded"
wait "$load"
kill -STOP "$pid"
wait_for 10 shows 'no answer for [0-9]+ s'
key q
ended 0
kill -CONT "$pid"

# A terminal that is not known
begin "TERM=nonsense $top"
ended 1
shows '"nonsense" is not known here: use --batch' || fail "$(screen)"

# The end of the daemon
begin "$top"
wait_for 10 running
umount_volume
ended 1
shows 'sluicectl: the daemon has ended' || fail "$(screen)"
fsck_clean
