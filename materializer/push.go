package materializer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/hearthstore/hearth/feature"
)

// PushRequest is a few rows to write to both tiers now.
type PushRequest struct {
	Run  uint64 // as in Request
	View *feature.View
	// Rows may have a key more than once: the newest wins, and the last one given among
	// equal times.
	Rows []feature.Row
	// Rejects are rows of the same input that could not become a value. They are listed and
	// counted with the others, so that nothing is lost in silence.
	Rejects []feature.Reject
}

// PushReport is what became of the rows. Its JSON is the document of `hearth push --json`.
type PushReport struct {
	Run     uint64         `json:"run"`
	View    feature.ViewID `json:"view"`
	Status  string         `json:"status"`
	Seconds float64        `json:"seconds"`
	Rows    int            `json:"rows"`
	// Rejected counts rows that can never be stored.
	Rejected int64         `json:"rejected"`
	Backing  BackingCounts `json:"backing"`
	Online   OnlineCounts  `json:"online"`
	// Results are the outcomes of the rows, aligned with PushRequest.Rows, then the Rejects.
	Results []PushResult `json:"results"`
}

// PushResult is what became of one row.
type PushResult struct {
	Key feature.Key `json:"key"`
	// Row is the row's place in the input, from 1; 0 when it is one of several of its entity.
	Row int64 `json:"row,omitempty"`
	// Backing and Online are the outcomes in the tiers: written, unchanged, older, expired or
	// failed; erased for a row of a forgotten entity, which is passed over. Online is "" for what the backing tier did not acknowledge as its own. A row is
	// rejected when it can never be stored.
	Backing string `json:"backing"`
	Online  string `json:"online,omitempty"`
	Error   string `json:"error,omitempty"`
}

const rejected = "rejected"

// Push writes rows to both tiers under the rules of Run: the backing tier first, then
// online what it acknowledged, if newer. Sending the same rows again is harmless, and
// brings online what an earlier push could not. The error is nil exactly when the status is
// done; the report is nil only for an invalid request or when the state cannot be read.
func (m *Materializer) Push(ctx context.Context, req PushRequest) (*PushReport, error) {
	if req.Run == 0 || req.View == nil {
		return nil, fmt.Errorf("push: %w: a run number and a view are required", feature.ErrInvalid)
	}
	began := m.clock.Now()
	erased, err := m.erased(ctx)
	if err == nil {
		err = m.admit(ctx, req.View)
	}
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	p := &push{m: m, req: req, erased: erased, now: feature.MicrosOf(began),
		report: &PushReport{Run: req.Run, View: req.View.ID(), Rows: len(req.Rows) + len(req.Rejects), Results: make([]PushResult, len(req.Rows), len(req.Rows)+len(req.Rejects))}}
	p.encode()
	for _, x := range req.Rejects {
		p.report.Rejected++
		p.report.Results = append(p.report.Results, PushResult{Key: feature.Key(x.Key), Row: x.Row, Backing: rejected, Error: x.Reason})
		p.note(fmt.Errorf("row %d: %w: %s", x.Row, feature.ErrInvalid, x.Reason))
	}
	for start := 0; start < len(p.recs); start += m.cfg.BatchSize {
		end := min(start+m.cfg.BatchSize, len(p.recs))
		p.batch(ctx, p.recs[start:end], p.index[start:end])
	}
	for _, d := range p.beaten {
		p.report.Results[d[0]].Backing = p.fate(d[1])
	}
	r := p.report
	r.Seconds = m.clock.Now().Sub(began).Seconds()
	switch {
	case r.Backing.Failed == 0 && r.Online.Behind == 0 && r.Rejected == 0:
		r.Status = StatusDone
		return r, nil
	case r.Backing.acknowledged() == 0:
		r.Status = StatusFailed
	default:
		r.Status = StatusPartial
	}
	return r, fmt.Errorf("push to view %s: %w", req.View.ID(), &feature.PartialError{Op: r.Status, Done: int64(r.Rows) - r.Backing.Failed - r.Online.Behind - r.Rejected,
		Failed: r.Backing.Failed + r.Online.Behind + r.Rejected, Err: p.cause(ctx)})
}

