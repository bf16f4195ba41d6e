slu_unit_test(units slu_base)
