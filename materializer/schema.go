package materializer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// checkSchema compares the schema under which a slot is stored with the declared one.
// Stored values say under which schema they were written and readers pass over those of
// another one, so a change is safe only when the run rewrites every value: a feature added
// at the end needs Full; anything else needs Full and Force, because readers of the old
// and of the new configuration cannot both be right about one version
// (docs/decisions, schema changes).
func checkSchema(v *feature.View, p Progress, full, force bool) error {
	if !p.saved() || slices.Equal(p.Fields, v.Fields()) {
		return nil
	}
	added := len(v.Features) > len(p.Fields) && slices.Equal(p.Fields, v.Fields()[:len(p.Fields)])
	if full && (added || force) {
		return nil
	}
	id := v.ID()
	next := feature.ViewID{Name: id.Name, Version: id.Version + 1}
	inPlace := fmt.Sprintf("hearth materialize --feature-views %s --full", id)
	if !added {
		inPlace += " --force"
	}
	return fmt.Errorf("view %s: %w: its features changed since the stored values were written (%s), and readers cannot read those as the new schema. "+
		"Nothing was written. Publish the change as a new version: declare %s with `version: %d` beside the old one in hearth.yaml, run `hearth materialize --feature-views %s`, "+
		"switch the feature services, then `hearth retire %s`. Or rewrite this version in place, with defaults served meanwhile: `%s`",
		id, feature.ErrInvalid, describeChange(p.Fields, v.Fields()), id.Name, next.Version, next, id, inPlace)
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
