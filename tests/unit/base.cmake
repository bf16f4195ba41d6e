slu_unit_test(base_locks slu_base)
slu_unit_test(base_parts slu_base)
slu_unit_test(base_ranges slu_base)
slu_unit_test(base_sim slu_base)
