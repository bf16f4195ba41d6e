slu_unit_test(lab slu_lab)
# Ten thousand rounds take minutes under a sanitizer.
set_tests_properties(unit/lab PROPERTIES TIMEOUT 900 COST 1000)
add_test(NAME unit/lab_symbols COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/lab_symbols.sh
  $<TARGET_FILE:sluicefs> $<TARGET_FILE:sluice-selfwrite>)
set_tests_properties(unit/lab_symbols PROPERTIES LABELS unit)
