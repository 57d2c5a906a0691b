// SPDX-License-Identifier: MIT
/*
 * The plugin for gcc: finds the calls of static calls, aligns them and writes their records, so that callers write
 * ordinary calls and have them changed in place. (A call without a record goes on through the trampoline.) And gives
 * functions patchable entries: <crosspatch/function.h>.
 *
 *	gcc -fplugin=…/crosspatch.so -c file.c        and, with -flto, the same option when linking
 *
 * I1  A site is a call, or a jmp in place of one, that the compiler emits as one instruction of 5 bytes whose target
 *     is a trampoline of the same executable or shared object: a function named xp_trampoline_NAME, or one declared
 *     with __attribute__((xp_static_call)); the record names the object xp_call_NAME. Indirect calls (-mcmodel=large,
 *     -fno-plt of what is not hidden), calls that carry a prefix (notrack) and conditional jumps are none.
 * I2  The pass runs when the code is final but for its addresses, and adds directives, no instruction: the
 *     assembler makes padding before the site, and the record, of them. Nothing that the compiler decides changes.
 *     But for entries: a function with one has that nop more. With functions chosen by pattern -fipa-ra is off:
 *     the caller of a function that may be redirected cannot know which registers it leaves alone.
 * I3  The record stands in the section group of its function ("?") and is linked to its section ("o"), as those of
 *     static branches.
 *
 * Arguments, -fplugin-arg-crosspatch-KEY=VALUE:
 *	align=quadword|none	pad so that the 5 bytes lie in one aligned quadword: the default
 *	sites=calls|all		all: pad every direct call and write no record, to measure what that costs
 *	functions=PATTERN	an entry for each function whose name for the linker matches, as fnmatch() does it; may be
 *				given several times. Not for those with __attribute__((no_instrument_function))
 *	functions-file=PATH	the same for each line of a file; empty lines and those that begin with # are none
 *	entries=flip|nop	what an entry is while it is off: flip, the default: a test of the 5 bytes of the call that it
 *				becomes but for the first, which changes flags; nop: a nop, which does not, and which tools
 *				that look for one there find. It becomes the former when it was traced
 */
#include <fnmatch.h>
#include "gcc-plugin.h"
#include "plugin-version.h"
#include "tree.h"
#include "tree-pass.h"
#include "context.h"
#include "stringpool.h"
#include "attribs.h"
#include "rtl.h"
#include "memmodel.h"
#include "emit-rtl.h"
#include "function.h"
#include "diagnostic-core.h"
#include "options.h"
#include "tm.h"
#include "calls.h"
#include "insn-constants.h"
#include "varasm.h"

#include <crosspatch/site_format.h>

#if !defined(TARGET_64BIT)
#error "this plugin is for a compiler for x86"
#endif

/* The licence of this file is compatible with the GPL. */
int plugin_is_GPL_compatible;

static const char attribute_name[] = "xp_static_call";
static const char patchable_name[] = "xp_patchable";
static const char trampoline_prefix[] = "xp_trampoline_";
static bool quadword = true;
static bool every_call;
static bool flip = true;
static auto_vec<char *> patterns;

/* ---- the attribute ---- */

/*
 * Leaves xp_static_call("NAME") on the declaration, whatever was written: NAME is the function's own if none was given.
 * The function is hidden: a call through a PLT would not be a call of the trampoline.
 */
