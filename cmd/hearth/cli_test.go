package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/hearthstore/hearth/internal/config"
)

// command runs one command line inside the test.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &errs})
	return code, out.String(), errs.String()
}

// leaves are the commands that can be run, each as its words.
func leaves(t *testing.T) map[string]*kong.Node {
	t.Helper()
	parser, err := kong.New(&cli{}, kong.Name("hearth"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*kong.Node{}
	for _, n := range parser.Model.Leaves(true) {
		all[strings.TrimPrefix(n.FullPath(), "hearth ")] = n
	}
	return all
}

// Every command has help with an example, and the example's flags exist. Red when a Help
// method is removed, and when an example names a flag that is not there.
func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	t.Parallel()
	all := leaves(t)
	if len(all) < 18 {
		t.Fatalf("found only %d commands", len(all))
	}
	for path, node := range all {
		code, stdout, _ := command(t, append(strings.Fields(path), "--help")...)
		if code != exitDone || !strings.Contains(stdout, "Example") || !strings.Contains(stdout, "hearth "+path) {
			t.Errorf("hearth %s --help has no example (exit %d):\n%s", path, code, stdout)
		}
		for line := range strings.Lines(node.Detail) {
			line, _, _ = strings.Cut(line, " #")
			if _, after, ok := strings.Cut(line, "hearth "+path); ok {
				for word := range strings.FieldsSeq(after) {
					if word == "|" || word == "&&" || word == ">" {
						break
					}
					if strings.HasPrefix(word, "-") && flagOf(node, word) == nil {
						t.Errorf("hearth %s --help: the example has %s, which is no flag", path, word)
					}
				}
			}
		}
	}
}

// hearth help is --help, of a command as well. Seen red without it.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, words := range []string{"", "rewarm", "jobs", "dataset build"} {
		args := strings.Fields(words)
		_, want, _ := command(t, append(args, "--help")...)
		if code, got, _ := command(t, append([]string{"help"}, args...)...); code != exitDone || got != want || got == "" {
			t.Errorf("hearth help %s: exit %d\n%s", words, code, got)
		}
	}
}

// The commands of the README's table exist, and none is left out.
func TestReadmeListsTheCommands(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "## Commands")
	table, _, _ = strings.Cut(table, "Every command has")
	for path := range leaves(t) {
		words := strings.Fields(path)
		if !strings.Contains(table, words[len(words)-1]) {
			t.Errorf("the README does not list hearth %s", path)
		}
	}
}

func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	if err := config.InitRepo(filepath.Join(dir, "repo")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HEARTH_CONFIG", filepath.Join(dir, "repo", "hearth.yaml"))
	for line, want := range map[string]string{
		"j":                             "jobs",
		"jobs r":                        "run",
		"jobs run ":                     "hourly training warm",
		"--log-level info jobs run w":   "warm",
		"-c gone.yaml jobs run ":        "", // what cannot be read declares nothing
		"jobs history --job h":          "hourly",
		"dataset build c":               "churn",
		"push ":                         "user_activity",
		"get --feature-service ":        "churn_v1",
		"materialize --feature-views u": "user_activity",
		"--log-format j":                "json",
		"dataset describe ":             "", // the shell completes folders
		"verify --rep":                  "--repair",
		"rewarm --segment":              "--segment-range --segments",
		"completion z":                  "zsh",
		"compl":                         "completion", // and not the hidden command
	} {
		code, stdout, stderr := command(t, append([]string{"complete", "--"}, strings.Split(line, " ")...)...)
		if got := strings.Join(strings.Fields(stdout), " "); code != exitDone || got != want || stderr != "" {
			t.Errorf("%q: %q, want %q (exit %d %s)", line, got, want, code, stderr)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, stdout, _ := command(t, "completion", shell); code != exitDone || !strings.Contains(stdout, "hearth complete --") {
			t.Errorf("%s: exit %d\n%s", shell, code, stdout)
		}
	}
	if code, _, _ := command(t, "completion", "cmd.exe"); code != exitUsage {
		t.Errorf("an unknown shell: exit %d", code)
	}
}

// Mistakes on the command line are usage errors that say where help is.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"materialise"}, {"get"}, {"jobs"}, {"verify", "--fraction", "much"}, {"--log-format", "xml", "status"}} {
		code, _, stderr := command(t, args...)
		if code != exitUsage || !strings.Contains(stderr, "--help") {
			t.Errorf("%q: exit %d\n%s", args, code, stderr)
		}
	}
	// The advice is a command line that works. Seen red with the mistake repeated in it.
	for args, advice := range map[string]string{
		"materialise": "hearth --help", "jobs": "hearth jobs --help", "jobs begin": "hearth jobs --help", "jobs run": "hearth jobs run --help",
		"verify --franction 1": "hearth verify --help", "dataset describe": "hearth dataset describe --help", "help nothing": "hearth --help",
	} {
		code, _, stderr := command(t, strings.Fields(args)...)
		if code != exitUsage || !strings.HasSuffix(stderr, "\nTry: "+advice+"\n") {
			t.Errorf("%s: exit %d\n%s", args, code, stderr)
		}
		if code, _, stderr = command(t, strings.Fields(strings.TrimPrefix(advice, "hearth "))...); code != exitDone {
			t.Errorf("%s: exit %d\n%s", advice, code, stderr)
		}
	}
	// A flag that would have no effect is a mistake: a drill that is not one would rewarm.
	// Seen red with: no check.
	for _, args := range []string{
		"--drill-fraction 0.05", "--drill-redis 127.0.0.1:1", "--drill --plan", "--drill --feature-views a", "--drill --from-export x", "--drill --attempt a",
		"--summary --verify 1", "--summary --drill", "--no-catch-up", "--from-export x --no-catch-up --verify 1",
	} {
		code, _, stderr := command(t, append([]string{"rewarm"}, strings.Fields(args)...)...)
		if code != exitUsage || !strings.Contains(stderr, "go with --") && !strings.Contains(stderr, "goes with --") {
			t.Errorf("rewarm %s: exit %d\n%s", args, code, stderr)
		}
	}
	codes := []int{exitDone, exitFailed, exitUsage, exitPartial, exitLeaseHeld, exitDifferences, exitInterrupted}
	if !slices.Equal(codes, []int{0, 1, 2, 3, 4, 5, 130}) {
		t.Errorf("the exit codes are an interface, and were changed: %v", codes)
	}
}
