slu_unit_test(units slu_base)
slu_unit_test(tools_progress slu_tools)

# sluice-selfwrite against writes that go wrong. Not under sanitizers, which want to be loaded first.
if(NOT SLU_SANITIZE)
  add_library(tools_bad_write MODULE unit/tools_bad_write.c)
  target_link_libraries(tools_bad_write PRIVATE slu_options ${CMAKE_DL_LIBS})
  add_test(NAME unit/tools_selfwrite COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/tools_selfwrite.sh
    $<TARGET_FILE:sluice-selfwrite> $<TARGET_FILE:tools_bad_write>)
  set_tests_properties(unit/tools_selfwrite PROPERTIES TIMEOUT 300 LABELS unit)
endif()
