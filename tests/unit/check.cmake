add_library(slu_check_test STATIC unit/check_fixture.c)
target_link_libraries(slu_check_test PUBLIC slu_check PkgConfig::CMOCKA)

slu_unit_test(check_damage slu_check_test)
slu_unit_test(check_repair slu_check_test)
