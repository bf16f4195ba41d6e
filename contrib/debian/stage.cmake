# Run by cpack when everything is installed below CPACK_TEMPORARY_INSTALL_DIRECTORY: adds what only
# Debian's package has, in the form that its policy asks for.
set(root ${CPACK_TEMPORARY_INSTALL_DIRECTORY})
set(debian ${CPACK_SLUICEFS_DEBIAN})
set(doc ${root}/usr/share/doc/sluicefs)

function(put file target)
  get_filename_component(folder ${target} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  configure_file(${debian}/${file} ${target} COPYONLY
    FILE_PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
endfunction()

put(copyright ${doc}/copyright)
put(changelog ${doc}/changelog)
put(lintian-overrides ${root}/usr/share/lintian/overrides/sluicefs)
put(needrestart.conf ${root}/etc/needrestart/conf.d/sluicefs.conf)
file(MAKE_DIRECTORY ${root}/etc/sluicefs)

# The lab of sluice-selfwrite names functions.
set(strip ${CPACK_SLUICEFS_STRIP} --remove-section=.comment --remove-section=.note)
file(GLOB programs ${root}/usr/bin/* ${root}/usr/sbin/*)
foreach(program ${programs})
  if(program MATCHES "/sluice-selfwrite$")
    execute_process(COMMAND ${strip} --strip-debug ${program} COMMAND_ERROR_IS_FATAL ANY)
  elseif(NOT IS_SYMLINK ${program})
    execute_process(COMMAND ${strip} ${program} COMMAND_ERROR_IS_FATAL ANY)
  endif()
endforeach()

# Of a link to a page, the link gets the new name.
file(GLOB pages ${root}/usr/share/man/man*/*)
foreach(page ${pages})
  if(IS_SYMLINK ${page})
    file(READ_SYMLINK ${page} target)
    file(REMOVE ${page})
    file(CREATE_LINK ${target}.gz ${page}.gz SYMBOLIC)
  else()
    list(APPEND compress ${page})
  endif()
endforeach()
execute_process(COMMAND gzip -9n ${compress} ${doc}/changelog COMMAND_ERROR_IS_FATAL ANY)

# Whatever the mask is.
file(CHMOD_RECURSE ${root} DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
