package archtest

import (
	"strings"
	"testing"
)

// rule is one row of the import table.
type rule struct {
	pkg    string   // pattern of the importing packages
	may    []string // what they may import of this module
	except []string // what they may not, although may says so
	why    string
}

// Helpers that may be used wherever they are of use.
const (
	clock     = "internal/clock"
	telemetry = "internal/telemetry"
	pace      = "internal/pace"
	sketch    = "internal/sketch"
	breaker   = "internal/breaker"
)

// table is the import table of docs/ARCHITECTURE.md. The first row that
// matches a package counts. Imports run downward only, so that each part can be
// read, tested and replaced without the others.
var table = []rule{
	{pkg: "feature", why: "the dictionary is what everybody speaks, so it knows nobody"},
	{pkg: "sql", why: "query templates are files with a lookup"},
	{pkg: clock, why: "a helper imports nothing of ours"},
	{pkg: telemetry, why: "a helper imports nothing of ours"},
	{pkg: pace, may: []string{clock}, why: "pacing needs the time and nothing else"},
	{pkg: sketch, may: []string{"feature"}, why: "a helper imports the dictionary only"},
	{pkg: breaker, may: []string{"feature", clock}, why: "a breaker needs the time and the word for unreachable"},

	{pkg: "offline/...", may: []string{"feature", "sql", "offline/...", clock, telemetry},
		why: "the offline engine knows no tier"},
	{pkg: "online/...", may: []string{"feature", "online/...", clock, telemetry, pace, sketch, breaker},
		why: "a tier knows no other tier and no worker"},
	{pkg: "backing/...", may: []string{"feature", "backing/...", clock, telemetry, pace},
		why: "a tier knows no other tier and no worker"},

	{pkg: "materializer/...", may: []string{"feature", "materializer/...", clock, telemetry, pace},
		why: "a worker declares the small interfaces that it needs and imports no tier"},
	{pkg: "rewarm/...", may: []string{"feature", "rewarm/...", clock, telemetry, pace, sketch},
		why: "a worker declares the small interfaces that it needs and imports no tier"},
	{pkg: "reader/...", may: []string{"feature", "reader/...", clock, telemetry, pace, sketch, breaker},
		why: "the reader declares the small interfaces that it needs and imports no tier"},
	{pkg: "jobs/...", may: []string{"feature", "jobs/...", clock, telemetry},
		why: "the scheduler starts what it is given and imports no worker"},
	{pkg: "server/...", may: []string{"reader", "feature", "server/...", clock, telemetry, "internal/config"},
		why: "the server sees a reader and small job interfaces"},

	{pkg: "internal/config", may: []string{"feature", clock},
		why: "the configuration is read before anything is opened"},
	{pkg: "internal/tiers", may: []string{"feature", "online", "backing/...", "reader", clock, telemetry, "internal/config"},
		why: "it opens tiers for the front door, which builds without the offline engine"},
	{pkg: "internal/hotkeys", may: []string{"feature", "backing", clock, sketch},
		why: "it carries the readers' sketches to the rewarm through the state table, for the front door too"},
	{pkg: "internal/app/...", may: []string{"..."}, except: []string{"cmd/..."},
		why: "it wires everything, and is wired by nobody but the commands"},
	{pkg: ".", may: []string{"..."}, except: []string{
		"offline/...", "materializer/...", "rewarm/...", "jobs/...", "cmd/...", "internal/app/...", "sql/...",
	}, why: "an online service that embeds the front door carries neither workers nor the offline engine"},
	{pkg: "cmd/...", may: []string{"..."}, except: []string{"online/...", "backing/...", "internal/tiers"},
		why: "commands turn flags into calls of internal/app; they open nothing themselves"},

	{pkg: "internal/testservers/...", may: []string{"internal/testservers"}, why: "test servers know nothing of the product"},
	{pkg: "internal/faults", may: []string{"internal/testservers"}, why: "faults know nothing of the product"},
	{pkg: "internal/archtest", why: "it reads the tree and uses none of it"},
	{pkg: "internal/e2e/...", may: []string{"..."}, why: "tests of the whole"},
	{pkg: "internal/sim/...", may: []string{"..."}, except: []string{"cmd/..."}, why: "a simulation of the whole, for tests"},
	{pkg: "bench/...", may: []string{"..."}, why: "measurements of everything"},
	{pkg: "examples/...", may: []string{"..."}, except: []string{"internal/...", "cmd/..."},
		why: "an example shows what a user can do, and a user cannot import internal packages"},
}

