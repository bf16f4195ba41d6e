slu_unit_test(volume_mem_backend slu_mem_backend)
target_sources(test_volume_mem_backend PRIVATE unit/volume_conformance.c)

foreach(test volume_conformance volume_backend volume_sim)
  slu_unit_test(${test} slu_volume)
  target_sources(test_${test} PRIVATE unit/volume_conformance.c unit/volume_fixture.c)
endforeach()
