# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What is shown in the guest: `bash guest.sh`, from scenarios.service, once in each of two boots. A
# scenario is a function in a subshell; its first failing command ends it.
set -uo pipefail
export LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
unit=sluicefs@data.service

fail() {
	echo "  $*"
	exit 1
}

wait_for() { # SECONDS COMMAND...
	local i n=$1
	shift
	for ((i = 0; i < n * 5; i++)); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep 0.2
	done
	fail "waited in vain for: $*"
}

main_pid() {
	systemctl show -P MainPID "$unit"
}

# Serves again, as another process than PID
serves_again() {
	[ "$(main_pid)" != "$1" ] && systemctl is-active -q "$unit" && mountpoint -q /mnt/data && ls /mnt/data
}

# journal_says PATTERN: of the unit, and what it says is shown
journal_says() {
	journalctl --no-pager -q -o short-monotonic -u "$unit" >/tmp/journal
	grep -E "$1" /tmp/journal | tail -n 3 | sed 's/^/  journal: /' || true
	grep -qE "$1" /tmp/journal || fail "the journal does not say \"$1\""
}

# ---------------------------------------------------------------- the first boot

# Older than what the daemon is developed on.
it_runs_on_the_kernel_of_the_image() {
	local kernels=(/boot/vmlinuz-*)
	[ "${#kernels[@]} ${kernels[0]}" = "1 /boot/vmlinuz-$(uname -r)" ] || fail "$(uname -r) is not of ${kernels[*]}"
	[[ $(uname -r) = 6.1.* ]] || fail "$(uname -r) is not 6.1"
}

at_boot_through_fstab() {
	findmnt -n -o FSTYPE /mnt/fstab | grep -qx fuse.sluicefs
	echo first >/mnt/fstab/file
	systemctl is-active -q mnt-fstab.mount
}

an_image_that_is_missing_does_not_stop_the_boot() {
	! mountpoint -q /mnt/missing || fail "it is mounted"
	systemctl is-failed -q mnt-missing.mount
	systemctl is-active -q local-fs.target
	journalctl --no-pager -q -b -o short-monotonic >/tmp/journal
	grep -E 'missing.img|mnt-missing' /tmp/journal | sed 's/^/  journal: /'
	grep -q 'missing.img: No such file' /tmp/journal
	systemctl reset-failed mnt-missing.mount
}

at_boot_through_the_unit() {
	systemctl is-active -q "$unit"
	# Mounted where everybody sees it, and not in a namespace of the service's own.
	findmnt -n -o FSTYPE -N 1 /mnt/data | grep -qx fuse.sluicefs
	[ "$(readlink /proc/1/ns/mnt)" = "$(readlink "/proc/$(main_pid)/ns/mnt")" ] || fail "a mount namespace of its own"
	echo first >/mnt/data/file
	journal_says 'Started .*sluicefs volume data'
}

what_depends_on_it_starts_when_it_is_ready() {
	systemctl is-active -q dependent.service
	grep -qx served /mnt/data/dependent
	journalctl --no-pager -q -o short-monotonic -u "$unit" -u dependent.service | grep -E 'Start' | sed 's/^/  journal: /'
}

it_is_mounted_when_it_is_used() {
	findmnt -n -o FSTYPE /mnt/auto | grep -qx autofs
	echo used >/mnt/auto/file
	findmnt -n -o FSTYPE /mnt/auto | grep -qx fuse.sluicefs
}

the_status_is_current() {
	wait_for 20 eval 'systemctl show -P StatusText $unit | grep -qE "MiB of [0-9.]+ MiB available"'
	echo "  $(systemctl show -P StatusText $unit)"
	sluicectl -m /mnt/data status | grep -q 'writable'
	[ "$(sluicectl list | grep -c writable)" = 3 ] || fail "$(sluicectl list)"
}

stop_start_restart() {
	systemctl stop dependent.service "$unit"
	! mountpoint -q /mnt/data || fail "mounted after stop"
	[ ! -e /mnt/data/file ] || fail "something is below the mount point"
	journal_says 'unmounted, everything is on disk'
	systemctl start "$unit"
	grep -qx first /mnt/data/file
	local pid
	pid=$(main_pid)
	echo second >/mnt/data/file
	systemctl restart "$unit"
	serves_again "$pid" >/dev/null || fail "not after restart"
	grep -qx second /mnt/data/file
}

who_uses_it_does_not_keep_it_from_stopping() {
	exec 8</mnt/data/file
	systemctl stop "$unit"
	exec 8<&-
	! mountpoint -q /mnt/data || fail "mounted after stop"
	journal_says 'files are open'
	systemctl start "$unit"
}

it_comes_back_after_sigkill() {
	local pid
	echo kept >/mnt/data/kept
	sync /mnt/data/kept
	pid=$(main_pid)
	kill -KILL "$pid"
	wait_for 30 serves_again "$pid"
	grep -qx kept /mnt/data/kept
	journal_says 'code=killed, status=9/KILL'
}

