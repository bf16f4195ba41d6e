# sets: user short cache
# limit: 300
# Every way to unmount leaves everything on disk; who wants the image next waits for it.
make_volume 1G
head -c 50000000 /dev/urandom >"$SLU_WORK/data"

# written and gone at once, in each way; the next mount, fsck or mkfs waits until the daemon is done
try() {
	local name=$1
	shift
	mount_volume
	local pid
	pid=$(daemon_pid)
	cp "$SLU_WORK/data" "$MNT/$name"
	"$@"
	wait_unmounted() { ! mountpoint -q "$MNT"; }
	wait_for 10 wait_unmounted
	fsck_clean
	gone() { ! kill -0 "$pid" 2>/dev/null; }
	wait_for 10 gone
	mount_volume
	cmp "$SLU_WORK/data" "$MNT/$name" || fail "$name: data lost"
	rm "$MNT/$name"
	umount_volume
}
try fusermount fusermount3 -u "$MNT"
try unmount-option sluicefs --unmount "$MNT"
terminate() { kill -TERM "$(daemon_pid)"; }
try sigterm terminate
interrupt() { kill -INT "$(daemon_pid)"; }
try sigint interrupt
hang_up() { kill -HUP "$(daemon_pid)"; }
try sighup hang_up
! is_root || try umount umount "$MNT"

# --unmount returns when the daemon is done, not before
mount_volume
cp "$SLU_WORK/data" "$MNT/last"
sluicefs --unmount "$MNT"
fsck.sluicefs --wait 0 -n "$IMG" >/dev/null || fail "sluicefs --unmount returned while the image was still in use"

# A mounted image is in use: mount, fsck and mkfs say by whom, and wait as long as asked
mount_volume
pid=$(daemon_pid)
refused 8 "in use by .*$pid" fsck.sluicefs --wait 0 "$IMG"
refused 1 "in use by .*$pid" mkfs.sluicefs --wait 0 --force "$IMG"
mkdir "$SLU_WORK/other"
status=0
sluicefs --wait 0 "$IMG" "$SLU_WORK/other" 2>"$SLU_WORK/err" || status=$?
[ $status != 0 ] || fail "one image was mounted twice"
expect_match "what the second mount says" "in use.*$pid|$pid.*in use" "$(cat "$SLU_WORK/err")"
expect_eq "lines that it says it in" 1 "$(wc -l <"$SLU_WORK/err")"
start=$SECONDS
status=0
fsck.sluicefs --wait 2 "$IMG" >/dev/null 2>"$SLU_WORK/err" || status=$?
expect_eq "fsck of a mounted image" 8 "$status"
[ $((SECONDS - start)) -ge 1 ] || fail "fsck --wait 2 did not wait"
expect_match "whom fsck waits for" "$pid" "$(cat "$SLU_WORK/err")"
cmp "$SLU_WORK/data" "$MNT/last"

# and gets it when it is free
fsck.sluicefs --wait 20 -n "$IMG" >"$SLU_WORK/out" 2>&1 &
waiting=$!
sleep 0.5
umount_volume
wait "$waiting" || {
	cat "$SLU_WORK/out"
	fail "fsck did not get the image after the unmount"
}

# Somebody in the mount: unmounting is refused and nothing breaks
mount_volume
cd "$MNT"
! sluicefs --unmount "$MNT" 2>/dev/null || fail "a busy mount was unmounted"
cmp "$SLU_WORK/data" "$MNT/last"
cd /
umount_volume
fsck_clean
