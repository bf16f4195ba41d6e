foreach(test control_mountinfo control_socket)
  slu_unit_test(${test} slu_control)
endforeach()
