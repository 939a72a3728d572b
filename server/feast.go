package server

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// onlineRequest is the body of POST /get-online-features.
type onlineRequest struct {
	Entities         columns  `json:"entities"`
	Features         []string `json:"features"`
	FeatureService   string   `json:"feature_service"`
	FullFeatureNames bool     `json:"full_feature_names"`
}

// onlineResponse is Feast's answer: one result per name, join keys first, a value per row.
type onlineResponse struct {
	Metadata onlineMetadata `json:"metadata"`
	Results  []onlineColumn `json:"results"`
}

type onlineMetadata struct {
	FeatureNames []string `json:"feature_names"`
	// Unreachable is Hearth's own: the tiers that did not answer for some value.
	Unreachable []feature.Tier `json:"unreachable,omitempty"`
}

type onlineColumn struct {
	Values     []any            `json:"values"`
	Statuses   []feature.Status `json:"statuses"`
	Timestamps []string         `json:"event_timestamps"`
}

// noTimestamp is what Feast sends where there is no event time.
const noTimestamp = "1970-01-01T00:00:00Z"

// getOnlineFeatures answers as Feast's feature server does.
func (s *Server) getOnlineFeatures(w http.ResponseWriter, r *http.Request) error {
	var req onlineRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	rows, err := req.Entities.rows(s.cfg.MaxEntities)
	if err != nil {
		return err
	}
	ctx, cancel := s.readContext(r)
	defer cancel()
	resp, err := s.cfg.Features.Get(ctx, reader.Request{Entities: rows, Service: req.FeatureService, Features: fromFeast(req.Features)})
	if err != nil {
		return err
	}
	names, err := featureNames(resp, req.FullFeatureNames)
	if err != nil {
		return err
	}
	doc := onlineResponse{Metadata: onlineMetadata{FeatureNames: []string{}}}
	for _, o := range resp.Unreachable {
		doc.Metadata.Unreachable = append(doc.Metadata.Unreachable, o.Tier)
		w.Header().Add("Hearth-Unreachable", string(o.Tier))
	}
	wanted := joinKeys(resp.Selection())
	for _, c := range req.Entities {
		if _, ok := wanted[c.name]; !ok {
			continue // Feast ignores what no view asks for
		}
		col := newColumn(len(rows))
		for i := range rows {
			col.Values[i], col.Statuses[i], col.Timestamps[i] = c.values[i], feature.Present, noTimestamp
		}
		doc.Metadata.FeatureNames = append(doc.Metadata.FeatureNames, c.name)
		doc.Results = append(doc.Results, col)
	}
	for j, name := range names {
		col := newColumn(len(rows))
		for i := range rows {
			it := resp.Row(i).At(j)
			col.Values[i], col.Statuses[i], col.Timestamps[i] = feastValue(it.Value), feastStatus(it.Status), noTimestamp
			if it.EventTime != feature.NoTime {
				col.Timestamps[i] = it.EventTime.Time().Format(time.RFC3339Nano)
			}
		}
		doc.Metadata.FeatureNames = append(doc.Metadata.FeatureNames, name)
		doc.Results = append(doc.Results, col)
	}
	return writeJSON(w, http.StatusOK, doc)
}

func newColumn(n int) onlineColumn {
	return onlineColumn{Values: make([]any, n), Statuses: make([]feature.Status, n), Timestamps: make([]string, n)}
}

// fromFeast turns Feast's "view@v2:feature" into "view@2:feature".
func fromFeast(refs []string) []string {
	out := slices.Clone(refs)
	for i, ref := range out {
		view, name, ok := strings.Cut(ref, ":")
		base, version, versioned := strings.Cut(view, "@v")
		if ok && versioned {
			out[i] = base + "@" + version + ":" + name
		}
	}
	return out
}

// featureNames names the columns as Feast does: the feature alone, or view__feature.
func featureNames(resp *reader.Response, full bool) ([]string, error) {
	sel := resp.Selection()
	names := make([]string, len(resp.Names()))
	seen := map[string]string{}
	for i, name := range resp.Names() {
		if names[i] = sel.Field(i).Name; full {
			names[i] = strings.ReplaceAll(name, ":", "__")
			continue
		}
		if other, taken := seen[names[i]]; taken {
			return nil, fmt.Errorf("%w: %s and %s would have the same name; set full_feature_names: true", feature.ErrInvalid, other, name)
		}
		seen[names[i]] = name
	}
	return names, nil
}

