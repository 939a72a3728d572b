package rewarm

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// noSegment stands for a suspect that no segment of the table showed.
const noSegment = -1

// suspect is a key whose two readings did not agree. The readings were not of one moment,
// so it is looked at again before it counts.
type suspect struct {
	ref     feature.Ref
	segment int
	kind    string
	table   []byte // the newest reading of the table
	tableV  feature.Version
	onlineV feature.Version
	// goalV is the version that settles the suspicion when the side that is behind reaches
	// it: the table's first reading for missing and older, the online one for ahead. A key
	// under constant writing never agrees at any moment, but passes each goal.
	goalV feature.Version
	looks int
	total int
}

// reading is one comparison of one key.
type reading struct {
	ref             feature.Ref
	kind            string // "" when there is no difference
	table           []byte
	tableV, onlineV feature.Version
	expired         bool // the table's value needs no counterpart
	deleted         bool
	unreadable      bool // the table's bytes are
}

// look compares what the tiers gave for a key.
func look(view *feature.View, ref feature.Ref, table, online feature.GetResult, now feature.Micros) reading {
	r := reading{ref: ref, table: table.Payload}
	onlineHeader, onlineErr := parse(online)
	there := online.Payload != nil || online.Err != nil
	marker := there && onlineErr == nil && onlineHeader.Tombstone
	r.onlineV = onlineHeader.Version

	if table.Payload == nil && table.Err == nil {
		if there && !marker {
			r.kind = Extra
		}
		return r
	}
	header, err := parse(table)
	if err != nil {
		r.unreadable = true
		return r
	}
	r.tableV, r.deleted = header.Version, header.Tombstone
	order := r.onlineV.Compare(r.tableV)
	if there && onlineErr != nil {
		r.kind = Different
		return r
	}
	if header.Tombstone {
		switch {
		case !there, marker && order <= 0:
		case order > 0:
			r.kind = Ahead
		case order == 0:
			r.kind = Different
		default:
			r.kind = Behind // what was deleted is still served
		}
		return r
	}
	rec, err := feature.NewRecord(view, ref.Key, table.Payload)
	if err != nil { // its header was read above
		r.unreadable = true
		return r
	}
	switch {
	case there && order > 0:
		r.kind = Ahead
	case over(rec, now.Add(minute)): // a minute's margin on both sides, for clocks that differ
		r.expired = true
		if there && !marker && over(rec, now.Add(-minute)) {
			r.kind = Extra // it outlives its expiry
		}
	case !there:
		r.kind = Missing
	case order < 0:
		r.kind = Behind
	case !bytes.Equal(table.Payload, online.Payload):
		r.kind = Different
	}
	return r
}

func parse(g feature.GetResult) (feature.Header, error) {
	if g.Err != nil {
		return feature.Header{}, g.Err
	}
	h, _, err := feature.ParsePayload(g.Payload)
	return h, err
}

// compare judges a batch of the scan.
func (v *verifier) compare(segment int, recs []feature.Record, online []feature.GetResult) {
	now := feature.MicrosOf(v.r.cfg.Clock.Now())
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range recs {
		v.rep.Sampled++
		view := v.views.byID[recs[i].View]
		if view == nil {
			continue
		}
		r := look(view, recs[i].Ref, feature.GetResult{Payload: recs[i].Payload}, online[i], now)
		switch {
		case r.unreadable:
			v.rep.Unreadable++
			continue
		case r.expired && r.kind == "":
			v.rep.Expired++
			continue
		case r.deleted:
			v.rep.Deleted++
		}
		v.rep.Compared++
		if r.kind != "" {
			// The page's memory is reused.
			r.ref.Key = feature.Key(strings.Clone(string(r.ref.Key)))
			r.table = slices.Clone(r.table)
			v.suspect(segment, r)
		}
	}
}

// suspect notes a reading that shows a difference. v.mu is held.
func (v *verifier) suspect(segment int, r reading) {
	if r.kind == "" {
		return
	}
	s := suspect{ref: r.ref, segment: segment}
	s.turn(r)
	v.pending = append(v.pending, s)
}

