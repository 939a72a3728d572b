package offline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
	"github.com/hearthstore/hearth/sql"
)

// dataset is one build in progress.
type dataset struct {
	*session
	req      DatasetRequest
	spine    *spine
	sources  map[feature.ViewID]*source
	columns  []outputColumn
	manifest *Manifest
	queries  hash.Hash // of the statements, for the query digest
	snapshot *SnapshotManifest
	assembly Assembly
	doing    string   // what the running statement is for
	shelves  []string // the scratch files of the views, where they are shelved
	winners  []sql.Winners
	indexes  []*indexed // whose results the last step needs; nil where there is none
}

// outputColumn is one column of the training set beyond the spine's.
type outputColumn struct {
	name  string
	expr  string // over m0, m1, …
	kind  string // declared type
	group int    // position in Selection.Groups
	index int    // position in the view's features; -1 for the event timestamp
}

// CheckDataset reports what stands in the way of a training set: the spine, the views'
// sources and the names of the output columns. Only schemas are read.
func (e *Engine) CheckDataset(ctx context.Context, req DatasetRequest) feature.Problems {
	s, err := e.session(ctx)
	if err != nil {
		return feature.Problems{{Message: err.Error()}}
	}
	defer func() { _ = s.close() }()
	var problems feature.Problems
	d := &dataset{session: s, req: req}
	if err := d.validate(); err != nil {
		return append(problems, listed(err)...)
	}
	if d.spine, err = s.openSpine(ctx, req.Spine, req.keyTypes()); err != nil {
		problems = append(problems, listed(err)...)
	}
	seen := map[feature.ViewID]bool{}
	for _, g := range req.Selection.Groups {
		if d.spine != nil {
			_, more := d.spine.keys(&req, g)
			problems = append(problems, more...)
		}
		if !seen[g.View.ID()] {
			seen[g.View.ID()] = true
			problems = append(problems, s.check(ctx, g.View)...)
		}
	}
	if d.spine != nil {
		problems = append(problems, d.name()...)
	}
	return problems
}

// listed makes problems of an error.
func listed(err error) feature.Problems {
	var problems feature.Problems
	if errors.As(err, &problems) {
		return problems
	}
	return feature.Problems{{Message: err.Error()}}
}

// BuildDataset joins the selected features to the spine point in time and publishes the
// result as a folder of Parquet (or CSV) and manifest.json. The folder appears whole or
// not at all; of two builds of one output the later fails with feature.ErrLeaseHeld.
// Whatever fails, an earlier training set in the same place is kept.
func (e *Engine) BuildDataset(ctx context.Context, req DatasetRequest) (m *Manifest, err error) {
	s, err := e.session(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, s.close()); err != nil {
			m, err = nil, fmt.Errorf("build dataset %s: %w", req.Name, e.explain(err))
		}
	}()
	return (&dataset{session: s, req: req, sources: map[feature.ViewID]*source{}, queries: newDigest()}).build(ctx)
}

// build runs a dataset from its request to its publication.
func (d *dataset) build(ctx context.Context) (m *Manifest, err error) {
	started := d.engine.config.Clock.Now()
	if err := d.validate(); err != nil {
		return nil, err
	}
	req := d.req
	p, err := newPublisher(req.Output) // first, so that of two builds the second fails before its work
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	d.watchDownloads()
	if err := d.follow(ctx); err != nil {
		return nil, err
	}
	if err := d.bind(ctx); err != nil {
		return nil, err
	}
	d.assembly = d.assemble()
	d.manifest.Assembly = d.assembly
	defer func() { err = errors.Join(err, d.closeIndexes(ctx)) }()
	for i := range req.Selection.Groups {
		if err := d.join(ctx, i); err != nil {
			return nil, fmt.Errorf("join view %s: %w", req.Selection.Groups[i].Alias, err)
		}
	}
	target := p.dir
	if d.req.FileFormat == "csv" { // which holds no types: what is audited is Parquet
		target = d.dir
	}
	if err := d.write(ctx, target); err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	if err := d.audit(ctx, target); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if d.req.FileFormat == "csv" {
		if err := d.convertOutput(ctx, target, p.dir); err != nil {
			return nil, fmt.Errorf("write CSV: %w", err)
		}
	}
	if err := d.sumFiles(ctx, p.dir); err != nil {
		return nil, err
	}
	if err := d.unchanged(); err != nil {
		return nil, err
	}
	now := d.engine.config.Clock.Now()
	d.manifest.Created, d.manifest.Seconds = now.UTC(), now.Sub(started).Seconds()
	d.manifest.QueryDigest = hex.EncodeToString(d.queries.Sum(nil))
	if err := d.manifest.write(p.dir); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := p.publish(); err != nil {
		return nil, err
	}
	req.Progress.Report(telemetry.Progress{Stage: "done", Unit: "rows", Done: d.spine.total, Total: d.spine.total})
	return d.manifest, nil
}

