package online

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/testservers"
)

// The estimate is what a real server takes, within a tenth, for short and long values, with
// and without expiry. Seen red without the hash tables and with headers of strings left out.
func TestValueMemory(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, key int
		expires   bool
	}{{1, 6, false}, {60, 6, true}, {200, 40, true}, {420, 8, false}, {900, 100, true}, {5000, 6, false}} {
		srv := startServer(t, testservers.RedisOptions{})
		s := mustOpen(t, Config{Project: "p", Addrs: []string{srv.Addr()}})
		used := func() int64 {
			info, err := s.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return info.UsedMemory
		}
		values := make([]feature.Value, len(testView.Features))
		values[4] = feature.StringValue(strings.Repeat("x", c.text))
		recs := make([]feature.Record, 20_000)
		var want int64
		for i := range recs {
			k := feature.Key(fmt.Sprintf("id=%0*d", c.key, i))
			recs[i] = valuesRecord(t, k, feature.Version{Event: feature.MicrosOf(time.Now()), Run: 1}, values)
			if c.expires {
				recs[i].Online = feature.MicrosOf(time.Now().Add(time.Hour))
			}
			want += int64(ValueMemory(len(s.RedisKey(recs[i].Ref)), len(recs[i].Payload), c.expires))
		}
		put(t, s, recs[:4000]...) // the connections and their buffers are not what is measured
		before := used()
		put(t, s, recs[4000:]...)
		got := used() - before
		want = want * 16_000 / 20_000
		if ratio := float64(want) / float64(got); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("%+v: estimated %d bytes, the server took %d (ratio %.2f)", c, want/16_000, got/16_000, ratio)
		}
		total, found, err := s.MeasureMemory(t.Context(), append(refs(recs[:10]), feature.Ref{View: testView.ID(), Key: "id=no"}))
		if err != nil || found != 10 || total <= int64(10*len(recs[0].Payload)) {
			t.Errorf("%+v: measured %d bytes of %d values (%v)", c, total, found, err)
		}
		srv.Stop()
	}
}

func TestPoolSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		perSecond float64
		held      time.Duration
		want      int
	}{{0, time.Second, 4}, {100, 2 * time.Millisecond, 4}, {2000, 20 * time.Millisecond, 59}, {10000, 5 * time.Millisecond, 72}, {50000, 20 * time.Millisecond, 1095}} {
		if got := PoolSize(c.perSecond, c.held); got != c.want {
			t.Errorf("%v reads/s of %s: %d connections, want %d", c.perSecond, c.held, got, c.want)
		}
	}
}
