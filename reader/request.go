package reader

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// OnStale says what a request wants in place of a value that is older than allowed.
type OnStale uint8

const (
	// StaleAsConfigured does what Config.StaleDefaults says of the request's service, and
	// StaleValue otherwise. It is the default.
	StaleAsConfigured OnStale = iota
	// StaleValue serves the old value with the status OUTSIDE_MAX_AGE.
	StaleValue
	// StaleDefault serves the feature's default; status, tier, event time and age stay
	// those of the old value.
	StaleDefault
)

// Request asks for the features of one selection for many entities. Exactly one of
// Selection, Service and Features says which features.
type Request struct {
	// Entities holds, per entity, the text of each join key by request name (the join key's
	// own name, unless the selection maps it). Names that no view wants are ignored. The
	// maps become part of the Response: do not change them afterwards.
	Entities []map[string]string

	Selection *feature.Selection // resolved against any project
	Service   string             // a feature service of Config.Project
	Features  []string           // references against Config.Project: "view:feature", "view@2:*"

	// MaxAge is the oldest event time that counts, where it is stricter than the view's own
	// TTL. Defaults to 0: the views' TTLs alone.
	MaxAge time.Duration
	// OnStale says what to serve for a value that is too old. Defaults to
	// StaleAsConfigured.
	OnStale OnStale
	// SkipCache leaves the in-process cache out, to see what the tiers hold now. What they
	// answer is cached all the same. Defaults to false.
	SkipCache bool
}

// schema is what reading one view needs, worked out once.
type schema struct {
	view        *feature.View
	id          feature.ViewID
	wires       []wire
	fingerprint uint64
	older       map[uint64]int // schemas to which features were added since: how many each has
	ttl         time.Duration
	keys        []feature.JoinKey
	era         *atomic.Uint32 // counts how often everything of the view was forgotten
}

