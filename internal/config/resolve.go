package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// resolveConfig checks what spans several places of the file (names that must be unique or
// must exist) and builds the Config. It runs even after other problems, so that all are
// reported at once; a value that was not read is the zero value, and is not complained
// about a second time.
func resolveConfig(d *decoder, doc *document, c *Config, o options) {
	d.path = nil
	c.Description = doc.description
	c.Project.Name = doc.project
	c.Project.Sources = doc.sources
	c.RecoveryTimeObjective = doc.rto
	resolveEntities(d, doc, c)
	unique(d, "source", doc.sources, func(s *feature.NamedSource) (string, any) { return s.Name, &s.Name })
	resolveViews(d, doc, c)
	resolveServices(d, doc, c)
	resolveDatasets(d, doc, c)
	resolveTiers(d, doc, c)
	resolveJobs(d, doc, c, o)
	c.Reader, c.Server, c.Offline = doc.reader, doc.server, doc.offline
}

// unique reports names that stand twice. id returns the name and the place of an item.
func unique[T any](d *decoder, what string, items []T, id func(*T) (string, any)) {
	first := map[string]Pos{}
	for i := range items {
		name, ptr := id(&items[i])
		if name == "" {
			continue
		}
		at := d.where(ptr, &items[i])
		if before, ok := first[name]; ok {
			d.add(at, fmt.Sprintf("%s %q is declared twice", what, name), fmt.Sprintf("the first stands on line %d; names must differ", before.Line))
			continue
		}
		first[name] = at
	}
}

// unknown reports a name that is not declared, with the nearest that is.
func unknown(d *decoder, at Pos, what, name string, declared []string) {
	remedy := "none is declared"
	if len(declared) > 0 {
		remedy = "declared are: " + strings.Join(declared, ", ")
	}
	if near := nearest(name, declared); near != "" {
		remedy = fmt.Sprintf("did you mean %q?", near)
	}
	d.add(at, fmt.Sprintf("unknown %s %q", what, name), remedy)
}

func resolveEntities(d *decoder, doc *document, c *Config) {
	unique(d, "entity", doc.entities, func(e *rawEntity) (string, any) { return e.name, &e.name })
	types := map[string]*feature.JoinKey{}
	for i := range doc.entities {
		e := &doc.entities[i]
		if len(e.joinKeys) == 0 && d.has(&e.joinKeys) {
			d.add(d.where(&e.joinKeys), fmt.Sprintf("entity %q has no join key", e.name), "name at least one column: join_keys: [{name: …, type: int64}]")
		}
		unique(d, "join key", e.joinKeys, func(j *feature.JoinKey) (string, any) { return j.Name, &j.Name })
		for k := range e.joinKeys {
			j := &e.joinKeys[k]
			if j.Name == "" || j.Type == "" {
				continue
			}
			if !j.Type.CanKey() {
				d.add(d.where(&j.Type, j), fmt.Sprintf("type %s cannot be a join key", j.Type), "use int64, int32, string, bool or bytes")
				continue
			}
			if other, ok := types[j.Name]; !ok {
				types[j.Name] = j
			} else if other.Type != j.Type {
				d.add(d.where(&j.Type, j), fmt.Sprintf("join key %q is %s here and %s on line %d", j.Name, j.Type, other.Type, d.where(&other.Type).Line), "a join key has one type in the whole file")
			}
		}
		c.Project.Entities = append(c.Project.Entities, feature.Entity{Name: e.name, JoinKeys: e.joinKeys, Description: e.description})
	}
	if len(doc.entities) == 0 && d.has(&doc.entities) {
		d.add(d.where(&doc.entities), "no entity is declared", "a feature describes something: declare an entity")
	}
}

// has reports whether a value was read into ptr from the file.
func (d *decoder) has(ptr any) bool { _, ok := d.at[ptr]; return ok }

func resolveViews(d *decoder, doc *document, c *Config) {
	unique(d, "feature view", doc.views, func(v *rawView) (string, any) {
		if v.name == "" {
			return "", nil
		}
		return feature.ViewID{Name: v.name, Version: v.version}.String(), &v.name
	})
	if len(doc.views) == 0 && d.has(&doc.views) {
		d.add(d.where(&doc.views), "no feature view is declared", "declare at least one")
	}
	for i := range doc.views {
		r := &doc.views[i]
		v := feature.View{Name: r.name, Version: r.version, Entities: r.entities, TTL: r.ttl, Retain: r.retain, Source: r.source}
		v.JoinKeys = viewJoinKeys(d, r, c.Project.Entities)
		v.Features = viewFeatures(d, r, v.JoinKeys)
		checkMapping(d, r, &v)
		if v.Retain > 0 && v.TTL > 0 && v.Retain < v.TTL {
			d.add(d.where(&r.retain), "retain is shorter than ttl: values would vanish while they still count", "make retain at least the ttl, or remove it")
		}
		c.Project.Views = append(c.Project.Views, v)
	}
}

