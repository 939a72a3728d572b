package rewarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
)

// attempt is the document that says what is being brought back. Runs with the same
// parameters join it: the next run after a kill, and runs on other machines that do other
// segments. It is finished when all its segments are through; it stays, for the summary,
// and for machines that are asked once more for segments of the same name.
type attempt struct {
	ID       string   `json:"id"`
	Name     string   `json:"name,omitempty"` // see Request.Attempt
	Run      uint64   `json:"run"`            // the run that began it
	Segments int      `json:"segments"`
	Params   string   `json:"params"`         // what must be equal to join
	Cold     []string `json:"cold,omitempty"` // the shards to fill; none for all
	// ColdState is what the online tier remembers of them: parts of a shard may change
	// hands while they are filled, and stay empty.
	ColdState []byte `json:"cold_state,omitempty"`
	// Instances are the servers of the online tier. One that takes another's place, or comes
	// back, may lack puts that were acknowledged: replication and logs lag.
	Instances []string       `json:"instances,omitempty"`
	Started   feature.Micros `json:"started"`
	HotDone   bool           `json:"hot_done,omitempty"`
	Finished  feature.Micros `json:"finished,omitempty"` // 0: not yet
	Warm      bool           `json:"warm,omitempty"`     // it marked the tier warm
	Swept     bool           `json:"swept,omitempty"`    // of another source: see sweep

	revision int64
}

// checkpoint is how far one segment is. It is saved when a page's puts were acknowledged.
type checkpoint struct {
	Attempt   string      `json:"attempt"`
	Segment   int         `json:"segment"`
	Cursor    []byte      `json:"cursor,omitempty"` // where the next page begins; none at first
	Done      bool        `json:"done,omitempty"`
	Counts    Counts      `json:"counts"`
	Failed    []failedRef `json:"failed,omitempty"`
	Witnesses []witness   `json:"witnesses,omitempty"`
	Stride    int64       `json:"stride,omitempty"` // see sampleWitness
	Canaries  canarySet   `json:"canaries"`         // that sang when the last page was put

	revision int64
}

// failedRef is a record that could not be put; a later run tries it again without a scan.
type failedRef struct {
	View   feature.ViewID `json:"view"`
	Key    feature.Key    `json:"key"`
	Reason string         `json:"reason"`
}

// stateName keeps the documents of a rewarm from the table apart from those of one from
// another source, which comes before it and is not begun again when the second is resumed.
func (r *Rewarmer) stateName(name string) string {
	if r.cfg.Source != "" {
		return sourcePrefix + name
	}
	return name
}

const sourcePrefix = "source/"

// segmentPrefix begins the names of checkpoints.
const segmentPrefix = "segment/"

func segmentName(segment int) string { return fmt.Sprintf(segmentPrefix+"%07d", segment) }

// params is what two runs must share to work on one attempt: the views with the lives of
// their values, and the source. Segments and cold shards are compared on their own.
func (r *Rewarmer) params(views viewSet) string {
	parts := make([]string, 0, len(views.byID))
	for id, v := range views.byID {
		parts = append(parts, fmt.Sprintf("%s ttl=%s retain=%s", id, v.TTL, v.Retain))
	}
	slices.Sort(parts)
	return strings.Join(append(parts, "source="+r.cfg.Source), "; ")
}

// discardAny tells openAttempt to begin a new attempt whatever is stored.
const discardAny = "*"

// openAttempt joins the stored attempt when it can be continued, else begins a new one.
// An attempt whose ID is discard is not joined. The reason says why a stored one was not taken.
func (r *Rewarmer) openAttempt(ctx context.Context, req Request, views viewSet, table Table, target coldTarget, flushes int, discard string) (a attempt, joined bool, reason string, err error) {
	for {
		stored, err := r.loadAttempt(ctx)
		if err != nil {
			return attempt{}, false, "", err
		}
		params := r.params(views)
		if stored.revision != 0 {
			if reason = r.cannotJoin(stored, req, params, target, discard); reason == "" {
				return stored, true, "", nil
			}
		}
		fresh := attempt{
			ID: fmt.Sprintf("%d.%d", req.Run, flushes), Run: req.Run, Segments: req.Segments, Params: params,
			Name: req.Attempt, Cold: target.addrs, Instances: target.instances, Started: feature.MicrosOf(r.cfg.Clock.Now()), revision: stored.revision,
		}
		if !target.all && stored.Finished == 0 {
			fresh.ColdState = stored.ColdState // what was cold then was never filled
		}
		if fresh.Segments == 0 {
			fresh.Segments = segmentsFor(table)
		}
		err = r.saveAttempt(ctx, &fresh)
		switch {
		case err == nil:
			return fresh, false, reason, nil
		case !errors.Is(err, feature.ErrConflict):
			return attempt{}, false, "", err
		case ctx.Err() != nil:
			return attempt{}, false, "", ctx.Err()
		}
		// Another machine was first: join what it began.
		discard = ""
	}
}

