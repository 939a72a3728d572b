package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	creditscoring "github.com/hearthstore/hearth/examples/credit_scoring"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// DemoOptions are the flags of `hearth demo`.
type DemoOptions struct {
	// Dir is the folder to make. A folder that an earlier demo made is made anew; any other
	// that exists is refused.
	Dir string
	// Program is how a person would call this binary again.
	Program string
	// Out receives the narration.
	Out io.Writer
	Options
}

// DemoReport is the document of `hearth demo --json`.
type DemoReport struct {
	Path        string     `json:"path"`
	Seconds     float64    `json:"seconds"`
	Steps       []DemoStep `json:"steps"`
	Rows        int64      `json:"dataset_rows"`
	Written     int64      `json:"materialized"`
	Rewarmed    int64      `json:"rewarmed"`
	Compared    int64      `json:"verified"`
	Differences int64      `json:"differences"`
}

// DemoStep is one part of the story.
type DemoStep struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// demoMark names the file by which the demo knows a folder of its own.
const demoMark = ".hearth-demo"

// demoApplicant has a row in every table of the sample. demoStranger is the applicant that
// the public tutorials of this data set ask about; the sample has no credit history of
// theirs, so the answer shows what a model gets then.
const (
	demoApplicant = "zipcode=43128,dob_ssn=19450101_7094"
	demoStranger  = "zipcode=76104,dob_ssn=19630621_4278"
)

type demo struct {
	o      DemoOptions
	app    *App
	report DemoReport
	start  time.Time
}

// Demo tells the whole story on real data with the embedded tiers.
func Demo(ctx context.Context, o DemoOptions) (*DemoReport, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("demo folder: %w", err)
	}
	if err := makeDemoFolder(dir); err != nil {
		return nil, err
	}
	o.ConfigPath = filepath.Join(dir, "hearth.yaml")
	a, err := Open(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	d := &demo{o: o, app: a, report: DemoReport{Path: dir}, start: a.clock.Now()}
	err = d.tell(ctx)
	if cerr := a.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	d.report.Seconds = a.clock.Now().Sub(d.start).Seconds()
	d.farewell()
	return &d.report, nil
}

// makeDemoFolder unpacks the example into dir.
func makeDemoFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		if _, err := os.Stat(filepath.Join(dir, demoMark)); err != nil {
			return usage("%s exists and was not made by a demo; name another folder with --dir", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("clear the earlier demo: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the demo folder: %w", err)
	}
	mark := filepath.Join(dir, demoMark)
	if err := os.WriteFile(mark, []byte("Made by hearth demo; the next demo replaces this folder.\n"), 0o600); err != nil {
		return fmt.Errorf("make the demo folder: %w", err)
	}
	if err := os.CopyFS(dir, creditscoring.FS()); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("unpack the sample data: %w", err)
	}
	return nil
}

func (d *demo) tell(ctx context.Context) error {
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"Validate the configuration against the Parquet behind it", d.validate},
		{"Build the training set: each loan with what was known at its time", d.dataset},
		{"Materialize the latest values: the durable tier first, then the online tier", d.materialize},
		{"Lose the online tier", d.lose},
		{"Read a loan applicant: readers fall back to the durable tier", d.read(feature.TierBacking)},
		{"Rewarm the online tier from the durable tier", d.rewarm},
		{"Verify: compare every value of both tiers", d.verify},
		{"Read again: the online tier answers", d.read(feature.TierOnline)},
	}
	for i, s := range steps {
		d.say("\n%d. %s\n\n", i+1, s.name)
		began := d.app.clock.Now()
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("demo step %d (%s): %w", i+1, s.name, err)
		}
		d.report.Steps = append(d.report.Steps, DemoStep{Name: s.name, Seconds: d.app.clock.Now().Sub(began).Seconds()})
	}
	return nil
}

// say narrates. The story must not fail because nobody listens any more.
func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.o.Out, format, args...) }

func (d *demo) validate(ctx context.Context) error {
	r, err := d.app.Validate(ctx, false)
	if err != nil {
		return err
	}
	return r.WriteTable(&indent{w: d.o.Out})
}

func (d *demo) dataset(ctx context.Context) error {
	r, err := d.app.BuildDataset(ctx, DatasetOptions{Name: "loans"})
	if err != nil {
		return err
	}
	d.report.Rows = r.Rows
	return r.WriteTable(&indent{w: d.o.Out})
}

