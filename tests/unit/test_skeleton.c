// SPDX-License-Identifier: MIT
/* examples/port_skeleton.c does what it says: the early policy, and a refusal of everything else that changes nothing. */
#include "xp_test.h"

#include "../../examples/port_skeleton.c"

#include <crosspatch/text_poke.h>
#include <sys/mman.h>

static const uint8_t nop[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00}, jmp[5] = {0xe9, 0x10, 0x00, 0x00, 0x00};
static uint8_t *code;

static int poke(const uint8_t *from, const uint8_t *to, struct xp_diag *diag)
{
	const struct xp_poke what = {.addr = code, .expect = from, .replace = to, .len = 5};

	return xp_text_poke(&what, diag);
}

XP_TEST(start)
{
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(code != MAP_FAILED);
	memcpy(code, nop, sizeof(nop));
	CHECK_EQ(poke(nop, jmp, NULL), -XP_E_NOT_READY);
	CHECK_EQ(skeleton_start(code, 4096), 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

XP_TEST(early)
{
	struct xp_diag diag;

	CHECK_EQ(xp_set_policy(XP_POLICY_EARLY), 0);
	for (int again = 0; again < 1000; again++) {
		REQUIRE_EQ(poke(nop, jmp, &diag), 0);
		CHECK_MEM(code, jmp, 5);
		REQUIRE_EQ(poke(jmp, nop, &diag), 0);
		CHECK_MEM(code, nop, 5);
	}
	CHECK_EQ(poke(jmp, nop, &diag), -XP_E_MISMATCH);
	code += 4094;
	CHECK_EQ(poke(nop, jmp, &diag), -XP_E_NOT_TEXT);
	code -= 4094;
}

XP_TEST(the_rest_is_refused)
{
	static const enum xp_policy policies[] = {XP_POLICY_AUTO, XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE};

	for (unsigned i = 0; i < 3; i++) {
		struct xp_diag diag;

		CHECK_EQ(xp_set_policy(policies[i]), 0);
		CHECK_EQ(poke(nop, jmp, &diag), -XP_E_NO_METHOD);
		CHECK(diag.detail != NULL);
		CHECK_MEM(code, nop, 5);
	}
}

XP_TEST_MAIN()
