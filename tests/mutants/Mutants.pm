# SPDX-License-Identifier: MIT
# Tables of deliberate bugs, and the sources with them in. An entry of a table:
#
#	mutant NAME
#	WORD …              what the tier's runner wants to know: which test must fail, and the like
#	in DEFINITION       a function, object, macro, type or constant: what follows changes its definition
#	-old text, one or more lines as in a diff
#	+new text, none or more lines
#
# with as many groups of - and + lines as the bug takes; a . alone ends a group that has no + lines. `in` holds until the
# next one, so that a bug may be in several functions, or files. A # begins a comment.
#
# Where the definition is, is not said: it is looked for in all files of the table's rooms. Old text is a sequence of whole
# tokens and matches whatever blanks, line breaks and comments lie between them; those of the source go with it. It must
# match once in the definition. Where there are several of that name (in two files, or for 32 and 64 bits), it must match
# once in all of them; if it cannot, `in DEFINITION of FILE` says which, with the end of a path, as in `in probe of
# linux/writer_mprotect.c`. All groups of a mutant are looked for in the source as it is.
#
# So an entry stays true when a function goes to another file, when lines are broken or files named in another way; a
# name changed throughout the tree is to be changed in the tables too, as sed does. All else makes the entry stale:
# it no longer says what the source says, and it is to be said anew.
package Mutants;
use strict;
use warnings;

# The tables, from the top of the tree; the rooms that their definitions are looked for in; the words of an entry that say
# more.
our %tables = (
	'tests/mutants/table' => {rooms => [qw(src/arch src/core src/kinds src/trace src/control src/port/linux src/verify src/litmus tool)], words => [qw(test needs)]},
	'tests/bare/mutants' => {rooms => [qw(src/arch src/core src/kinds src/trace src/port/bare)], words => ['test']},
	'tests/plugin/mutants' => {rooms => [qw(plugin tool)], words => ['cases']},
);

sub slurp {
	my ($path) = @_;
	open my $in, '<', $path or die "$path: $!\n";
	local $/;
	return scalar <$in>;
}

# ---- the table ----

# A list of {name, line, groups => [{in, of, old, new, line}], and what the words say}.
sub read_table {
	my ($root, $table) = @_;
	my $words = join '|', @{$tables{$table}{words}};
	my $text = slurp("$root/$table");
	my $number = $text =~ s/^(.*^__DATA__\n)//ms ? $1 =~ tr/\n// : 0;
	my (@mutants, $mutant, $group, @in);
	for my $line (split /\n/, $text) {
		$number++;
		next if $line =~ /^#/ || $line eq '';
		if ($line =~ /^mutant (\S+)$/) {
			push @mutants, $mutant = {name => $1, line => $number, groups => []};
			($group, @in) = ();
		} elsif ($line =~ /^in (\w+)(?: of (\S+))?$/) {
			@in = ($1, $2);
			$group = undef;
		} elsif ($line =~ /^file (\S+)$/) {
			$mutant->{file} = $1;
		} elsif ($line =~ /^($words) (.+)$/) {
			$mutant->{$1} = $2;
		} elsif ($line =~ /^-(.*)$/s) {
			push @{$mutant->{groups}}, $group = {in => $in[0], of => $in[1], old => '', new => '', line => $number}
				if !$group || $group->{new} ne '';
			$group->{old} .= "$1\n";
		} elsif ($line =~ /^\+(.*)$/s && $group) {
			$group->{new} .= "$1\n";
		} elsif ($line eq '.') {
			$group = undef;
		} else {
			die "$table:$number: what is this?\n$line\n";
		}
	}
	for my $m (@mutants) {
		die "$table:$m->{line}: $m->{name} is not complete\n"
			unless @{$m->{groups}} && defined $m->{$tables{$table}{words}[0]};
	}
	return @mutants;
}

# ---- the sources ----

