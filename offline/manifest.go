package offline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
)

const (
	manifestName    = "manifest.json"
	manifestVersion = 1
)

// Manifest says what a training set is made of and what was found in it.
type Manifest struct {
	Version int    `json:"manifest_version"` // of this format: 1
	Project string `json:"project,omitempty"`
	Dataset string `json:"dataset,omitempty"`
	Service string `json:"service,omitempty"` // feature service, if one was asked for
	Run     uint64 `json:"run,omitempty"`     // of the job that built it; absent when a person did

	Created      time.Time `json:"created"`                 // when the build ended
	Seconds      float64   `json:"seconds"`                 // that the build took
	ConfigDigest string    `json:"config_digest,omitempty"` // of hearth.yaml
	QueryDigest  string    `json:"query_digest"`            // of the statements, without names of files: the same question has the same digest
	Engine       string    `json:"engine"`                  // with its version

	Options  DatasetOptions `json:"options"`
	Assembly Assembly       `json:"assembly"` // how the views were put together
	// Snapshot is set for a snapshot, whose spine is made up of entities at one time.
	Snapshot *SnapshotManifest `json:"snapshot,omitempty"`
	Spine    SpineManifest     `json:"spine"`   // the label rows
	Views    []ViewManifest    `json:"views"`   // one for each view and alias, in order of selection
	Columns  []Column          `json:"columns"` // of the output, in order

	Rows int64 `json:"rows"` // of the output, which are those of the spine
	// Leaks counts rows with a feature newer than the label. It is 0: a build that counts
	// anything else publishes nothing.
	Leaks int64        `json:"leaks"`
	Files []OutputFile `json:"files"` // of the output, in order
	// Digest identifies the content: rows, columns, values and order, independent of how
	// the files are laid out (docs/TRAINING_SETS.md).
	Digest string `json:"digest"`

	dir string // where it was read from or published to
}

// DatasetOptions are the options that shape the rows.
type DatasetOptions struct {
	FullFeatureNames bool `json:"full_feature_names"`
	EventTimestamps  bool `json:"event_timestamps"`
	FillDefaults     bool `json:"fill_defaults"`
	KnownAt          bool `json:"known_at"`
}

// SnapshotManifest says what a snapshot is of.
type SnapshotManifest struct {
	At       Timestamp `json:"at"`
	Entities string    `json:"entities,omitempty"` // the file of entities; empty: every known entity
}

// InputFile is one file that was read.
type InputFile struct {
	feature.File
	Rows    int64 `json:"rows,omitempty"`
	Skipped bool  `json:"skipped,omitempty"` // not read: by its footer or folder, no row of it can matter to a label
}

// SpineManifest describes the label rows.
type SpineManifest struct {
	Path           string        `json:"path"`
	TimestampField string        `json:"timestamp_field"`
	Files          []InputFile   `json:"files"`
	Rows           int64         `json:"rows"`
	NullTimes      int64         `json:"null_times"` // label rows without a time: their features are null
	First          Timestamp     `json:"first"`      // label time; null when there is none
	Last           Timestamp     `json:"last"`
	Timeline       []TimelineBin `json:"timeline,omitempty"` // labels over time; empty bins are left out
}

// TimelineBin counts the labels in [From, To).
type TimelineBin struct {
	From  Timestamp `json:"from"`
	To    Timestamp `json:"to"`
	Count int64     `json:"count"`
}

// ViewManifest describes one joined view.
type ViewManifest struct {
	View       string            `json:"view"`                  // with its version
	Alias      string            `json:"alias"`                 // the name in the columns
	JoinKeys   map[string]string `json:"join_keys"`             // join key to spine column
	TTLSeconds float64           `json:"ttl_seconds,omitempty"` // absent: no bound
	Files      []InputFile       `json:"files"`

	Plan       Plan      `json:"plan"`        // how the newest rows were found
	PlanReason string    `json:"plan_reason"` // why this plan
	PlanStats  PlanStats `json:"plan_stats"`  // the counts behind the choice

	Matched   int64   `json:"matched"`            // rows with a value of this view
	MatchRate float64 `json:"match_rate"`         // matched / rows
	NullKeys  int64   `json:"null_keys"`          // spine rows with a time whose key is null or fits no entity
	Deleted   int64   `json:"deleted,omitempty"`  // rows whose newest version is a tombstone: no value
	Ties      int64   `json:"ties"`               // spine rows whose winner shares its event time with another row
	Rejected  int64   `json:"rejected,omitempty"` // source rows left out: a value was out of range
	Leaks     int64   `json:"leaks"`              // rows with a feature newer than the label: 0
	Stale     int64   `json:"stale"`              // rows with a feature older than the TTL: 0, as Leaks is

	Age      AgeQuantiles      `json:"age_seconds"` // of the feature at its label
	Ages     []AgeBin          `json:"age_histogram,omitempty"`
	AgeScale string            `json:"age_scale,omitempty"` // of the bins: "linear", or "log2" where ages differ by orders
	Features []FeatureManifest `json:"features"`
}

// AgeQuantiles are of the time between label and feature, in seconds.
type AgeQuantiles struct {
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// AgeBin counts the matches with an age in [From, To) seconds.
type AgeBin struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	Count int64   `json:"count"`
}

