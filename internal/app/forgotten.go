package app

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/backing"
)

// ForgottenReport is the document of `hearth forgotten --json`.
type ForgottenReport struct {
	Entity   string            `json:"entity,omitempty"` // the digest of the key that was asked about
	Erasures []backing.Erasure `json:"erasures"`
}

// Forgotten lists the records of erasures; with a key, those of that entity.
func (a *App) Forgotten(ctx context.Context, key string) (*ForgottenReport, error) {
	r := &ForgottenReport{Erasures: []backing.Erasure{}}
	back, err := a.answeringBacking(ctx)
	if err != nil {
		return nil, err
	}
	if key != "" {
		entity, err := parseEntity(key)
		if err != nil {
			return nil, err
		}
		canonical, _, err := a.entityKey(entity)
		if err != nil {
			return nil, err
		}
		digester, err := backing.NewDigester(ctx, back)
		if err != nil {
			return nil, err
		}
		r.Entity = digester.Of(canonical)
	}
	all, err := backing.Erasures(ctx, back, time.Time{})
	if err != nil {
		return nil, err
	}
	r.Erasures = append(r.Erasures, slices.DeleteFunc(all, func(e backing.Erasure) bool { return r.Entity != "" && e.Entity != r.Entity })...)
	return r, nil
}

// WriteTable writes the report for a person.
func (r *ForgottenReport) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "AT\tRUN\tENTITY\tSTATUS\tHOLDER\tVIEWS\tGUARDED UNTIL")
	for _, e := range r.Erasures {
		views := make([]string, len(e.Views))
		for i, id := range e.Views {
			views[i] = id.String()
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", timeText(&e.At), e.Run, e.Entity, e.Status, e.Holder, strings.Join(views, ","), timeText(e.GuardUntil))
	}
	return t.Flush()
}
