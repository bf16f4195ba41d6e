# sets: user short
# Where a file lies: what it has been written to, what it has been promised, and nobody else's.
is_root || export XDG_RUNTIME_DIR=$SLU_WORK/run
mkdir -p "$SLU_WORK/run"
map() { sluicectl map "$@"; }
# rows FILE: of the table, without block numbers
rows() { map "$1" | awk 'NR > 2 && NF == 4 && $1 ~ /^[0-9]+$/ { print $1 "+" $2, $4 }' | paste -sd,; }
make_volume 256M
mount_volume
head -c 1048576 /dev/urandom >"$SLU_WORK/data"
dd if="$SLU_WORK/data" of="$MNT/file" bs=4096 count=16 conv=fsync 2>/dev/null
dd if="$SLU_WORK/data" of="$MNT/file" bs=4096 count=8 seek=32 conv=notrunc,fsync 2>/dev/null
fallocate -o $((64 * 4096)) -l $((4 * 4096)) "$MNT/file"
truncate -s $((100 * 4096 - 5)) "$MNT/file"
expect_eq "the extents" "0+16 mapped,16+16 hole,32+8 mapped,40+24 hole,64+4 unwritten,68+32 hole" "$(rows "$MNT/file")"
expect_match "the inode" "inode $(stat -c %i "$MNT/file"), .*\\(409595 bytes\\)" "$(map "$MNT/file" | head -n 1)"

# The blocks are where it says, in the image.
read -r first block < <(map "$MNT/file" | awk '$4 == "mapped" { print $1, $3; exit }')
sluicectl -m "$MNT" sync
dd if="$IMG" bs=4096 skip="$block" count=16 2>/dev/null | cmp -n 65536 - "$SLU_WORK/data" || fail "block $block is not offset $first"

# JSON, by inode too, of another mount, and whatever it is called from
json=$(map -j "$MNT/file")
expect_match "JSON" '^\{"position":0,"length":65536,"block":[0-9]+,"type":"mapped"\}' "$json"
expect_eq "objects" 6 "$(wc -l <<<"$json")"
expect_eq "by inode" "$json" "$(sluicectl -m "$MNT" -j map --inode "$(stat -c %i "$MNT/file")")"
expect_eq "by mount and file" "$json" "$(sluicectl -m "$MNT" -j map "$MNT/file")"
: >"$MNT/empty"
expect_match "an empty file" '0 extents' "$(map "$MNT/empty")"
# What an open file has been given counts, wherever it is.
exec 9>"$MNT/new"
head -c 12000 "$SLU_WORK/data" >&9
expect_match "not yet on disk" '^0\+3 (delalloc|mapped)$' "$(rows "$MNT/new")"
exec 9>&-

# The picture: as wide as the terminal, ASCII where nothing else can be shown, colours only on one
picture() { tail -n 1; }
expect_eq "its width" 80 "$(map "$MNT/file" | picture | wc -m | awk '{ print $1 - 1 }')"
expect_match "in ASCII" '^[.+*#-]{80}$' "$(LC_ALL=C map "$MNT/file" | picture)"
! map "$MNT/file" | grep -q $'\033' || fail "colours in a pipe"
if command -v script >/dev/null; then
	tty() { script -qec "stty cols 50; TERM=xterm $1 sluicectl map $MNT/file" /dev/null </dev/null | tr -d '\r' | tail -n 1; }
	expect_match "on a terminal" $'\033\\[3' "$(tty "")"
	expect_eq "the width on a terminal" 50 "$(tty NO_COLOR=1 | wc -m | awk '{ print $1 - 1 }')"
fi

# Very many extents go in pieces; beside a writer that makes more of them.
load="import os,sys
f=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT,0o644)
for i in range(int(sys.argv[2])): os.pwrite(f,b'x',i*8192)
os.fsync(f)"
python3 -c "$load" "$MNT/many" 12000
expect_match "many" '^12000 extents$' "$(map "$MNT/many" | grep 'extents$')"
python3 -c "$load" "$MNT/more" 6000 &
writer=$!
for _ in 1 2 3 4 5; do map -j "$MNT/more" >"$SLU_WORK/out" 2>/dev/null || true; done
wait $writer

# Who does not read keeps nothing busy: see the end.
mkfifo "$SLU_WORK/unread"
map "$MNT/many" >"$SLU_WORK/unread" 2>/dev/null &
slow=$!
exec 8<"$SLU_WORK/unread"
read -r -u 8 _

refused 2 'usage: sluicectl map FILE' sluicectl map
refused 2 'usage: sluicectl map FILE' sluicectl map --inode 5 "$MNT/file"
refused 2 'Unknown option --inode' sluicectl --inode 5 status
refused 2 'not the number of an inode' sluicectl -m "$MNT" map --inode x
refused 1 'No such file' sluicectl map "$MNT/nothing"
printf '[Volume]\nImage=%s\nMountPoint=%s\n' "$IMG" "$SLU_WORK/nowhere" >"$SLU_WORK/conf"
refused 1 'nowhere: No such file' sluicectl -c "$SLU_WORK/conf" map "$MNT/file"
refused 1 'is not a regular file' sluicectl map "$MNT"
refused 1 'is not on a mounted sluicefs volume' sluicectl map "$SLU_WORK/data"
refused 1 'that file is not on' sluicectl -m "$MNT" map "$SLU_WORK/data"
refused 1 'there is no inode 999999' sluicectl -m "$MNT" map --inode 999999
refused 1 'not a regular file' sluicectl -m "$MNT" map --inode "$(stat -c %i "$MNT")"
if ! is_root; then
	chmod 000 "$MNT/file"
	refused 1 'Permission denied' sluicectl map "$MNT/file"
	chmod 644 "$MNT/file"
fi
umount_volume
exec 8<&-
wait $slow || true
fsck_clean
