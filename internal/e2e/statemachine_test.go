package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/internal/testservers"
)

// machine runs a state machine of deploy/step-functions as Step Functions would, as far as
// they use the language, with the real binary where they start a container. Waiting is left out.
type machine struct {
	StartAt string
	States  map[string]*state

	run  func(args []string) int // the exit code of a container's command, or notRun
	name string                  // of the execution
}

// notRun stands for a container that ECS did not start.
const notRun = -2

type state struct {
	Type, Next, Default, Error               string
	End                                      bool
	Resource, ItemsPath, Cause, CausePath    string
	Parameters, ItemSelector, ResultSelector any
	ResultPath                               json.RawMessage // null drops the result; without it the result is all that goes on
	ItemProcessor                            *machine
	Choices                                  []struct {
		condition
		And  []condition // in its place
		Next string
	}
	Retry []struct {
		ErrorEquals []string
		MaxAttempts int
	}
	Catch []struct {
		ErrorEquals      []string
		ResultPath, Next string
	}
}

type condition struct {
	Variable      string
	IsPresent     *bool
	NumericEquals *float64
	StringEquals  *string
	BooleanEquals *bool
}

// stateError is how an execution fails.
type stateError struct{ name, cause string }

func (e *stateError) Error() string { return e.name + ": " + e.cause }

func loadMachine(t *testing.T, path, name string, run func([]string) int) *machine {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{}
	if err := json.Unmarshal(text, m); err != nil {
		t.Fatal(err)
	}
	m.run, m.name = run, name
	return m
}

// execute runs the machine on an input and returns its output.
func (m *machine) execute(input map[string]any, item any) (any, error) {
	data := map[string]any{}
	for k, v := range input {
		data[k] = v
	}
	for at := m.StartAt; ; {
		s := m.States[at]
		if s == nil {
			return nil, &stateError{"States.Runtime", "no state " + at}
		}
		out, err := m.step(s, data, item)
		if err != nil {
			next, caught := s.caught(data, err)
			if !caught {
				return nil, err
			}
			at = next
			continue
		}
		switch s.Type {
		case "Choice":
			at = s.choose(data)
			continue
		case "Succeed":
			return data, nil
		}
		var path *string
		if s.ResultPath != nil {
			if err := json.Unmarshal(s.ResultPath, &path); err != nil {
				return nil, err
			}
		}
		switch {
		case path != nil:
			data[strings.TrimPrefix(*path, "$.")] = out
		case s.ResultPath == nil:
			data, _ = out.(map[string]any)
		}
		if s.End {
			return data, nil
		}
		at = s.Next
	}
}

// step does what a state does, as often as it says.
func (m *machine) step(s *state, data map[string]any, item any) (any, error) {
	tried := make([]int, len(s.Retry))
	for {
		out, err := m.once(s, data, item)
		var fault *stateError
		if !errors.As(err, &fault) {
			return out, err
		}
		again := false
		for i, r := range s.Retry {
			if matches(r.ErrorEquals, fault.name) {
				tried[i]++
				again = tried[i] <= r.MaxAttempts
				break
			}
		}
		if !again {
			return nil, err
		}
	}
}

