package reader

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// Document is a response as JSON: what `hearth get --json` and POST /v1/features write.
type Document struct {
	Results []DocumentRow `json:"results"`
	// Unreachable lists the tiers that did not answer for some key.
	Unreachable []feature.Tier   `json:"unreachable"`
	Outages     []DocumentOutage `json:"outages,omitempty"` // why, in the same order
}

// DocumentRow is one entity, as the request named it, and its features in selection order.
type DocumentRow struct {
	Entity   map[string]string `json:"entity"`
	Features []DocumentItem    `json:"features"`
}

// DocumentOutage is one entry of Document.Outages.
type DocumentOutage struct {
	Tier   feature.Tier `json:"tier"`
	Reason Reason       `json:"reason"`
}

// DocumentItem is one value. EventTimestamp and AgeSeconds are null where no stored value
// is behind the answer; Stale marks the last known value of an outage.
type DocumentItem struct {
	Name           string         `json:"name"`
	Value          feature.Value  `json:"value"`
	Status         feature.Status `json:"status"`
	Tier           feature.Tier   `json:"tier"`
	EventTimestamp *string        `json:"event_timestamp"`
	AgeSeconds     *float64       `json:"age_seconds"`
	Stale          bool           `json:"stale,omitempty"`
}

// Document returns the response in its JSON form.
func (r *Response) Document() Document {
	doc := Document{Results: make([]DocumentRow, r.Len()), Unreachable: []feature.Tier{}}
	for _, o := range r.Unreachable {
		doc.Unreachable = append(doc.Unreachable, o.Tier)
		doc.Outages = append(doc.Outages, DocumentOutage{o.Tier, o.Reason})
	}
	for i := range doc.Results {
		row := r.Row(i)
		doc.Results[i] = DocumentRow{Entity: row.Entity(), Features: make([]DocumentItem, row.Len())}
		for j := range doc.Results[i].Features {
			it := row.At(j)
			out := DocumentItem{Name: it.Name, Value: it.Value, Status: it.Status, Tier: it.Tier, Stale: it.Stale}
			if it.EventTime != feature.NoTime {
				at, age := it.EventTime.String(), it.Age.Seconds()
				out.EventTimestamp, out.AgeSeconds = &at, &age
			}
			doc.Results[i].Features[j] = out
		}
	}
	return doc
}

// MarshalJSON writes the [Document].
func (r *Response) MarshalJSON() ([]byte, error) { return json.Marshal(r.Document()) }

// WriteTable writes the response for people: one line per value, then the outages.
func (r *Response) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if _, err := fmt.Fprintln(tw, "ENTITY\tFEATURE\tVALUE\tSTATUS\tTIER\tEVENT TIME\tAGE"); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for i := range r.Len() {
		row := r.Row(i)
		entity := entityText(row.Entity())
		for j := range row.Len() {
			it := row.At(j)
			value, err := json.Marshal(it.Value)
			if err != nil {
				return fmt.Errorf("write table: %s: %w", it.Name, err)
			}
			age := "-"
			if it.EventTime != feature.NoTime {
				age = ageText(it.Age)
			}
			tier := string(it.Tier)
			if it.Stale {
				tier += " (stale)"
			}
			if _, err := fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", entity, it.Name, value, it.Status, tier, it.EventTime, age); err != nil {
				return fmt.Errorf("write table: %w", err)
			}
			entity = ""
		}
	}
	for _, o := range r.Unreachable {
		if _, err := fmt.Fprintf(tw, "unreachable: %s tier (%s)\n", o.Tier, o.Reason); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func entityText(entity map[string]string) string {
	parts := make([]string, 0, len(entity))
	for _, name := range slices.Sorted(maps.Keys(entity)) {
		parts = append(parts, name+"="+entity[name])
	}
	return strings.Join(parts, ",")
}

// ageText is a duration for people: its two biggest units.
func ageText(d time.Duration) string {
	if d < 0 {
		return "in " + ageText(-d)
	}
	day := 24 * time.Hour
	switch {
	case d >= 2*day:
		return strconv.Itoa(int(d/day)) + "d" + strconv.Itoa(int(d%day/time.Hour)) + "h"
	case d >= time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h" + strconv.Itoa(int(d%time.Hour/time.Minute)) + "m"
	case d >= time.Minute:
		return strconv.Itoa(int(d/time.Minute)) + "m" + strconv.Itoa(int(d%time.Minute/time.Second)) + "s"
	}
	return d.Round(time.Millisecond).String()
}