func joinKeys(sel *feature.Selection) map[string]bool {
	names := map[string]bool{}
	for _, g := range sel.Groups {
		for _, name := range g.JoinKeys {
			names[name] = true
		}
	}
	return names
}

// feastStatus maps the fifth status to what a Feast client can read; the outage is in the
// Hearth-Unreachable header and in the metadata.
func feastStatus(s feature.Status) feature.Status {
	if s == feature.Unknown {
		return feature.NotFound
	}
	return s
}

// feastValue is a value in Feast's JSON: seconds for a timestamp, and null for what JSON
// or Feast's client cannot take (NaN, infinities, empty lists).
func feastValue(v feature.Value) any {
	switch {
	case v.IsNull():
		return nil
	case v.Is(feature.Int64):
		return v.Int()
	case v.Is(feature.Float32), v.Is(feature.Float64):
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil
		}
		if v.Is(feature.Float32) {
			return v.Float32() // the shortest text of a float32
		}
		return f
	case v.Is(feature.String):
		return v.Str()
	case v.Is(feature.Bool):
		return v.Bool()
	case v.Is(feature.Bytes):
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case v.Is(feature.Timestamp):
		return v.Micros().Time().Unix()
	}
	if len(v.List()) == 0 {
		return nil
	}
	list := make([]any, len(v.List()))
	for i, e := range v.List() {
		list[i] = feastValue(e)
	}
	return list
}

// columns is a column-oriented JSON object, in the order in which it was written.
type columns []column

type column struct {
	name   string
	values []any
}

// UnmarshalJSON keeps the order of the members and the text of numbers.
func (c *columns) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("want an object of columns: {\"name\": [value, …]}")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		col := column{}
		col.name, _ = t.(string)
		if seen[col.name] {
			return fmt.Errorf("column %q is given twice", col.name)
		}
		seen[col.name] = true
		if err := dec.Decode(&col.values); err != nil {
			return fmt.Errorf("column %q: %w", col.name, err)
		}
		*c = append(*c, col)
	}
	return nil
}

// length is the number of rows, which all columns share.
func (c columns) length() (int, error) {
	if len(c) == 0 {
		return 0, fmt.Errorf("%w: no column is given", feature.ErrInvalid)
	}
	n := len(c[0].values)
	for _, col := range c {
		if len(col.values) != n {
			return 0, fmt.Errorf("%w: column %q has %d values, column %q has %d", feature.ErrInvalid, col.name, len(col.values), c[0].name, n)
		}
	}
	return n, nil
}

// rows turns entity columns into the reader's entities.
func (c columns) rows(limit int) ([]map[string]string, error) {
	n, err := c.length()
	if err != nil {
		return nil, fmt.Errorf("entities: %w", err)
	}
	if n > limit {
		return nil, fmt.Errorf("entities: %w: %d of them, the limit is %d", feature.ErrInvalid, n, limit)
	}
	rows := make([]map[string]string, n)
	for i := range rows {
		rows[i] = make(map[string]string, len(c))
	}
	for _, col := range c {
		for i, v := range col.values {
			switch v := v.(type) {
			case string:
				rows[i][col.name] = v
			case json.Number:
				rows[i][col.name] = v.String()
			case bool:
				rows[i][col.name] = strconv.FormatBool(v)
			}
			// null, a list or an object is no join key: the row lacks it, and the reader says so
			// if a view wants it.
		}
	}
	return rows, nil
}

// decode reads one JSON document. A body that is no such document is 400.
func decode(body io.Reader, doc any) error {
	dec := json.NewDecoder(body)
	dec.UseNumber()
	err := dec.Decode(doc)
	if err == nil {
		if _, extra := dec.Token(); extra == nil {
			err = errors.New("something follows the document")
		} else if !errors.Is(extra, io.EOF) {
			err = extra
		}
	}
	var tooBig *http.MaxBytesError
	if err == nil || errors.As(err, &tooBig) {
		return err
	}
	return problem{http.StatusBadRequest, "BadRequest", "the body is not the JSON that this path takes: " + err.Error()}
}
