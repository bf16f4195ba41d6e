# Through the write path, which fills it.
slu_unit_test(cache_parts slu_write slu_mem_backend)
target_include_directories(test_cache_parts PRIVATE ${PROJECT_SOURCE_DIR}/src/cache)