// turn makes the reading what is suspected from now on.
func (s *suspect) turn(r reading) {
	s.kind, s.looks = r.kind, 0
	s.goalV = r.tableV
	if r.kind == Ahead {
		s.goalV = r.onlineV
	}
	s.note(r)
}

func (s *suspect) note(r reading) { s.table, s.tableV, s.onlineV = r.table, r.tableV, r.onlineV }

// again reads suspects once more and returns those that are not settled.
//
// The online tier is read before the table. Writers go the other way, table first, so that
// what was seen online must be in the table by then: an online value that is still ahead
// breaks the rule. A key that is behind is settled when online reaches the version that
// the table had at first, whatever the table holds by now.
func (v *verifier) again(ctx context.Context, suspects []suspect) ([]suspect, error) {
	refs := make([]feature.Ref, len(suspects))
	for i := range suspects {
		refs[i] = suspects[i].ref
	}
	online := make([]feature.GetResult, 0, len(refs))
	for from := 0; from < len(refs); from += verifyBatch {
		got, err := v.r.getAll(ctx, v.r.cfg.Online, refs[from:min(from+verifyBatch, len(refs))])
		if err != nil {
			return nil, fmt.Errorf("get %d records from the online tier again: %w", len(refs), err)
		}
		online = append(online, got...)
	}
	table, err := v.scanner.get(ctx, refs)
	if err != nil {
		return nil, err
	}
	now := feature.MicrosOf(v.r.cfg.Clock.Now())
	open := suspects[:0]
	for i := range suspects {
		s := suspects[i]
		r := look(v.views.byID[s.ref.View], s.ref, table[i], online[i], now)
		if s.settled(r) {
			continue
		}
		s.total++
		if group(s.kind) != group(r.kind) || s.kind == Different && (s.tableV != r.tableV || s.onlineV != r.onlineV) {
			s.turn(r)
		} else {
			s.kind = r.kind
			s.looks++
			s.note(r)
		}
		if s.looks < looks && s.total < maxLooks {
			open = append(open, s)
			continue
		}
		v.confirm(ctx, &s)
	}
	return open, nil
}

// group joins the kinds that share a goal.
func group(kind string) string {
	if kind == Behind {
		return Missing
	}
	return kind
}

// settled says that the suspicion was a matter of time.
func (s *suspect) settled(r reading) bool {
	switch {
	case r.kind == "":
		return true
	case group(s.kind) == Missing && group(r.kind) == Missing:
		return !r.onlineV.IsZero() && r.onlineV.Compare(s.goalV) >= 0
	case s.kind == Ahead && r.kind == Ahead:
		return r.tableV.Compare(s.goalV) >= 0
	}
	return false
}

// confirm counts a difference and repairs it if that is asked for.
func (v *verifier) confirm(ctx context.Context, s *suspect) {
	d := Difference{Kind: s.kind, View: s.ref.View.String(), Key: string(s.ref.Key)}
	if !s.tableV.IsZero() {
		d.Table = s.tableV.String()
	}
	if !s.onlineV.IsZero() {
		d.Online = s.onlineV.String()
	}
	var err error
	if v.req.Repair {
		d.Repaired, err = v.repair(ctx, s)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch s.kind {
	case Missing:
		v.rep.Missing++
	case Behind:
		v.rep.Older++
	case Different:
		v.rep.Different++
	case Extra:
		v.rep.Extra++
	case Ahead:
		v.rep.Ahead++
	}
	if d.Repaired {
		v.rep.Repaired++
	} else if err != nil && v.rep.Unrepaired == "" {
		v.rep.Unrepaired = fmt.Sprintf("%s %s/%s: %v", d.Kind, d.View, d.Key, err)
	}
	if s.segment != noSegment {
		v.bad[s.segment] = true
	}
	if len(v.rep.Examples) < maxExamples {
		v.rep.Examples = append(v.rep.Examples, d)
	}
}
