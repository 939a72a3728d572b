package reader

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
)

// Outage says that a tier did not answer for at least one key of a request, and why.
type Outage struct {
	Tier   feature.Tier
	Reason Reason
	Err    error // the first cause
}

// Reason is the kind of an [Outage].
type Reason string

// The reasons.
const (
	ReasonTimeout     Reason = "timeout"      // it did not answer in time
	ReasonBreakerOpen Reason = "breaker open" // it failed several times and is left alone for a moment
	ReasonCapped      Reason = "capped"       // max_backing_rps was used up
	ReasonThrottled   Reason = "throttled"    // the store refused for its rate
	ReasonDenied      Reason = "denied"       // credentials or rights
	ReasonNotApplied  Reason = "not set up"   // its tables do not exist: hearth apply
	ReasonError       Reason = "error"        // anything else: refused, reset, failed
)

func reasonOf(err error) Reason {
	switch {
	case errors.Is(err, errCapped):
		return ReasonCapped
	case errors.Is(err, breaker.ErrOpen):
		return ReasonBreakerOpen
	case errors.Is(err, feature.ErrThrottled):
		return ReasonThrottled
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded):
		return ReasonTimeout
	case errors.Is(err, feature.ErrDenied):
		return ReasonDenied
	case errors.Is(err, feature.ErrNotApplied):
		return ReasonNotApplied
	}
	return ReasonError
}

// cell is the answer for one entity in one group of the selection.
type cell struct {
	entry   *entry // nil: nothing was found
	tier    feature.Tier
	unknown bool
	stale   bool
}

// Response holds the answers of one request: a row per entity, a value per feature.
// Values are decoded when they are asked for. A Response never changes and may be read
// from several goroutines.
type Response struct {
	// Unreachable lists the tiers that did not answer for some key of the request, fastest
	// first, each once.
	Unreachable []Outage

	plan     *plan
	entities []map[string]string
	cells    []cell // row by row, one per group
	one      [1]cell
	now      feature.Micros
	maxAge   time.Duration
	onStale  OnStale
}

func (r *Response) addOutage(tier feature.Tier, err error) {
	for _, o := range r.Unreachable {
		if o.Tier == tier {
			return
		}
	}
	r.Unreachable = append(r.Unreachable, Outage{Tier: tier, Reason: reasonOf(err), Err: err})
}

// Len is the number of entities.
func (r *Response) Len() int { return len(r.entities) }

// Names lists the full feature names in selection order ("view:feature", see
// [feature.Selection.Name]). Do not change it.
func (r *Response) Names() []string { return r.plan.names }

// Selection is what was read.
func (r *Response) Selection() *feature.Selection { return r.plan.selection }

// Unknown counts the values of status UNKNOWN: those that no tier could be asked for.
func (r *Response) Unknown() (n int) {
	for i := range r.cells {
		if r.cells[i].unknown {
			n += len(r.plan.selection.Groups[i%len(r.plan.groups)].Features)
		}
	}
	return n
}

// AsOf is the time at which ages were judged.
func (r *Response) AsOf() feature.Micros { return r.now }

// Row is the vector of the i-th entity.
func (r *Response) Row(i int) Vector {
	n := len(r.plan.groups)
	return Vector{r, i, r.cells[i*n : (i+1)*n]}
}

// tooOld is the verdict on freshness: the event time lies further back than the view's
// TTL, or than the request's MaxAge. The bounds themselves are still fresh, as in a
// training set.
func (r *Response) tooOld(s *schema, e *entry) bool {
	limit := s.ttl
	if r.maxAge > 0 && (limit <= 0 || r.maxAge < limit) {
		limit = r.maxAge
	}
	return limit > 0 && r.now.Sub(e.version.Event) > limit
}

// Vector is the answer for one entity.
type Vector struct {
	response *Response
	row      int
	cells    []cell
}

// Item is one value with its provenance.
type Item struct {
	Name string
	// Value is what to use: the stored value, or the declared default where there is none
	// (Tier is TierDefault) or where it is null (Status is NULL_VALUE), as in a training set
	// with fill_defaults; null where the feature declares no default.
	Value  feature.Value
	Status feature.Status
	Tier   feature.Tier
	// EventTime is when the fact held, exactly as it was stored; NoTime where no stored value
	// is behind the answer.
	EventTime feature.Micros
	Age       time.Duration // from EventTime to the read; 0 where EventTime is NoTime
	// Stale says that the value is the last one known here, because no tier could be asked.
	Stale bool
}

// Len is the number of features.
func (v Vector) Len() int { return len(v.response.plan.names) }

// Entity is the entity as the request named it.
func (v Vector) Entity() map[string]string { return v.response.entities[v.row] }