the_watchdog_ends_what_hangs() {
	local pid
	pid=$(main_pid)
	kill -STOP "$pid"
	wait_for 60 serves_again "$pid"
	grep -qx kept /mnt/data/kept
	journal_says 'Watchdog timeout'
}

a_scrub_is_a_service_with_a_timer() {
	systemctl enable --now sluicefs-scrub@data.timer 2>/dev/null
	systemctl list-timers --no-pager --no-legend sluicefs-scrub@data.timer | grep -q sluicefs-scrub@data.service
	systemctl start sluicefs-scrub@data.service
	journalctl --no-pager -q -o short-monotonic -u sluicefs-scrub@data.service >/tmp/journal
	grep 'clean: [0-9]* nodes were read' /tmp/journal | sed 's/^/  journal: /'
	grep -q 'clean: [0-9]* nodes were read' /tmp/journal
	# What is not mounted is skipped, and that is no failure.
	systemctl start sluicefs-scrub@nothing.service
	! systemctl is-failed -q sluicefs-scrub@nothing.service
}

an_image_in_use_is_one_line() {
	! sluicefs --wait=0 /srv/images/data.img /mnt 2>/tmp/err || fail "mounted twice"
	[ "$(wc -l </tmp/err)" = 1 ] && grep -q "in use by process $(main_pid)" /tmp/err || fail "$(cat /tmp/err)"
}

a_mistake_in_the_configuration_is_in_the_journal() {
	printf '[Volume]\nImage=/srv/images/x.img\nMountPiont=/mnt\n' >/etc/sluicefs/wrong.conf
	! systemctl start sluicefs@wrong.service 2>/dev/null || fail "started"
	journalctl --no-pager -q -u sluicefs@wrong.service >/tmp/journal
	grep -m 1 'wrong.conf:3: MountPiont= is not known' /tmp/journal | sed 's/^/  journal: /'
	grep -q 'wrong.conf:3: MountPiont= is not known' /tmp/journal
	# Once: to start it again would change nothing.
	[ "$(grep -c 'Starting sluicefs@wrong' /tmp/journal)" = 1 ] || fail "started again: $(cat /tmp/journal)"
	[ "$(grep -c 'MountPiont= is not known' /tmp/journal)" = 1 ] || fail "said again: $(cat /tmp/journal)"
	[ "$(systemctl show -P NRestarts sluicefs@wrong.service)" = 0 ] || fail "restarted"
	systemctl reset-failed sluicefs@wrong.service
}

the_journal_explains_events() {
	sluicectl -m /mnt/data freeze
	sluicectl -m /mnt/data thaw
	wait_for 10 eval 'journalctl -q SLUICEFS_VOLUME=/mnt/data SLUICEFS_EVENT=thawed | grep -q thawed'
	journalctl --no-pager -q -x -o short-monotonic SLUICEFS_VOLUME=/mnt/data SLUICEFS_EVENT=frozen >/tmp/journal
	sed 's/^/  journal: /' /tmp/journal | head -n 12
	# With the names filled in, and from the package's catalog, which nobody has updated by hand.
	grep -q 'What to do: sluicectl -m /mnt/data thaw' /tmp/journal
	# The same of one that was mounted through fstab, in the background.
	journalctl --no-pager -q SLUICEFS_VOLUME=/mnt/fstab SLUICEFS_EVENT=mounted | grep -q 'mounted from /srv/images/fstab.img'
}

a_user_has_volumes_of_their_own() {
	as_user() {
		setpriv --reuid tester --regid tester --init-groups env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/tester "$@"
	}
	systemctl start user@1000.service
	as_user systemctl --user start sluicefs-user@mine.service
	as_user sh -c 'echo mine >~/volume/file && sync ~/volume/file && sluicectl -m ~/volume status' | grep -q writable
	local pid signal
	users_pid() { as_user systemctl --user show -P MainPID sluicefs-user@mine.service; }
	its_users_again() { [ "$(users_pid)" != "$1" ] && as_user grep -qx mine /home/tester/volume/file; }
	for signal in KILL STOP; do # what is stopped, the watchdog ends
		pid=$(users_pid)
		kill -$signal "$pid"
		wait_for 60 its_users_again "$pid"
	done
	journalctl --no-pager -q _SYSTEMD_USER_UNIT=sluicefs-user@mine.service + USER_UNIT=sluicefs-user@mine.service >/tmp/journal
	grep -qE 'code=killed, status=9/KILL' /tmp/journal || fail "not killed: $(cat /tmp/journal)"
	grep -qE 'Watchdog timeout' /tmp/journal || fail "no watchdog: $(cat /tmp/journal)"
	as_user systemctl --user stop sluicefs-user@mine.service
	! mountpoint -q /home/tester/volume || fail "mounted after stop"
}

# Nothing syncs: the shutdown has to stop the services in the right order and wait for them.
what_is_in_memory_at_shutdown() {
	head -c 20000000 /dev/urandom >/root/big
	cp /root/big /mnt/data/big
	cp /root/big /mnt/fstab/big
	cp /root/big /mnt/auto/big
}