func (m *machine) once(s *state, data map[string]any, item any) (any, error) {
	v := scope{data: data, context: map[string]any{"Execution": map[string]any{"Name": m.name}, "Map": map[string]any{"Item": map[string]any{"Value": item}}}}
	switch s.Type {
	case "Pass":
		return v.fill(s.Parameters), nil
	case "Choice", "Succeed":
		return nil, nil
	case "Fail":
		cause := s.Cause
		if s.CausePath != "" {
			cause = fmt.Sprint(v.eval(s.CausePath))
		}
		return nil, &stateError{s.Error, cause}
	case "Map":
		items, _ := v.eval(s.ItemsPath).([]any)
		var g errgroup.Group
		outputs := make([]any, len(items))
		for i, item := range items {
			inner := v
			inner.context = map[string]any{"Execution": v.context["Execution"], "Map": map[string]any{"Item": map[string]any{"Value": item}}}
			input, _ := inner.fill(s.ItemSelector).(map[string]any)
			child := *s.ItemProcessor
			child.run, child.name = m.run, "child"
			g.Go(func() (err error) {
				outputs[i], err = child.execute(input, item)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, &stateError{"States.ExceedToleratedFailureThreshold", err.Error()}
		}
		return outputs, nil
	case "Task":
		p, _ := v.fill(s.Parameters).(map[string]any)
		overrides, _ := p["Overrides"].(map[string]any)
		containers, _ := overrides["ContainerOverrides"].([]any)
		container, _ := containers[0].(map[string]any)
		var args []string
		for _, a := range container["Command"].([]any) {
			args = append(args, fmt.Sprint(a))
		}
		switch code := m.run(args); {
		case code == notRun:
			return nil, &stateError{"ECS.AccessDeniedException", "no access"}
		case code != 0:
			cause, err := json.Marshal(map[string]any{"Containers": []any{map[string]any{"Name": container["Name"], "ExitCode": code}}})
			if err != nil {
				return nil, err
			}
			return nil, &stateError{"States.TaskFailed", string(cause)}
		}
		if s.ResultSelector != nil {
			return v.fill(s.ResultSelector), nil
		}
		return map[string]any{}, nil
	}
	return nil, fmt.Errorf("state of type %q", s.Type)
}

func matches(names []string, name string) bool {
	return slices.Contains(names, name) || slices.Contains(names, "States.ALL") || slices.Contains(names, "States.TaskFailed") && !strings.HasPrefix(name, "States.Exceed")
}

func (s *state) caught(data map[string]any, err error) (next string, ok bool) {
	var fault *stateError
	if !errors.As(err, &fault) {
		return "", false
	}
	for _, c := range s.Catch {
		if matches(c.ErrorEquals, fault.name) {
			data[strings.TrimPrefix(c.ResultPath, "$.")] = map[string]any{"Error": fault.name, "Cause": fault.cause}
			return c.Next, true
		}
	}
	return "", false
}

func (s *state) choose(data map[string]any) string {
	v := scope{data: data}
	for _, c := range s.Choices {
		holds := true
		for _, and := range slices.Concat(c.And, []condition{c.condition}) {
			if and.Variable == "" {
				continue
			}
			got := v.eval(and.Variable)
			if and.IsPresent != nil {
				holds = holds && (got != nil) == *and.IsPresent
			}
			if and.NumericEquals != nil {
				holds = holds && got == *and.NumericEquals
			}
			if and.StringEquals != nil {
				holds = holds && got == *and.StringEquals
			}
			if and.BooleanEquals != nil {
				holds = holds && got == *and.BooleanEquals
			}
		}
		if holds {
			return c.Next
		}
	}
	return s.Default
}

// scope is what expressions see.
type scope struct{ data, context map[string]any }

// fill evaluates the fields of a template whose names end in ".$".
func (v scope) fill(template any) any {
	switch x := template.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, value := range x {
			if plain, is := strings.CutSuffix(name, ".$"); is {
				out[plain] = v.eval(value.(string))
			} else {
				out[name] = v.fill(value)
			}
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = v.fill(x[i])
		}
		return out
	}
	return template
}

// eval evaluates a path, an intrinsic function, a number or a quoted text.
func (v scope) eval(text string) any {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil
	case text[0] == '\'':
		return strings.Trim(text, "'")
	case strings.HasPrefix(text, "$$."):
		return walk(v.context, text[3:])
	case strings.HasPrefix(text, "$."):
		return walk(v.data, text[2:])
	case strings.HasPrefix(text, "States."):
		name, rest, _ := strings.Cut(text, "(")
		var args []any
		for _, a := range arguments(strings.TrimSuffix(rest, ")")) {
			args = append(args, v.eval(a))
		}
		return intrinsic(name, args)
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil
	}
	return n
}

func walk(in any, path string) any {
	before, after, all := strings.Cut(path, "[*].")
	if all {
		list, _ := walk(in, before).([]any)
		out := make([]any, len(list))
		for i := range list {
			out[i] = walk(list[i], after)
		}
		return out
	}
	for _, part := range strings.Split(strings.ReplaceAll(path, "[", ".["), ".") {
		if index, is := strings.CutPrefix(part, "["); is {
			list, _ := in.([]any)
			i, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
			if err != nil || i >= len(list) {
				return nil
			}
			in = list[i]
			continue
		}
		object, _ := in.(map[string]any)
		in = object[part]
	}
	return in
}

// arguments splits at the commas outside of parentheses.
func arguments(text string) (args []string) {
	depth, from := 0, 0
	for i, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			args, from = append(args, text[from:i]), i+1
		}
	}
	return append(args, text[from:])
}

func intrinsic(name string, args []any) any {
	switch name {
	case "States.Array":
		return args
	case "States.Format":
		text := args[0].(string)
		for _, a := range args[1:] {
			text = strings.Replace(text, "{}", fmt.Sprint(a), 1)
		}
		return text
	case "States.MathAdd":
		return args[0].(float64) + args[1].(float64)
	case "States.ArrayRange":
		var out []any
		for n := args[0].(float64); n <= args[1].(float64); n += args[2].(float64) {
			out = append(out, n)
		}
		return out
	case "States.ArrayContains":
		list, _ := args[0].([]any)
		return slices.Contains(list, args[1])
	case "States.StringToJson":
		var out any
		if json.Unmarshal([]byte(args[0].(string)), &out) != nil {
			return nil
		}
		return out
	}
	return nil
}

