foreach(test write_basic write_contract write_failed write_model write_orders write_pressure write_race write_sources)
  slu_unit_test(${test} slu_write slu_mem_backend)
endforeach()
