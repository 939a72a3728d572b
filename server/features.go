package server

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"encoding/json"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// featuresRequest is the body of POST /v1/features.
type featuresRequest struct {
	FeatureService string           `json:"feature_service"`
	Features       []string         `json:"features"`
	Entities       []map[string]any `json:"entities"`
	MaxAgeSeconds  float64          `json:"max_age_seconds"`
	OnStale        string           `json:"on_stale"`
	SkipCache      bool             `json:"skip_cache"`
}

// features answers with the document of `hearth get --json`: every value with its status,
// tier, event time and age.
func (s *Server) features(w http.ResponseWriter, r *http.Request) error {
	var req featuresRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	if len(req.Entities) > s.cfg.MaxEntities {
		return fmt.Errorf("entities: %w: %d of them, the limit is %d", feature.ErrInvalid, len(req.Entities), s.cfg.MaxEntities)
	}
	read := reader.Request{
		Service: req.FeatureService, Features: req.Features, SkipCache: req.SkipCache,
		Entities: make([]map[string]string, len(req.Entities)), MaxAge: time.Duration(req.MaxAgeSeconds * float64(time.Second)),
	}
	switch req.OnStale {
	case "":
	case "value":
		read.OnStale = reader.StaleValue
	case "default":
		read.OnStale = reader.StaleDefault
	default:
		return fmt.Errorf("on_stale: %w: %q; use value or default", feature.ErrInvalid, req.OnStale)
	}
	for i, entity := range req.Entities {
		read.Entities[i] = make(map[string]string, len(entity))
		for name, v := range entity {
			switch v := v.(type) {
			case string:
				read.Entities[i][name] = v
			case json.Number:
				read.Entities[i][name] = v.String()
			case bool:
				read.Entities[i][name] = strconv.FormatBool(v)
			default:
				return fmt.Errorf("entity %d: %s: %w: a join key is a string, a whole number or a bool", i, name, feature.ErrInvalid)
			}
		}
	}
	ctx, cancel := s.readContext(r)
	defer cancel()
	resp, err := s.cfg.Features.Get(ctx, read)
	if err != nil {
		return err
	}
	for _, o := range resp.Unreachable {
		w.Header().Add("Hearth-Unreachable", string(o.Tier))
	}
	return writeJSON(w, http.StatusOK, resp.Document())
}
