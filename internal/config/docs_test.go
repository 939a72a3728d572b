package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	docPath  = "../../docs/CONFIGURATION.md"
	docBegin = "<!-- reference: begin (written by go test ./internal/config -update) -->\n"
	docEnd   = "<!-- reference: end -->\n"
)

// TestReferenceInDocs: the reference in docs lists every key with its type and default,
// from the tables that the file is read with. Red when a key is added and the test is not
// run with -update.
func TestReferenceInDocs(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(docPath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), docBegin)
	old, after, ok2 := strings.Cut(rest, docEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has lost the marks of its reference", docPath)
	}
	want := reference()
	if old == want {
		return
	}
	if !*update {
		t.Fatalf("the reference in %s is not that of the tables; run go test ./internal/config -update", docPath)
	}
	if err := os.WriteFile(docPath, []byte(before+docBegin+want+docEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func reference() string {
	var b strings.Builder
	section := ""
	for _, k := range Keys() {
		top, _, _ := strings.Cut(strings.ReplaceAll(k.Path, "[]", ""), ".")
		if top != section {
			section = top
			fmt.Fprintf(&b, "\n### %s\n\n| key | type | without it | what |\n|---|---|---|---|\n", top)
		}
		absent := "-"
		switch {
		case k.Required:
			absent = "**required**"
		case k.Absent != "":
			absent = k.Absent
		case k.Default != "":
			absent = "`" + k.Default + "`"
		}
		cell := strings.NewReplacer("|", `\|`, "<", "&lt;").Replace
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Path, cell(k.Type), cell(absent), cell(k.Doc))
	}
	b.WriteByte('\n')
	return b.String()
}

// TestExamplesInDocs: every YAML example of the page that is a whole file can be read.
func TestExamplesInDocs(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(docPath)
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, part := range strings.Split(string(data), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		if !strings.HasPrefix(text, "project:") {
			text = minimal + text // a fragment: the rest of the file is the smallest that is right
		}
		examples++
		if _, err := Parse("docs.yaml", []byte(text), env("BUCKET", "b")); err != nil {
			t.Errorf("example does not load:\n%s\n%v", text, err)
		}
	}
	if examples < 5 {
		t.Errorf("found %d examples", examples)
	}
}
