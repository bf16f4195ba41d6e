slu_unit_test(daemon_journal slu_daemon)
target_include_directories(test_daemon_journal PRIVATE ${PROJECT_SOURCE_DIR}/src/daemon)
target_compile_definitions(test_daemon_journal PRIVATE SOURCE_DIR="${PROJECT_SOURCE_DIR}")
