# sets: user cache
# limit: 300
# git init, add, commit, gc and fsck, with a remount in between.
make_volume 2G
mount_volume
mkdir "$MNT/repo"
cp -a /usr/include "$MNT/repo/"
cd "$MNT/repo"
git init -q .
git config user.email test@example.org
git config user.name Test
git config gc.auto 0
git add -A
git commit -q -m one
find . -path ./.git -prune -o -name '*.h' -print | sed -n 1,200p | xargs sed -i '1i/* changed */'
git commit -q -a -m two
git gc -q
git fsck --full --strict
expect_eq "git status" "" "$(git status --porcelain)"
cd /
remount_volume
cd "$MNT/repo"
git fsck --full --strict
expect_eq "git status after a remount" "" "$(git status --porcelain)"
expect_eq "commits" 2 "$(git rev-list --count HEAD)"
git checkout -q HEAD~1
git status --porcelain
git clone -q "$MNT/repo" "$MNT/clone"
cd /
umount_volume
fsck_clean
