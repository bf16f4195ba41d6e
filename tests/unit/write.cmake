foreach(test write_basic)
  slu_unit_test(${test} slu_write slu_mem_backend)
endforeach()