func (r *Rewarmer) cannotJoin(stored attempt, req Request, params string, target coldTarget, discard string) string {
	now := feature.MicrosOf(r.cfg.Clock.Now())
	switch {
	case discard == discardAny:
		return "asked to start over"
	case discard == stored.ID:
		return "the online tier was lost since"
	case stored.Finished != 0 && (req.Attempt == "" || req.Attempt != stored.Name):
		return "it has finished"
	case req.Attempt != "" && stored.Name != "" && req.Attempt != stored.Name:
		return "it has another name"
	case stored.Params != params:
		return "views or source changed"
	case req.Segments != 0 && req.Segments != stored.Segments:
		return "another number of segments"
	case now.Sub(stored.Started) > r.cfg.ResumeWithin:
		return "it is older than " + r.cfg.ResumeWithin.String()
	case replaced(stored.Instances, target.instances):
		return "a server of the online tier was replaced or restarted since"
	case len(stored.Cold) > 0 && target.all:
		return "more shards are to be filled now"
	}
	for _, addr := range target.addrs {
		if len(stored.Cold) > 0 && !slices.Contains(stored.Cold, addr) {
			return "shard " + addr + " became cold since"
		}
	}
	return ""
}

// replaced says that a server is there now that was not before.
func replaced(before, now []string) bool {
	return slices.ContainsFunc(now, func(id string) bool { return !slices.Contains(before, id) })
}

// segmentsFor chooses the number of segments: one per 256 MB of table, so that a segment
// takes seconds to minutes and a machine that is handed a range has an even share.
func segmentsFor(t Table) int {
	const per = 256 << 20
	return int(min(max(t.Bytes/per+1, 8), 4000))
}

func (r *Rewarmer) loadAttempt(ctx context.Context) (attempt, error) {
	return r.attemptNamed(ctx, r.stateName(stateAttempt))
}

func (r *Rewarmer) attemptNamed(ctx context.Context, name string) (attempt, error) {
	a, rev, err := load[attempt](ctx, r, name)
	a.revision = rev
	return a, err
}

func (r *Rewarmer) saveAttempt(ctx context.Context, a *attempt) error {
	rev, err := r.save(ctx, r.stateName(stateAttempt), a, a.revision)
	if err == nil {
		a.revision = rev
	}
	return err
}

// load reads a document; an absent one is revision 0. One that is not readable counts as
// empty but keeps its revision, so that it is replaced.
func load[T any](ctx context.Context, r *Rewarmer, name string) (v T, revision int64, err error) {
	var value []byte
	err = r.patiently(ctx, func() (err error) {
		value, revision, err = r.cfg.State.Load(ctx, name)
		return err
	})
	if errors.Is(err, feature.ErrNotFound) {
		return v, 0, nil
	}
	if err != nil {
		return v, 0, fmt.Errorf("rewarm: load state %s: %w", name, err)
	}
	if err := json.Unmarshal(value, &v); err != nil {
		r.cfg.Logger.Warn("rewarm state is not readable: ignored", "name", name, "err", err)
		var empty T // Unmarshal may have filled half of it
		return empty, revision, nil
	}
	return v, revision, nil
}

func (r *Rewarmer) save(ctx context.Context, name string, v any, revision int64) (int64, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("rewarm: encode state %s: %w", name, err)
	}
	var rev int64
	err = r.patiently(ctx, func() (err error) {
		rev, err = r.cfg.State.Save(ctx, name, value, revision)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("rewarm: save state %s: %w", name, err)
	}
	return rev, nil
}

// loadCheckpoints reads the checkpoints of a range of segments; those of another attempt
// come back empty, with the revision that replaces them.
func (r *Rewarmer) loadCheckpoints(ctx context.Context, a attempt, from, to int) ([]*checkpoint, error) {
	cps := make([]*checkpoint, to-from+1)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range cps {
		g.Go(func() error {
			stored, rev, err := load[checkpoint](ctx, r, r.stateName(segmentName(from+i)))
			if err != nil {
				return err
			}
			cp := &stored
			if cp.Attempt != a.ID || cp.Segment != from+i {
				cp = &checkpoint{Attempt: a.ID, Segment: from + i}
			}
			cp.revision = rev
			cps[i] = cp
			return nil
		})
	}
	return cps, g.Wait()
}

func (r *Rewarmer) saveCheckpoint(ctx context.Context, cp *checkpoint) error {
	rev, err := r.save(ctx, r.stateName(segmentName(cp.Segment)), cp, cp.revision)
	if errors.Is(err, feature.ErrConflict) {
		return fmt.Errorf("%w: another run works on segment %d; this one stops", err, cp.Segment)
	}
	if err == nil {
		cp.revision = rev
	}
	return err
}
