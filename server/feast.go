package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// onlineRequest is the body of POST /get-online-features. Members that are Feast's own
// business are ignored.
type onlineRequest struct {
	Entities         columns  `json:"entities"`
	Features         []string `json:"features"`
	FeatureService   string   `json:"feature_service"`
	FullFeatureNames bool     `json:"full_feature_names"`
	Versions         bool     `json:"include_feature_view_version_metadata"`
}

// noTimestamp is what Feast sends where there is no event time.
const noTimestamp = "1970-01-01T00:00:00Z"

// getOnlineFeatures answers as Feast's feature server does: one result per name, join keys
// first, a value per row.
func (s *Server) getOnlineFeatures(w *reply, r *http.Request) error {
	var req onlineRequest
	if err := decode(r.Body, &req, false); err != nil {
		return err
	}
	rows, err := req.Entities.rows(s.cfg.MaxEntities)
	if err != nil {
		return err
	}
	resp, err := s.get(w, r, reader.Request{Entities: rows, Service: req.FeatureService, Features: fromFeast(req.Features)})
	if err != nil {
		return err
	}
	names, err := featureNames(resp, req.FullFeatureNames)
	if err != nil {
		return err
	}
	p := takeBuffer()
	e := &jsonEncoder{b: *p}
	encodeOnline(e, &req, names, resp)
	err = w.send(http.StatusOK, typeJSON, e.b)
	giveBuffer(p, e.b)
	return err
}

func encodeOnline(e *jsonEncoder, req *onlineRequest, names []string, resp *reader.Response) {
	wanted := joinKeys(resp.Selection())
	echo := slices.DeleteFunc(slices.Clone(req.Entities), func(c column) bool {
		return !wanted[c.name] // Feast ignores what no view asks for
	})
	e.object(2)
	e.key("metadata")
	encodeMetadata(e, req, echo, names, resp)
	e.key("results")
	e.array(len(echo) + len(names))
	for _, c := range echo {
		e.object(3)
		e.key("values")
		e.array(len(c.values))
		for _, v := range c.values {
			encodeKey(e, v)
		}
		e.end()
		encodeRepeated(e, "statuses", string(feature.Present), len(c.values))
		encodeRepeated(e, "event_timestamps", noTimestamp, len(c.values))
		e.end()
	}
	n := resp.Len()
	statuses := make([]string, n)
	times := make([][]string, len(resp.Selection().Groups)) // all features of a view share them
	for j := range names {
		group := resp.Selection().Order[j].Group
		known := times[group] != nil
		if !known {
			times[group] = make([]string, n)
		}
		e.object(3)
		e.key("values")
		e.array(n)
		for i := range n {
			it := resp.Row(i).At(j)
			encodeFeast(e, it.Value)
			statuses[i] = string(feastStatus(it.Status))
			if !known {
				times[group][i] = feastTime(it.EventTime)
			}
		}
		e.end()
		encodeTexts(e, "statuses", statuses)
		encodeTexts(e, "event_timestamps", times[group])
		e.end()
	}
	e.end()
	e.end()
}

func encodeMetadata(e *jsonEncoder, req *onlineRequest, echo []column, names []string, resp *reader.Response) {
	e.object(1)
	e.key("feature_names")
	e.array(len(echo) + len(names))
	for _, c := range echo {
		e.text(c.name)
	}
	for _, name := range names {
		e.text(name)
	}
	e.end()
	if req.Versions {
		e.key("feature_view_metadata")
		e.array(len(resp.Selection().Groups))
		for _, g := range resp.Selection().Groups {
			e.object(2)
			e.key("name")
			e.text(g.View.Name)
			e.key("version")
			e.integer(int64(g.View.Version))
			e.end()
		}
		e.end()
	}
	if len(resp.Unreachable) > 0 { // Hearth's own: the tiers that did not answer for some value
		e.key("unreachable")
		e.array(len(resp.Unreachable))
		for _, o := range resp.Unreachable {
			e.text(string(o.Tier))
		}
		e.end()
	}
	e.end()
}

func encodeTexts(e *jsonEncoder, name string, texts []string) {
	e.key(name)
	e.array(len(texts))
	for _, text := range texts {
		e.text(text)
	}
	e.end()
}

func encodeRepeated(e *jsonEncoder, name, text string, n int) {
	e.key(name)
	e.array(n)
	for range n {
		e.text(text)
	}
	e.end()
}

// encodeKey sends a join key back as it came.
func encodeKey(e *jsonEncoder, v any) {
	if n, ok := v.(json.Number); ok {
		e.separate()
		e.b = append(e.b, n...)
		return
	}
	switch v := v.(type) {
	case string:
		e.text(v)
	case bool:
		e.boolean(v)
	default:
		e.null()
	}
}

func feastTime(at feature.Micros) string {
	if at == feature.NoTime {
		return noTimestamp
	}
	return at.Time().Format(time.RFC3339Nano)
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
