# Through the write path: that is how pages become dirty.
slu_unit_test(writeback_errors slu_write slu_mem_backend)