static tree handle_attribute(tree *node, tree name, tree args, int, bool *no_add_attrs)
{
	tree decl = *node, value;

	*no_add_attrs = true;
	if (TREE_CODE(decl) != FUNCTION_DECL || !TREE_PUBLIC(decl)) {
		error("attribute %qE is for functions with external linkage", name);
		return NULL_TREE;
	}
	if (args && TREE_CODE(TREE_VALUE(args)) != STRING_CST) {
		error("attribute %qE: the name of the static call is a string", name);
		return NULL_TREE;
	}
	if (DECL_VISIBILITY_SPECIFIED(decl) && DECL_VISIBILITY(decl) != VISIBILITY_HIDDEN) {
		error("attribute %qE: %qD must be hidden, as its trampoline is", name, decl);
		return NULL_TREE;
	}
	value = args ? TREE_VALUE(args)
		     : build_string(IDENTIFIER_LENGTH(DECL_NAME(decl)) + 1, IDENTIFIER_POINTER(DECL_NAME(decl)));
	DECL_VISIBILITY(decl) = VISIBILITY_HIDDEN;
	DECL_VISIBILITY_SPECIFIED(decl) = 1;
	if (!lookup_attribute(attribute_name, DECL_ATTRIBUTES(decl)))
		DECL_ATTRIBUTES(decl) = tree_cons(get_identifier(attribute_name), build_tree_list(NULL_TREE, value),
						  DECL_ATTRIBUTES(decl));
	return NULL_TREE;
}

static const struct attribute_spec attribute = {
	attribute_name, 0, 1, true, false, false, false, handle_attribute, NULL,
};

/*
 * A function with an entry of its own: every call of it is one. noipa: none is inlined, cloned, or made by a caller
 * that looked into it.
 */
static tree handle_patchable(tree *node, tree name, tree, int, bool *no_add_attrs)
{
	if (TREE_CODE(*node) != FUNCTION_DECL) {
		error("attribute %qE is for functions", name);
		*no_add_attrs = true;
		return NULL_TREE;
	}
	decl_attributes(node, tree_cons(get_identifier("noipa"), NULL_TREE, NULL_TREE), 0);
	return NULL_TREE;
}

static const struct attribute_spec patchable_attribute = {
	patchable_name, 0, 0, true, false, false, false, handle_patchable, NULL,
};

static void register_attributes(void *, void *)
{
	register_attribute(&attribute);
	register_attribute(&patchable_attribute);
}

/* A function that has a body is not the trampoline. */
static void refuse_body(void *gcc_data, void *)
{
	tree decl = (tree)gcc_data;

	if (lookup_attribute(attribute_name, DECL_ATTRIBUTES(decl)))
		error_at(DECL_SOURCE_LOCATION(decl), "%qD is a static call (attribute %qs) and has no body of its own",
			 decl, attribute_name);
}

/* ---- the pass ---- */

/*
 * The NAME of the static call whose trampoline @symbol is; NULL: of none. A trampoline is hidden, and made by the
 * assembler: a function that the compiler sees the body of is none, whatever its name.
 */
static const char *call_name(const_rtx symbol)
{
	tree decl = SYMBOL_REF_DECL(symbol);
	const char *name = XSTR(symbol, 0);
	tree attr;

	if (!decl || TREE_CODE(decl) != FUNCTION_DECL || !DECL_EXTERNAL(decl) || DECL_WEAK(decl) ||
	    DECL_VISIBILITY(decl) != VISIBILITY_HIDDEN)
		return NULL;
	attr = lookup_attribute(attribute_name, DECL_ATTRIBUTES(decl));
	if (attr)
		return TREE_STRING_POINTER(TREE_VALUE(TREE_VALUE(attr)));
	name += *name == '*';
	if (strncmp(name, trampoline_prefix, sizeof(trampoline_prefix) - 1) != 0)
		return NULL;
	return name + sizeof(trampoline_prefix) - 1;
}

/* The target of a call that the compiler will emit as E8 or E9 and a displacement; NULL: of none such. */
static rtx direct_target(const rtx_insn *insn)
{
	rtx call = CALL_P(insn) ? get_call_rtx_from(const_cast<rtx_insn *>(insn)) : NULL_RTX;
	rtx target = call ? XEXP(XEXP(call, 0), 0) : NULL_RTX;

	if (!target || GET_CODE(target) != SYMBOL_REF)
		return NULL_RTX;
	/* notrack */
	if (find_reg_note(insn, REG_CALL_NOCF_CHECK, NULL_RTX))
		return NULL_RTX;
	/* call *target@GOTPCREL(%rip) */
	if (!SYMBOL_REF_LOCAL_P(target) && !flag_plt)
		return NULL_RTX;
	/* Part of a sequence of the thread-local storage that the linker recognises as a whole. */
	if (strcmp(XSTR(target, 0), TARGET_64BIT ? "__tls_get_addr" : "___tls_get_addr") == 0)
		return NULL_RTX;
	return target;
}

