package feature

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Project is one feature repository: what a hearth.yaml declares about features.
type Project struct {
	Name     string
	Entities []Entity
	Sources  []NamedSource // what {{source "name"}} in a query refers to
	Views    []View
	Services []Service
}

// Entity is what features describe, and the columns that identify it.
type Entity struct {
	Name        string
	JoinKeys    []JoinKey
	Description string
}

// JoinKey is one identifying column.
type JoinKey struct {
	Name string
	Type Type
}

// NamedSource is a path that query sources refer to by name.
type NamedSource struct {
	Name string
	Path string
}

// ViewID names one version of a feature view: "zipcode_features@1".
type ViewID struct {
	Name    string
	Version int
}

func (id ViewID) String() string { return id.Name + "@" + strconv.Itoa(id.Version) }

// MarshalText makes ViewID a JSON string.
func (id ViewID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads "name" (version 1) or "name@n".
func (id *ViewID) UnmarshalText(b []byte) (err error) { *id, err = ParseViewID(string(b)); return err }

// ParseViewID reads "name@n"; "name" alone is version 1, the version that a view has when
// it does not say one.
func ParseViewID(s string) (ViewID, error) {
	name, version, ok := strings.Cut(s, "@")
	if !ok {
		return ViewID{Name: name, Version: 1}, checkName(name)
	}
	n, err := strconv.Atoi(version)
	if err != nil || n < 1 || strconv.Itoa(n) != version {
		return ViewID{}, fmt.Errorf("view %q: %w: a version is a whole number from 1", s, ErrInvalid)
	}
	return ViewID{Name: name, Version: n}, checkName(name)
}

// CheckName reports whether s can name a project, entity, view, feature, service, dataset
// or job: a letter or underscore, then letters, digits, underscores and hyphens, at most
// 128 bytes. Names become parts of keys and file names, so nothing else is allowed.
func CheckName(s string) error { return checkName(s) }

func checkName(s string) error {
	ok := s != "" && len(s) <= 128
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		ok = letter || (i > 0 && (c >= '0' && c <= '9' || c == '-'))
	}
	if !ok {
		return fmt.Errorf("name %q: %w: use a letter or underscore, then letters, digits, underscores and hyphens", s, ErrInvalid)
	}
	return nil
}

// Field is one named, typed column of a view: the schema that the codec needs.
type Field struct {
	Name string
	Type Type
}

// Feature is one feature of a view.
type Feature struct {
	Field
	Default     Value // served and, with fill_defaults, trained on when there is no value
	Description string
}

// View is one version of a feature view.
type View struct {
	Name     string
	Version  int // from 1
	Entities []string
	JoinKeys []JoinKey     // of all its entities, sorted by name
	TTL      time.Duration // 0: no bound
	Retain   time.Duration // 0: the backing tier keeps the last value for ever
	Source   Source
	Features []Feature
}

// Source is where the rows of a view come from.
type Source struct {
	Path string // file, glob, folder or s3 prefix; absolute, or as given for s3
	// Query is the file of a SQL query, instead of Path. Its rows are the source rows.
	Query                  string
	TimestampField         string
	TimestampUnit          string            // for epoch integers: s, ms, us or ns; "" for a date or timestamp column
	TimePartitions         TimePartitions    // what the names of the folders promise about the event time
	CreatedTimestampColumn string            // "" when there is none
	DeletedColumn          string            // "" when there is none
	FieldMapping           map[string]string // source column -> feature or join key name
}

// Column returns the source column that holds the feature or join key name.
func (s Source) Column(name string) string {
	for column, mapped := range s.FieldMapping {
		if mapped == name {
			return column
		}
	}
	return name
}

// ID returns the name and version.
func (v *View) ID() ViewID { return ViewID{Name: v.Name, Version: v.Version} }

// Fields returns the schema of the features in declared order.
func (v *View) Fields() []Field {
	fields := make([]Field, len(v.Features))
	for i, f := range v.Features {
		fields[i] = f.Field
	}
	return fields
}

// FeatureIndex returns the position of a feature, or -1.
func (v *View) FeatureIndex(name string) int {
	return slices.IndexFunc(v.Features, func(f Feature) bool { return f.Name == name })
}

// Fingerprint identifies the names, types and order of the features. A stored value with
// another fingerprint was written under another schema of the view.
func (v *View) Fingerprint() uint64 { return Fingerprint(v.Fields()) }

// Fingerprint is the first 8 bytes of what [View.Fingerprint] describes: xxHash64 over
// each name and type, length-prefixed.
func Fingerprint(fields []Field) uint64 {
	var b []byte
	for _, f := range fields {
		b = binary.AppendUvarint(b, uint64(len(f.Name)))
		b = append(b, f.Name...)
		b = binary.AppendUvarint(b, uint64(len(f.Type)))
		b = append(b, f.Type...)
	}
	return xxhash.Sum64(b)
}

// OlderSchemas returns the fingerprints of the schemas from which this one came about by
// adding features at its end, and how many features each has. Values that were written under
// them can be read: the features that they do not have are null.
func OlderSchemas(fields []Field) map[uint64]int {
	older := make(map[uint64]int, len(fields))
	for n := 1; n < len(fields); n++ {
		older[Fingerprint(fields[:n])] = n
	}
	return older
}

// Key builds the key of one entity of the view from its join key values, given as
// canonical or canonicalisable text. A missing, unknown or malformed join key is an error
// matching ErrInvalid that names it.
func (v *View) Key(values map[string]string) (Key, error) {
	parts := make([]KeyPart, 0, len(v.JoinKeys))
	for _, jk := range v.JoinKeys {
		text, ok := values[jk.Name]
		if !ok {
			return "", fmt.Errorf("view %s: %w: join key %q is missing", v.ID(), ErrInvalid, jk.Name)
		}
		canonical, err := CanonicalKeyText(jk.Type, text)
		if err != nil {
			return "", fmt.Errorf("view %s: join key %q: %w", v.ID(), jk.Name, err)
		}
		parts = append(parts, KeyPart{Name: jk.Name, Value: canonical})
	}
	return NewKey(parts...)
}