// newDigest starts a query digest.
func newDigest() hash.Hash { return sha256.New() }

func (d *dataset) validate() error {
	req := &d.req
	var problems feature.Problems
	add := func(path, format string, args ...any) {
		problems = append(problems, feature.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if req.Selection == nil || len(req.Selection.Order) == 0 {
		add("features", "no feature is selected")
		return problems
	}
	if req.Output == "" {
		add("output.path", "no output folder is given")
	}
	switch req.FileFormat {
	case "":
		req.FileFormat = "parquet"
	case "parquet", "csv":
	default:
		add("output.format", "unknown format %q; use parquet or csv", req.FileFormat)
	}
	if req.PartitionRows < 0 {
		add("output.partition_rows", "must not be negative")
	}
	for _, g := range req.Selection.Groups {
		if why := req.Plan.forbids(g.View); why != "" {
			add("plan", "view %s: %s", g.Alias, why)
		}
	}
	return problems.Err()
}

// bind opens the spine and the sources and names the output columns. It returns every
// problem at once.
func (d *dataset) bind(ctx context.Context) error {
	var (
		problems feature.Problems
		err      error
	)
	collect := func(err error) error {
		var more feature.Problems
		if errors.As(err, &more) {
			problems = append(problems, more...)
			return nil
		}
		return err
	}
	d.begin("open spine")
	if d.spine, err = d.openSpine(ctx, d.req.Spine, d.req.keyTypes()); err != nil {
		if err = collect(err); err != nil {
			return fmt.Errorf("open spine: %w", err)
		}
	}
	labels, nullTimes := never, int64(0) // of a spine that cannot be read, nothing is needed but the schemas
	if d.spine != nil {
		if nullTimes, labels, err = d.checkTimes(ctx, d.spine); err != nil {
			if err = collect(err); err != nil {
				return fmt.Errorf("read label times: %w", err)
			}
		}
	}
	for i, g := range d.req.Selection.Groups {
		if d.spine != nil {
			_, more := d.spine.keys(&d.req, g)
			problems = append(problems, more...)
		}
		if _, ok := d.sources[g.View.ID()]; ok {
			continue
		}
		d.beginView(i, opening(g.View))
		src, err := d.open(ctx, g.View, nil, needs(labels, g.View))
		if err != nil {
			if err = collect(err); err != nil {
				return fmt.Errorf("open view %s: %w", g.View.ID(), err)
			}
		}
		d.sources[g.View.ID()] = src
	}
	if d.spine != nil {
		problems = append(problems, d.name()...)
	}
	if len(problems) > 0 {
		return problems
	}
	d.manifest = d.newManifest()
	d.manifest.Spine.NullTimes = nullTimes
	d.winners, d.indexes = make([]sql.Winners, len(d.req.Selection.Groups)), make([]*indexed, len(d.req.Selection.Groups))
	return nil
}

// name decides the output columns: a feature's own name, or view__feature with
// FullFeatureNames and wherever two features would collide.
func (d *dataset) name() feature.Problems {
	var problems feature.Problems
	sel := d.req.Selection
	short := map[string]int{}
	for i := range sel.Order {
		short[sel.Field(i).Name]++
	}
	taken := map[string]string{}
	for _, name := range d.spine.names {
		taken[strings.ToLower(name)] = "the spine's column"
	}
	add := func(c outputColumn, what string) {
		// DuckDB and pandas readers of it compare names without case.
		if by, ok := taken[strings.ToLower(c.name)]; ok {
			remedy := "give one of the views another name with as:"
			if by == "the spine's column" {
				remedy = "set full_feature_names: true, or rename the spine's column"
			}
			problems = append(problems, feature.Problem{Path: "features", Message: fmt.Sprintf("column %q of %s would collide with %s", c.name, what, by), Remedy: remedy})
			return
		}
		taken[strings.ToLower(c.name)] = what
		d.columns = append(d.columns, c)
	}
	for i, o := range sel.Order {
		f := sel.Field(i)
		full := strings.Replace(sel.Name(i), ":", "__", 1)
		c := outputColumn{name: f.Name, kind: string(f.Type), group: o.Group, index: o.Feature}
		if d.req.FullFeatureNames || short[f.Name] > 1 {
			c.name = full
		}
		c.expr = outputExpr(fmt.Sprintf("m%d.f%d", o.Group, o.Feature), f.Type)
		if d.req.FillDefaults && !f.Default.IsNull() {
			text, err := literalOf(f.Default, f.Type)
			if err != nil {
				problems = append(problems, feature.Problem{Path: "features." + f.Name, Message: err.Error()})
				continue
			}
			c.expr = fmt.Sprintf("coalesce(%s, %s)", c.expr, text)
		}
		add(c, "feature "+sel.Name(i))
	}
	if d.req.EventTimestamps {
		for i, g := range sel.Groups {
			alias := g.Alias
			if g.View.Version != 1 && alias == g.View.Name {
				alias = g.View.ID().String()
			}
			add(outputColumn{name: alias + "__event_timestamp", kind: string(feature.Timestamp), expr: fmt.Sprintf("make_timestamptz(m%d.ev)", i), group: i, index: -1},
				"the event time of "+alias)
		}
	}
	return problems
}

// run renders a template and executes it.
func (d *dataset) run(ctx context.Context, name string, data any) error {
	text, err := sql.DuckDB(name, data)
	if err != nil {
		return err
	}
	return d.Exec(ctx, text)
}

// describeJoin makes the narrow spine s<i> of one group, and returns the join over it.
func (d *dataset) describeJoin(ctx context.Context, i int) (sql.Join, error) {
	g := d.req.Selection.Groups[i]
	src := d.sources[g.View.ID()]
	keys, problems := d.spine.keys(&d.req, g)
	if len(problems) > 0 {
		return sql.Join{}, problems
	}
	j := sql.Join{
		N: i, Keys: keys, Scan: src.scan, TTL: int64(g.View.TTL / time.Microsecond), KnownAt: d.req.KnownAt,
		Spine: sql.Spine{From: d.spine.from, RowID: d.spine.rowID, Time: d.spine.time},
		Fetch: slices.Clone(g.Features),
	}
	slices.Sort(j.Fetch)
	d.beginView(i, "labels")
	if err := d.run(ctx, "spine", j); err != nil {
		return j, err
	}
	in, rows, err := d.spineRange(ctx, i, j.TTL)
	if err != nil {
		return j, err
	}
	j.Bounds = src.bounds(in.lo, in.hi)
	v := &d.manifest.Views[i]
	v.PlanStats.SpineRows, v.NullKeys = rows, d.spine.total-d.manifest.Spine.NullTimes-rows
	return j, nil
}

// join finds the winners of one group, and where their features are.
func (d *dataset) join(ctx context.Context, i int) error {
	src, v := d.sources[d.req.Selection.Groups[i].View.ID()], &d.manifest.Views[i]
	j, err := d.describeJoin(ctx, i)
	if err != nil {
		return err
	}
	plan, why, st, err := d.choose(ctx, j, src, v.PlanStats.SpineRows)
	if err != nil {
		return err
	}
	if d.req.Plan != PlanAuto {
		plan, why = d.req.Plan, "asked for"
	}
	v.Plan, v.PlanReason, v.PlanStats = plan, why, st
	if plan == PlanIndex {
		why, err := d.joinIndexed(ctx, i, j, v)
		if err != nil {
			return err
		}
		if why != "" {
			plan, v.Plan, v.PlanReason = PlanASOF, PlanASOF, why
		}
	}
	if plan != PlanIndex {
		if err := d.joinTables(ctx, i, j, plan, v); err != nil {
			return err
		}
	}
	if src.faulty() {
		query := fmt.Sprintf("SELECT count(*) FROM %s WHERE NOT (%s)", src.from, strings.Join(src.scan.Where, " AND "))
		if err := d.QueryRow(ctx, query, &v.Rejected); err != nil {
			return err
		}
	}
	if err := d.Exec(ctx, fmt.Sprintf("DROP TABLE s%d", i)); err != nil {
		return err
	}
	if d.assembly == AssemblyShelf {
		d.beginView(i, "keep")
		return d.shelve(ctx, i, j)
	}
	return nil
}

// faulty reports whether rows of the source are left out for values out of range.
func (src *source) faulty() bool { return len(src.scan.Where) > 0 }

// digestQuery adds what a join asks to the query digest, without names of files: the same
// question over other files is the same question.
func (d *dataset) digestQuery(j sql.Join, templates ...string) {
	j.Scan.From, j.Spine.From, j.Spine.RowID, j.Bounds, j.Limit = "source", "spine", "row", nil, 0
	j.Scan.Place, j.Call = "row", sql.Named("index")
	for _, name := range templates {
		if text, err := sql.DuckDB(name, j); err == nil {
			_, _ = d.queries.Write([]byte(text))
		}
	}
}

// unchanged checks that no input changed during the build.
func (d *dataset) unchanged() error {
	if err := unchanged(d.spine.files); err != nil {
		return fmt.Errorf("spine: %w", err)
	}
	for id, src := range d.sources {
		if err := unchanged(src.files); err != nil {
			return fmt.Errorf("view %s: %w", id, err)
		}
	}
	return nil
}
