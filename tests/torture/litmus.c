// SPDX-License-Identifier: MIT
/*
 * A short run of the litmus itself. What it finds is the processor's business; that it looked everywhere, that it is
 * not blind, and that nothing happened which no processor does, is ours.
 */
#include "litmus/litmus.h"
#include "xp_torture.h"

#include <errno.h>

static struct litmus_report report;

static bool of_shape(const struct litmus_cell *cell, const void *arg)
{
	return cell->shape == *(const unsigned *)arg;
}

static bool of_path(const struct litmus_cell *cell, const void *arg)
{
	return cell->path == *(const unsigned *)arg;
}

static void check_matrix(void)
{
	for (unsigned shape = 0; shape < LITMUS_NR_SHAPES; shape++) {
		struct litmus_cell sum = litmus_cells_sum(&report, of_shape, &shape);

		XP_TEST_NOTE("%s: %llu executions, %llu stores, %llu torn", litmus_shape_names[shape],
			     (unsigned long long)sum.runs, (unsigned long long)sum.writes,
			     (unsigned long long)sum.torn);
		CHECK(sum.runs > 0);
		CHECK(sum.old > 0 && sum.new > 0 && sum.seen > 0);
		CHECK_EQ(sum.old + sum.new + sum.between + sum.torn + sum.strange, sum.runs);
		CHECK_EQ(sum.strange, 0);
		CHECK_EQ(sum.trapped, 0);
	}
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++)
		CHECK(report.path_error[path] || litmus_cells_sum(&report, of_path, &path).seen > 0);
}

static void check_changes(void)
{
	uint64_t traps = 0;

	CHECK(report.nr_changes_made >= 20);
	for (unsigned i = 0; i < report.nr_changes_made; i++) {
		const struct litmus_change *change = &report.changes_made[i];

		XP_TEST_NOTE("%s: %llu executions, %llu changes, %llu torn", change->name,
			     (unsigned long long)change->runs, (unsigned long long)change->seen,
			     (unsigned long long)change->torn);
		CHECK(change->runs + change->breakpoints > 0);
		CHECK(change->writes > 0);
		CHECK_EQ(change->strange, 0);
		traps += change->breakpoints;
	}
	CHECK(traps > 0);
}

static void check_orders(void)
{
	CHECK(report.nr_orders >= 8);
	for (unsigned i = 0; i < report.nr_orders; i++) {
		const struct litmus_order *order = &report.orders[i];

		XP_TEST_NOTE("%s: %llu executions, %llu changes, %llu wrong", order->name,
			     (unsigned long long)order->runs, (unsigned long long)order->seen,
			     (unsigned long long)order->wrong);
		CHECK(order->runs > 0);
		CHECK(order->writes > 0);
		CHECK_EQ(order->same + order->second_newer + order->first_newer, order->runs);
		if (order->after_sync)
			CHECK_EQ(order->wrong, 0);
	}
	CHECK(report.spreads[0].nr > 0 && report.spreads[1].nr > 0);
	CHECK(report.traps[0].placed > 0 && report.traps[0].runs > 0);
}

XP_TEST(a_short_run)
{
	struct litmus_options options = {.seconds = xp_torture_seconds > 1 ? xp_torture_seconds : 1,
					 .seed = xp_test_seed(),
					 .paths = (1u << LITMUS_NR_PATHS) - 1,
					 .widths = (1u << LITMUS_NR_WIDTHS) - 1,
					 .cpus = {-1, -1}};
	char *text = NULL;
	size_t size;
	FILE *out;
	int error = litmus_run(&options, &report);

	if (error == -ENODEV)
		SKIP("a race needs two processors");
	REQUIRE_EQ(error, 0);
	check_matrix();
	check_changes();
	check_orders();
	/* Old code after a sync, or a result from nowhere: no processor, but a fault of ours. */
	CHECK_EQ(report.contrary[LITMUS_BYTE], 0);
	CHECK_EQ(report.contrary[LITMUS_SDM], 0);
	out = open_memstream(&text, &size);
	litmus_print(&report, out);
	fclose(out);
	XP_TEST_NOTE("control: %llu torn across a line, %llu across a page", (unsigned long long)report.control[0].torn,
		     (unsigned long long)report.control[1].torn);
	CHECK(report.control[0].torn + report.control[1].torn > 0 ? report.power : strstr(text, "no power") != NULL);
	free(text);
	litmus_report_free(&report);
}

XP_TORTURE_MAIN()