// FeatureManifest describes one feature column.
type FeatureManifest struct {
	Name     string       `json:"name"`
	Column   string       `json:"column"`
	Type     feature.Type `json:"type"`
	Nulls    int64        `json:"nulls"`     // rows in which the column is null
	NullRate float64      `json:"null_rate"` // nulls / rows
}

// Column is one column of the output, in order.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"` // as DuckDB writes it
}

// OutputFile is one file of the training set, in order.
type OutputFile struct {
	Path   string `json:"path"` // relative to the folder
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Dir is the folder of the training set.
func (m *Manifest) Dir() string { return m.dir }

// newManifest fills what is known before the build.
func (d *dataset) newManifest() *Manifest {
	m := &Manifest{
		Version: manifestVersion, Project: d.req.Project, Dataset: d.req.Name, Service: d.req.Service, Run: d.req.Run,
		ConfigDigest: d.req.ConfigDigest, Engine: "duckdb " + duck.Version(), Rows: d.spine.total, dir: d.req.Output,
		Options: DatasetOptions{FullFeatureNames: d.req.FullFeatureNames, EventTimestamps: d.req.EventTimestamps, FillDefaults: d.req.FillDefaults, KnownAt: d.req.KnownAt},
		Spine:   SpineManifest{Path: d.req.Spine.Path, TimestampField: d.req.Spine.TimestampField, Rows: d.spine.total},
	}
	for i, f := range d.spine.files {
		m.Spine.Files = append(m.Spine.Files, InputFile{File: f.File, Rows: d.spine.rows[i]})
	}
	if m.Snapshot = d.snapshot; m.Snapshot != nil { // its spine is a scratch file
		m.Spine.Path, m.Spine.Files = "", nil
	}
	for i, g := range d.req.Selection.Groups {
		v := ViewManifest{View: g.View.ID().String(), Alias: g.Alias, JoinKeys: map[string]string{}, TTLSeconds: g.View.TTL.Seconds()}
		for _, jk := range g.View.JoinKeys {
			v.JoinKeys[jk.Name] = d.req.keyColumn(g, jk.Name)
		}
		src := d.sources[g.View.ID()]
		for _, f := range src.files {
			v.Files = append(v.Files, InputFile{File: f.File, Skipped: src.skipped[f.Path]})
		}
		for _, c := range d.columns {
			if c.group == i && c.index >= 0 {
				f := g.View.Features[c.index]
				v.Features = append(v.Features, FeatureManifest{Name: f.Name, Column: c.name, Type: f.Type})
			}
		}
		m.Views = append(m.Views, v)
	}
	return m
}

func (m *Manifest) write(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestName), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// ReadManifest reads the manifest of a training set's folder.
func ReadManifest(dir string) (*Manifest, error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read manifest: %w: %s holds no training set (there is no %s)", feature.ErrNotFound, dir, manifestName)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m := &Manifest{dir: dir}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w: %v", filepath.Join(dir, manifestName), feature.ErrCorrupt, err)
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("read manifest %s: %w: version %d, this build reads version %d", filepath.Join(dir, manifestName), feature.ErrUnknownFormat, m.Version, manifestVersion)
	}
	return m, nil
}

// WriteTable describes the training set for people.
func (m *Manifest) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")) }
	line("dataset", m.Dataset, "")
	if m.Service != "" {
		line("feature service", m.Service)
	}
	line("rows", fmt.Sprint(m.Rows))
	line("labels", m.Spine.First.String()+" to "+m.Spine.Last.String())
	line("created", m.Created.Format(time.RFC3339))
	line("leaks", fmt.Sprintf("%d (rows with a feature newer than the label)", m.Leaks))
	line("digest", m.Digest)
	for _, f := range m.Files {
		line("file", f.Path, fmt.Sprintf("%d rows, %d bytes", f.Rows, f.Bytes))
	}
	line()
	line("VIEW", "MATCHED", "RATE", "AGE P50", "AGE P99", "TIES", "DELETED", "REJECTED", "PLAN")
	for _, v := range m.Views {
		name := v.View
		if base, _, _ := strings.Cut(v.View, "@"); base != v.Alias {
			name += " as " + v.Alias
		}
		line(name, fmt.Sprint(v.Matched), percent(v.MatchRate), age(v.Age.P50), age(v.Age.P99), fmt.Sprint(v.Ties), fmt.Sprint(v.Deleted), fmt.Sprint(v.Rejected), string(v.Plan))
	}
	line()
	line("COLUMN", "TYPE", "NULLS", "RATE")
	for _, v := range m.Views {
		for _, f := range v.Features {
			line(f.Column, string(f.Type), fmt.Sprint(f.Nulls), percent(f.NullRate))
		}
	}
	return t.Flush()
}

func percent(share float64) string { return fmt.Sprintf("%.2f %%", 100*share) }

// age shows seconds in the unit that people would use.
func age(seconds float64) string {
	units := []struct {
		name string
		size float64
	}{{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}}
	i := slices.IndexFunc(units, func(u struct {
		name string
		size float64
	}) bool {
		return seconds >= u.size
	})
	if i < 0 {
		return fmt.Sprintf("%.3g s", seconds)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", seconds/units[i].size), ".0") + " " + units[i].name
}
