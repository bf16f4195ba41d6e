# sets: engine cache
# limit: 400
# fio writes with checksums in every block and reads them back: random and sequential, through
# read and write, mappings and libaio, buffered and direct.
make_volume 2G
mount_volume
verify() {
	local name=$1
	shift
	fio --output="$SLU_WORK/fio.out" --name="$name" --directory="$MNT" --filename="$name" --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --size=64M --randrepeat=0 "$@" || {
		cat "$SLU_WORK/fio.out"
		fail "fio $name"
	}
}
verify seq-sync --rw=write --bs=1M --ioengine=psync --end_fsync=1
verify rand-sync --rw=randwrite --bs=4k-128k --bs_unaligned --ioengine=psync
verify rand-mmap --rw=randwrite --bs=4k --ioengine=mmap
verify seq-mmap --rw=write --bs=64k --ioengine=mmap
verify rand-aio --rw=randwrite --bs=4k-64k --ioengine=libaio --iodepth=16 --direct=1
verify seq-aio --rw=write --bs=256k --ioengine=libaio --iodepth=8 --direct=1
verify rand-jobs --rw=randwrite --bs=16k --ioengine=libaio --iodepth=8 --numjobs=1 --fsync=50
verify fallocated --rw=randwrite --bs=8k --ioengine=psync --fallocate=native
# What was written is still right after a remount.
remount_volume
for name in seq-sync rand-mmap seq-mmap seq-aio; do
	case $name in
	seq-sync) args=(--rw=write --bs=1M) ;;
	rand-mmap) args=(--rw=randwrite --bs=4k) ;;
	seq-mmap) args=(--rw=write --bs=64k) ;;
	seq-aio) args=(--rw=write --bs=256k) ;;
	esac
	fio --output="$SLU_WORK/fio.out" --name="$name" --directory="$MNT" --filename="$name" --verify=crc32c \
		--verify_fatal=1 --verify_only=1 --size=64M --ioengine=psync "${args[@]}" || {
		cat "$SLU_WORK/fio.out"
		fail "fio $name after a remount"
	}
done
umount_volume
fsck_clean
