package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// ended is the name that an execution ended with; "" is well.
func ended(t *testing.T, err error) string {
	t.Helper()
	var fault *stateError
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &fault):
		t.Fatal(err)
	}
	return fault.name
}

// The state machines that run single commands: their command lines do what they say with the
// real binary, a task that fails is tried again, and one that keeps failing ends the execution
// with the name of its exit code, which are those of jobs/task.go.
// Seen red with: the catch of a task left out (States.TaskFailed); the codes of partial and lease
// held exchanged; ECS errors led to the exit code; a flag renamed.
func TestStateMachinesNameExitCodes(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, sqlite)
	r.withJobs("\n  - {name: fill, materialize: {feature_views: [credit_history]}}\n")
	names := map[int]string{1: "Failed", 2: "Invalid", 3: "Partial", 4: "LeaseHeld", 130: "Interrupted", 137: "Failed", notRun: "NotRun"}
	for _, c := range []struct {
		file     string
		input    map[string]any
		commands []string // in order, by their first words
		more     map[int]string
	}{
		{"job.json", map[string]any{"job": "fill"}, []string{"jobs run fill"}, map[int]string{5: "Differences"}},
		{"nightly.json", map[string]any{"dataset": "loans"}, []string{"materialize", "dataset build loans"}, nil},
	} {
		execute := func(code func(nth int) int) (how string, ran []string) {
			m := loadMachine(t, "../../deploy/step-functions/"+c.file, "e", func(args []string) int {
				ran = append(ran, strings.Join(args, " "))
				if code := code(len(ran)); code != -1 {
					return code
				}
				return r.run(args...).code
			})
			input := map[string]any{"cluster": "c", "task_definition": "t", "subnets": []any{"s"}, "security_groups": []any{"g"}}
			maps.Copy(input, c.input)
			_, err := m.execute(input, nil)
			return ended(t, err), ran
		}
		how, ran := execute(func(nth int) int {
			if nth == 1 { // a machine went away
				return 137
			}
			return -1
		})
		same := len(ran) == len(c.commands)+1 && ran[0] == ran[1]
		for i := range c.commands {
			same = same && strings.HasPrefix(ran[i+1], c.commands[i])
		}
		if how != "" || !same {
			t.Errorf("%s: it ended with %q after %q, want %q well, the first once more", c.file, how, ran, c.commands)
		}
		want := maps.Clone(names)
		maps.Copy(want, c.more)
		for code, name := range want {
			for failing := 1; failing <= len(c.commands); failing++ {
				how, ran := execute(func(nth int) int {
					if nth < failing {
						return 0
					}
					return code
				})
				if how != "Hearth."+name || len(ran) != failing-1+3 { // each failure is tried three times

					t.Errorf("%s: command %d ended with %d: the execution with %q after %d commands, want Hearth.%s", c.file, failing, code, how, len(ran), name)
				}
			}
		}
	}
}

// Shards: all of them run to their end, whatever becomes of one, and the execution says how the
// worst of them did. Seen red with: the failure of a shard not caught, which ends the execution;
// the order of partial and failed exchanged; every task given the same shard.
func TestStateMachineOfShards(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, sqlite)
	for _, c := range []struct {
		ends []int // of the shards; -1 for the command
		want string
	}{
		{[]int{-1, -1, -1}, ""},
		{[]int{0, 3, 0}, "Hearth.Partial"},
		{[]int{3, 4, 0}, "Hearth.LeaseHeld"},
		{[]int{3, 1, 4}, "Hearth.Failed"},
		{[]int{130, 0}, "Hearth.Failed"},
		{[]int{1, notRun, 0}, "Hearth.NotRun"},
	} {
		var (
			mu      sync.Mutex
			written int64
			ran     = map[string]int{}
		)
		m := loadMachine(t, "../../deploy/step-functions/materialize-sharded.json", "e", func(args []string) int {
			mu.Lock() // one after the other: what is tried here is what they do, not that they do it at once
			defer mu.Unlock()
			var shard, of int
			if i := slices.Index(args, "--shard"); i < 0 {
				t.Errorf("no --shard in %q", args)
				return 1
			} else if _, err := fmt.Sscanf(args[i+1], "%d/%d", &shard, &of); err != nil || of != len(c.ends) {
				t.Errorf("shard %s of %d: %v", args[i+1], len(c.ends), err)
				return 1
			}
			ran[fmt.Sprint(shard)]++
			if c.ends[shard] != -1 {
				return c.ends[shard]
			}
			res := r.run(args...)
			var doc materializeDoc
			if err := json.Unmarshal([]byte(res.stdout), &doc); err != nil {
				t.Errorf("%v: %s", err, res.stdout)
			}
			for _, v := range doc.Views {
				written += v.Backing.Written
			}
			return res.code
		})
		_, err := m.execute(map[string]any{"cluster": "c", "task_definition": "t", "subnets": []any{"s"}, "security_groups": []any{"g"}, "shards": float64(len(c.ends))}, nil)
		if how := ended(t, err); how != c.want {
			t.Errorf("%v: it ended with %q, want %q", c.ends, how, c.want)
		}
		for shard, end := range c.ends {
			want := 1
			if end != 0 && end != -1 {
				want = 3
			}
			if n := ran[fmt.Sprint(shard)]; n != want {
				t.Errorf("%v: shard %d ran %d times, want %d", c.ends, shard, n, want)
			}
		}
		if c.want != "" {
			continue
		}
		var whole materializeDoc // finds nothing that the shards left out
		r.must(0, &whole, "materialize", "--full")
		for _, v := range whole.Views {
			written -= v.Backing.Unchanged
			if v.Backing.Written > 0 || v.Backing.Unchanged == 0 {
				t.Errorf("after the shards %+v", v)
			}
		}
		if written != 0 {
			t.Errorf("the shards wrote %d more or less than there are", written)
		}
	}
}