// Service is the named vector that one model reads.
type Service struct {
	Name        string
	Features    []FeatureRef
	Description string
}

// FeatureRef selects one feature, or all ("*"), of a view: "view:feature",
// "view@2:feature". As and JoinKeys join the same view a second time under other spine
// columns.
type FeatureRef struct {
	View     ViewID
	Feature  string            // "*" for all
	As       string            // "" for the view's own name
	JoinKeys map[string]string // join key -> spine column or request name; nil for the same names
}

// ParseFeatureRef reads "view:feature", "view@2:feature" or "view:*".
func ParseFeatureRef(s string) (FeatureRef, error) {
	view, name, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return FeatureRef{}, fmt.Errorf("feature reference %q: %w: write view:feature, view@2:feature or view:*", s, ErrInvalid)
	}
	id, err := ParseViewID(view)
	if err != nil {
		return FeatureRef{}, fmt.Errorf("feature reference %q: %w", s, err)
	}
	if name != "*" {
		if err := checkName(name); err != nil {
			return FeatureRef{}, fmt.Errorf("feature reference %q: %w", s, err)
		}
	}
	return FeatureRef{View: id, Feature: name}, nil
}

// View returns the view version, or nil.
func (p *Project) View(id ViewID) *View {
	for i := range p.Views {
		if p.Views[i].Name == id.Name && p.Views[i].Version == id.Version {
			return &p.Views[i]
		}
	}
	return nil
}

// Service returns the named service, or nil.
func (p *Project) Service(name string) *Service {
	for i := range p.Services {
		if p.Services[i].Name == name {
			return &p.Services[i]
		}
	}
	return nil
}

// Group is the part of a selection that comes from one view under one alias: one lookup
// per entity, or one join.
type Group struct {
	View     *View
	Alias    string            // the view's name, or As
	JoinKeys map[string]string // join key -> spine column or request name, complete
	Features []int             // positions in View.Features, in selection order
}

// Selected is one feature of a selection, in the order that was asked for.
type Selected struct {
	Group   int // position in Selection.Groups
	Feature int // position in the view's features
}

// Selection is a resolved list of features.
type Selection struct {
	Groups []Group
	Order  []Selected
}

// Name returns the full name of the i-th selected feature: "alias:feature", and
// "alias@n:feature" for versions above 1.
func (s *Selection) Name(i int) string {
	g := s.Groups[s.Order[i].Group]
	alias := g.Alias
	if g.View.Version != 1 && alias == g.View.Name {
		alias = g.View.ID().String()
	}
	return alias + ":" + g.View.Features[s.Order[i].Feature].Name
}

// Field returns the declared feature of the i-th selected column.
func (s *Selection) Field(i int) *Feature {
	o := s.Order[i]
	return &s.Groups[o.Group].View.Features[o.Feature]
}

// Resolve turns references into a selection: "*" is expanded in declared order and a
// feature asked for twice is taken once. Unknown views and features are reported all at
// once, with what exists.
func (p *Project) Resolve(refs []FeatureRef) (*Selection, error) {
	var (
		sel      Selection
		problems Problems
	)
	groups := map[string]int{}
	seen := map[Selected]bool{}
	for _, ref := range refs {
		v := p.View(ref.View)
		if v == nil {
			problems = append(problems, Problem{Message: fmt.Sprintf("unknown feature view %q", ref.View), Remedy: "declared are: " + p.viewNames()})
			continue
		}
		indexes := make([]int, 0, 1)
		if ref.Feature == "*" {
			for i := range v.Features {
				indexes = append(indexes, i)
			}
		} else if i := v.FeatureIndex(ref.Feature); i >= 0 {
			indexes = append(indexes, i)
		} else {
			problems = append(problems, Problem{Message: fmt.Sprintf("feature view %s has no feature %q", v.ID(), ref.Feature), Remedy: "it has: " + v.featureNames()})
			continue
		}
		alias := ref.As
		if alias == "" {
			alias = v.Name
		}
		joinKeys := make(map[string]string, len(v.JoinKeys))
		for _, jk := range v.JoinKeys {
			joinKeys[jk.Name] = jk.Name
			if to, ok := ref.JoinKeys[jk.Name]; ok {
				joinKeys[jk.Name] = to
			}
		}
		id := v.ID().String() + "\x00" + alias
		for _, jk := range v.JoinKeys {
			id += "\x00" + joinKeys[jk.Name]
		}
		g, ok := groups[id]
		if !ok {
			g = len(sel.Groups)
			groups[id] = g
			sel.Groups = append(sel.Groups, Group{View: v, Alias: alias, JoinKeys: joinKeys})
		}
		for _, i := range indexes {
			o := Selected{Group: g, Feature: i}
			if seen[o] {
				continue
			}
			seen[o] = true
			sel.Groups[g].Features = append(sel.Groups[g].Features, i)
			sel.Order = append(sel.Order, o)
		}
	}
	if len(refs) == 0 {
		problems = append(problems, Problem{Message: "no feature selected"})
	}
	return &sel, problems.Err()
}

func (p *Project) viewNames() string {
	names := make([]string, len(p.Views))
	for i := range p.Views {
		names[i] = p.Views[i].ID().String()
	}
	return strings.Join(names, ", ")
}

func (v *View) featureNames() string {
	names := make([]string, len(v.Features))
	for i, f := range v.Features {
		names[i] = f.Name
	}
	return strings.Join(names, ", ")
}
