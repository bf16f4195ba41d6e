slu_unit_test(store_basic slu_store)
