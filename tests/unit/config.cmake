slu_unit_test(config_file slu_config)
