# sets: user short
# Bad input: one clear line on stderr, an exit status, and nothing changes.
o=$(options)
make_volume 64M
mount_volume
echo content >"$MNT/file"
umount_volume
sum=$(sha1sum <"$IMG")
cp --sparse=always "$IMG" "$SLU_WORK/good.img"
unchanged() { expect_eq "the image" "$sum" "$(sha1sum <"$IMG")"; }

# The image
refused 33 'missing.img: No such file' sluicefs -o "$o" "$SLU_WORK/missing.img" "$MNT"
refused 8 'missing.img: No such file' fsck.sluicefs "$SLU_WORK/missing.img"
refused 1 'missing.img: does not exist; --size' mkfs.sluicefs "$SLU_WORK/missing.img"
refused 33 'directory' sluicefs -o "$o" "$SLU_WORK" "$MNT"
refused 1 'neither a regular file nor a block device' mkfs.sluicefs --size 64M "$SLU_WORK"
: >"$SLU_WORK/empty.img"
refused 33 'empty.img.*not a sluicefs volume' sluicefs -o "$o" "$SLU_WORK/empty.img" "$MNT"
refused 8 'empty.img.*not a sluicefs volume' fsck.sluicefs "$SLU_WORK/empty.img"
head -c 1000000 /dev/urandom >"$SLU_WORK/random.img"
random=$(sha1sum <"$SLU_WORK/random.img")
refused 33 'not a sluicefs volume' sluicefs -o "$o" "$SLU_WORK/random.img" "$MNT"
refused 8 'not a sluicefs volume' fsck.sluicefs "$SLU_WORK/random.img"
refused 1 'data .*--force' mkfs.sluicefs --size 64M "$SLU_WORK/random.img"
expect_eq "a file that is no image" "$random" "$(sha1sum <"$SLU_WORK/random.img")"

# Something else, by its name
mke2fs -q -t ext4 "$SLU_WORK/ext4.img" 16M
refused 33 'ext4.img: not a sluicefs volume, but a filesystem of type ext4$' sluicefs -o "$o" "$SLU_WORK/ext4.img" "$MNT"
refused 8 'ext4.img: .*not a sluicefs volume, but a filesystem of type ext4$' fsck.sluicefs "$SLU_WORK/ext4.img"
refused 1 'contains a filesystem of type ext4; --force' mkfs.sluicefs "$SLU_WORK/ext4.img"

# Cut short
truncate -s 32M "$IMG"
sum=$(sha1sum <"$IMG")
refused 33 'shorter than the volume' sluicefs -o "$o" "$IMG" "$MNT"
refused 8 'shorter than the volume' fsck.sluicefs "$IMG"
unchanged

# A version and features of tomorrow
for patch in "16 02000000 version" "48 0100000000000000 features"; do
	read -r at bytes word <<<"$patch"
	cp --sparse=always "$SLU_WORK/good.img" "$IMG"
	mount_patch "$IMG" "$at" "$bytes"
	sum=$(sha1sum <"$IMG")
	refused 33 "$word" sluicefs -o "$o" "$IMG" "$MNT"
	refused 8 'version or feature' fsck.sluicefs "$IMG"
	refused 1 'contains a sluicefs volume' mkfs.sluicefs "$IMG"
	unchanged
done
# One that allows reading alone
cp --sparse=always "$SLU_WORK/good.img" "$IMG"
mount_patch "$IMG" 56 0300000000000000
sum=$(sha1sum <"$IMG")
if sluicefs -o "$o" "$IMG" "$MNT" 2>"$SLU_WORK/err"; then
	expect_eq "content" content "$(cat "$MNT/file")"
	! touch "$MNT/new" 2>/dev/null || fail "a volume with a feature that forbids writing was written"
	umount_volume
fi
[ -s "$SLU_WORK/err" ] || fail "nothing was said about an unknown feature"
unchanged
cp --sparse=always "$SLU_WORK/good.img" "$IMG"
sum=$(sha1sum <"$IMG")

# The mount point
refused 33 'mount point .*nowhere.* does not exist' sluicefs -o "$o" "$IMG" "$SLU_WORK/nowhere"
touch "$SLU_WORK/plain"
refused 33 'plain is not a directory' sluicefs -o "$o" "$IMG" "$SLU_WORK/plain"
unchanged

