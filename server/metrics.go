package server

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// metrics counts requests by path and status, and what was served by service.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	values   *prometheus.CounterVec
	defaults *prometheus.CounterVec
	stale    *prometheus.CounterVec

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
		values: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_service_values_total", Help: "Feature values served over HTTP, by feature service (empty: a list of features) and status.",
		}, []string{"service", "status"}),
		defaults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_service_defaults_total", Help: "Of the values served: those that are the declared default, or null for want of one.",
		}, []string{"service"}),
		stale: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_service_stale_total", Help: "Of the values served: those last known, because no tier answered.",
		}, []string{"service"}),
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
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.values, m.defaults, m.stale, m.freshness, m.behind, m.cold} {
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

// tally counts the values of one answer.
type tally struct {
	statuses        [6]int // by code, see statusNames
	defaults, stale int
}

func newTally() *tally { return &tally{} }

// add counts one value and returns the code of its status.
func (t *tally) add(it *reader.Item) int {
	code := statusCode(it.Status)
	t.statuses[code]++
	if it.Tier == feature.TierDefault || it.Status == feature.NullValue {
		t.defaults++
	}
	if it.Stale {
		t.stale++
	}
	return code
}

// count counts a whole answer.
func (t *tally) count(resp *reader.Response) {
	for i := range resp.Len() {
		row := resp.Row(i)
		for j := range row.Len() {
			it := row.At(j)
			t.add(&it)
		}
	}
}

// served adds an answer to what its service has served. A service that is not declared has
// no answers, so that the number of labels is bounded.
func (m *metrics) served(service string, t *tally) {
	for code, n := range t.statuses {
		if n > 0 {
			m.values.WithLabelValues(service, statusNames[code]).Add(float64(n))
		}
	}
	m.defaults.WithLabelValues(service).Add(float64(t.defaults))
	m.stale.WithLabelValues(service).Add(float64(t.stale))
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
