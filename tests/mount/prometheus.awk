# SPDX-License-Identifier: MIT
#
# Strict about Prometheus's text format, version 0.0.4: every line in its form, HELP and TYPE once and
# before the samples, a family in one piece, no sample twice, names and units by the conventions,
# histograms whole: buckets that do not fall, +Inf, _sum, _count. Prints what is wrong.
function wrong(text) { print "line " NR ": " text ": " $0; bad = 1 }

function end_histogram() {
	if (type != "histogram") return
	for (key in last) {
		if (!(key in inf)) { print family ": no le=\"+Inf\" for " key; bad = 1 }
		if (inf[key] != counted[key]) { print family ": +Inf and _count differ for " key; bad = 1 }
		if (!(key in summed)) { print family ": no _sum for " key; bad = 1 }
	}
	split("", last); split("", inf); split("", counted); split("", summed); split("", bound)
}

/^# HELP [a-zA-Z_:][a-zA-Z0-9_:]* [^ ].*$/ {
	end_histogram()
	family = $3
	if (family in helped) wrong("a family that was there before")
	helped[family] = 1
	type = ""
	families++
	next
}

/^# TYPE [a-zA-Z_:][a-zA-Z0-9_:]* (counter|gauge|histogram)$/ {
	if ($3 != family || type != "") wrong("TYPE without its HELP")
	type = $4
	if ((type == "counter") != (family ~ /_total$/)) wrong("counters, and they alone, end with _total")
	if (family ~ /_(bucket|sum|count|blocks|pages|ns|us|ms|milliseconds|kb|mb)(_total)?$/) wrong("not a name or unit for a family")
	if (type == "histogram" && family !~ /_(seconds|bytes)$/) wrong("a histogram without a unit")
	next
}

/^[a-zA-Z_:][a-zA-Z0-9_:]*\{[a-zA-Z_][a-zA-Z0-9_]*="([^"\\]|\\["\\n])*"(,[a-zA-Z_][a-zA-Z0-9_]*="([^"\\]|\\["\\n])*")*\} (-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|\+Inf|NaN)$/ {
	samples++
	name = substr($0, 1, index($0, "{") - 1)
	value = $NF
	id = substr($0, 1, length($0) - length(value) - 1)
	labels = substr(id, length(name) + 1)
	if (id in seen) wrong("a sample twice")
	seen[id] = 1
	if (type == "") wrong("a sample before its TYPE")
	if (value < 0) wrong("less than nothing")
	if (labels !~ /^\{volume="/) wrong("no volume")
	if (type != "histogram") {
		if (name != family) wrong("a sample of another family")
		next
	}
	suffix = substr(name, length(family) + 1)
	if (substr(name, 1, length(family)) != family || suffix !~ /^_(bucket|sum|count)$/) wrong("a sample of another family")
	le = ""
	if (match(labels, /,le="[^"]*"/)) {
		le = substr(labels, RSTART + 5, RLENGTH - 6)
		labels = substr(labels, 1, RSTART - 1) substr(labels, RSTART + RLENGTH)
	}
	if ((suffix == "_bucket") != (le != "")) wrong("le belongs to buckets")
	if (suffix == "_bucket") {
		if (labels in last && (value < last[labels] || (le != "+Inf" && le + 0 <= bound[labels] + 0))) wrong("buckets that fall")
		if (labels in inf) wrong("a bucket after +Inf")
		last[labels] = value
		bound[labels] = le
		if (le == "+Inf") inf[labels] = value
	}
	if (suffix == "_sum") summed[labels] = value
	if (suffix == "_count") counted[labels] = value
	next
}

{ wrong("not in the format") }

END {
	end_histogram()
	if (families < least || samples < least) { print families + 0 " families and " samples + 0 " samples are too few"; bad = 1 }
	exit bad
}