# A dead mount: it says what to type; --replace-stale does it
mount_volume
pid=$(daemon_pid)
kill -KILL "$pid"
dead() { ! ls "$MNT" >/dev/null 2>&1; }
wait_for 5 dead
refused 32 'fusermount3 -u .*--replace-stale' sluicefs -o "$o" "$IMG" "$MNT"
sluicefs --replace-stale -o "$o" "$IMG" "$MNT"
expect_eq "content after a dead mount was replaced" content "$(cat "$MNT/file")"
umount_volume
fsck_clean
cp --sparse=always "$SLU_WORK/good.img" "$IMG"

# The same with a name that has to be quoted
mkdir "$SLU_WORK/a b"
sluicefs -o "$o" "$IMG" "$SLU_WORK/a b"
kill -KILL "$(daemon_pid)"
dead() { ! ls "$SLU_WORK/a b" >/dev/null 2>&1; }
wait_for 5 dead
refused 32 "type \"fusermount3 -u '[^']*/a b'\"" sluicefs -o "$o" "$IMG" "$SLU_WORK/a b"
sluicefs --replace-stale -o "$o" "$IMG" "$SLU_WORK/a b"
sluicefs --unmount "$SLU_WORK/a b"
cp --sparse=always "$SLU_WORK/good.img" "$IMG"

# Served already: by whom, and where. Others than that user are told why they are not answered.
mkdir -p "$SLU_WORK/other"
mount_volume
pid=$(daemon_pid) me="$(id -un) \($(id -u)\)"
refused 32 "in use by process $pid \(sluicefs\) of user $me: it is mounted on $MNT\$" \
	sluicefs --wait=0 -o "$o" "$IMG" "$SLU_WORK/other"
if is_root; then
	socket=/run/sluicefs/$(mountpoint -d "$MNT")
	as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
	refused 1 "$MNT: user $me has mounted it: only that user and root are answered" as_nobody sluicectl -m "$MNT" status
	refused 1 "$socket belongs to user $me: only that user and root" as_nobody sluicectl -s "$socket" status
	# A socket that its daemon has left
	kill -KILL "$pid"
	wait_for 5 eval '! ls "$MNT" >/dev/null 2>&1'
	refused 1 "nobody listens at $socket: the daemon that did has ended" sluicectl -s "$socket" status
	refused 1 "$MNT: nobody listens at $socket" sluicectl -m "$MNT" status
	unmount_dead
	rm "$socket"
	# Root is answered by anybody's, whichever way it asks.
	theirs=$SLU_WORK/nobody
	install -d -o 65534 -g 65534 "$theirs" "$theirs/mnt"
	as_nobody mkfs.sluicefs -q --size 32M "$theirs/image"
	mode=$(stat -c %a /dev/fuse) status=0
	chmod 666 /dev/fuse # as Debian has it
	as_nobody env XDG_RUNTIME_DIR="$theirs" sluicefs "$theirs/image" "$theirs/mnt" || status=$?
	chmod "$mode" /dev/fuse
	expect_eq "a mount by somebody else" 0 $status
	socket=$theirs/sluicefs/$(as_nobody mountpoint -d "$theirs/mnt")
	expect_match "another user's volume" 'state +writable' "$(sluicectl -s "$socket" status)"
	sluicectl -s "$socket" metrics --listen 127.0.0.1:0 >"$SLU_WORK/listen" &
	listening=$!
	wait_for 10 grep -q http "$SLU_WORK/listen"
	expect_match "another user's metrics" 'sluicefs_up\{[^}]*\} 1$' \
		"$(curl -fsS "$(sed -n 's/.*\(http[^ ]*\).*/\1/p' "$SLU_WORK/listen")" | grep '^sluicefs_up{')"
	kill "$listening"
	wait "$listening"
	as_nobody sluicefs --unmount "$theirs/mnt"
else
	umount_volume
fi
cp --sparse=always "$SLU_WORK/good.img" "$IMG"