# ---------------------------------------------------------------- the second boot

is_on_disk_after_it() {
	cmp /root/big /mnt/data/big
	cmp /root/big /mnt/fstab/big
	cmp /root/big /mnt/auto/big
	grep -qx first /mnt/fstab/file
	# Each had the time to be unmounted: it is the last that they said.
	local volume last
	for volume in data fstab auto; do
		last=$(journalctl --no-pager -q -b -1 -o cat -n 1 SLUICEFS_VOLUME=/mnt/$volume)
		[[ $last = *"unmounted, everything is on disk" ]] || fail "the last of $volume: $last"
	done
	echo "  all three say that everything is on disk"
}

an_upgrade_leaves_it_mounted() {
	local pid
	pid=$(main_pid)
	exec 8>/mnt/data/upgraded
	echo before >&8
	dpkg -i /root/newer.deb >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
	[ "$(main_pid)" = "$pid" ] || fail "it is another process"
	echo after >&8
	exec 8>&-
	[ "$(tr '\n' ' ' </mnt/data/upgraded)" = 'before after ' ] || fail "$(cat /mnt/data/upgraded)"
	grep -A 3 'served by the version before' /tmp/dpkg | sed 's/^ */  /'
	grep -qx '  /mnt/data' /tmp/dpkg || fail "$(cat /tmp/dpkg)"
	systemctl restart "$unit"
	serves_again "$pid" >/dev/null || fail "not after restart"
	grep -qx after /mnt/data/upgraded
}

and_is_clean() {
	systemctl stop dependent.service "$unit"
	umount /mnt/fstab
	local status=0
	sluicefs --unmount /mnt/auto || status=$?
	[ $status = 0 ] || fail "unmount of the automount: $status"
	for image in data fstab auto; do
		fsck.sluicefs -n -f /srv/images/$image.img || fail "$image is damaged"
	done
}

# What is in memory is on disk then.
a_removal_stops_the_service() {
	systemctl start "$unit"
	mount /mnt/fstab
	cp /root/big /mnt/data/late
	dpkg -r sluicefs >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
	! mountpoint -q /mnt/data || fail "the service's volume is still mounted"
	! systemctl is-active -q "$unit" || fail "$unit is active"
	journal_says 'unmounted, everything is on disk'
	# Not the package's business: it is served on.
	ls /mnt/fstab/file
	grep -qx '  /mnt/fstab' /tmp/dpkg || fail "$(cat /tmp/dpkg)"
	umount /mnt/fstab
	dpkg -P sluicefs >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
	[ -e /etc/sluicefs/data.conf ] || fail "the administrator's file is gone"
	! find /etc/systemd -name 'sluicefs@*' -type l | grep . || fail "a unit that is not there is enabled"
	dpkg -i /root/sluicefs.deb >/tmp/dpkg 2>&1 || fail "$(cat /tmp/dpkg)"
	fsck.sluicefs -n -f /srv/images/data.img
	systemctl start "$unit"
	cmp /root/big /mnt/data/late
	systemctl stop "$unit"
}

# ---------------------------------------------------------------- run

scenario() {
	local status since
	since=$(date '+%F %T')
	systemctl reset-failed "$unit" # many starts are what this is about
	# Not in a list of commands: there set -e would have no effect.
	(set -eE; trap 'echo "  failed: $BASH_COMMAND"' ERR; "$1") >/tmp/output 2>&1
	status=$?
	if [ $status = 0 ]; then
		echo "ok $1"
		grep '^  ' /tmp/output
	else
		echo "FAILED $1"
		sed 's/^ */  /' /tmp/output
		journalctl --no-pager -q --since "$since" -o short-monotonic | tail -n 30 | sed 's/^/  journal: /'
	fi
}

phase=$(sed -n 's/.*scenarios=\([0-9]\).*/\1/p' /proc/cmdline)
echo
echo "  kernel $(uname -r), $(systemctl --version | head -n 1)"
if [ "$phase" = 1 ]; then
	scenario it_runs_on_the_kernel_of_the_image
	scenario at_boot_through_fstab
	scenario an_image_that_is_missing_does_not_stop_the_boot
	scenario at_boot_through_the_unit
	scenario what_depends_on_it_starts_when_it_is_ready
	scenario it_is_mounted_when_it_is_used
	scenario the_status_is_current
	scenario stop_start_restart
	scenario who_uses_it_does_not_keep_it_from_stopping
	scenario it_comes_back_after_sigkill
	scenario the_watchdog_ends_what_hangs
	scenario a_scrub_is_a_service_with_a_timer
	scenario an_image_in_use_is_one_line
	scenario a_mistake_in_the_configuration_is_in_the_journal
	scenario the_journal_explains_events
	scenario a_user_has_volumes_of_their_own
	scenario what_is_in_memory_at_shutdown
else
	scenario is_on_disk_after_it
	scenario an_upgrade_leaves_it_mounted
	scenario and_is_clean
	scenario a_removal_stops_the_service
fi
echo "scenarios of boot $phase are through"
