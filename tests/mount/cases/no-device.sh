# sets: short
# needs: root
# Without /dev/fuse: one line that says so.
if [ -z "${SLU_PRIVATE:-}" ]; then
	make_volume 64M
	SLU_PRIVATE=1 exec unshare --mount --propagation private bash -E "${BASH_SOURCE[0]%/cases/*}/lib.sh"
fi
sum=$(sha1sum <"$IMG")
mkdir "$SLU_WORK/dev"
cp -a /dev/null /dev/zero /dev/urandom /dev/tty "$SLU_WORK/dev/"
mount --bind "$SLU_WORK/dev" /dev
refused 32 '/dev/fuse' sluicefs -o "$(options)" "$IMG" "$MNT"
expect_eq "the image" "$sum" "$(sha1sum <"$IMG")"
umount /dev
mount_volume
umount_volume