func (d *demo) materialize(ctx context.Context) error {
	r, err := d.app.Materialize(ctx, MaterializeOptions{})
	if err != nil {
		return err
	}
	for _, v := range r.Views {
		d.report.Written += v.Backing.Written
	}
	return r.WriteTable(&indent{w: d.o.Out})
}

func (d *demo) lose(ctx context.Context) error {
	on, err := d.app.onlineTier(ctx)
	if err != nil {
		return err
	}
	before, err := on.Info(ctx)
	if err != nil {
		return err
	}
	if err := on.FlushAll(ctx); err != nil {
		return err
	}
	after, err := on.Info(ctx)
	if err != nil {
		return err
	}
	d.say("   keys before: %d, after FLUSHALL: %d\n", before.Keys, after.Keys)
	return nil
}

func (d *demo) read(want feature.Tier) func(context.Context) error {
	return func(ctx context.Context) error {
		r, err := d.app.Get(ctx, GetOptions{Keys: []string{demoApplicant}, FeatureService: "credit_score_v1"})
		if err != nil {
			return err
		}
		if err := r.WriteTable(&indent{w: d.o.Out}); err != nil {
			return err
		}
		return checkTier(r, want)
	}
}

// checkTier makes the story honest: it fails if another tier answered than it says.
func checkTier(r *reader.Response, want feature.Tier) error {
	row := r.Row(0)
	for i := range row.Len() {
		if it := row.At(i); it.Tier != want || it.Status != feature.Present {
			return fmt.Errorf("%s came from the %s tier with status %s, not from %s", it.Name, it.Tier, it.Status, want)
		}
	}
	return nil
}

func (d *demo) rewarm(ctx context.Context) error {
	r, err := d.app.Rewarm(ctx, RewarmOptions{IfCold: true})
	if err != nil {
		return err
	}
	d.report.Rewarmed = r.Written
	if err := r.WriteTable(&indent{w: d.o.Out}); err != nil {
		return err
	}
	if !r.Cold || !r.OK() {
		return fmt.Errorf("the rewarm ended %s (cold: %v)", r.Status, r.Cold)
	}
	return nil
}

func (d *demo) verify(ctx context.Context) error {
	r, err := d.app.Verify(ctx, VerifyOptions{Fraction: 1})
	if err != nil {
		return err
	}
	if err := r.WriteTable(&indent{w: d.o.Out}); err != nil {
		return err
	}
	d.report.Compared = r.Compared
	d.report.Differences = r.Missing + r.Older + r.Different + r.Extra
	if !r.OK() {
		return errors.New("the tiers differ")
	}
	return nil
}

func (d *demo) farewell() {
	d.say("\nThe whole story took %.1f s. It is in %s: hearth.yaml, the training set with its\nmanifest in out/loans, the durable tier in .hearth. Steps:\n\n", d.report.Seconds, d.report.Path)
	t := tabwriter.NewWriter(d.o.Out, 0, 0, 2, ' ', 0)
	for i, s := range d.report.Steps {
		_, _ = fmt.Fprintf(t, "  %d\t%s\t%6.2f s\n", i+1, s.Name, s.Seconds)
	}
	_ = t.Flush()
	config := shellWord(filepath.Join(d.o.Dir, "hearth.yaml"))
	d.say("\nTry next (the embedded online tier ended with this process, so the durable tier answers):\n\n")
	d.say("  %s -c %s get %s\n", d.o.Program, config, demoStranger)
	d.say("  %s dataset describe %s\n", d.o.Program, shellWord(filepath.Join(d.o.Dir, "out", "loans")))
	d.say("  %s -c %s status\n", d.o.Program, config)
}

// shellWord is a path as a person can paste it.
func shellWord(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%~", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// indent shifts what is written to it by three columns, so that tables stand under their
// headings. It remembers across writes whether a line has begun.
type indent struct {
	w     io.Writer
	begun bool
}

func (x *indent) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+64)
	for _, c := range p {
		if !x.begun && c != '\n' {
			out = append(out, "   "...)
		}
		out = append(out, c)
		x.begun = c != '\n'
	}
	if _, err := x.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