# Tokens of a text: lists of them, of where each begins and ends, and of which begin a directive.
sub tokens {
	my ($text) = @_;
	my (@token, @from, @to, %directive);
	while ($text =~ m{\G(?:
		(\s+ | \\\n | //[^\n]* | /\*.*?\*/) |
		((?:u8|[uUL])?R"([^\s()\\]*)\(.*?\)\3" | (?:u8|[uUL])?"(?:[^"\\\n]|\\.)*" | [uUL]?'(?:[^'\\\n]|\\.)+') |
		([A-Za-z_]\w*) | (\.?\d(?:[eEpP][-+]|[\w.])*) |
		(\.\.\. | <<= | >>= | -> | \+\+ | -- | << | >> | \#\# | :: | && | \|\| | [-+*/%&|^<>=!]= | .)
	)}gcsx) {
		next if defined $1;
		my ($from, $to) = ($-[0], $+[0]);
		push @token, substr $text, $from, $to - $from;
		push @from, $from;
		push @to, $to;
		next if $token[-1] ne '#';
		$from-- while $from > 0 && substr($text, $from - 1, 1) =~ /[ \t]/;
		$directive{$#token} = 1 if $from == 0 || substr($text, $from - 1, 1) eq "\n";
	}
	return (\@token, \@from, \@to, \%directive);
}

my $no_name = qr/^(?:__attribute__|__asm__|_Alignas|_Static_assert|alignas|static_assert)$/;    # though a ( follows

# The number of the first token behind a directive.
sub behind_directive {
	my ($file, $i) = @_;
	my $end = $file->{from}[$i];
	pos($file->{text}) = $end;
	$file->{text} =~ /\G(?:[^\n\\]|\\.)*/gcs and $end = pos $file->{text};
	$i++ while $i < @{$file->{token}} && $file->{from}[$i] < $end;
	return $i;
}

# What tokens $first to $last, at the top of a file, define: {file, names, first, last, only_declared}.
sub definition {
	my ($file, $first, $last) = @_;
	my $token = $file->{token};
	my ($depth, $assigned, $body, $called, $enum, %names) = (0, 0, 0, 0, 0);
	my $by_macro = $token->[$first + 1] eq '(' && $token->[$first] !~ $no_name;
	for (my $i = $first; $i <= $last; $i++) {
		my ($t, $next) = ($token->[$i], $i < $last ? $token->[$i + 1] : '');
		if ($file->{directive}{$i}) {
			$i = behind_directive($file, $i) - 1;
		} elsif ($t =~ /^[({\[]$/) {
			next if $depth++ > 0 || $t ne '{';
			$body = 1;
			$enum = !$assigned && !$called && grep { $_ eq 'enum' } @$token[$first .. $i];
		} elsif ($t =~ /^[)}\]]$/) {
			$depth--;
		} elsif ($t =~ /^[A-Za-z_]/ && $t !~ $no_name) {
			if ($depth == 0 && $next eq '(' && !$assigned) {
				$names{$t} = $called = 1;
			} elsif ($depth == 0 && $next =~ /^(?:[\[=;,]|__attribute__)$/ && !($called && $body)) {
				$names{$t} = 1 unless $assigned && $token->[$i - 1] ne ',';
			} elsif ($depth == 0 && $next =~ /^[{:]$/ && $i > $first && $token->[$i - 1] =~ /^(?:struct|union|enum|class)$/) {
				$names{$t} = 1;
			} elsif ($depth == 1 && $enum && $token->[$i - 1] =~ /^[{,]$/) {
				$names{$t} = 1;    # a constant of an enumeration
			} elsif ($depth == 1 && $by_macro) {
				$names{$t} = 1;    # what a macro defines
			}
		} elsif ($depth == 0 && $t eq '=') {
			$assigned = 1;
		}
	}
	if ($token->[$first] =~ /^(?:__)?asm(?:__)?$/) {
		# Assembly beside the functions: its labels.
		for my $i ($first .. $last) {
			$names{$1} = 1 while $token->[$i] =~ /\b([A-Za-z_.]\w*):/g;
		}
	}
	return {file => $file, names => [sort keys %names], first => $first, last => $last,
		only_declared => $called && !$body && !$assigned && !$by_macro};
}

# All definitions of a file: functions end with a brace, what else there is with a semicolon.
sub definitions {
	my ($file) = @_;
	my $token = $file->{token};
	my ($first, $depth, $assigned, $called, @found) = (0, 0, 0, 0);
	for (my $i = 0; $i < @$token; $i++) {
		my $t = $token->[$i];
		if ($file->{directive}{$i}) {
			my $next = behind_directive($file, $i);
			push @found, {file => $file, names => [$token->[$i + 2]], first => $i, last => $next - 1}
				if $depth == 0 && $token->[$i + 1] eq 'define';
			$first = $next if $first == $i;
			$i = $next - 1;
			next;
		}
		my $ends = 0;
		if ($t =~ /^[({\[]$/) {
			my $before = $i > $first ? $token->[$i - 1] : '';
			if ($depth == 0 && $t eq '{' && $before =~ /^(?:"C"|namespace)$/) {
				$first = $i + 1;
				next;
			}
			$called = 1 if $depth == 0 && $t eq '(' && $before =~ /^\w+$/ && $before !~ $no_name;
			$depth++;
		} elsif ($depth == 0 && $t eq '}') {
			$first = $i + 1;    # of extern "C" {
		} elsif ($t =~ /^[)}\]]$/) {
			$depth--;
			$ends = $depth == 0 && $t eq '}' && $called && !$assigned;
		} elsif ($depth == 0) {
			$ends = $t eq ';';
			$assigned = 1 if $t eq '=';
		}
		next unless $ends;
		push @found, definition($file, $first, $i) if $i > $first;
		($first, $assigned, $called) = ($i + 1, 0, 0);
	}
	die "$file->{path}: its braces do not match\n" if $depth;
	return @found;
}

# What there is below the rooms of a table: {root, files, by name: lists of definitions}.
sub sources {
	my ($root, $table) = @_;
	my $sources = {root => $root, files => [], named => {}};
	my @rooms = map { "$root/$_" } @{$tables{$table}{rooms}};
	while (defined(my $room = shift @rooms)) {
		for my $path (sort glob("$room/*")) {
			push @rooms, $path if -d $path;
			next unless $path =~ /\.(?:c|cc)$/;
			my $file = {path => $path =~ s{^\Q$root\E/}{}r, text => slurp($path)};
			@$file{qw(token from to directive)} = tokens($file->{text});
			push @{$sources->{files}}, $file;
			$file->{definitions} = [definitions($file)];
			for my $definition (@{$file->{definitions}}) {
				push @{$sources->{named}{$_}}, $definition for @{$definition->{names}};
			}
		}
	}
	# What is only declared is none, unless there is nothing else of that name.
	for my $all (values %{$sources->{named}}) {
		my @defined = grep { !$_->{only_declared} } @$all;
		@$all = @defined if @defined;
	}
	return $sources;
}

# ---- one in the other ----

# Where @$old, a list of tokens, begins in a definition.
sub matches {
	my ($definition, $old) = @_;
	my $token = $definition->{file}{token};
	my @at;
	for my $i ($definition->{first} .. $definition->{last} + 1 - @$old) {
		next if $token->[$i] ne $old->[0];
		my $n = 1;
		$n++ while $n < @$old && $token->[$i + $n] eq $old->[$n];
		push @at, $i if $n == @$old;
	}
	return @at;
}

sub place {
	my ($definition, $i) = @_;
	my $file = $definition->{file};
	my $line = 1 + (substr($file->{text}, 0, $file->{from}[$i]) =~ tr/\n//);
	return "$file->{path}:$line, in " . join ' or ', sort @{$definition->{names}};
}

# The text of these definitions that is most like @$old: it has most tokens in common with it, and few others. As many
# lines as there are. '' or words.
sub nearest {
	my ($definitions, $old) = @_;
	my ($best, $where) = (0.5, '');
	for my $definition (@$definitions) {
		my ($token, $from, $text) = @{$definition->{file}}{qw(token from text)};
		for my $i ($definition->{first} .. $definition->{last}) {
			next if $i > $definition->{first} && substr($text, $from->[$i - 1], $from->[$i] - $from->[$i - 1]) !~ /\n/;
			my $end = $i + @$old - 1;
			$end = $definition->{last} if $end > $definition->{last};
			my %left;
			$left{$_}++ for @$old;
			my $common = 0;
			for my $t (@$token[$i .. $end]) {
				$common++ if ($left{$t} // 0) > 0;
				$left{$t}--;
			}
			next if $common / @$old <= $best;
			$best = $common / @$old;
			$where = 'most like it is ' . place($definition, $i) . ":\n" .
				substr($text, $from->[$i], $definition->{file}{to}[$end] - $from->[$i]);
		}
	}
	return $where;
}

# The definition and the token that a group of old text is at; or what is wrong.
sub find {
	my ($sources, $group) = @_;
	my ($old) = tokens($group->{old});
	return (undef, undef, 'old text without a token') unless @$old;
	my @everywhere = map { @{$_->{definitions}} } @{$sources->{files}};
	my $elsewhere = sub {
		my @at = map { my $d = $_; map { place($d, $_) } matches($d, $old) } @everywhere;
		return 'it is at ' . join '; ', @at if @at;
		return nearest([@_ ? @_ : @everywhere], $old) || nearest(\@everywhere, $old);
	};
	my $name = $group->{in};
	return (undef, undef, "it does not say what definition its old text is in, as `in FUNCTION`; " . $elsewhere->())
		unless defined $name;
	my @candidates = @{$sources->{named}{$name} // []};
	@candidates = grep { "/$_->{file}{path}" =~ m{/\Q$group->{of}\E$} } @candidates if defined $group->{of};
	$name .= " of $group->{of}" if defined $group->{of};
	return (undef, undef, "stale: there is no definition of $name; of its text, " . $elsewhere->()) unless @candidates;
	my @found = map { my $d = $_; map { [$d, $_] } matches($d, $old) } @candidates;
	return (undef, undef, "stale: not in $name: $group->{old}" . $elsewhere->(@candidates)) unless @found;
	return (undef, undef, "stale: more than once in $name: $group->{old}" . join "\n", map { 'at ' . place(@$_) } @found)
		if @found > 1;
	return @{$found[0]};
}

# The files with the bug in them, by path; or undef, and what is wrong with the entry.
sub mutate {
	my ($sources, $mutant) = @_;
	my (%edits, %text);
	if (defined $mutant->{file}) {
		my $why = "files are no longer named: in place of `file $mutant->{file}`, `in DEFINITION` stands before its old text, " .
			'which is of whole tokens (tests/mutants/Mutants.pm):';
		for my $group (@{$mutant->{groups}}) {
			my (undef, undef, $wrong) = find($sources, $group);
			$why .= "\n-$group->{old}" . ($wrong // 'is right') =~ s/.*(?:, |text, )(it is at )/$1/r;
		}
		return (undef, $why);
	}
	for my $group (@{$mutant->{groups}}) {
		my ($definition, $i, $wrong) = find($sources, $group);
		return (undef, $wrong) if defined $wrong;
		my $file = $definition->{file};
		my ($old) = tokens($group->{old});
		my ($from, $to) = ($file->{from}[$i], $file->{to}[$i + @$old - 1]);
		for my $other (@{$edits{$file->{path}}}) {
			return (undef, "two groups change the same text: $group->{old}") if $from < $other->[1] && $other->[0] < $to;
		}
		push @{$edits{$file->{path}}}, [$from, $to, $group->{new}];
		$text{$file->{path}} = $file->{text};
	}
	for my $path (keys %edits) {
		for my $edit (sort { $b->[0] <=> $a->[0] } @{$edits{$path}}) {
			my ($from, $to, $new) = @$edit;
			$new =~ s/\n\z//;
			# Tokens stay apart; a directive has its own line.
			my $apart = $new =~ /^\s*#/ ? "\n" : ' ';
			substr $text{$path}, $from, $to - $from, "$apart$new$apart";
		}
	}
	return (\%text, undef);
}

1;
