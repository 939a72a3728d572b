package stepfunctions

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/jobs"
)

// service speaks the protocol of Step Functions: the operation in a header, JSON in the body.
type service struct {
	mu    sync.Mutex
	calls []string
	fail  map[string]string // operation: error type that it answers with
	busy  int               // so many calls are answered 503 first
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var in struct{ TaskToken, Output, Error, Cause string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if s.busy > 0 {
		s.busy--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.calls = append(s.calls, strings.TrimRight(strings.Join([]string{op, in.TaskToken, in.Output, in.Error, in.Cause}, " "), " "))
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if kind := s.fail[op]; kind != "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"com.amazonaws.states#` + kind + `","message":"no"}`))
		return
	}
	_, _ = w.Write([]byte("{}"))
}

func newCallback(t *testing.T, s *service) *Callback {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_SFN": server.URL, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	c, err := New(t.Context(), Config{Region: "eu-central-1", MaxBackoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The three calls carry the token and what they say. Red when Failure swaps code and cause.
func TestCallbackSpeaksTheProtocol(t *testing.T) {
	s := &service{busy: 2} // a service that is busy for a moment is asked again
	c := newCallback(t, s)
	if err := errors.Join(
		c.Heartbeat(t.Context(), "tok"),
		c.Success(t.Context(), "tok", []byte(`{"run":7}`)),
		c.Failure(t.Context(), "tok", jobs.TaskPartial, "Redis is behind"),
	); err != nil {
		t.Fatal(err)
	}
	want := []string{"SendTaskHeartbeat tok", `SendTaskSuccess tok {"run":7}`, "SendTaskFailure tok   Hearth.Partial Redis is behind"}
	for i, call := range s.calls {
		if strings.Join(strings.Fields(call), " ") != strings.Join(strings.Fields(want[i]), " ") {
			t.Errorf("call %d: %q, want %q", i, call, want[i])
		}
	}
	if len(s.calls) != len(want) {
		t.Errorf("calls %q", s.calls)
	}
}

// A task that nobody waits for is told apart from a token that never was one: the first
// ends the work, the second is somebody's mistake. Red when judge maps neither.
func TestCallbackErrors(t *testing.T) {
	for kind, want := range map[string]error{"TaskTimedOut": jobs.ErrTaskGone, "TaskDoesNotExist": jobs.ErrTaskGone, "InvalidToken": feature.ErrInvalid} {
		s := &service{fail: map[string]string{"SendTaskHeartbeat": kind}}
		err := newCallback(t, s).Heartbeat(t.Context(), "tok")
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", kind, err, want)
		}
		if len(s.calls) != 1 {
			t.Errorf("%s is tried %d times: it will not get better", kind, len(s.calls))
		}
	}
}

func TestCallbackNeedsARegion(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	if _, err := New(t.Context(), Config{}); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("got %v", err)
	}
}