// owner says who alone may talk to an outside system.
type owner struct {
	library string
	pkgs    []string
}

var owners = []owner{
	{"github.com/duckdb/", []string{"offline/..."}},
	{"github.com/redis/go-redis/", []string{"online/..."}},
	{"github.com/alicebob/miniredis/", []string{"online/..."}},
	{"github.com/aws/aws-sdk-go-v2/service/dynamodb", []string{"backing/dynamodb"}},
	{"github.com/aws/aws-sdk-go-v2/feature/dynamodb/", []string{"backing/dynamodb"}},
	{"github.com/aws/aws-sdk-go-v2/service/s3", []string{"offline/...", "rewarm/export"}}, // sources; exports of the table
	{"github.com/aws/aws-sdk-go-v2/service/sfn", []string{"jobs/stepfunctions"}},
	{"modernc.org/sqlite", []string{"backing/sqlite"}},
	{"github.com/robfig/cron/", []string{"jobs"}},
	{"github.com/alecthomas/kong", []string{"cmd/..."}},
}

// ownerless code may talk to any system: it is not part of the product.
var ownerless = []string{"internal/testservers/...", "internal/faults", "internal/e2e/...", "internal/sim/...", "bench/...", "examples/..."}

func TestImportDirections(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test {
			continue // a test may compare its package with a neighbour
		}
		r, ok := ruleOf(s.pkg)
		if !ok {
			t.Errorf("%s: the package %s has no row in the import table; add one, with the reason", s.path, s.pkg)
			continue
		}
		for _, imp := range s.imports() {
			pkg, ours := ownPackage(imp)
			if !ours || pkg == s.pkg {
				continue
			}
			if !under(pkg, r.may) || under(pkg, r.except) {
				t.Errorf("%s imports %s, but %s: %s", s.path, imp, allowance(r), r.why)
			}
		}
	}
}

func TestOutsideSystemsHaveOneOwner(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || under(s.pkg, ownerless) {
			continue
		}
		for _, imp := range s.imports() {
			for _, o := range owners {
				if strings.HasPrefix(imp, o.library) && !under(s.pkg, o.pkgs) {
					t.Errorf("%s imports %s, which belongs to %s alone", s.path, imp, strings.Join(o.pkgs, ", "))
				}
			}
		}
	}
}

// TestTheTableHolds proves that the rows can fail.
func TestTheTableHolds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"feature", "internal/clock", false},
		{"online", "feature", true},
		{"online", "backing", false},
		{"backing/dynamodb", "backing", true},
		{"backing", "online", false},
		{"reader", "online", false},
		{"jobs", "materializer", false},
		{"materializer", "internal/pace", true},
		{"internal/app", "offline", true},
		{"internal/app", "cmd/hearth", false},
		{".", "online", true},
		{".", "offline", false},
		{".", "rewarm", false},
		{"cmd/hearth", "internal/app", true},
		{"cmd/hearth", "backing/dynamodb", false},
		{"examples/online_service", ".", true},
		{"examples/online_service", "internal/app", false},
	} {
		r, ok := ruleOf(c.from)
		if got := ok && under(c.to, r.may) && !under(c.to, r.except); got != c.allowed {
			t.Errorf("%s imports %s: allowed = %v, want %v", c.from, c.to, got, c.allowed)
		}
	}
}

func ruleOf(pkg string) (rule, bool) {
	for _, r := range table {
		if under(pkg, []string{r.pkg}) {
			return r, true
		}
	}
	return rule{}, false
}

// ownPackage turns an import path into a folder of this module.
func ownPackage(imp string) (string, bool) {
	if imp == module {
		return ".", true
	}
	return strings.CutPrefix(imp, module+"/")
}

func allowance(r rule) string {
	if len(r.may) == 0 {
		return r.pkg + " may import nothing of this module"
	}
	text := r.pkg + " may import " + strings.Join(r.may, ", ")
	if len(r.except) > 0 {
		text += " except " + strings.Join(r.except, ", ")
	}
	return text
}