// The state machine of a rewarm, run with the real binary: its command lines are understood,
// the parts together bring everything, one that fails is tried again and goes on, and the
// exit codes of summary and verification, or ECS, end the execution by their names.
// Seen red with: a flag renamed in the state machine; the part left out of the command (each
// task does everything); the code of partial and differences exchanged; no catch.
func TestStateMachineOfRewarm(t *testing.T) {
	t.Parallel()
	redis := testservers.Redis(t, testservers.RedisOptions{})
	endpoint := testservers.SharedDynamoDB(t)
	r := newRepo(t, fmt.Sprintf("{redis: {addrs: [%q]}}", redis.Addr()), fmt.Sprintf("{dynamodb: {table: machine_e2e, region: us-east-1, endpoint: %q}}", endpoint))
	r.must(0, nil, "apply")
	r.must(0, nil, "materialize", "--feature-views", "credit_history")
	lose := func() {
		if _, err := redis.Do("FLUSHALL"); err != nil {
			t.Error(err)
		}
	}
	type doc struct {
		Status           string
		Warm             bool
		Scanned, Written int64
		Segments         int
		SegmentFrom      int `json:"segment_from"`
		SegmentTo        int `json:"segment_to"`
		SegmentsDone     int `json:"segments_done"`
	}
	for _, c := range []struct {
		name     string
		instead  func(what string, nth int) int // an exit code in place of the command; -1 for the command
		want     string                         // how the execution ends; "" well
		commands int
	}{
		{"well", func(string, int) int { return -1 }, "", 6},
		{"once-more", func(what string, nth int) int {
			if what == "rewarm" && nth == 1 { // a machine went away
				return 137
			}
			return -1
		}, "", 7},
		{"partial", func(what string, nth int) int {
			if what == "rewarm" && nth == 2 { // it says that it is through, and is not
				return 0
			}
			return -1
		}, "Hearth.Partial", 5},
		{"differs", func(what string, _ int) int {
			if what == "verify" {
				lose()
			}
			return -1
		}, "Hearth.Differences", 6},
		{"broken", func(what string, _ int) int {
			if what == "verify" {
				return 1
			}
			return -1
		}, "Hearth.Failed", 6},
		{"not-started", func(what string, _ int) int {
			if what == "summary" {
				return notRun
			}
			return -1
		}, "Hearth.NotRun", 5},
	} {
		lose()
		var (
			mu       sync.Mutex
			counts   = map[string]int{}
			written  int64
			parts    = map[string]bool{}
			commands int
		)
		m := loadMachine(t, "../../deploy/step-functions/rewarm.json", "execution-"+c.name, func(args []string) int {
			what := args[0]
			if slices.Contains(args, "--summary") {
				what = "summary"
			}
			mu.Lock()
			commands++
			counts[what]++
			code := c.instead(what, counts[what])
			mu.Unlock()
			if code != -1 {
				return code
			}
			res := r.run(args...)
			if res.code == 2 {
				t.Errorf("%s: hearth %s is not understood: %s", c.name, strings.Join(args, " "), res.stderr)
			}
			var d doc
			if err := json.Unmarshal([]byte(res.stdout), &d); err != nil {
				t.Errorf("%s: hearth %s: %v\n%s", c.name, strings.Join(args, " "), err, res.stdout)
			}
			mu.Lock()
			defer mu.Unlock()
			if what == "rewarm" {
				written += d.Written
				parts[fmt.Sprintf("%d-%d of %d", d.SegmentFrom, d.SegmentTo, d.Segments)] = true
			}
			if what == "summary" && res.code == 0 && (d.Status != "done" || d.Scanned != 1000 || !d.Warm || d.SegmentsDone != 10) {
				t.Errorf("%s: summary %+v", c.name, d)
			}
			return res.code
		})
		_, err := m.execute(map[string]any{"cluster": "c", "task_definition": "t", "subnets": []any{"s"}, "security_groups": []any{"g"}, "segments": 10.0, "tasks": 4.0}, nil)
		var fault *stateError
		if failed := errors.As(err, &fault); c.want == "" && err != nil || c.want != "" && (!failed || fault.name != c.want) {
			t.Errorf("%s: it ended with %v, want %q", c.name, err, c.want)
		}
		if commands != c.commands {
			t.Errorf("%s: %d commands, want %d: %v", c.name, commands, c.commands, counts)
		}
		if c.want == "" && (written != 1000 || len(parts) != 4) {
			t.Errorf("%s: %d values written in parts %v, want 1000 in 4", c.name, written, parts)
		}
	}
}