// admit checks the schema, and notes that the project is not empty any more.
func (m *Materializer) admit(ctx context.Context, v *feature.View) error {
	slot := Slot{View: v.ID()}
	was, err := m.cfg.State.Load(ctx, slot)
	if err != nil {
		return fmt.Errorf("view %s: read run state: %w", v.ID(), err)
	}
	if err := m.notRetired(ctx, slot, was, false); err != nil {
		return err
	}
	if err := checkSchema(v, was, false, false); err != nil {
		return err
	}
	if was.saved() && len(added(v, was)) == 0 {
		return nil
	}
	// Run 0: this must not stand in the way of a run that began before.
	p := Progress{Fields: v.Fields(), Watermark: feature.NoTime, Newest: feature.NoTime, LastStatus: "pushed"}
	if was.saved() { // values with the added features are about to be stored
		p = was
		p.Fields = v.Fields()
	}
	if err := m.cfg.State.Save(ctx, slot, p); err != nil && !errors.Is(err, feature.ErrConflict) {
		return fmt.Errorf("view %s: save run state: %w", v.ID(), err)
	}
	return nil
}

type push struct {
	m      *Materializer
	req    PushRequest
	now    feature.Micros
	erased func(feature.Key) (feature.Micros, bool)
	report *PushReport
	recs   []feature.Record
	index  []int    // recs[i] is the row index[i]
	beaten [][2]int // row, and the row of the same key that beat it
	err    error    // the first cause
}

// encode makes the records, the newest row of each key only.
func (p *push) encode() {
	newest := map[feature.Key]int{}
	for i := range p.req.Rows {
		row := &p.req.Rows[i]
		p.report.Results[i].Key = row.Key
		if row.Key == "" || row.Event == feature.NoTime {
			p.refuse(i, fmt.Errorf("%w: the row has no entity key or no event time", feature.ErrInvalid))
			continue
		}
		if guarded(p.erased, row) {
			p.report.Backing.Erased++
			p.report.Results[i].Backing = ForgetErased
			continue
		}
		best, ok := newest[row.Key]
		if !ok {
			newest[row.Key] = i
			continue
		}
		if version(row).Compare(version(&p.req.Rows[best])) >= 0 {
			newest[row.Key] = i
			p.beaten = append(p.beaten, [2]int{best, i})
		} else {
			p.beaten = append(p.beaten, [2]int{i, best})
		}
	}
	finger := p.req.View.Fingerprint()
	for i := range p.req.Rows {
		row := &p.req.Rows[i]
		if at, ok := newest[row.Key]; !ok || at != i {
			continue
		}
		v := version(row)
		v.Run = p.req.Run
		features := row.Features
		if row.Deleted {
			features = nil
		}
		payload := feature.AppendPayload(nil, feature.Header{Fingerprint: finger, Version: v, Tombstone: row.Deleted}, features)
		rec, err := p.m.record(p.req.View, row.Key, payload, p.now)
		switch {
		case err != nil:
			p.refuse(i, err)
		case rec.Retain != feature.NoTime && rec.Retain <= p.now:
			p.report.Backing.Expired++
			p.report.Results[i].Backing = feature.Expired.String()
		default:
			p.recs, p.index = append(p.recs, rec), append(p.index, i)
		}
	}
}

func version(row *feature.Row) feature.Version {
	return feature.Version{Event: row.Event, Created: row.Created}
}

func (p *push) refuse(i int, err error) {
	p.report.Rejected++
	p.report.Results[i].Backing, p.report.Results[i].Error = rejected, err.Error()
	p.note(fmt.Errorf("row %d: %w", i+1, err))
}

