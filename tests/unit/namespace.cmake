if(TARGET slu_namespace)
foreach(part names rename dirs attrs xattrs orphans faults threads model parts path)
  slu_unit_test(namespace_${part} slu_namespace)
  target_sources(test_namespace_${part} PRIVATE ${CMAKE_CURRENT_LIST_DIR}/namespace_fixture.c)
  target_include_directories(test_namespace_${part} PRIVATE
    ${CMAKE_CURRENT_LIST_DIR} ${CMAKE_CURRENT_LIST_DIR}/../../src/namespace)
endforeach()
endif()
