// SPDX-License-Identifier: MIT
/* The other file with the same templates. */
#include "values_templates.h"

int look_second(void)
{
	return all<int>() + all<char>() + look_inline();
}
