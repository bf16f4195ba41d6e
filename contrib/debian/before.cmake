# Run by cpack before it installs anything.
if(NOT CPACK_SLUICEFS_PREFIX STREQUAL "/usr")
  message(FATAL_ERROR "A package is made of a build for /usr: cmake --workflow --preset package")
endif()

# The same source gives the same package: every time in it is that of the changelog.
if(NOT DEFINED ENV{SOURCE_DATE_EPOCH})
  execute_process(COMMAND dpkg-parsechangelog -l ${CPACK_SLUICEFS_DEBIAN}/changelog -S Timestamp
    OUTPUT_VARIABLE timestamp OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(ENV{SOURCE_DATE_EPOCH} ${timestamp})
endif()
