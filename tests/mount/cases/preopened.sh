# sets: user short
# A device that somebody else has mounted, as for a container: served by a process that may not mount,
# in name spaces of its own, without a /dev/fuse.
unshare -Urm true 2>/dev/null || skip "no unprivileged user name spaces here"
o=$(options commit=1)
mount_options=rootmode=40000,default_permissions

# In one user name space, whose root mounts without being root outside: the commands of operations.md.
cat >"$SLU_WORK/container" <<'END'
set -e
mount -t tmpfs tmpfs /run
mkfs.sluicefs -q --size 64M "$IMG" # owners are numbers of this name space
exec 7<>/dev/fuse
mount -i -t fuse.sluicefs -o "fd=7,$mount_options,user_id=0,group_id=0" "$IMG" "$MNT"
sluicefs -f -o "$o" "$IMG" /dev/fd/7 2>"$SLU_WORK/log" 7<&7 &
daemon=$!
exec 7<&-
echo content >"$MNT/file"
sluicectl -m "$MNT" -j status >"$SLU_WORK/status"
head -c 10000000 /dev/urandom >"$MNT/data"
sha1sum <"$MNT/data" >"$SLU_WORK/sum"
umount "$MNT"
wait $daemon
END
export o mount_options IMG MNT
timeout 60 unshare -Urm bash "$SLU_WORK/container" || fail "status $?: $(cat "$SLU_WORK/log")"
grep -q 'unmounted, everything is on disk' "$SLU_WORK/log" || fail "$(cat "$SLU_WORK/log")"
grep -q "\"mountpoint\":\"$MNT\"" "$SLU_WORK/status" || fail "$(cat "$SLU_WORK/status")"
fsck_clean

# What is no device
refused 32 'descriptor 77 is not open' sluicefs -o "$o" "$IMG" /dev/fd/77
refused 32 '.' sluicefs --wait=0 -o "$o" "$IMG" /dev/fd/0
is_root || exit 0

# Root mounts outside. The daemon is nobody, without capabilities or a /dev to open anything from; that
# it lives is told through the mount where it can see it.
chmod 711 "$SLU_WORK"
chown 65534:65534 "$IMG"
mount_notify "$SLU_WORK/notify" >"$SLU_WORK/told" &
listener=$!
wait_for 10 grep -q listening "$SLU_WORK/told"
chmod 777 "$SLU_WORK/notify"
exec 7<>/dev/fuse
mount -i -t fuse.sluicefs -o "fd=7,$mount_options,user_id=65534,group_id=65534,allow_other" "$IMG" "$MNT"
NOTIFY_SOCKET="$SLU_WORK/notify" WATCHDOG_USEC=900000 setpriv --reuid 65534 --regid 65534 --clear-groups \
	unshare -Urm --kill-child --fork bash -c '
	mount -t tmpfs tmpfs /dev && exec "$1" -f -o "$2" "$3" /dev/fd/7' - \
	"$SLU_BIN/sluicefs" "$o" "$IMG" 2>"$SLU_WORK/log" &
daemon=$!
exec 7<&-
wait_for 20 grep -q '^READY=1$' "$SLU_WORK/told"
cmp <(sha1sum <"$MNT/data") "$SLU_WORK/sum" || fail "not what the other container wrote"
wait_for 10 eval '[ "$(grep -c "^WATCHDOG=1$" "$SLU_WORK/told")" -gt 2 ]'
# SIGTERM does not unmount what it has not mounted; what the kernel still holds is written all the same.
head -c 5000000 /dev/urandom >"$SLU_WORK/late"
tail -c +1 -f "$SLU_WORK/late" >"$MNT/late" & # to close it would be to write it out
tail=$!
wait_for 10 eval '[ "$(stat -c %s "$MNT/late")" = 5000000 ]'
kill -TERM "$(daemon_pid)"
wait "$daemon" || fail "status $?: $(cat "$SLU_WORK/log")"
kill "$tail" "$listener"
wait "$tail" "$listener" 2>/dev/null || true
grep -q "$MNT" /proc/self/mountinfo || fail "it was unmounted"
umount "$MNT"
fsck_clean
mount_volume
cmp "$SLU_WORK/late" "$MNT/late" || fail "what was written before SIGTERM is lost"
umount_volume
