// Command online_service is a small online service that embeds the Hearth reader: it
// fetches one feature vector per request, scores it with a toy model and shows what each
// value was worth. It builds without cgo.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hearthstore/hearth"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "online_service:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("online_service", flag.ContinueOnError)
	config := flags.String("config", "examples/credit_scoring/hearth.yaml", "the feature repository")
	listen := flags.String("listen", "127.0.0.1:8080", "where to listen")
	budget := flags.Duration("budget", 150*time.Millisecond, "what one request may spend on features")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	features, err := hearth.Open(ctx, *config, hearth.WithLogger(log))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /score", &scorer{features: features, budget: *budget})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return errors.Join(err, features.Close())
	}
	log.Info("listening", "address", l.Addr().String())

	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = server.Shutdown(drain)
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, features.Close())
}

// scorer answers GET /score?zipcode=…&dob_ssn=….
type scorer struct {
	features *hearth.Features
	budget   time.Duration // what a request may spend on features
}

// answer is the body of a response. Trusted says whether every feature was found fresh:
// what to do with a score that is not is the service's decision, not the store's.
type answer struct {
	Score       float64  `json:"score"`
	Trusted     bool     `json:"trusted"`
	Features    []used   `json:"features"`
	Unreachable []string `json:"unreachable"`
}

type used struct {
	Name   string        `json:"name"`
	Status hearth.Status `json:"status"`
	Tier   hearth.Tier   `json:"tier"`
	Age    string        `json:"age,omitempty"`
}

// model is a toy: a logistic regression with weights that nobody has trained.
var model = []struct {
	feature string
	weight  float64
	scale   float64
}{
	{"credit_history:credit_card_due", -1.2, 10_000},
	{"credit_history:missed_payments_1y", -2.5, 5},
	{"credit_history:bankruptcies", -3, 2},
	{"credit_history:hard_pulls", -0.6, 10},
	{"zipcode_features:total_wages", 0.4, 500_000_000},
}

const bias = 1.5

// ServeHTTP scores one applicant.
func (s *scorer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.budget)
	defer cancel()
	q := r.URL.Query()
	resp, err := s.features.Get(ctx, hearth.Request{
		FeatureService: "credit_score_v1",
		Entities:       []map[string]string{{"zipcode": q.Get("zipcode"), "dob_ssn": q.Get("dob_ssn")}},
	})
	switch {
	case errors.Is(err, hearth.ErrInvalid):
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	case err != nil: // the caller went away, or the service is closing
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	row := resp.Row(0)
	out := answer{Trusted: true, Unreachable: []string{}}
	z := bias
	for _, m := range model {
		it, ok := row.Get(m.feature)
		if !ok {
			http.Error(w, "the feature service lacks "+m.feature, http.StatusInternalServerError)
			return
		}
		if x := it.Value.Float(); !math.IsNaN(x) { // no value and no default: no contribution
			z += m.weight * x / m.scale
		}
		u := used{Name: it.Name, Status: it.Status, Tier: it.Tier}
		if it.Tier != hearth.TierDefault {
			u.Age = it.Age.Round(time.Second).String()
		}
		out.Trusted = out.Trusted && it.Status == hearth.Present && !it.Stale
		out.Features = append(out.Features, u)
	}
	out.Score = 1 / (1 + math.Exp(-z))
	for _, o := range resp.Unreachable {
		out.Unreachable = append(out.Unreachable, string(o.Tier))
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		return // the caller went away
	}
}
