slu_unit_test(units slu_base)
slu_unit_test(tools_progress slu_tools)

# sluice-selfwrite against writes that go wrong. Not under sanitizers, which want to be loaded first.
if(NOT SLU_SANITIZE)
  add_library(tools_bad_write MODULE unit/tools_bad_write.c)
  target_link_libraries(tools_bad_write PRIVATE slu_options ${CMAKE_DL_LIBS})
  foreach(test tools_selfwrite tools_selfwrite_matrix)
    add_test(NAME unit/${test} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/${test}.sh
      $<TARGET_FILE:sluice-selfwrite> $<TARGET_FILE:tools_bad_write>)
    set_tests_properties(unit/${test} PROPERTIES TIMEOUT 300 LABELS unit)
  endforeach()
endif()
