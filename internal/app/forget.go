package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/jobs"
	"github.com/hearthstore/hearth/materializer"
)

// ForgetOptions are the flags of `hearth forget`.
type ForgetOptions struct {
	Key       string        // "name=value,name=value", or a canonical key
	Guard     time.Duration // 0: the default
	Composite bool          // also entities of several join keys that contain these
}

// ForgetReport is the document of `hearth forget --json`. It names entities by digest.
type ForgetReport struct {
	Run      uint64            `json:"run"`
	Status   string            `json:"status"`
	Seconds  float64           `json:"seconds"`
	Entities []ForgottenEntity `json:"entities"`
	Copies   ForgottenCopies   `json:"copies"`
	Warnings []string          `json:"warnings,omitempty"`
	Error    string            `json:"error,omitempty"`
}

// ForgottenEntity is what was done about one entity.
type ForgottenEntity struct {
	Entity     string                      `json:"entity"` // the digest in the erasure record
	GuardUntil time.Time                   `json:"guard_until"`
	Views      []materializer.ForgetResult `json:"views"`
}

// ForgottenCopies counts what else named the entity and does not any more.
type ForgottenCopies struct {
	HotKeys       int `json:"hot_keys"`           // entries of the readers' stored sketches
	Checkpoints   int `json:"rewarm_checkpoints"` // of an unfinished rewarm
	LedgerEntries int `json:"ledger_entries"`     // reports that listed it among failures
	RejectLines   int `json:"reject_lines"`       // of rejects files on this machine
}

// Forget erases an entity from both tiers and from what else names it.
func (a *App) Forget(ctx context.Context, o ForgetOptions) (*ForgetReport, error) {
	entity, err := parseEntity(o.Key)
	if err != nil {
		return nil, err
	}
	f := &forgetting{app: a, opt: o, report: &ForgetReport{Entities: []ForgottenEntity{}}}
	if f.key, f.views, err = a.entityKey(entity); err != nil {
		return nil, err
	}
	if o.Guard != 0 && o.Guard < materializer.MinGuard {
		return nil, usage("--guard %s: give at least %s, longer than any writer may hold a value back", o.Guard, materializer.MinGuard)
	}
	back, err := a.answeringBacking(ctx)
	if err != nil {
		return nil, err
	}
	targets, err := f.targets(ctx, back)
	if err != nil {
		return nil, f.mask(err)
	}
	began := a.clock.Now()
	ran := false
	err = a.execute(ctx, "forget", []string{"forget"}, func(ctx context.Context, run uint64) (jobs.Result, error) {
		ran = true
		f.report.Run = run
		err := f.mask(f.do(ctx, back, run, targets))
		f.report.conclude(err)
		f.report.Seconds = a.clock.Now().Sub(began).Seconds()
		return jobs.Result{Status: f.report.Status, Detail: f.report}, err
	})
	if !ran {
		return nil, f.mask(err)
	}
	return f.report, f.mask(err)
}

func (r *ForgetReport) conclude(err error) {
	erased := false
	for _, e := range r.Entities {
		for _, v := range e.Views {
			erased = erased || v.Backing != materializer.ForgetFailed
		}
	}
	switch {
	case err == nil:
		r.Status = materializer.StatusDone
		return
	case erased:
		r.Status = materializer.StatusPartial
	default:
		r.Status = materializer.StatusFailed
	}
	r.Error = err.Error()
}

// entityKey finds the views of an entity by the names of its join keys, and its key. Where no
// view is declared (any more), the key is that of the values as they are given.
func (a *App) entityKey(entity map[string]string) (feature.Key, []feature.ViewID, error) {
	var (
		key   feature.Key
		views []feature.ViewID
	)
	for i := range a.cfg.Project.Views {
		v := &a.cfg.Project.Views[i]
		if !sameNames(v.JoinKeys, entity) {
			continue
		}
		k, err := v.Key(entity)
		if err != nil {
			return "", nil, err
		}
		if key != "" && k != key {
			return "", nil, usage("views %s and %s declare these join keys with different types", views[0], v.ID())
		}
		key, views = k, append(views, v.ID())
	}
	if key != "" {
		return key, views, nil
	}
	var parts []feature.KeyPart
	for _, name := range slices.Sorted(maps.Keys(entity)) {
		parts = append(parts, feature.KeyPart{Name: name, Value: entity[name]})
	}
	key, err := feature.NewKey(parts...)
	return key, nil, err
}

