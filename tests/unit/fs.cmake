if(TARGET slu_fs)
  slu_unit_test(fs_files slu_fs)
endif()