// At returns the i-th value in selection order.
func (v Vector) At(i int) Item {
	p := v.response.plan
	o := p.selection.Order[i]
	g, c := &p.groups[o.Group], &v.cells[o.Group]
	item := Item{Name: p.names[i], Tier: c.tier, EventTime: feature.NoTime, Stale: c.stale}
	if c.entry == nil || c.entry.tombstone {
		item.Status = feature.NotFound
		if c.unknown {
			item.Status = feature.Unknown
		}
		item.Tier, item.Value = feature.TierDefault, g.view.Features[o.Feature].Default
		return item
	}
	item.EventTime = c.entry.version.Event
	item.Age = v.response.now.Sub(item.EventTime)
	item.Value = valueAt(c.entry.features, c.entry.offsets[o.Feature], g.wires[o.Feature])
	null := item.Value.IsNull()
	old := v.response.tooOld(g.schema, c.entry)
	switch {
	case old:
		item.Status = feature.OutsideMaxAge
	case null:
		item.Status = feature.NullValue
	default:
		item.Status = feature.Present
	}
	if null || old && v.response.onStale == StaleDefault {
		item.Value = g.view.Features[o.Feature].Default
	}
	return item
}

// Get returns the value of a feature by its full name, or by "view:feature" where one
// feature of the selection alone fits, and whether the selection has it.
func (v Vector) Get(name string) (Item, bool) {
	i, ok := v.response.plan.positions[name]
	if !ok {
		return Item{}, false
	}
	return v.At(i), true
}

// Float64 returns a numeric or bool feature as a number: NaN where it is null, no number
// or not part of the selection.
func (v Vector) Float64(name string) float64 {
	item, ok := v.Get(name)
	if !ok {
		return math.NaN()
	}
	return item.Value.Float()
}

// Int64 returns an integer feature; false where it is null, of another type or not part of
// the selection. As everywhere, the default stands in for what is not there.
func (v Vector) Int64(name string) (int64, bool) {
	item, ok := v.Get(name)
	return item.Value.Int(), ok && !item.Value.IsNull() && item.Value.Is(feature.Int64)
}

// Text returns a string feature; false where it is null, of another type or not part of
// the selection. The string shares memory with the cache: it never changes.
func (v Vector) Text(name string) (string, bool) {
	item, ok := v.Get(name)
	return item.Value.Str(), ok && !item.Value.IsNull() && item.Value.Is(feature.String)
}

// Bool returns a bool feature; false, false where it is null, of another type or not part
// of the selection.
func (v Vector) Bool(name string) (value, ok bool) {
	item, ok := v.Get(name)
	return item.Value.Bool(), ok && !item.Value.IsNull() && item.Value.Is(feature.Bool)
}

// Fill writes the vector in selection order as a model's input: numbers and bools, the
// default where there is no value or a null, NaN where there is no default either and for
// what is no number. It returns how many of the features have another status than PRESENT.
// dst must have room for Len features; Fill allocates nothing.
func (v Vector) Fill(dst []float32) (notPresent int) {
	p := v.response.plan
	dst = dst[:len(p.names)]
	var (
		last    = -1
		g       *group
		e       *entry // nil: nothing was found
		old     bool   // each value counts as not present
		instead bool   // and the default is served
	)
	for i, o := range p.selection.Order {
		if o.Group != last {
			last, g, e, old = o.Group, &p.groups[o.Group], v.cells[o.Group].entry, false
			if e != nil && e.tombstone {
				e = nil
			} else if e != nil {
				old = v.response.tooOld(g.schema, e)
			}
			instead = e == nil || old && v.response.onStale == StaleDefault
		}
		if instead {
			dst[i] = g.view.Features[o.Feature].Default.Float32()
			notPresent++
			continue
		}
		if old {
			notPresent++
		}
		// A run's numbers have the width of the feature's type; else the first byte says what
		// lies here. That it fits the type was checked when the value arrived.
		pos := e.offsets[o.Feature]
		if pos&inRun != 0 {
			if bits := e.features[pos&^inRun:]; g.wires[o.Feature].class == wireFloat32 {
				dst[i] = math.Float32frombits(binary.BigEndian.Uint32(bits))
			} else {
				dst[i] = float32(math.Float64frombits(binary.BigEndian.Uint64(bits)))
			}
			continue
		}
		switch rest := e.features[pos:]; rest[0] {
		case mpFloat64:
			dst[i] = float32(math.Float64frombits(binary.BigEndian.Uint64(rest[1:])))
		case mpFloat32:
			dst[i] = math.Float32frombits(binary.BigEndian.Uint32(rest[1:]))
		case mpNil:
			dst[i] = g.view.Features[o.Feature].Default.Float32()
			if !old {
				notPresent++
			}
		default:
			dst[i] = float32At(e.features, pos, g.wires[o.Feature])
		}
	}
	return notPresent
}
