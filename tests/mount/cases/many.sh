# sets: none
# limit: 600
# A directory with 40,000 entries (SLU_MANY says otherwise), and a deep tree.
many=${SLU_MANY:-40000}
make_volume 4G
mount_volume
mkdir "$MNT/large"
cd "$MNT/large"
seq "$many" | xargs touch
expect_eq "entries" "$many" "$(find . -type f | wc -l)"
expect_eq "entries that ls counts" "$many" "$(ls -U | wc -l)"
[ -e 1 ] && [ -e "$many" ] && [ ! -e $((many + 1)) ]
seq 1 2 "$many" | xargs rm
expect_eq "entries after half are gone" $((many / 2)) "$(ls -U | wc -l)"
cd /
deep=$MNT/deep
mkdir "$deep"
cd "$deep"
for i in $(seq 300); do
	mkdir "level-$i"
	cd "level-$i"
done
echo deep >file
cd /
expect_eq "depth" 301 "$(find "$deep" -type d | wc -l)"
remount_volume
expect_eq "entries after a remount" $((many / 2)) "$(ls -U "$MNT/large" | wc -l)"
expect_eq "the deepest file" deep "$(find "$deep" -type f -exec cat {} +)"
rm -rf "$MNT/large" "$deep"
expect_eq "what is left" "" "$(ls -A "$MNT")"
umount_volume
fsck_clean
