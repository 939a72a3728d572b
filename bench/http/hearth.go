package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/reader"
	"github.com/hearthstore/hearth/server"
)

const entityCount = 100

// hearth is a server over redis-server, and the same keys without it.
type hearth struct {
	o      options
	bare   *redis.Client
	store  *online.Store
	reader *reader.Reader
	url    string
	stop   context.CancelFunc
	served chan error
	fields []feature.Field
	keys   []string
	http1  *http.Client
	http2  *http.Client
}

func newHearth(ctx context.Context, o options, addr string) (*hearth, error) {
	v := feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}}}
	for i := range o.features {
		v.Features = append(v.Features, feature.Feature{Field: feature.Field{Name: "f" + strconv.Itoa(i), Type: feature.Float64}})
	}
	all := feature.Service{Name: "all", Features: []feature.FeatureRef{{View: v.ID(), Feature: "*"}}}
	project := &feature.Project{Name: "bench_http", Views: []feature.View{v}, Services: []feature.Service{all}}
	h := &hearth{o: o, fields: v.Fields(), bare: redis.NewClient(&redis.Options{Addr: addr}), served: make(chan error, 1)}
	var err error
	if h.store, err = online.Open(ctx, online.Config{Project: project.Name, Addrs: []string{addr}, ReadDeadline: 3 * time.Second}); err != nil {
		return nil, err
	}
	if err := h.fill(ctx, &project.Views[0]); err != nil {
		return nil, err
	}
	rc := reader.Config{Project: project, Online: h.store, OnlineTimeout: 3 * time.Second}
	rc.Cache.MaxEntries, rc.Cache.NegativeEntries = -1, -1 // every value from Redis
	if h.reader, err = reader.New(rc); err != nil {
		return nil, err
	}
	s, err := server.New(server.Config{Project: project, Features: h.reader})
	if err != nil {
		return nil, err
	}
	l, err := s.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop, h.url = stop, "http://"+l.Addr().String()
	go func() { h.served <- s.Serve(serving, l) }()
	h.http1 = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.clients}}
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	h.http2 = &http.Client{Transport: &http.Transport{Protocols: &h2c}}
	return h, nil
}

func (h *hearth) close() error {
	h.http1.CloseIdleConnections()
	h.http2.CloseIdleConnections()
	h.stop()
	return errors.Join(<-h.served, h.reader.Close(), h.store.Close(), h.bare.Close())
}

// value is what every row has to hand out.
func value(id, i int) float64 { return float64(id) + float64(i)/7 }

func (h *hearth) fill(ctx context.Context, v *feature.View) error {
	var recs []feature.Record
	for id := range entityCount {
		values := make([]feature.Value, h.o.features)
		for i := range values {
			values[i] = feature.Float64Value(value(id, i))
		}
		body, err := feature.AppendFeatures(nil, h.fields, values)
		if err != nil {
			return err
		}
		head := feature.Header{Fingerprint: v.Fingerprint(), Version: feature.Version{Event: feature.MicrosOf(clock.System.Now()), Created: feature.NoTime, Run: 1}}
		ref := feature.Ref{View: v.ID(), Key: feature.Key("id=" + strconv.Itoa(id))}
		rec, err := feature.NewRecord(v, ref.Key, feature.AppendPayload(nil, head, body))
		if err != nil {
			return err
		}
		recs = append(recs, rec)
		h.keys = append(h.keys, h.store.RedisKey(ref))
	}
	got, err := h.store.Put(ctx, recs)
	for _, g := range got {
		err = errors.Join(err, g.Err)
	}
	return err
}

func (h *hearth) rows(entities int) []*row {
	n := h.o.requests
	if entities > 1 {
		n = max(1, n/10)
	}
	ids := make([]int, entities)
	for i := range ids {
		ids[i] = i
	}
	columns := body(map[string]any{"feature_service": "all", "entities": map[string]any{"id": ids}})
	return []*row{
		{name: "bare pipelined GETs, decoded, in process", n: n, one: func(ctx context.Context) error { return h.bareRead(ctx, entities) }},
		{name: "hearth serve, JSON columns", n: n, one: h.post(h.http1, "/v1/features", columns, "", entities)},
		{name: "hearth serve, MessagePack columns", n: n, one: h.post(h.http1, "/v1/features", columns, "application/msgpack", entities)},
		{name: "hearth serve, JSON columns, h2c", n: n, one: h.post(h.http2, "/v1/features", columns, "", entities)},
		{name: "hearth serve, Feast's shape", n: n, one: h.post(h.http1, "/get-online-features", columns, "", entities)},
	}
}

func body(doc any) []byte {
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // numbers and names
	}
	return b
}

func (h *hearth) post(client *http.Client, path string, body []byte, accept string, entities int) func(context.Context) error {
	return post(client, h.url+path, body, accept, entities*h.o.features*4)
}

// post sends a request and takes the whole answer, which holds so many bytes at least.
func post(client *http.Client, url string, body []byte, accept string, least int) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		got, err := io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || got < int64(least) {
			return fmt.Errorf("%s answered %d with %d bytes", url, resp.StatusCode, got)
		}
		return nil
	}
}

// bareRead is one pipeline of GETs, decoded, with none of a reader's promises.
func (h *hearth) bareRead(ctx context.Context, n int) error {
	pipe := h.bare.Pipeline()
	cmds := make([]*redis.StringCmd, n)
	for i := range n {
		cmds[i] = pipe.Get(ctx, h.keys[i])
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	var values []feature.Value
	for _, c := range cmds {
		payload, err := c.Bytes()
		if err != nil {
			return err
		}
		_, features, err := feature.ParsePayload(payload)
		if err != nil {
			return err
		}
		if values, err = feature.DecodeFeatures(features, h.fields, values); err != nil {
			return err
		}
	}
	return nil
}
