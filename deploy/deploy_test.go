// Package deploy holds what runs Hearth in production; its tests keep it in step with the code.
package deploy

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/jobs"
)

// sources returns the text of the Go files below dir, without tests.
func sources(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		b.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// matches returns the distinct first groups of pattern in text, sorted.
func matches(pattern, text string) []string {
	var out []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestMetricsExist: alerts and dashboard ask for metrics that the server exports, and the
// dashboard shows them all. Red when a metric is renamed in the server.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	exported := matches(`"(hearth_[a-z_]+)"`, sources(t, "../server"))
	if len(exported) < 10 {
		t.Fatalf("found only %q in the server", exported)
	}
	shown := map[string]bool{}
	for _, path := range []string{"prometheus/alerts.yaml", "grafana/hearth.json"} {
		for _, name := range matches(`\b(hearth_[a-z_]+)`, string(read(t, path))) {
			name = strings.TrimSuffix(name, "_bucket")
			shown[name] = true
			if !slices.Contains(exported, name) {
				t.Errorf("%s asks for %s, which is not exported", path, name)
			}
		}
	}
	for _, name := range exported {
		if !shown[name] && name != "hearth_reads_total" {
			t.Errorf("%s is exported, but no alert or panel uses it", name)
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(read(t, "prometheus/alerts.yaml"), &rules); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules.Groups[0].Rules {
		if r.Alert == "" || strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")") {
			t.Errorf("rule %q: %s", r.Alert, r.Expr)
		}
	}
}

// TestAlertRules: Prometheus' own tool takes the rules, and the alerts fire when they should
// and not before. Red with the comparison of a rule turned round.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", "prometheus/alerts.yaml"}, {"test", "rules", "prometheus/alerts_test.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestPoliciesAreLeastPrivilege: the policies allow the DynamoDB operations that the code
// calls, and no other. Red when an operation is added to the store or to a policy.
func TestPoliciesAreLeastPrivilege(t *testing.T) {
	t.Parallel()
	calls := matches(`ddb\.([A-Z][A-Za-z]+)Input\b`, sources(t, "../backing/dynamodb"))
	// BatchExecuteStatement has no right of its own: its statements have.
	if i := slices.Index(calls, "BatchExecuteStatement"); i >= 0 {
		calls = slices.Replace(calls, i, i+1, "PartiQLInsert", "PartiQLUpdate")
	}
	// A job tells a state machine how it goes, with the same care.
	for _, op := range matches(`sfn\.([A-Z][A-Za-z]+)Input\b`, sources(t, "../jobs/stepfunctions")) {
		if !strings.Contains(string(read(t, "iam/job.json")), `"states:`+op+`"`) {
			t.Errorf("a job calls %s, and iam/job.json does not allow it", op)
		}
	}
	var allowed []string
	files, err := filepath.Glob("iam/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	for _, file := range files {
		var policy struct {
			Version   string
			Statement []struct {
				Effect   string
				Action   []string
				Resource any
			}
		}
		if err := json.Unmarshal(read(t, file), &policy); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, s := range policy.Statement {
			if s.Effect != "Allow" || s.Resource == nil || s.Resource == "*" {
				t.Errorf("%s: statement %+v is not for named resources", file, s)
			}
			for _, a := range s.Action {
				if strings.Contains(a, "*") {
					t.Errorf("%s allows %s", file, a)
				}
				if op, ok := strings.CutPrefix(a, "dynamodb:"); ok {
					allowed = append(allowed, op)
				}
			}
		}
	}
	slices.Sort(calls)
	slices.Sort(allowed)
	if allowed = slices.Compact(allowed); !slices.Equal(calls, allowed) {
		t.Errorf("the store calls\n%q, the policies allow\n%q", calls, allowed)
	}
}

// TestStateMachines: every transition leads to a state, no two states have one name, and every
// command and flag exists. Seen red with a state of a map called as one outside of it.
func TestStateMachines(t *testing.T) {
	t.Parallel()
	commands := sources(t, "../cmd/hearth")
	files, err := filepath.Glob("step-functions/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no state machines: %v", err)
	}
	for _, file := range files {
		var m stateMachine
		if err := json.Unmarshal(read(t, file), &m); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		m.check(t, file, commands)
		names := m.names()
		slices.Sort(names)
		if distinct := slices.Compact(slices.Clone(names)); len(distinct) != len(names) {
			t.Errorf("%s: two states of one name, which Step Functions refuses: %q", file, names)
		}
	}
}

// names lists the states, those of its maps among them.
func (m *stateMachine) names() (names []string) {
	for name, s := range m.States {
		names = append(names, name)
		if s.ItemProcessor != nil {
			names = append(names, s.ItemProcessor.names()...)
		}
	}
	return names
}

// TestRewarmIsDistributed: the rewarm's parts are the children of a Distributed Map, are all
// there, share one attempt, and are followed by one summary of that attempt. That parts
// cover the segments is tested where they are read (internal/app).
// Seen red with: MathAdd of 0; the attempt left out of the summary; the mode INLINE; the right
// to redrive left out.
func TestRewarmIsDistributed(t *testing.T) {
	t.Parallel()
	var m struct {
		StartAt string
		States  map[string]struct {
			Type, Next, ItemsPath, ResultPath string
			Parameters                        json.RawMessage
			ItemSelector                      map[string]string
			ItemProcessor                     struct {
				ProcessorConfig struct{ Mode, ExecutionType string }
				StartAt         string
				States          map[string]struct {
					Parameters json.RawMessage
					Retry      []struct{ ErrorEquals []string }
				}
			}
		}
	}
	if err := json.Unmarshal(read(t, "step-functions/rewarm.json"), &m); err != nil {
		t.Fatal(err)
	}
	parts, each := m.States[m.StartAt], m.States[m.States[m.StartAt].Next]
	if !strings.Contains(string(parts.Parameters), "States.ArrayRange(0, States.MathAdd($.tasks, -1), 1)") || each.ItemsPath != parts.ResultPath+".indexes" {
		t.Errorf("the parts are not 0 to tasks-1: %s from %s", each.ItemsPath, parts.Parameters)
	}
	p := each.ItemProcessor
	if each.Type != "Map" || p.ProcessorConfig.Mode != "DISTRIBUTED" || p.ProcessorConfig.ExecutionType != "STANDARD" {
		t.Errorf("the parts are run by a %s of mode %+v", each.Type, p.ProcessorConfig)
	}
	if got := each.ItemSelector["part.$"]; got != "States.Format('{}/{}', $$.Map.Item.Value, $.tasks)" {
		t.Errorf("a part is %s", got)
	}
	if got := each.ItemSelector["attempt.$"]; got != "$$.Execution.Name" {
		t.Errorf("the attempt is %s", got)
	}
	child := p.States[p.StartAt]
	for _, want := range []string{"'--attempt',$.attempt", "'--segments',$.segments", "'--segment-range',$.part"} {
		if !strings.Contains(string(child.Parameters), want) {
			t.Errorf("a child has no %s: %s", want, child.Parameters)
		}
	}
	if len(child.Retry) < 2 {
		t.Error("a child that fails is not tried again")
	}
	// A distributed map starts its children as executions of their own, and redrives them.
	for _, op := range []string{"StartExecution", "DescribeExecution", "RedriveExecution", "StopExecution"} {
		if !strings.Contains(string(read(t, "iam/state-machine.json")), `"states:`+op+`"`) {
			t.Errorf("iam/state-machine.json does not allow states:%s", op)
		}
	}
	if summary := m.States[each.Next]; !strings.Contains(string(summary.Parameters), "'rewarm','--summary','--attempt',$$.Execution.Name") {
		t.Errorf("after the parts comes %s, no summary: %s", each.Next, summary.Parameters)
	}
}

type stateMachine struct {
	StartAt string
	States  map[string]struct {
		Type, Next    string
		Default       string
		Choices       []struct{ Next string }
		Catch         []struct{ Next string }
		End           bool
		Parameters    json.RawMessage
		ItemProcessor *stateMachine
	}
}

func (m *stateMachine) check(t *testing.T, file, commands string) {
	t.Helper()
	if _, ok := m.States[m.StartAt]; !ok {
		t.Errorf("%s starts at %q, which is no state", file, m.StartAt)
	}
	for name, s := range m.States {
		var leads []string
		switch s.Type {
		case "Succeed", "Fail":
		case "Choice":
			leads = append(leads, s.Default)
		default:
			if !s.End {
				leads = append(leads, s.Next)
			}
		}
		for _, other := range append(s.Choices, s.Catch...) {
			leads = append(leads, other.Next)
		}
		for _, next := range leads {
			if _, ok := m.States[next]; !ok {
				t.Errorf("%s: state %s leads to %q, which is no state", file, name, next)
			}
		}
		if s.ItemProcessor != nil {
			s.ItemProcessor.check(t, file, commands)
		}
		for _, words := range matches(`States\.Array\(([^)]*)\)`, string(s.Parameters)) {
			for _, word := range matches(`'([^']+)'`, words) {
				field := strings.ReplaceAll(strings.TrimPrefix(word, "--"), "-", "")
				if word == "json" || regexp.MustCompile(`^[0-9.]+$`).MatchString(word) {
					continue
				}
				if !regexp.MustCompile(`(?im)^\s+` + field + `\s+\S+\s+` + "`").MatchString(commands) {
					t.Errorf("%s: the command line has no %s", file, word)
				}
			}
		}
	}
}

// TestComposeConfiguration: the configuration of the compose file can be read.
func TestComposeConfiguration(t *testing.T) {
	t.Parallel()
	c, err := config.Load("compose/hearth.yaml", config.WithScheduleCheck(func(spec, zone string) error {
		_, err := jobs.ParseSchedule(spec, zone)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]any
	}
	if err := yaml.Unmarshal(read(t, "compose.yaml"), &compose); err != nil {
		t.Fatal(err)
	}
	for what, address := range map[string]string{"redis": c.Online.Redis.Addrs[0], "dynamodb": c.Backing.DynamoDB.Endpoint} {
		if _, ok := compose.Services[what]; !ok || !strings.Contains(address, what+":") {
			t.Errorf("no service %s for %s", what, address)
		}
	}
}