/* Of call sites: their labels. */
static unsigned nr_sites;

/*
 * The directives before a site; NULL: it is none. The record counts back from the site's end: the assembler may put padding
 * or a prefix before the instruction (-mbranches-within-32B-boundaries), behind whatever stands before it here.
 */
static char *directives(const rtx_insn *insn)
{
	const char *align = quadword ? ".p2align 3,,4\n" : "";
	const_rtx target = direct_target(insn);
	const char *name;

	if (!target)
		return NULL;
	if (every_call)
		return quadword ? xstrdup(align) : NULL;
	name = call_name(target);
	if (!name)
		return NULL;
	nr_sites++;
	return xasprintf("%s.Lxp_call_site%u:\n"
			 "\t.hidden xp_call_%s\n"
			 "\t.pushsection " XP__CALL_SITES ",\"ao?\",@progbits,.Lxp_call_site%u\n"
			 "\t" XP__CALL_RECORD(".Lxp_call_end%u - 5", "xp_call_%s + %d")
			 ".popsection",
			 align, nr_sites, name, nr_sites, nr_sites, name, SIBLING_CALL_P(insn) ? XP_SITE_TAIL : 0);
}

static rtx directive(const char *text)
{
	/* final looks the location up, and an unknown one has no file; this one has no line either, so none is printed. */
	return gen_rtx_ASM_INPUT_loc(VOIDmode, ggc_strdup(text), BUILTINS_LOCATION);
}

static void emit_before(rtx_insn *insn, const char *text)
{
	/* The padding belongs to the line of the call. */
	emit_insn_before_setloc(directive(text), insn, INSN_LOCATION(insn));
}

static void emit_end(rtx_insn *insn)
{
	char *text = xasprintf(".Lxp_call_end%u:", nr_sites);

	emit_insn_after_setloc(directive(text), insn, INSN_LOCATION(insn));
	free(text);
}

/* ---- entries ---- */

static bool is_patchable(tree decl, const char *name)
{
	if (lookup_attribute("naked", DECL_ATTRIBUTES(decl)) || flags_from_decl_or_type(decl) & ECF_RETURNS_TWICE)
		return false;
	if (lookup_attribute(patchable_name, DECL_ATTRIBUTES(decl)))
		return true;
	if (lookup_attribute("no_instrument_function", DECL_ATTRIBUTES(decl)))
		return false;
	for (unsigned i = 0; i < patterns.length(); i++)
		if (fnmatch(patterns[i], name, 0) == 0)
			return true;
	return false;
}

static bool is_endbr(const rtx_insn *insn)
{
	return INSN_P(insn) && GET_CODE(PATTERN(insn)) == UNSPEC_VOLATILE &&
	       XINT(PATTERN(insn), 1) == UNSPECV_NOP_ENDBR;
}

static rtx_insn *skip_notes(rtx_insn *insn)
{
	while (insn && (NOTE_P(insn) || DEBUG_INSN_P(insn)))
		insn = NEXT_INSN(insn);
	return insn;
}

/* Labels, which the records of the next function do not share. */
static unsigned nr_entries;

