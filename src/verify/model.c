// SPDX-License-Identifier: MIT
/* The named models. Why each is as it is: doc/models.md. */
#include "verify/model.h"

#include <string.h>

const struct xp__model xp__models[XP__NR_MODELS] = {
	[XP__FETCH_AMD] = {.name = "amd", .granule = 8, .program_order = true},
	[XP__FETCH_AMD_REREAD] = {.name = "amd-reread", .granule = 8, .program_order = true, .reread = true},
	[XP__FETCH_BYTE] = {.name = "byte", .granule = 1},
	[XP__FETCH_LINE64] = {.name = "line64", .granule = 64, .program_order = true},
	[XP__FETCH_INTEL_SDM] = {.name = "intel-sdm", .granule = 1, .undefined = true},
};

const struct xp__model *xp__model_find(const char *name)
{
	for (unsigned i = 0; i < XP__NR_MODELS; i++)
		if (strcmp(xp__models[i].name, name) == 0)
			return &xp__models[i];
	return NULL;
}
