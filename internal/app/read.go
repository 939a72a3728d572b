package app

import (
	"context"
	"fmt"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/tiers"
	"github.com/hearthstore/hearth/reader"
)

// GetOptions says what to read.
type GetOptions struct {
	Keys           []string // each "name=value,name=value", or a canonical key "a=1&b=2"
	FeatureService string
	Features       []string
}

// Get reads features as an online service would. Tiers that do not answer are named in
// the response; they are no error.
func (a *App) Get(ctx context.Context, o GetOptions) (*reader.Response, error) {
	req := reader.Request{Service: o.FeatureService, Features: o.Features}
	if len(o.Features) == 0 && o.FeatureService == "" && len(a.cfg.Project.Services) == 1 {
		req.Service = a.cfg.Project.Services[0].Name
	}
	// Said here, a wrong name is a usage error that lists what exists.
	refs, err := a.featureRefs(o.FeatureService, o.Features)
	if err == nil {
		_, err = a.cfg.Project.Resolve(refs)
	}
	if err != nil {
		return nil, err
	}
	entities := make([]map[string]string, len(o.Keys))
	for i, text := range o.Keys {
		if entities[i], err = parseEntity(text); err != nil {
			return nil, err
		}
	}
	r, err := a.openReader(ctx)
	if err != nil {
		return nil, err
	}
	req.Entities = entities
	response, err := r.Get(ctx, req)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return response, err
}

func (a *App) openReader(ctx context.Context) (*reader.Reader, error) {
	on, err := a.onlineTier(ctx)
	if err != nil {
		return nil, err
	}
	back, err := a.backingTier(ctx)
	if err != nil {
		return nil, err
	}
	return reader.New(tiers.ReaderConfig(a.cfg, on, back, a.deps()))
}

// parseEntity reads "zipcode=76104,dob_ssn=19630621_4278". A value that holds a comma is
// written as a canonical key, with '&' between the pairs and %2C for the comma.
func parseEntity(text string) (map[string]string, error) {
	entity := map[string]string{}
	if strings.Contains(text, "&") || strings.Contains(text, "%") {
		parts, err := feature.Key(text).Parts()
		if err != nil {
			return nil, usage("%v", err)
		}
		for _, p := range parts {
			entity[p.Name] = p.Value
		}
		return entity, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, usage("entity %q: write name=value, several joined by commas: zipcode=76104,dob_ssn=19630621_4278", text)
		}
		if _, dup := entity[name]; dup {
			return nil, usage("entity %q: %s is given twice; each entity is an argument of its own", text, name)
		}
		entity[name] = value
	}
	return entity, nil
}

// parseBound reads a time flag; "" is no bound.
func parseBound(flag, text string) (feature.Micros, error) {
	if text == "" {
		return feature.NoTime, nil
	}
	at, err := feature.ParseTime(text)
	if err != nil {
		return 0, usage("--%s: %v", flag, err)
	}
	return at, nil
}

// parseShard reads "i/n"; "" is no shard.
func parseShard(text string) (shard, shards int, err error) {
	if text == "" {
		return 0, 0, nil
	}
	if n, err := fmt.Sscanf(text, "%d/%d", &shard, &shards); n != 2 || err != nil || shards < 1 || shard < 0 || shard >= shards || text != fmt.Sprintf("%d/%d", shard, shards) {
		return 0, 0, usage("--shard %q: write i/n with 0 <= i < n, for example 0/4", text)
	}
	return shard, shards, nil
}