/* The first byte of what follows the text so far, and of what comes; with a cold part the function ends before it. */
static void emit_parts(void)
{
	rtx_insn *last = get_last_insn(), *cold = NULL;
	char *text;

	for (rtx_insn *insn = get_insns(); insn; insn = NEXT_INSN(insn))
		if (NOTE_P(insn) && NOTE_KIND(insn) == NOTE_INSN_SWITCH_TEXT_SECTIONS)
			cold = insn;
	if (cold) {
		text = xasprintf(".Lxp_entry_end%u:", nr_entries);
		emit_insn_before_noloc(directive(text), cold, NULL);
		free(text);
		text = xasprintf(".Lxp_cold%u:\n"
				 "\t.reloc .Lxp_cold%u, R_X86_64_NONE, .Lxp_name%u\n"
				 "\t.pushsection " XP__ENTRY_SITES ",\"ao?\",@progbits,.Lxp_cold%u\n"
				 "\t" XP__ENTRY_RECORD(".Lxp_cold%u", ".Lxp_name%u",
						       "((.Lxp_cold_end%u - .Lxp_cold%u) << " XP__TEXT(
							       XP__ENTRY_LEN_SHIFT) ") + " XP__TEXT(XP_SITE_PART))
				 ".popsection",
				 nr_entries, nr_entries, nr_entries, nr_entries, nr_entries, nr_entries, nr_entries,
				 nr_entries);
		emit_insn_after_noloc(directive(text), cold, NULL);
		free(text);
	}
	text = xasprintf(cold ? ".Lxp_cold_end%u:" : ".Lxp_entry_end%u:", nr_entries);
	emit_insn_after_noloc(directive(text), last, NULL);
	free(text);
}

/*
 * What stands at an entry. A file of the executable or shared object that includes <crosspatch/function.h> has the stub; where
 * none does the displacement is any. The relocation is that of a call: linkers refuse others to what is not there. In
 * the large code model the stub may be out of reach.
 */
static const char nop[] = "\t.byte 0x0f, 0x1f, 0x44, 0, 0\n";
static const char off[] = "\t.weak xp__function_stub\n"
			  "\t.hidden xp__function_stub\n"
			  "\t.reloc . + 1, R_X86_64_PLT32, xp__function_stub - 4\n"
			  "\t.byte 0xa9, 0, 0, 0, 0\n";

static const char *what_is_off(void)
{
	return flip && ix86_cmodel != CM_LARGE && ix86_cmodel != CM_LARGE_PIC ? off : nop;
}

/*
 * The entry and its record, before everything but an endbr64: also before a label, which a loop may come back to. The text
 * refers to the name, so that a linker that folds identical functions keeps those of other names apart: they are traced and
 * redirected one by one.
 */
static void emit_entry(void)
{
	const char *name = XSTR(XEXP(DECL_RTL(current_function_decl), 0), 0);
	rtx_insn *first = skip_notes(get_insns()), *located;
	char *text;

	name += *name == '*';
	if (!first || !is_patchable(current_function_decl, name))
		return;
	for (located = first; located && !NONDEBUG_INSN_P(located);)
		located = NEXT_INSN(located);
	if (!located)
		return;
	nr_entries++;
	emit_parts();
	text = xasprintf("%s.Lxp_entry%u:\n"
			 "\t.reloc .Lxp_entry%u, R_X86_64_NONE, .Lxp_name%u\n"
			 "%s"
			 "\t.pushsection " XP__ENTRY_SITES ",\"ao?\",@progbits,.Lxp_entry%u\n"
			 "\t" XP__ENTRY_RECORD(".Lxp_entry%u", ".Lxp_name%u",
					       "((.Lxp_entry_end%u - %s) << " XP__TEXT(
						       XP__ENTRY_LEN_SHIFT) ") + ((.Lxp_entry%u - %s) << " XP__TEXT(
						       XP__ENTRY_BEFORE_SHIFT) ")")
			 ".popsection\n"
			 "\t.pushsection xp_entry_names,\"aMS\",@progbits,1\n"
			 ".Lxp_name%u:\n"
			 "\t.asciz \"%s\"\n"
			 "\t.popsection",
			 quadword ? ".p2align 3,,4\n" : "", nr_entries, nr_entries, nr_entries, what_is_off(),
			 nr_entries, nr_entries, nr_entries, nr_entries, name, nr_entries, name, nr_entries, name);
	if (is_endbr(first))
		emit_insn_after_setloc(directive(text), first, INSN_LOCATION(first));
	else
		emit_insn_before_setloc(directive(text), first, INSN_LOCATION(located));
	free(text);
}

/* ---- the pass itself ---- */

