package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/offline"
)

// DatasetOptions names a dataset of the configuration, or describes one ad hoc.
type DatasetOptions struct {
	Name             string
	Spine            string
	TimestampField   string
	JoinKeys         map[string]string
	Features         []string
	FeatureService   string
	FullFeatureNames bool
	EventTimestamps  bool
	FillDefaults     bool
	KnownAt          bool
	Out              string
	Memory           string
	FileFormat       string
	PartitionRows    int64
}

// DatasetReport is the document of `hearth dataset build --json`.
type DatasetReport struct {
	Dataset  string            `json:"dataset"`
	Rows     int64             `json:"rows"`
	Path     string            `json:"path"`
	Manifest string            `json:"manifest"`
	Seconds  float64           `json:"seconds"`
	Views    []DatasetViewLine `json:"views"`
	Leakage  int64             `json:"leakage_rows"`
	Digest   string            `json:"output_digest"`

	manifest *offline.Manifest
}

// DatasetViewLine is one view of a report.
type DatasetViewLine struct {
	View      string  `json:"view"`
	Matched   int64   `json:"matched"`
	MatchRate float64 `json:"match_rate"`
}

// WriteTable writes the manifest's table for a person.
func (r *DatasetReport) WriteTable(w io.Writer) error {
	if err := r.manifest.WriteTable(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nwritten to %s in %.1f s\n", r.Path, r.Seconds)
	return err
}

// DescribeDataset reads the manifest of a training set.
func DescribeDataset(dir string) (*offline.Manifest, error) { return offline.ReadManifest(dir) }

// EngineVersion is the version of DuckDB that this build carries.
func EngineVersion() string { return offline.Version() }

func (a *App) datasetRequest(d *config.Dataset) offline.DatasetRequest {
	return offline.DatasetRequest{
		Name: d.Name, Project: a.cfg.Project.Name, Service: d.Service,
		Spine:     offline.Spine{Path: d.Spine.Path, TimestampField: d.Spine.TimestampField, JoinKeys: d.Spine.JoinKeys},
		Selection: d.Selection, FullFeatureNames: d.FullFeatureNames, EventTimestamps: d.EventTimestamps,
		FillDefaults: d.FillDefaults, KnownAt: d.KnownAt, Output: d.Output.Path,
		ConfigDigest: a.cfg.Digest, Progress: a.progress,
	}
}

// BuildDataset builds a training set. It needs no tier: a build works on a machine that
// reaches neither Redis nor DynamoDB.
func (a *App) BuildDataset(ctx context.Context, o DatasetOptions) (*DatasetReport, error) {
	req, err := a.resolveDataset(o)
	if err != nil {
		return nil, err
	}
	if err := a.limitMemory(o.Memory); err != nil {
		return nil, err
	}
	return a.buildDataset(ctx, req)
}

// limitMemory sets the memory of the whole process, before the engine is opened: DuckDB's,
// and Go's too unless GOMEMLIMIT says otherwise.
func (a *App) limitMemory(text string) error {
	if text != "" {
		n, err := config.ParseSize(text)
		if err != nil {
			return usage("--memory %q: write a number and a unit: 512MB, 4GB, 4GiB", text)
		}
		a.cfg.Offline.Memory = n
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(offline.GoMemory(a.cfg.Offline.Memory))
	}
	return nil
}

func (a *App) buildDataset(ctx context.Context, req offline.DatasetRequest) (*DatasetReport, error) {
	engine, err := a.offlineEngine(ctx)
	if err != nil {
		return nil, err
	}
	start := a.clock.Now()
	m, err := engine.BuildDataset(ctx, req)
	if err != nil {
		return nil, err
	}
	return datasetReport(m, a.clock.Now().Sub(start)), nil
}

func datasetReport(m *offline.Manifest, took time.Duration) *DatasetReport {
	r := &DatasetReport{
		Dataset: m.Dataset, Rows: m.Rows, Path: m.Dir(), Manifest: filepath.Join(m.Dir(), "manifest.json"),
		Seconds: took.Seconds(), Leakage: m.Leaks, Digest: m.Digest, manifest: m,
	}
	for _, v := range m.Views {
		r.Views = append(r.Views, DatasetViewLine{View: v.View, Matched: v.Matched, MatchRate: v.MatchRate})
	}
	return r
}

// SnapshotOptions are the flags of `hearth dataset snapshot`.
type SnapshotOptions struct {
	FeatureService   string
	Features         []string
	At               string // "" for now
	Entities         string
	JoinKeys         map[string]string
	FullFeatureNames bool
	EventTimestamps  bool
	FillDefaults     bool
	Out              string
	Memory           string
	FileFormat       string
	PartitionRows    int64
}

// Snapshot writes one row per entity with what a reader would have been served at a time.
func (a *App) Snapshot(ctx context.Context, o SnapshotOptions) (*DatasetReport, error) {
	at := feature.MicrosOf(a.clock.Now())
	if o.At != "" {
		var err error
		if at, err = parseBound("at", o.At); err != nil {
			return nil, err
		}
	}
	refs, err := a.featureRefs(o.FeatureService, o.Features)
	if err != nil {
		return nil, err
	}
	sel, err := a.cfg.Project.Resolve(refs)
	if err != nil {
		return nil, err
	}
	if err := a.limitMemory(o.Memory); err != nil {
		return nil, err
	}
	engine, err := a.offlineEngine(ctx)
	if err != nil {
		return nil, err
	}
	name := o.FeatureService
	if name == "" {
		name = "snapshot"
	}
	start := a.clock.Now()
	m, err := engine.Snapshot(ctx, offline.SnapshotRequest{
		Name: name, Project: a.cfg.Project.Name, Selection: sel, At: at, Entities: o.Entities, JoinKeys: o.JoinKeys,
		FullFeatureNames: o.FullFeatureNames, EventTimestamps: o.EventTimestamps, FillDefaults: o.FillDefaults,
		Output: o.Out, FileFormat: o.FileFormat, PartitionRows: o.PartitionRows,
		ConfigDigest: a.cfg.Digest, Service: o.FeatureService, Progress: a.progress,
	})
	if err != nil {
		return nil, err
	}
	return datasetReport(m, a.clock.Now().Sub(start)), nil
}

// DiffOptions say how DiffDatasets compares.
type DiffOptions = offline.DiffOptions

// DiffDatasets compares two training sets. It needs no configuration.
func DiffDatasets(ctx context.Context, x, y string, how DiffOptions, o Options) (diff *offline.Diff, err error) {
	engine, err := offline.Open(ctx, offline.Config{Logger: o.Log, Clock: o.Clock})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	return engine.DatasetDiff(ctx, x, y, how)
}

func (a *App) resolveDataset(o DatasetOptions) (offline.DatasetRequest, error) {
	if o.Spine == "" {
		d, err := a.dataset(o.Name)
		if err != nil {
			return offline.DatasetRequest{}, err
		}
		if len(o.Features) > 0 || o.FeatureService != "" || o.TimestampField != "" || len(o.JoinKeys) > 0 {
			return offline.DatasetRequest{}, usage("--features, --feature-service, --timestamp-field and --join-keys describe an ad hoc set: give --spine too, or change dataset %q in %s", d.Name, a.cfg.Path)
		}
		req := a.datasetRequest(d)
		return applyFlags(req, o), nil
	}
	if o.Out == "" {
		return offline.DatasetRequest{}, usage("an ad hoc training set needs --out DIR")
	}
	refs, err := a.featureRefs(o.FeatureService, o.Features)
	if err != nil {
		return offline.DatasetRequest{}, err
	}
	sel, err := a.cfg.Project.Resolve(refs)
	if err != nil {
		return offline.DatasetRequest{}, err
	}
	name := o.Name
	if name == "" {
		name = "adhoc"
	}
	joinKeys := map[string]string{}
	for _, g := range sel.Groups {
		for _, column := range g.JoinKeys {
			joinKeys[column] = column
		}
	}
	for key, column := range o.JoinKeys {
		joinKeys[key] = column
	}
	field := o.TimestampField
	if field == "" {
		field = "event_timestamp"
	}
	return applyFlags(offline.DatasetRequest{
		Name: name, Project: a.cfg.Project.Name, Service: o.FeatureService,
		Spine:     offline.Spine{Path: o.Spine, TimestampField: field, JoinKeys: joinKeys},
		Selection: sel, ConfigDigest: a.cfg.Digest, Progress: a.progress,
	}, o), nil
}

func applyFlags(req offline.DatasetRequest, o DatasetOptions) offline.DatasetRequest {
	req.FullFeatureNames = req.FullFeatureNames || o.FullFeatureNames
	req.EventTimestamps = req.EventTimestamps || o.EventTimestamps
	req.FillDefaults = req.FillDefaults || o.FillDefaults
	req.KnownAt = req.KnownAt || o.KnownAt
	if o.Out != "" {
		req.Output = o.Out
	}
	req.FileFormat, req.PartitionRows = o.FileFormat, o.PartitionRows
	return req
}

// dataset finds a dataset by name; without a name, the only one.
func (a *App) dataset(name string) (*config.Dataset, error) {
	if name == "" {
		if len(a.cfg.Datasets) == 1 {
			return &a.cfg.Datasets[0], nil
		}
		return nil, usage("name a dataset: %s declares %s", a.cfg.Path, a.datasetNames())
	}
	d := a.cfg.Dataset(name)
	if d == nil {
		return nil, usage("unknown dataset %q: %s declares %s", name, a.cfg.Path, a.datasetNames())
	}
	return d, nil
}

func (a *App) datasetNames() string {
	if len(a.cfg.Datasets) == 0 {
		return "none"
	}
	names := ""
	for i, d := range a.cfg.Datasets {
		if i > 0 {
			names += ", "
		}
		names += d.Name
	}
	return names
}

// featureRefs are the references of a service or of a list; without either, those of the
// only service.
func (a *App) featureRefs(service string, features []string) ([]feature.FeatureRef, error) {
	switch {
	case service != "" && len(features) > 0:
		return nil, usage("give a feature service or features, not both")
	case len(features) > 0:
		refs := make([]feature.FeatureRef, len(features))
		var errs []error
		for i, text := range features {
			var err error
			if refs[i], err = feature.ParseFeatureRef(text); err != nil {
				errs = append(errs, err)
			}
		}
		return refs, errors.Join(errs...)
	case service == "" && len(a.cfg.Project.Services) == 1:
		return a.cfg.Project.Services[0].Features, nil
	case service == "":
		return nil, usage("name a feature service (--feature-service) or features (--features)")
	}
	s := a.cfg.Project.Service(service)
	if s == nil {
		return nil, usage("unknown feature service %q: see feature_services in %s", service, a.cfg.Path)
	}
	return s.Features, nil
}
