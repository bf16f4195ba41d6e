/* SPDX-License-Identifier: MIT */
/* The volume passes the suite that every backend must pass. */
#include "volume_fixture.h"

static int setup(void **state)
{
	*state = &volume_fixture_new(6000)->fx;
	return 0;
}

static int teardown(void **state)
{
	volume_fixture_free(volume_fixture(*state));
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {CONFORMANCE_TESTS(setup, teardown)};

	return cmocka_run_group_tests_name("volume", tests, NULL, NULL);
}