func newSchema(v *feature.View, m *memory) *schema {
	s := &schema{view: v, id: v.ID(), fingerprint: v.Fingerprint(), older: feature.OlderSchemas(v.Fields()), ttl: v.TTL, keys: slices.Clone(v.JoinKeys), era: m.era(v.ID())}
	slices.SortFunc(s.keys, func(a, b feature.JoinKey) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range v.Features {
		s.wires = append(s.wires, wireOf(f.Type))
	}
	return s
}

// group is one view under one alias: one lookup per entity.
type group struct {
	*schema
	names []string // the request name of each join key, in the order of schema.keys
}

// plan is a selection made ready to be read.
type plan struct {
	service   *serviceCount
	selection *feature.Selection
	groups    []group
	names     []string       // full name of each feature, in selection order
	positions map[string]int // full name -> position; also "view:feature" where it is unambiguous
}

func (r *Reader) newPlan(sel *feature.Selection, count *serviceCount) (*plan, error) {
	if sel == nil || len(sel.Order) == 0 {
		return nil, fmt.Errorf("read: %w: the selection holds no feature", feature.ErrInvalid)
	}
	p := &plan{service: count, selection: sel, groups: make([]group, len(sel.Groups)), names: make([]string, len(sel.Order))}
	for i, g := range sel.Groups {
		s := r.schemas[g.View]
		if s == nil {
			s = newSchema(g.View, r.memory)
		}
		p.groups[i] = group{schema: s, names: make([]string, len(s.keys))}
		for k, jk := range s.keys {
			p.groups[i].names[k] = jk.Name
			if name, ok := g.JoinKeys[jk.Name]; ok {
				p.groups[i].names[k] = name
			}
		}
	}
	p.positions = make(map[string]int, 2*len(sel.Order))
	for i := range sel.Order {
		p.names[i] = sel.Name(i)
		p.positions[p.names[i]] = i
	}
	short := make(map[string]int, len(sel.Order)) // name -> position, -1 where several have it
	for i, o := range sel.Order {
		v := sel.Groups[o.Group].View
		name := v.Name + ":" + v.Features[o.Feature].Name
		if _, twice := short[name]; twice {
			i = -1
		}
		short[name] = i
	}
	for name, i := range short {
		if _, taken := p.positions[name]; !taken && i >= 0 {
			p.positions[name] = i
		}
	}
	return p, nil
}

// service is one feature service of the project: its plan, made when it is first read, and
// its counts.
type service struct {
	declared *feature.Service
	plan     atomic.Pointer[plan]
	count    serviceCount
}

// plan finds or makes the plan of a request. Plans of services and of reference lists are
// kept; the plan of a Selection belongs to its caller and is made anew, which is cheap.
func (r *Reader) plan(req *Request) (*plan, error) {
	given := 0
	for _, set := range [...]bool{req.Selection != nil, req.Service != "", len(req.Features) > 0} {
		if set {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, fmt.Errorf("read: %w: give exactly one of a selection, a feature service or a list of features", feature.ErrInvalid)
	case req.Selection != nil:
		return r.newPlan(req.Selection, &r.adHoc)
	case r.project == nil:
		return nil, fmt.Errorf("read: %w: this reader has no project to resolve names with; give a selection", feature.ErrInvalid)
	case req.Service != "":
		return r.servicePlan(req.Service)
	}
	id := strings.Join(req.Features, "\x00")
	if p, ok := r.plans.GetIfPresent(id); ok {
		return p, nil
	}
	refs := make([]feature.FeatureRef, len(req.Features))
	for i, f := range req.Features {
		ref, err := feature.ParseFeatureRef(f)
		if err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
		refs[i] = ref
	}
	p, err := r.resolve(refs, &r.adHoc)
	if err != nil {
		return nil, err
	}
	r.plans.Set(id, p)
	return p, nil
}

func (r *Reader) servicePlan(name string) (*plan, error) {
	svc := r.services[name]
	if svc == nil {
		names := make([]string, len(r.project.Services))
		for i, s := range r.project.Services {
			names[i] = s.Name
		}
		return nil, fmt.Errorf("read: %w: unknown feature service %q; declared are: %s (%w)",
			feature.ErrInvalid, name, strings.Join(names, ", "), feature.ErrNotFound)
	}
	if p := svc.plan.Load(); p != nil {
		return p, nil
	}
	p, err := r.resolve(svc.declared.Features, &svc.count)
	if err == nil {
		svc.plan.Store(p)
	}
	return p, err
}

func (r *Reader) resolve(refs []feature.FeatureRef, count *serviceCount) (*plan, error) {
	sel, err := r.project.Resolve(refs)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return r.newPlan(sel, count)
}

// key builds the entity key of one row: the same key as [feature.View.Key], with the
// request names in place of the join keys' own.
func (g *group) key(entity map[string]string) (feature.Key, error) {
	var room [128]byte
	dst := room[:0]
	for i, jk := range g.keys {
		text, ok := entity[g.names[i]]
		if !ok {
			return "", fmt.Errorf("%w: join key %q is missing", feature.ErrInvalid, g.names[i])
		}
		if !canonicalInteger(jk.Type, text) {
			var err error
			if text, err = feature.CanonicalKeyText(jk.Type, text); err != nil {
				return "", fmt.Errorf("%s: %w", g.names[i], err)
			}
		}
		dst = feature.AppendKeyPart(dst, jk.Name, text)
	}
	if len(g.keys) == 0 || len(dst) > feature.MaxKeyBytes {
		return "", fmt.Errorf("entity key: %w: %d bytes, the limit is %d", feature.ErrInvalid, len(dst), feature.MaxKeyBytes)
	}
	return feature.Key(dst), nil
}

// canonicalInteger recognises, without allocating, integer text that is already canonical.
func canonicalInteger(t feature.Type, s string) bool {
	most := 18
	switch t {
	case feature.Int64:
	case feature.Int32:
		most = 9
	default:
		return false
	}
	if s == "" || len(s) > most || (s[0] == '0' && len(s) > 1) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func rowError(row, rows int, view feature.ViewID, err error) error {
	if rows == 1 {
		return fmt.Errorf("read %s: %w", view, err)
	}
	return fmt.Errorf("read %s: entity %s: %w", view, strconv.Itoa(row), err)
}
