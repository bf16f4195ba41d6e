# sets: short
# fsck takes no more memory for inodes, names and nodes than it is said to (fsck.sluicefs(8), check.h):
# that much more for a volume with many of them than for an empty one, when it checks and when it
# repairs.
blocks=65536
make_volume $((blocks * 4096))
cp "$IMG" "$SLU_WORK/empty.img"
mount_volume
mkdir "$MNT/d"
seq -f "$MNT/d/a-file-%06.0f" 40000 | xargs touch
cp -al "$MNT/d" "$MNT/e" # a second name for each
umount_volume

# peak STATUS IMAGE OPTION...: what fsck had resident at most, in KiB
peak() {
	local expected=$1 image=$2 status=0
	shift 2
	mount_peak "$SLU_WORK/peak" fsck.sluicefs "$@" "$image" >"$SLU_WORK/out" 2>&1 || status=$?
	expect_eq "status of fsck.sluicefs $* ($(tail -n 3 "$SLU_WORK/out"))" "$expected" "$status"
	cat "$SLU_WORK/peak"
}
# counted WHAT: of what the last fsck -v has counted
counted() { sed -nE "s/^ *([0-9]+) $1( .*|:.*)?$/\\1/p" "$SLU_WORK/out"; }
# within WHAT BYTES EMPTY FULL: the difference is no more than stated. Beside it, some pages of what is
# allocated in thousands, and what chance makes of the rest of the process.
within() {
	local stated=$(($2 / 1024)) took=$(($4 - $3))
	case $(ldd "$SLU_BIN/fsck.sluicefs") in
	*libasan* | *libtsan*) return 0 ;; # they have memory of their own for each allocation
	esac
	figures "$inodes inodes, $names names, $nodes nodes, $1: $took KiB, stated $stated KiB, beside $3 KiB"
	[ $took -le $((stated + 512)) ] || fail "$1: $took KiB for what is stated as $stated KiB"
}

empty=$(peak 0 "$SLU_WORK/empty.img" -v -n -f)
full=$(peak 0 "$IMG" -v -n -f)
inodes=$(counted inodes) names=$(counted names) nodes=$(counted nodes)
[ "$inodes" -gt 40000 ] && [ "$names" -gt 80000 ] && [ "$nodes" -gt 500 ] ||
	fail "$inodes inodes, $names names, $nodes nodes: $(cat "$SLU_WORK/out")"
within checked $((40 * inodes + 32 * names + 2 * blocks / 8)) "$empty" "$full"

# Without its root the whole tree is looked for, and every version of a leaf that is still there is seen.
for image in "$SLU_WORK/empty.img" "$IMG"; do
	root=$(od -An -t u8 -j 88 -N 8 "$image" | tr -d ' ')
	dd if=/dev/zero of="$image" bs=4096 seek="$root" count=1 conv=notrunc 2>/dev/null
done
versions=$(mount_patch "$IMG" leaves | wc -l)
empty=$(peak 1 "$SLU_WORK/empty.img" -y)
full=$(peak 1 "$IMG" -y)
within "repaired from $versions versions of leaves" $(((110 + 80) * nodes + 72 * versions + 80 * inodes + 32 * names + 6 * blocks / 8)) \
	"$empty" "$full"
fsck_clean
