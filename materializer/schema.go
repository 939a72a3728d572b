package materializer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// checkSchema compares the schema under which a slot is stored with the declared one.
// Stored values say under which schema they were written. Readers read those to which
// features were added at the end since, with null for the new ones, so that change goes on.
// They pass over values of any other schema, so every other change needs Full and Force,
// because readers of the old and of the new configuration cannot both be right about one
// version (docs/decisions, schema changes).
func checkSchema(v *feature.View, p Progress, full, force bool) error {
	if !p.saved() || slices.Equal(p.Fields, v.Fields()) || len(added(v, p)) > 0 || full && force {
		return nil
	}
	id := v.ID()
	next := feature.ViewID{Name: id.Name, Version: id.Version + 1}
	return fmt.Errorf("view %s: %w: its features changed since the stored values were written (%s), and readers cannot read those as the new schema. "+
		"Nothing was written. Publish the change as a new version: declare %s with `version: %d` beside the old one in hearth.yaml, run `hearth materialize --feature-views %s`, "+
		"switch the feature services, then `hearth retire %s`. Or rewrite this version in place, with defaults served meanwhile: `hearth materialize --feature-views %s --full --force`",
		id, feature.ErrInvalid, describeChange(p.Fields, v.Fields()), id.Name, next.Version, next, id, id)
}

// added names the features that were added at the end since the slot was written; none when
// that is not what happened.
func added(v *feature.View, p Progress) []string {
	if !p.saved() || len(v.Features) <= len(p.Fields) || !slices.Equal(p.Fields, v.Fields()[:len(p.Fields)]) {
		return nil
	}
	var names []string
	for _, f := range v.Features[len(p.Fields):] {
		names = append(names, f.Name)
	}
	return names
}

func describeChange(was, is []feature.Field) string {
	var parts []string
	typeOf := func(fields []feature.Field, name string) (feature.Type, bool) {
		i := slices.IndexFunc(fields, func(f feature.Field) bool { return f.Name == name })
		if i < 0 {
			return "", false
		}
		return fields[i].Type, true
	}
	for _, f := range was {
		switch t, ok := typeOf(is, f.Name); {
		case !ok:
			parts = append(parts, fmt.Sprintf("%q is gone", f.Name))
		case t != f.Type:
			parts = append(parts, fmt.Sprintf("%q was %s and is %s", f.Name, f.Type, t))
		}
	}
	for _, f := range is {
		if _, ok := typeOf(was, f.Name); !ok {
			parts = append(parts, fmt.Sprintf("%q is new", f.Name))
		}
	}
	if len(parts) == 0 {
		return "their order differs"
	}
	return strings.Join(parts, ", ")
}