# Options
refused 1 'unknown option nonsense' sluicefs -o "$o,nonsense" "$IMG" "$MNT"
refused 1 'commit=' sluicefs -o "$o,commit=often" "$IMG" "$MNT"
refused 1 'cache_size=' sluicefs -o "$o,cache_size=big" "$IMG" "$MNT"
refused 1 'cache_size' sluicefs -o "$o,cache_size" "$IMG" "$MNT"
refused 1 'cache_size=99999999999E' sluicefs -o "$o,cache_size=99999999999E" "$IMG" "$MNT"
for word in commit=-1 commit= cache_size=1 cache_size=-1M image_offset=17 image_offset=-4096 image_offset=16E \
	image_size=0 max_write=2M busy_poll=-1 ro=1 commit fsname= subtype= subtype=other; do
	refused 1 "${word%%=*}" sluicefs -o "$o,$word" "$IMG" "$MNT"
done
refused 33 'cache_size: 1 EiB is more than .* of memory' sluicefs -o "$o,cache_size=1E" "$IMG" "$MNT"
refused 33 'image_offset or image_size do not fit' sluicefs -o "$o,image_offset=1G" "$IMG" "$MNT"
refused 33 'no such open descriptor' sluicefs --ready-fd=77 -o "$o" "$IMG" "$MNT"
refused 1 'goes with --unmount' sluicefs -z -o "$o" "$IMG" "$MNT"
refused 1 'io=' sluicefs -o "rw,io=telepathy" "$IMG" "$MNT"
refused 1 'errors=' sluicefs -o "$o,errors=ignore" "$IMG" "$MNT"
refused 1 'image_offset=' sluicefs -o "$o,image_offset=100" "$IMG" "$MNT"
refused 1 'mount\(8\)' sluicefs -o "$o,offset=4096" "$IMG" "$MNT"
refused 1 '.' sluicefs --no-such-option "$IMG" "$MNT"
refused 1 '.' sluicefs
refused 1 '.' sluicefs "$IMG"
refused 1 '.' sluicefs "$IMG" "$MNT" "$MNT"
refused 1 '.' sluicefs --wait soon "$IMG" "$MNT"
refused 32 'not mounted|not a sluicefs mount' sluicefs --unmount "$MNT"
refused 32 'not mounted|not a sluicefs mount' sluicefs --unmount /
unchanged

# Nonsense sizes for mkfs; nothing is left behind
new=$SLU_WORK/new.img
for size in 1:10 1:1M 1:15M 2:0 2:-5 2:10GB 2:big 2: 2:1.5 1:2E 2:99999999E '2:10 G'; do
	refused "${size%%:*}" 'size|small|large|16 MiB' mkfs.sluicefs --size "${size#*:}" "$new"
	[ ! -e "$new" ] || fail "mkfs --size \"${size#*:}\" left a file behind"
done
refused 2 '' mkfs.sluicefs
refused 2 'expected one IMAGE' mkfs.sluicefs --size 64M "$new" "$new.2"
refused 2 'at most 63' mkfs.sluicefs --size 64M --label "$(head -c 64 /dev/zero | tr '\0' l)" "$new"
refused 2 'nonsense' mkfs.sluicefs --nonsense "$new"
refused 16 'expected one IMAGE' fsck.sluicefs
refused 16 'contradict' fsck.sluicefs -n -y "$IMG"
refused 16 'nonsense' fsck.sluicefs --nonsense "$IMG"
refused 16 'not a number' fsck.sluicefs --wait soon "$IMG"
unchanged

# Permissions
if ! is_root; then
	chmod 000 "$IMG"
	refused 33 'Permission denied' sluicefs -o "$o" "$IMG" "$MNT"
	refused 8 'Permission denied' fsck.sluicefs "$IMG"
	refused 1 'Permission denied' mkfs.sluicefs "$IMG"
	chmod 644 "$IMG"
	unchanged
	refused 1 'Permission denied' mkfs.sluicefs --size 64M /etc/new.img
	if ! grep -qx user_allow_other /etc/fuse.conf 2>/dev/null; then
		refused 33 'user_allow_other to /etc/fuse.conf' sluicefs -o "$o,allow_other" "$IMG" "$MNT"
	fi
	refused 32 '.' sluicefs -o "$o" "$IMG" /etc # not his to mount on
	unchanged
fi
! mountpoint -q "$MNT" || fail "something is mounted after all"
