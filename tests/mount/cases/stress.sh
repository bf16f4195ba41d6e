# sets: engine short cache
# limit: 300
# Many processes at once, doing everything to names and files; then everything must still hold.
make_volume 2G
mount_logged
seconds=${SLU_STRESS_SECONDS:-8}
stress-ng --temp-path "$MNT" --timeout "$seconds" --oomable --no-rand-seed \
	--dentry 1 --dentries 500 --dir 1 --rename 2 --link 1 --symlink 1 --fallocate 1 --fallocate-bytes 32M \
	--copy-file 1 --copy-file-bytes 128M --hdd 1 --hdd-bytes 32M --mmap 1 --mmap-bytes 16M --mmap-file --seek 1 \
	--seek-size 32M --xattr 1 --chmod 1 --utime 1 --readahead 1 --readahead-bytes 16M --verify >"$SLU_WORK/stress.out" 2>&1 || {
	status=$?
	cat "$SLU_WORK/stress.out"
	fail "stress-ng: status $status"
}
grep -E 'fail|error' "$SLU_WORK/stress.out" || true
umount_volume
fsck_clean
mount_logged
find "$MNT" -xdev >/dev/null
umount_volume
