package offline

import (
	"fmt"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// converted is how a source column becomes a value of a declared type.
type converted struct {
	expr string // the value in normal form; NULL stays NULL
	// check is "" where every stored value fits, else a condition that is true exactly for
	// rows whose value is NULL or fits.
	check string
}

// integer types that DuckDB reports, with whether int64 and int32 hold all their values.
var integers = map[string]struct{ fits64, fits32 bool }{
	"TINYINT": {true, true}, "SMALLINT": {true, true}, "INTEGER": {true, true}, "BIGINT": {true, false},
	"UTINYINT": {true, true}, "USMALLINT": {true, true}, "UINTEGER": {true, false}, "UBIGINT": {false, false},
	"HUGEINT": {false, false}, "UHUGEINT": {false, false},
}

// convert maps a column expression of a DuckDB type to a declared type. ok is false where
// the two do not go together; wants then says which column types would.
//
// Widening is silent. An integer column that is wider than the declared type, and DOUBLE
// for float32, are accepted with a check per row, because most writers know one width
// only; rows out of range are rejected and counted, in training sets as in the online
// tiers. Everything that would change a value's meaning is refused.
func convert(expr, found string, t feature.Type, partition bool) (c converted, wants string, ok bool) {
	if t.IsList() {
		return convertList(expr, found, t)
	}
	base, _, _ := strings.Cut(found, "(")
	if partition && base == "VARCHAR" {
		return convertPartition(expr, t)
	}
	number, isInteger := integers[base]
	switch t {
	case feature.Int64, feature.Int32:
		wants = "an integer column"
		name, fits := "BIGINT", number.fits64
		if t == feature.Int32 {
			name, fits = "INTEGER", number.fits32
		}
		whole := base == "DECIMAL" && strings.HasSuffix(found, ",0)")
		switch {
		case isInteger && fits:
			return converted{expr: expr + "::" + name}, wants, true
		case isInteger || whole:
			return converted{expr: try(expr, name), check: null(expr) + " OR " + try(expr, name) + " IS NOT NULL"}, wants, true
		}
	case feature.Float64:
		wants = "a numeric column"
		if isInteger || base == "DOUBLE" || base == "FLOAT" || base == "DECIMAL" {
			return converted{expr: expr + "::DOUBLE"}, wants, true
		}
	case feature.Float32:
		wants = "a numeric column"
		switch {
		case base == "FLOAT" || base == "TINYINT" || base == "SMALLINT" || base == "UTINYINT" || base == "USMALLINT":
			return converted{expr: expr + "::FLOAT"}, wants, true
		case isInteger || base == "DOUBLE" || base == "DECIMAL":
			d := expr + "::DOUBLE"
			return converted{expr: try(expr, "FLOAT"), check: fmt.Sprintf("%s OR NOT isfinite(%s) OR abs(%s) <= 3.4028234663852886e38", null(expr), d, d)}, wants, true
		}
	case feature.String:
		wants = "a text, enum or uuid column"
		switch base {
		case "VARCHAR", "UUID", "JSON":
			return converted{expr: expr + "::VARCHAR"}, wants, true
		case "ENUM":
			return converted{expr: expr + "::VARCHAR"}, wants, true
		}
	case feature.Bool:
		wants = "a boolean column"
		if base == "BOOLEAN" {
			return converted{expr: expr}, wants, true
		}
	case feature.Bytes:
		wants = "a binary column"
		switch base {
		case "BLOB":
			return converted{expr: expr}, wants, true
		case "VARCHAR":
			return converted{expr: "encode(" + expr + ")"}, wants, true
		}
	case feature.Timestamp:
		wants = "a timestamp or date column"
		if us, ok := micros(expr, found, ""); ok {
			return converted{expr: us, check: null(expr) + " OR " + us + " IS NOT NULL"}, wants, true
		}
	}
	return converted{}, wants, false
}

// convertList converts the elements of a list or array column.
func convertList(expr, found string, t feature.Type) (converted, string, bool) {
	open := strings.LastIndexByte(found, '[')
	if open < 0 || !strings.HasSuffix(found, "]") || strings.HasSuffix(found[:open], "]") {
		_, elem, _ := convert("", "", t.Elem(), false)
		return converted{}, "a list column whose elements are what " + elem + " holds", false
	}
	elem, wants, ok := convert("x", found[:open], t.Elem(), false)
	if !ok {
		return converted{}, "a list of " + strings.TrimPrefix(wants, "a "), false
	}
	list := expr
	if found[open:] != "[]" { // fixed-size array
		list = expr + "::" + found[:open] + "[]"
	}
	c := converted{expr: fmt.Sprintf("list_transform(%s, lambda x: %s)", list, elem.expr)}
	if elem.check != "" {
		c.check = fmt.Sprintf("%s OR len(list_filter(%s, lambda x: NOT (%s))) = 0", null(expr), list, elem.check)
	}
	return c, wants, true
}

// convertPartition converts the value of a hive partition folder, which is text.
func convertPartition(expr string, t feature.Type) (converted, string, bool) {
	name := map[feature.Type]string{feature.Int64: "BIGINT", feature.Int32: "INTEGER", feature.Float64: "DOUBLE", feature.Float32: "FLOAT",
		feature.String: "VARCHAR", feature.Bool: "BOOLEAN"}[t]
	switch {
	case name == "VARCHAR":
		return converted{expr: expr}, "", true
	case name != "":
		return converted{expr: try(expr, name), check: null(expr) + " OR " + try(expr, name) + " IS NOT NULL"}, "", true
	case t == feature.Timestamp:
		us := "epoch_us(" + try(expr, "TIMESTAMP") + ")"
		return converted{expr: us, check: null(expr) + " OR " + us + " IS NOT NULL"}, "", true
	}
	return converted{}, "a column in the files: a partition folder holds text", false
}

func try(expr, name string) string { return "TRY_CAST(" + expr + " AS " + name + ")" }

func null(expr string) string { return expr + " IS NULL" }

// epochUnits are the units of epoch integers, in units per second.
var epochUnits = map[string]int64{"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

// micros renders a time column as BIGINT microseconds since the epoch, UTC; naive times
// are UTC. Finer times are truncated towards the past. Infinite and unrepresentable
// times become NULL. unit is for integer columns.
func micros(expr, found, unit string) (string, bool) {
	base, _, _ := strings.Cut(found, "(")
	switch base {
	case "TIMESTAMP", "TIMESTAMP WITH TIME ZONE":
		return "epoch_us(" + expr + ")", true
	case "DATE", "TIMESTAMP_S", "TIMESTAMP_MS":
		return "epoch_us(" + try(expr, "TIMESTAMP") + ")", true
	case "TIMESTAMP_NS":
		ns := "epoch_ns(" + expr + ")"
		return fmt.Sprintf("(%s - ((%s %% 1000) + 1000) %% 1000) // 1000", ns, ns), true
	}
	n, isInteger := integers[base]
	if !isInteger {
		return "", false
	}
	whole := expr + "::BIGINT"
	if !n.fits64 {
		whole = try(expr, "BIGINT")
	}
	switch perSecond := epochUnits[unit]; {
	case perSecond == 0:
		return "", false
	case perSecond < 1_000_000:
		factor := 1_000_000 / perSecond
		limit := int64(9223372036854775807) / factor
		return fmt.Sprintf("CASE WHEN %s BETWEEN -%d AND %d THEN %s * %d END", whole, limit, limit, whole, factor), true
	case perSecond == 1_000_000:
		return whole, true
	}
	return fmt.Sprintf("(%s - ((%s %% 1000) + 1000) %% 1000) // 1000", whole, whole), true
}

// pruning renders predicates on the stored time column that hold for every row between lo
// and hi, both inclusive, so that Parquet statistics skip row groups. It returns nothing
// for what cannot be said exactly.
func pruning(expr, found, unit string, lo, hi feature.Micros) []string {
	base, _, _ := strings.Cut(found, "(")
	literal := func(m feature.Micros, layout string) (string, bool) {
		t := m.Time()
		if m == feature.NoTime || t.Year() < 1 || t.Year() > 9999 {
			return "", false
		}
		return sql.Literal(t.Format(layout)), true
	}
	const exact = "2006-01-02 15:04:05.000000"
	var (
		prefix, layout string
		above          feature.Micros // added to hi, for stored times finer than a microsecond
	)
	switch base {
	case "TIMESTAMP":
		prefix, layout = "TIMESTAMP ", exact
	case "TIMESTAMP WITH TIME ZONE":
		prefix, layout = "TIMESTAMPTZ ", exact+"+00"
	case "TIMESTAMP_NS":
		if y := hi.Time().Year(); y > 2200 || lo == feature.NoTime || lo.Time().Year() < 1700 {
			return nil
		}
		prefix, layout, above = "TIMESTAMP_NS ", exact, 1
	case "DATE":
		prefix, layout = "DATE ", "2006-01-02"
	default:
		perSecond := epochUnits[unit]
		if n, ok := integers[base]; !ok || !n.fits64 || perSecond == 0 || perSecond > 1_000_000 {
			return nil
		}
		factor := 1_000_000 / perSecond
		out := []string{fmt.Sprintf("%s <= %d", expr, int64(hi)/factor+1)}
		if lo != feature.NoTime {
			out = append(out, fmt.Sprintf("%s >= %d", expr, int64(lo)/factor-1))
		}
		return out
	}
	var out []string
	if text, ok := literal(hi+above, layout); ok {
		out = append(out, expr+" <= "+prefix+text)
	}
	if base == "DATE" { // a date holds for its whole day: the day of lo begins before lo
		if text, ok := literal(lo, layout); ok {
			out = append(out, expr+" >= "+prefix+text)
		}
		return out
	}
	if text, ok := literal(lo, layout); ok {
		out = append(out, expr+" >= "+prefix+text)
	}
	return out
}

// outputType is the DuckDB type of a feature in a training set.
func outputType(t feature.Type) string {
	if t.IsList() {
		return outputType(t.Elem()) + "[]"
	}
	return map[feature.Type]string{feature.Int64: "BIGINT", feature.Int32: "INTEGER", feature.Float64: "DOUBLE", feature.Float32: "FLOAT",
		feature.String: "VARCHAR", feature.Bool: "BOOLEAN", feature.Bytes: "BLOB", feature.Timestamp: "TIMESTAMPTZ"}[t]
}

// outputExpr turns a feature in normal form into its output type.
func outputExpr(expr string, t feature.Type) string {
	switch {
	case t == feature.Timestamp:
		return "make_timestamptz(" + expr + ")"
	case t.IsList() && t.Elem() == feature.Timestamp:
		return "list_transform(" + expr + ", lambda x: make_timestamptz(x))"
	}
	return expr
}

// literalOf renders a default value as SQL of the feature's output type.
func literalOf(v feature.Value, t feature.Type) (string, error) {
	if v.IsNull() {
		return "NULL", nil
	}
	if t.IsList() {
		items := make([]string, len(v.List()))
		for i, e := range v.List() {
			var err error
			if items[i], err = literalOf(e, t.Elem()); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(items, ", ") + "]::" + outputType(t), nil
	}
	switch t {
	case feature.Int64, feature.Int32:
		return fmt.Sprintf("'%d'::%s", v.Int(), outputType(t)), nil
	case feature.Float64:
		return fmt.Sprintf("'%v'::DOUBLE", v.Float()), nil
	case feature.Float32:
		return fmt.Sprintf("'%v'::FLOAT", v.Float32()), nil
	case feature.String:
		if strings.ContainsRune(v.Str(), 0) {
			return "", fmt.Errorf("default: %w: a text default cannot hold a NUL byte", feature.ErrInvalid)
		}
		return sql.Literal(v.Str()), nil
	case feature.Bool:
		return fmt.Sprintf("%t", v.Bool()), nil
	case feature.Bytes:
		var b strings.Builder
		for _, c := range v.Bytes() {
			fmt.Fprintf(&b, `\x%02X`, c)
		}
		return "'" + b.String() + "'::BLOB", nil
	case feature.Timestamp:
		return fmt.Sprintf("make_timestamptz(%d)", int64(v.Micros())), nil
	}
	return "", fmt.Errorf("default: %w: no literal for type %s", feature.ErrInvalid, t)
}