func viewJoinKeys(d *decoder, r *rawView, entities []feature.Entity) []feature.JoinKey {
	if len(r.entities) == 0 && d.has(&r.entities) {
		d.add(d.where(&r.entities), fmt.Sprintf("feature view %q has no entity", r.name), "name what its features describe: entities: [NAME]")
	}
	unique(d, "entity", r.entities, func(s *string) (string, any) { return *s, s })
	var keys []feature.JoinKey
	for i := range r.entities {
		name := r.entities[i]
		at := slices.IndexFunc(entities, func(e feature.Entity) bool { return e.Name == name })
		if at < 0 {
			if name != "" {
				names := make([]string, len(entities))
				for j, e := range entities {
					names[j] = e.Name
				}
				unknown(d, d.where(&r.entities[i]), "entity", name, names)
			}
			continue
		}
		for _, k := range entities[at].JoinKeys {
			if !slices.ContainsFunc(keys, func(o feature.JoinKey) bool { return o.Name == k.Name }) {
				keys = append(keys, k)
			}
		}
	}
	slices.SortFunc(keys, func(a, b feature.JoinKey) int { return cmp.Compare(a.Name, b.Name) })
	return keys
}

func viewFeatures(d *decoder, r *rawView, keys []feature.JoinKey) []feature.Feature {
	if len(r.features) == 0 && d.has(&r.features) {
		d.add(d.where(&r.features), fmt.Sprintf("feature view %q has no feature", r.name), "declare at least one: features: [{name: …, type: …}]")
	}
	unique(d, "feature", r.features, func(f *rawFeature) (string, any) { return f.name, &f.name })
	out := make([]feature.Feature, len(r.features))
	for i := range r.features {
		f := &r.features[i]
		out[i] = feature.Feature{Field: feature.Field{Name: f.name, Type: f.typ}, Description: f.description}
		if f.name != "" {
			checkFeatureName(d, r, f, keys)
		}
		if f.def != nil && f.typ != "" {
			v, err := feature.ValueOf(f.typ, plainValue(f.def, f.typ))
			if err != nil {
				d.add(d.where(&f.def), fmt.Sprintf("the default of feature %q is no %s", f.name, f.typ), defaultRemedy(f.typ))
				continue
			}
			out[i].Default = v
		}
	}
	return out
}

func checkFeatureName(d *decoder, r *rawView, f *rawFeature, keys []feature.JoinKey) {
	at := d.where(&f.name)
	if slices.ContainsFunc(keys, func(k feature.JoinKey) bool { return k.Name == f.name }) {
		d.add(at, fmt.Sprintf("feature %q has the name of a join key", f.name), "a join key is no feature; remove or rename it")
	}
	for _, column := range []struct{ name, key string }{
		{r.source.TimestampField, "timestamp_field"},
		{r.source.CreatedTimestampColumn, "created_timestamp_column"},
		{r.source.DeletedColumn, "deleted_column"},
	} {
		if column.name == f.name {
			d.add(at, fmt.Sprintf("feature %q has the name of the view's %s", f.name, column.key), "rename the feature, and map the column to it with field_mapping")
		}
	}
}

func defaultRemedy(t feature.Type) string {
	if t.IsList() {
		return "write a list: [a, b]"
	}
	switch t {
	case feature.Bytes:
		return "write base64 text"
	case feature.Timestamp:
		return "write RFC 3339 text, for example \"2021-08-25T12:00:00Z\""
	case feature.String:
		return "write text in quotes"
	}
	return "write a value of that type"
}

// plainValue turns a node into what feature.ValueOf reads. Text is taken for text only,
// unless a variable filled it in: a number in quotes is a slip, not a number.
func plainValue(n *node, t feature.Type) any {
	switch n.kind {
	case nullNode:
		return nil
	case listNode:
		items := make([]any, len(n.items))
		for i, item := range n.items {
			items[i] = plainValue(item, t.Elem())
		}
		return items
	case mapNode:
		return map[string]any{}
	case stringNode:
		switch t.Elem() {
		case feature.Int64, feature.Int32, feature.Float64, feature.Float32, feature.Bool:
			if !n.untyped {
				return struct{}{} // no value of these types
			}
		}
		return n.text
	}
	return n.value
}

// checkMapping: a mapped column holds a feature or join key of the view, and no two
// columns hold the same one.
func checkMapping(d *decoder, r *rawView, v *feature.View) {
	m := r.source.FieldMapping
	holder := map[string]string{}
	for _, column := range sortedKeys(m) {
		target := m[column]
		at := d.places[d.where(&r.source.FieldMapping).Path+"."+column]
		if other, ok := holder[target]; ok {
			d.add(at, fmt.Sprintf("columns %q and %q are both mapped to %q", other, column, target), "keep one")
		}
		holder[target] = column
		isKey := slices.ContainsFunc(v.JoinKeys, func(k feature.JoinKey) bool { return k.Name == target })
		if target != "" && !isKey && v.FeatureIndex(target) < 0 {
			var names []string
			for _, f := range v.Features {
				names = append(names, f.Name)
			}
			for _, k := range v.JoinKeys {
				names = append(names, k.Name)
			}
			unknown(d, at, "feature or join key", target, names)
		}
	}
}
