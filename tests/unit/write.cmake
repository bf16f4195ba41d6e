foreach(test write_basic write_model)
  slu_unit_test(${test} slu_write slu_mem_backend)
endforeach()
