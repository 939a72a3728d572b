package server

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts requests by path and status, and shows how the views are.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	freshness *prometheus.GaugeVec
	behind    *prometheus.GaugeVec
	cold      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_http_requests_total", Help: "HTTP requests by path and status code.",
		}, []string{"path", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hearth_http_request_seconds", Help: "Time to answer HTTP requests by path.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5},
		}, []string{"path"}),
		freshness: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hearth_view_freshness_seconds", Help: "Age of the newest event of a view.",
		}, []string{"view"}),
		behind: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hearth_view_online_behind", Help: "Values of a view that the online tier may lack.",
		}, []string{"view"}),
		cold: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hearth_online_cold", Help: "1 while the online tier, or a shard of it, is cold.",
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.freshness, m.behind, m.cold} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// observe counts one request. What the table calls "/{$}" is "/" to people.
func (m *metrics) observe(rt *route, code int, took time.Duration) {
	path := strings.TrimSuffix(rt.path, "{$}")
	m.requests.WithLabelValues(path, strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(path).Observe(took.Seconds())
}

// show takes over a status, whose ages count from now.
func (m *metrics) show(st Status, now time.Time) {
	for _, v := range st.Views {
		if v.NewestEvent != nil {
			m.freshness.WithLabelValues(v.View.String()).Set(now.Sub(*v.NewestEvent).Seconds())
		}
		m.behind.WithLabelValues(v.View.String()).Set(float64(v.OnlineBehind))
	}
	m.cold.Set(0)
	if st.Online.Cold || len(st.Online.ColdShards) > 0 {
		m.cold.Set(1)
	}
}
