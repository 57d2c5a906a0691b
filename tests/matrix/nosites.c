// SPDX-License-Identifier: MIT
/* Includes the header and uses nothing of it: no record, no complaint. */
#include <crosspatch/crosspatch.h>
#include <stdio.h>

int main(void)
{
	long nr = __stop_xp_branch_sites - __start_xp_branch_sites;

	printf("%ld records, %d\n", nr, xp_module_error());
	return nr != 0 || xp_module_error() != 0;
}
