// SPDX-License-Identifier: MIT
/*
 * The heat map: torn executions per store, by width and offset, one panel per store path, without sync.
 *
 * Shape imm, because there every byte of the store changes. Each width has two rows: a line in mid-page, and below,
 * narrower, the last line of a page, which was raced only where the store leaves the page.
 */
#include "litmus/litmus.h"

#include <inttypes.h>
#include <string.h>

#define LEFT 92
#define TOP 66
#define CELL 13
#define ROW 18
#define STRIP 9 /* the row of page ends */
#define PANEL (LITMUS_NR_WIDTHS * (ROW + STRIP + 4) + 56)
#define WIDTH (LEFT + 64 * CELL + 30)

/* Lower ends of the classes, torn executions per store, and their colours. */
static const struct {
	double from;
	const char *colour, *label;
} classes[] = {
	{0, "#e9edf0", "0"},       {1e-12, "#fee5a5", "&lt; 1e-4"}, {1e-4, "#fdbe5f", "1e-4"},
	{1e-3, "#f98e3c", "1e-3"}, {1e-2, "#e3562b", "1e-2"},       {1e-1, "#b0201f", "1e-1"},
	{1, "#6a0e24", "&gt;= 1"},
};
#define NR_CLASSES (sizeof(classes) / sizeof(classes[0]))

static const char *colour(const struct litmus_cell *cell)
{
	double rate = (double)cell->torn / (double)cell->writes;
	size_t i = NR_CLASSES - 1;

	while (i > 0 && rate < classes[i].from)
		i--;
	return classes[i].colour;
}

/* Text from /proc/cpuinfo comes from outside. */
static void escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (strchr("<>&\"", *text))
			fprintf(out, "&#%d;", *text);
		else if (*text >= ' ' && *text <= '~')
			fputc(*text, out);
	}
}

static int row_of(const struct litmus_cell *cell)
{
	return __builtin_ctz(cell->width) * (ROW + STRIP + 4) + (cell->place == LITMUS_END ? ROW + 1 : 0);
}

static void draw_cell(FILE *out, const struct litmus_cell *cell, int top)
{
	fprintf(out,
		"<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"><title>%u bytes at offset %u%s: %" PRIu64
		" torn in %" PRIu64 " stores, %" PRIu64 " executions</title></rect>\n",
		LEFT + cell->offset * CELL, top + row_of(cell), CELL - 1, cell->place == LITMUS_END ? STRIP : ROW,
		colour(cell), cell->width, cell->offset, cell->place == LITMUS_END ? ", across the page" : "",
		cell->torn, cell->writes, cell->runs);
}

static void draw_axes(FILE *out, int top, const char *name)
{
	int bottom = top + LITMUS_NR_WIDTHS * (ROW + STRIP + 4);

	fprintf(out, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">store path: %s</text>\n", LEFT, top - 8, name);
	for (int w = 0; w < LITMUS_NR_WIDTHS; w++)
		fprintf(out,
			"<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%u byte%s</text>\n"
			"<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-size=\"8\" fill=\"#667\">page end</text>\n",
			LEFT - 6, top + w * (ROW + STRIP + 4) + 13, LITMUS_WIDTH(w), w ? "s" : "", LEFT - 6,
			top + w * (ROW + STRIP + 4) + ROW + 8);
	for (int offset = 0; offset <= 64; offset += 8) {
		int x = LEFT + offset * CELL;

		fprintf(out,
			"<path d=\"M%d %dV%d\" stroke=\"#445\" stroke-width=\"%s\"/>\n"
			"<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%d</text>\n",
			x, top - 3, bottom,
			offset % 64 == 0   ? "1.6"
			: offset % 32 == 0 ? "1"
					   : "0.4",
			x, bottom + 13, offset);
	}
}

static void draw_legend(FILE *out, int y)
{
	fprintf(out, "<text x=\"%d\" y=\"%d\">torn executions per store:</text>\n", LEFT, y + 10);
	for (size_t i = 0; i < NR_CLASSES; i++)
		fprintf(out,
			"<rect x=\"%d\" y=\"%d\" width=\"16\" height=\"12\" fill=\"%s\"/>\n"
			"<text x=\"%d\" y=\"%d\">%s</text>\n",
			LEFT + 165 + (int)i * 88, y, classes[i].colour, LEFT + 186 + (int)i * 88, y + 10,
			classes[i].label);
}

void litmus_print_svg(const struct litmus_report *report, FILE *out)
{
	const struct litmus_machine *m = &report->machine;
	unsigned paths = 0;
	int top = TOP;

	for (unsigned i = 0; i < report->nr_cells; i++)
		paths |= 1u << report->cells[i].path;
	fprintf(out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
		"font-family=\"sans-serif\" font-size=\"11\" fill=\"#223\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"20\" font-size=\"14\">"
		"Torn executions by offset of the store in its 64-byte line, no sync</text>\n<text x=\"%d\" y=\"36\">",
		WIDTH, TOP + __builtin_popcount(paths) * PANEL + 24, WIDTH,
		TOP + __builtin_popcount(paths) * PANEL + 24, LEFT, LEFT);
	escaped(out, m->model);
	fprintf(out, ", microcode ");
	escaped(out, m->microcode);
	fprintf(out, ", ");
	escaped(out, m->kernel);
	fprintf(out, "%s%s</text>\n", m->hypervisor ? ", under a hypervisor" : "",
		report->power ? "" : " - NO POWER: the control did not tear");
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++) {
		if (!(paths >> path & 1))
			continue;
		for (unsigned i = 0; i < report->nr_cells; i++) {
			const struct litmus_cell *cell = &report->cells[i];

			if (cell->path == path && cell->shape == LITMUS_IMM && !cell->sync && cell->writes)
				draw_cell(out, cell, top);
		}
		draw_axes(out, top, litmus_path_names[path]);
		top += PANEL;
	}
	draw_legend(out, top - 12);
	fprintf(out, "</svg>\n");
}
