package server

import (
	"fmt"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// featuresRequest is the body of POST /v1/features.
type featuresRequest struct {
	FeatureService string   `json:"feature_service"`
	Features       []string `json:"features"`
	Entities       entities `json:"entities"`
	MaxAgeSeconds  float64  `json:"max_age_seconds"`
	OnStale        string   `json:"on_stale"`
	SkipCache      bool     `json:"skip_cache"`
	Layout         string   `json:"layout"`
}

// The layouts of an answer.
const (
	layoutColumns = "columns" // a list per feature: the default, small and quick to take apart
	layoutRows    = "rows"    // the document of `hearth get --json`
)

// features answers with every value, its status, tier, event time and age.
func (s *Server) features(w *reply, r *http.Request) error {
	var req featuresRequest
	if err := decode(r.Body, &req, true); err != nil {
		return err
	}
	read, err := req.read(s.cfg.MaxEntities)
	if err != nil {
		return err
	}
	packed := wantsMsgpack(r.Header.Values("Accept"))
	if packed && req.Layout == layoutRows {
		return problem{http.StatusNotAcceptable, "NotAcceptable", "rows are sent as JSON only; ask for columns"}
	}
	resp, err := s.get(w, r, read)
	if err != nil {
		return err
	}
	if req.Layout == layoutRows {
		return writeJSON(w, http.StatusOK, resp.Document())
	}
	p := takeBuffer()
	var e encoder = &jsonEncoder{b: *p, special: true}
	contentType := typeJSON
	if packed {
		e, contentType = &msgpackEncoder{b: *p}, typeMsgpack
	}
	encodeColumns(e, resp)
	w.Header().Set("Vary", "Accept")
	err = w.send(http.StatusOK, contentType, e.bytes())
	giveBuffer(p, e.bytes())
	return err
}

// read is the reader's request.
func (q *featuresRequest) read(maxEntities int) (req reader.Request, err error) {
	req = reader.Request{Service: q.FeatureService, Features: q.Features, SkipCache: q.SkipCache}
	if q.MaxAgeSeconds < 0 || q.MaxAgeSeconds >= math.MaxInt64/float64(time.Second) {
		return req, fmt.Errorf("max_age_seconds: %w: %v is out of range", feature.ErrInvalid, q.MaxAgeSeconds)
	}
	req.MaxAge = time.Duration(q.MaxAgeSeconds * float64(time.Second))
	switch q.OnStale {
	case "":
	case "value":
		req.OnStale = reader.StaleValue
	case "default":
		req.OnStale = reader.StaleDefault
	default:
		return req, fmt.Errorf("on_stale: %w: %q; use value or default", feature.ErrInvalid, q.OnStale)
	}
	switch q.Layout {
	case "", layoutColumns, layoutRows:
	default:
		return req, fmt.Errorf("layout: %w: %q; use columns or rows", feature.ErrInvalid, q.Layout)
	}
	req.Entities, err = q.Entities.rows(maxEntities)
	return req, err
}

// get reads within the limits, and names the tiers that did not answer in a header.
func (s *Server) get(w *reply, r *http.Request, req reader.Request) (*reader.Response, error) {
	if len(req.Features) > s.cfg.MaxFeatures {
		return nil, tooMany("features", len(req.Features), s.cfg.MaxFeatures)
	}
	ctx, cancel := s.readContext(r)
	defer cancel()
	resp, err := s.cfg.Features.Get(ctx, req)
	if err != nil {
		return nil, s.naming(req, err)
	}
	features := len(resp.Names())
	s.tracing.read(r.Context(), req.Service, resp.Len(), features)
	if features > s.cfg.MaxFeatures && req.Service == "" { // a service is what the operator declared
		return nil, tooMany("features", features, s.cfg.MaxFeatures)
	}
	if n := features * resp.Len(); n > s.cfg.MaxValues {
		return nil, fmt.Errorf("%w: %d entities × %d features are more than %d values; ask in parts", feature.ErrInvalid, resp.Len(), features, s.cfg.MaxValues)
	}
	for _, o := range resp.Unreachable {
		w.Header().Add("Hearth-Unreachable", string(o.Tier))
	}
	return resp, nil
}

// naming tells a name that is not declared from other errors of a request.
func (s *Server) naming(req reader.Request, err error) error {
	if req.Service != "" && s.cfg.Project.Service(req.Service) == nil {
		return problem{http.StatusNotFound, classNoService, err.Error()}
	}
	for _, text := range req.Features {
		if ref, perr := feature.ParseFeatureRef(text); perr == nil && s.cfg.Project.View(ref.View) == nil {
			return problem{http.StatusNotFound, classNoView, err.Error()}
		}
	}
	return err
}

// statusNames are the codes of the columns layout. The first five are Feast's.
var statusNames = []string{"INVALID", string(feature.Present), string(feature.NullValue), string(feature.NotFound), string(feature.OutsideMaxAge), string(feature.Unknown)}

func statusCode(st feature.Status) uint8 {
	switch st {
	case feature.Present:
		return 1
	case feature.NullValue:
		return 2
	case feature.NotFound:
		return 3
	case feature.OutsideMaxAge:
		return 4
	case feature.Unknown:
		return 5
	}
	return 0
}

// encodeColumns writes an answer by columns: values and status codes per feature, and what
// all features of a view share (tier, event time, age) once per view.
func encodeColumns(e encoder, resp *reader.Response) {
	sel, rows := resp.Selection(), resp.Len()
	e.object(8)
	e.key("as_of")
	e.text(resp.AsOf().String())
	e.key("rows")
	e.integer(int64(rows))
	e.key("features")
	e.array(len(resp.Names()))
	for _, name := range resp.Names() {
		e.text(name)
	}
	e.end()
	e.key("values")
	codes := make([]uint8, len(sel.Order)*rows)
	e.array(len(sel.Order))
	for j := range sel.Order {
		e.array(rows)
		for i := range rows {
			it := resp.Row(i).At(j)
			codes[j*rows+i] = statusCode(it.Status)
			encodeValue(e, it.Value)
		}
		e.end()
	}
	e.end()
	e.key("statuses")
	e.array(len(sel.Order))
	for j := range sel.Order {
		e.array(rows)
		for _, code := range codes[j*rows : (j+1)*rows] {
			e.integer(int64(code))
		}
		e.end()
	}
	e.end()
	e.key("status_names")
	e.array(len(statusNames))
	for _, name := range statusNames {
		e.text(name)
	}
	e.end()
	e.key("views")
	e.array(len(sel.Groups))
	for g := range sel.Groups {
		encodeView(e, resp, g)
	}
	e.end()
	e.key("unreachable")
	e.array(len(resp.Unreachable))
	for _, o := range resp.Unreachable {
		e.object(2)
		e.key("tier")
		e.text(string(o.Tier))
		e.key("reason")
		e.text(string(o.Reason))
		e.end()
	}
	e.end()
	e.end()
}

// encodeView writes where the values of one view come from, a row each.
func encodeView(e encoder, resp *reader.Response, g int) {
	sel := resp.Selection()
	var members []int
	for j, o := range sel.Order {
		if o.Group == g {
			members = append(members, j)
		}
	}
	items := make([]reader.Item, resp.Len())
	for i := range items {
		if len(members) > 0 {
			items[i] = resp.Row(i).At(members[0])
		}
	}
	each := func(name string, write func(*reader.Item)) {
		e.key(name)
		e.array(len(items))
		for i := range items {
			write(&items[i])
		}
		e.end()
	}
	e.object(7)
	e.key("view")
	e.text(sel.Groups[g].View.ID().String())
	e.key("alias")
	e.text(sel.Groups[g].Alias)
	e.key("features")
	e.array(len(members))
	for _, j := range members {
		e.integer(int64(j))
	}
	e.end()
	each("tiers", func(it *reader.Item) { e.text(string(it.Tier)) })
	each("event_timestamps", func(it *reader.Item) {
		if it.EventTime == feature.NoTime {
			e.null()
			return
		}
		e.text(it.EventTime.String())
	})
	each("ages_seconds", func(it *reader.Item) {
		if it.EventTime == feature.NoTime {
			e.null()
			return
		}
		e.number64(it.Age.Seconds())
	})
	each("stale", func(it *reader.Item) { e.boolean(it.Stale) })
	e.end()
}

// wantsMsgpack reports whether MessagePack is what the client likes best of what there is.
func wantsMsgpack(accept []string) bool {
	best, packed := 0.0, false
	for _, part := range strings.Split(strings.Join(accept, ","), ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		switch media {
		case typeMsgpack, "application/x-msgpack", "application/vnd.msgpack":
			if q > best {
				best, packed = q, true
			}
		case typeJSON, "application/*", "*/*":
			if q > best {
				best, packed = q, false
			}
		}
	}
	return packed
}
