foreach(test write_basic write_contract write_model write_orders write_race)
  slu_unit_test(${test} slu_write slu_mem_backend)
endforeach()
