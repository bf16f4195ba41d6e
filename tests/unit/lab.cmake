slu_unit_test(lab slu_lab)
# Ten thousand rounds take minutes under a sanitizer.
set_tests_properties(unit/lab PROPERTIES TIMEOUT 900 COST 1000)
