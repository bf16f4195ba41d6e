# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# For tests/package/run and tests/system/run, which set `source` (of the project) and `work` (a
# scratch directory): a Debian in a folder, and our package.

# make_tree TREE PACKAGES: the Debian that this machine's packages come from; PACKAGES with commas
make_tree() {
	local site codename
	read -r site codename < <(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
		grep -v -- -security | head -n 1)
	echo "making a tree of $codename"
	debootstrap --variant=minbase --include="$2" "$codename" "$1" "$site" >"$work/debootstrap.log" 2>&1 || {
		tail -n 20 "$work/debootstrap.log"
		return 1
	}
}

# make_package BUILD SUFFIX: builds in BUILD, sets `package` to the file
make_package() {
	local targets=(sluicefs mkfs.sluicefs fsck.sluicefs sluicectl sluice-selfwrite)
	(cd "$source" && cmake --preset package -B "$1" -DSLU_VERSION_SUFFIX="$2" &&
		cmake --build "$1" --target "${targets[@]}" &&
		rm -f "$1"/*.deb && cd "$1" && cpack -G DEB) >"$work/build.log" 2>&1 || {
		tail -n 30 "$work/build.log"
		return 1
	}
	package=$(echo "$1"/*.deb)
}