func sameNames(keys []feature.JoinKey, entity map[string]string) bool {
	return len(keys) == len(entity) && hasNames(keys, entity)
}

// hasNames reports whether all names of the entity are among the join keys.
func hasNames(keys []feature.JoinKey, entity map[string]string) bool {
	for name := range entity {
		if !slices.ContainsFunc(keys, func(k feature.JoinKey) bool { return k.Name == name }) {
			return false
		}
	}
	return true
}

// forgetting is one erasure.
type forgetting struct {
	app    *App
	opt    ForgetOptions
	key    feature.Key
	views  []feature.ViewID // declared ones of this key
	keys   []feature.Key    // what is erased: key and, with Composite, those that contain it
	digest backing.Digester
	report *ForgetReport
}

func (f *forgetting) do(ctx context.Context, back backing.Store, run uint64, targets []target) error {
	m, err := f.app.materializerOf(ctx, nil)
	if err != nil {
		return err
	}
	if f.digest, err = backing.NewDigester(ctx, back); err != nil {
		return err
	}
	var errs []error
	for _, t := range targets {
		errs = append(errs, f.erase(ctx, m, back, run, t))
	}
	// The records of the erasure are there by now: readers do not store the key again.
	errs = append(errs, f.copies(ctx, back))
	f.warn()
	return errors.Join(errs...)
}

// target is one key with the view versions to erase it from.
type target struct {
	key  feature.Key
	refs []feature.Ref
}

func (f *forgetting) targets(ctx context.Context, back backing.Store) ([]target, error) {
	stored, err := back.ViewsOf(ctx, f.key)
	if err != nil {
		return nil, err
	}
	if len(f.views) == 0 && len(stored) == 0 && !f.opt.Composite {
		return nil, usage("no declared view has exactly these join keys, and the backing tier holds nothing under them; the views have: %s", f.app.joinKeySets())
	}
	views := slices.Concat(f.views, stored)
	slices.SortFunc(views, compareViews)
	t := target{key: f.key}
	for _, id := range slices.Compact(views) {
		t.refs = append(t.refs, feature.Ref{View: id, Key: f.key})
	}
	var targets []target
	if len(t.refs) > 0 {
		targets = append(targets, t)
	}
	if f.opt.Composite {
		more, err := f.containing(ctx, back)
		if err != nil {
			return nil, err
		}
		targets = append(targets, more...)
	}
	for _, t := range targets {
		f.keys = append(f.keys, t.key)
	}
	return targets, nil
}

func compareViews(a, b feature.ViewID) int {
	if a.Name != b.Name {
		return strings.Compare(a.Name, b.Name)
	}
	return a.Version - b.Version
}

// containing scans the backing tier for the keys that hold all parts of the key and more.
func (f *forgetting) containing(ctx context.Context, back backing.Store) ([]target, error) {
	want, err := f.key.Parts()
	if err != nil {
		return nil, err
	}
	found := map[feature.Key][]feature.Ref{}
	var page feature.ScanPage
	for req := (feature.ScanRequest{Segments: 1}); ; {
		if err := back.Scan(ctx, req, &page); err != nil {
			return nil, err
		}
		for i := range page.Records {
			key := page.Records[i].Key
			if key == f.key || !containsParts(key, want) {
				continue
			}
			key = feature.Key(strings.Clone(string(key)))
			found[key] = append(found[key], feature.Ref{View: page.Records[i].View, Key: key})
		}
		if page.Next == nil {
			break
		}
		req.Cursor = slices.Clone(page.Next)
	}
	var out []target
	for _, key := range slices.Sorted(maps.Keys(found)) {
		out = append(out, target{key: key, refs: found[key]})
	}
	return out, nil
}

func containsParts(key feature.Key, want []feature.KeyPart) bool {
	parts, err := key.Parts()
	if err != nil {
		return false
	}
	for _, w := range want {
		if !slices.Contains(parts, w) {
			return false
		}
	}
	return true
}

