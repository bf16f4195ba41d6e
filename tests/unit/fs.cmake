if(TARGET slu_fs)
  slu_unit_test(fs_files slu_fs)
  slu_unit_test(fs_crash slu_check slu_fs)
endif()
