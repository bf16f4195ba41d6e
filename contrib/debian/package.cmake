# The Debian package: `cmake --workflow --preset package`, or `cpack -G DEB` in its folder.
# Included last, since CPack takes what is set before it.
set(debian ${CMAKE_CURRENT_LIST_DIR})

set(CPACK_PACKAGE_NAME ${PROJECT_NAME})
set(CPACK_PACKAGE_VERSION ${SLU_VERSION})
set(CPACK_PACKAGE_VENDOR "The sluicefs authors")
set(CPACK_PACKAGE_CONTACT "The sluicefs authors <sluicefs@sluicefs.org>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "filesystem in an image file or block device, through FUSE")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"A volume lies in one image file or on one block device and is served by a
daemon in user space, which everybody may start: neither root nor a kernel
module is needed.
.
Metadata is copy-on-write and checksummed, so that a power cut shows the last
commit whole and no check has to run; an error on the way to the disk is told
by fsync; space is set aside before data is accepted. Access control lists,
extended attributes, sparse files, O_TMPFILE and shared mappings work.
.
Contains the daemon with its helpers for mount and umount, mkfs, fsck, a
program that asks and watches mounted volumes, services for systemd, and
sluice-selfwrite, which looks for a deadlock of FUSE filesystems.")
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS fuse3)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS bash-completion)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${debian}/postinst ${debian}/prerm ${debian}/postrm ${debian}/conffiles)

set(CPACK_PROJECT_CONFIG_FILE ${debian}/before.cmake)
set(CPACK_PRE_BUILD_SCRIPTS ${debian}/stage.cmake)
# Read by those two, which know only what is called CPACK_.
set(CPACK_SLUICEFS_DEBIAN ${debian})
set(CPACK_SLUICEFS_STRIP ${CMAKE_STRIP})
set(CPACK_SLUICEFS_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_GENERATOR DEB)
include(CPack)