// erase erases one key. Its record is written before, so that a kill leaves a line that says
// what was begun, and again after.
func (f *forgetting) erase(ctx context.Context, m *materializer.Materializer, back backing.Store, run uint64, t target) error {
	record := backing.Erasure{Run: run, At: f.app.clock.Now(), Holder: f.app.holder, Entity: f.digest.Of(t.key), Status: backing.RunRunning}
	for _, ref := range t.refs {
		record.Views = append(record.Views, ref.View)
	}
	if err := backing.RecordErasure(ctx, back, record); err != nil {
		return fmt.Errorf("%w; nothing was erased", err)
	}
	done, err := m.Forget(ctx, materializer.ForgetRequest{Run: run, Refs: t.refs, Guard: f.opt.Guard})
	if done == nil {
		return err
	}
	f.report.Entities = append(f.report.Entities, ForgottenEntity{Entity: record.Entity, GuardUntil: done.GuardUntil, Views: done.Views})
	record.Status, record.GuardUntil = done.Status, &done.GuardUntil
	return errors.Join(err, backing.RecordErasure(context.WithoutCancel(ctx), back, record))
}

// maskedError is an error that says a digest where its cause says a key.
type maskedError struct {
	text  string
	cause error
}

func (e *maskedError) Error() string { return e.text }

func (e *maskedError) Unwrap() error { return e.cause }

// mask keeps the key out of what an error says; what it matches stays.
func (f *forgetting) mask(err error) error {
	if err == nil || len(f.keys) == 0 {
		return err
	}
	text := f.clean(err.Error())
	if text == err.Error() {
		return err
	}
	return &maskedError{text: text, cause: err}
}

// warn says what this command cannot reach.
func (f *forgetting) warn() {
	a := f.app
	note := func(format string, args ...any) {
		f.report.Warnings = append(f.report.Warnings, fmt.Sprintf(format, args...))
	}
	note("the source files still have this entity: until the guard ends its rows are refused; remove them there before, or the next run that reads them brings it back")
	if a.cfg.Online.Embedded != nil {
		note("online is embedded: a running `hearth serve` keeps its own copy until it is restarted")
	}
	if f.opt.Composite {
		return
	}
	parts, err := f.key.Parts()
	if err != nil {
		return
	}
	entity := map[string]string{}
	for _, p := range parts {
		entity[p.Name] = p.Value
	}
	var wider []string
	for i := range a.cfg.Project.Views {
		if v := &a.cfg.Project.Views[i]; len(v.JoinKeys) > len(entity) && hasNames(v.JoinKeys, entity) {
			wider = append(wider, v.ID().String())
		}
	}
	if len(wider) > 0 {
		note("%s have wider keys that may contain this entity; --composite looks for them (it scans the table)", strings.Join(wider, ", "))
	}
}

func (a *App) joinKeySets() string {
	var sets []string
	for i := range a.cfg.Project.Views {
		v := &a.cfg.Project.Views[i]
		names := make([]string, len(v.JoinKeys))
		for j, k := range v.JoinKeys {
			names[j] = k.Name
		}
		sets = append(sets, fmt.Sprintf("%s by %s", v.ID(), strings.Join(names, ",")))
	}
	return strings.Join(sets, "; ")
}

// ParseDuration reads a flag as hearth.yaml writes durations.
func ParseDuration(s string) (time.Duration, error) { return config.ParseDuration(s) }

// WriteTable writes the report for a person.
func (r *ForgetReport) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "run %d: %s in %.1f s\n", r.Run, r.Status, r.Seconds)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ENTITY\tVIEW\tBACKING\tONLINE\tGUARDED UNTIL")
	for _, e := range r.Entities {
		for _, v := range e.Views {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", e.Entity, v.View, v.Backing, v.Online, e.GuardUntil.Format(time.RFC3339))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	c := r.Copies
	fmt.Fprintf(&b, "copies: %d hot keys, %d rewarm checkpoints, %d ledger entries, %d lines of rejects\n", c.HotKeys, c.Checkpoints, c.LedgerEntries, c.RejectLines)
	if r.Error != "" {
		fmt.Fprintf(&b, "%s; run it again when the cause is gone\n", r.Error)
	}
	for _, s := range r.Warnings {
		fmt.Fprintf(&b, "note: %s\n", s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