static const pass_data call_sites_data = {
	RTL_PASS, "xp_call_sites", OPTGROUP_NONE, TV_NONE, 0, 0, 0, 0, 0,
};

class call_sites : public rtl_opt_pass
{
      public:
	explicit call_sites(gcc::context *context) : rtl_opt_pass(call_sites_data, context) {}

	/* The library knows no x32. */
	bool gate(function *) final override
	{
		return !TARGET_64BIT || (Pmode == DImode && POINTER_SIZE == 64);
	}

	unsigned execute(function *) final override
	{
		for (rtx_insn *insn = get_insns(); insn; insn = NEXT_INSN(insn)) {
			char *text = directives(insn);

			if (!text)
				continue;
			emit_before(insn, text);
			free(text);
			if (!every_call)
				emit_end(insn);
		}
		/* Nor entries in 32-bit code. */
		if (!every_call && TARGET_64BIT)
			emit_entry();
		return 0;
	}
};

/* ---- start ---- */

static bool is(const char *value, const char *expected)
{
	return value && strcmp(value, expected) == 0;
}

static bool read_patterns(const char *path)
{
	char line[4096];
	FILE *file = path ? fopen(path, "r") : NULL;

	if (!file) {
		error("%<-fplugin-arg-crosspatch-functions-file=%s%>: cannot be read", path ? path : "");
		return false;
	}
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\r\n")] = '\0';
		if (line[0] && line[0] != '#')
			patterns.safe_push(xstrdup(line));
	}
	fclose(file);
	return true;
}

static bool set_argument(const char *key, const char *value)
{
	if (is(key, "align") && (is(value, "quadword") || is(value, "none")))
		quadword = is(value, "quadword");
	else if (is(key, "sites") && (is(value, "calls") || is(value, "all")))
		every_call = is(value, "all");
	else if (is(key, "entries") && (is(value, "flip") || is(value, "nop")))
		flip = is(value, "flip");
	else if (is(key, "functions") && value && *value)
		patterns.safe_push(xstrdup(value));
	else if (is(key, "functions-file"))
		return read_patterns(value);
	else
		return false;
	return true;
}

int plugin_init(struct plugin_name_args *plugin, struct plugin_gcc_version *version)
{
	static struct plugin_info info = {
		XP_VERSION,
		"align=quadword|none  pad before calls of static calls\n"
		"sites=calls|all      all: pad every direct call, write no record\n"
		"functions=PATTERN    patchable entries for functions of these names\n"
		"functions-file=PATH  the same for each line of a file\n"
		"entries=flip|nop     what an entry is while it is off",
	};
	static struct register_pass_info pass;

	if (!plugin_default_version_check(version, &gcc_version)) {
		error("%s is built for gcc %s and cannot be used by gcc %s", plugin->full_name, gcc_version.basever,
		      version->basever);
		return 1;
	}
	for (int i = 0; i < plugin->argc; i++)
		if (!set_argument(plugin->argv[i].key, plugin->argv[i].value)) {
			error("%<-fplugin-arg-%s-%s%s%s%>: there are align=quadword, align=none, sites=calls, sites=all, "
			      "functions=PATTERN, functions-file=PATH, entries=flip, entries=nop",
			      plugin->base_name, plugin->argv[i].key, plugin->argv[i].value ? "=" : "",
			      plugin->argv[i].value ? plugin->argv[i].value : "");
			return 1;
		}
	if (patterns.length() > 0)
		flag_ipa_ra = 0;
	pass.pass = new call_sites(g);
	pass.reference_pass_name = "shorten";
	pass.ref_pass_instance_number = 1;
	pass.pos_op = PASS_POS_INSERT_BEFORE;
	register_callback(plugin->base_name, PLUGIN_INFO, NULL, &info);
	register_callback(plugin->base_name, PLUGIN_PASS_MANAGER_SETUP, NULL, &pass);
	register_callback(plugin->base_name, PLUGIN_ATTRIBUTES, register_attributes, NULL);
	register_callback(plugin->base_name, PLUGIN_PRE_GENERICIZE, refuse_body, NULL);
	return 0;
}