func (p *push) note(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *push) cause(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.err
}

// fate is what became of a row that another row of the push beat.
func (p *push) fate(winner int) string {
	switch p.report.Results[winner].Backing {
	case feature.Written.String(), feature.Unchanged.String(), "":
		return feature.Older.String()
	}
	return p.report.Results[winner].Backing
}

// batch puts records into the backing tier and then into the online tier.
func (p *push) batch(ctx context.Context, recs []feature.Record, index []int) {
	results, err := p.m.cfg.Backing.Put(ctx, recs)
	if len(results) != len(recs) {
		if err == nil {
			err = fmt.Errorf("backing tier returned %d results for %d records", len(results), len(recs))
		}
		results = failedResults(len(recs), err)
	}
	var (
		keep []feature.Record
		rows []int
	)
	for i, res := range results {
		rec, out := recs[i], &p.report.Results[index[i]]
		out.Backing = res.Outcome.String()
		switch res.Outcome {
		case feature.Written:
			p.report.Backing.Written++
		case feature.Unchanged:
			p.report.Backing.Unchanged++
			rec.Version = res.Stored
			feature.SetVersion(rec.Payload, res.Stored)
		case feature.Older:
			p.report.Backing.Older++
			continue
		case feature.Expired:
			p.report.Backing.Expired++
			continue
		default:
			if errors.Is(res.Err, feature.ErrInvalid) {
				p.refuse(index[i], res.Err)
				continue
			}
			p.report.Backing.Failed++
			p.fail(out, res.Err)
			continue
		}
		if rec.Online != feature.NoTime && rec.Online <= p.now && !rec.Tombstone() {
			p.report.Online.Expired++
			out.Online = feature.Expired.String()
			continue
		}
		keep, rows = append(keep, rec), append(rows, index[i])
	}
	if len(keep) > 0 {
		p.online(ctx, keep, rows)
	}
}

func (p *push) online(ctx context.Context, recs []feature.Record, index []int) {
	results, err := p.m.cfg.Online.Put(ctx, recs)
	if len(results) != len(recs) {
		if err == nil {
			err = fmt.Errorf("online tier returned %d results for %d records", len(results), len(recs))
		}
		results = failedResults(len(recs), err)
	}
	for i, res := range results {
		out := &p.report.Results[index[i]]
		out.Online = res.Outcome.String()
		o := &p.report.Online
		switch res.Outcome {
		case feature.Written:
			o.Written++
		case feature.Unchanged:
			o.Unchanged++
		case feature.Older:
			o.Older++
		case feature.Expired:
			o.Expired++
		default:
			o.Failed++
			o.Behind++
			p.fail(out, res.Err)
		}
	}
}

func (p *push) fail(out *PushResult, err error) {
	if err == nil {
		err = feature.ErrUnreachable
	}
	out.Error = err.Error()
	p.note(fmt.Errorf("key %s: %w", out.Key, err))
}

func failedResults(n int, err error) []feature.PutResult {
	results := make([]feature.PutResult, n)
	for i := range results {
		results[i].Err = err
	}
	return results
}

// WriteTable writes the report for people: the counts, and each row that did not make it.
func (r *PushReport) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "push %d to %s: %s, %d rows: %d written, %d unchanged, %d older, %d failed, %d rejected; online %d written, %d behind\n",
		r.Run, r.View, r.Status, r.Rows, r.Backing.Written, r.Backing.Unchanged, r.Backing.Older, r.Backing.Failed, r.Rejected, r.Online.Written, r.Online.Behind)
	shown := 0
	for i, res := range r.Results {
		if res.Error == "" || shown >= listMax {
			continue
		}
		shown++
		row := res.Row
		if row == 0 {
			row = int64(i + 1)
		}
		fmt.Fprintf(t, "row %d\t%s\tbacking %s\tonline %s\t%s\n", row, res.Key, res.Backing, res.Online, res.Error)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
