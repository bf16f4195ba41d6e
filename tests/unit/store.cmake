add_library(slu_store_test STATIC unit/test_store_util.c)
target_link_libraries(slu_store_test PUBLIC slu_store PkgConfig::CMOCKA)

slu_unit_test(store_basic slu_store_test)
slu_unit_test(store_tree slu_store_test)
slu_unit_test(store_node slu_store_test)
slu_unit_test(store_batch slu_store_test)
slu_unit_test(store_space slu_store_test)
