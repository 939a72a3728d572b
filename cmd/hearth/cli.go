package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/app"
	"github.com/hearthstore/hearth/internal/clock"
)

// streams are what a command reads and writes, so that tests can hold them.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// cli is the whole command line. Each command is one field here and one file.
type cli struct {
	Config    string `short:"c" env:"HEARTH_CONFIG" default:"hearth.yaml" placeholder:"FILE" help:"Configuration file (default ./hearth.yaml, or HEARTH_CONFIG)."`
	JSON      bool   `help:"Print one JSON document on stdout; logs and progress go to stderr."`
	LogFormat string `enum:"text,json" default:"text" help:"Log format: text or json."`
	LogLevel  string `enum:"debug,info,warn,error" default:"warn" help:"Log level: debug, info, warn or error."`

	Demo        demoCmd        `cmd:"" help:"The whole story on real sample data with the embedded tiers. No set-up."`
	Init        initCmd        `cmd:"" help:"Make a runnable feature repository to start from."`
	Validate    validateCmd    `cmd:"" help:"Check the configuration and the sources behind it."`
	Schema      schemaCmd      `cmd:"" help:"Print the JSON Schema of hearth.yaml."`
	Apply       applyCmd       `cmd:"" help:"Create or check the tables that the backing tier needs."`
	Dataset     datasetCmd     `cmd:"" help:"Training sets: build, snapshot, describe, diff."`
	Materialize materializeCmd `cmd:"" help:"Write the latest feature values to the backing tier, then to Redis."`
	Push        pushCmd        `cmd:"" help:"Write rows (NDJSON or Parquet) to both tiers, by the same rules."`
	Rewarm      rewarmCmd      `cmd:"" help:"Refill an empty Redis from the backing tier."`
	Verify      verifyCmd      `cmd:"" help:"Compare the tiers; --repair heals Redis."`
	Get         getCmd         `cmd:"" help:"Read features as a model would, with status, tier and age."`
	Retire      retireCmd      `cmd:"" help:"Delete a view version from every tier."`
	Forget      forgetCmd      `cmd:"" help:"Erase one entity from every tier and from what else names it."`
	Forgotten   forgottenCmd   `cmd:"" help:"What was erased, when and by whom."`
	Status      statusCmd      `cmd:"" help:"Freshness per view, cold or warm, last runs."`
	Jobs        jobsCmd        `cmd:"" help:"The schedule: start, run, list, history."`
	Serve       serveCmd       `cmd:"" help:"HTTP server for online features, with health, metrics and a status page."`
	Completion  completionCmd  `cmd:"" help:"Print a script for shell completion."`
	Size        sizeCmd        `cmd:"" help:"Redis memory and connection pools, from a sample."`
	Version     versionCmd     `cmd:"" help:"Print version and build data."`

	Complete completeCmd `cmd:"" hidden:"" help:"Answer the scripts of hearth completion."`
}

// env is what a command gets to work with.
type env struct {
	ctx context.Context
	cli *cli
	streams
	log    *slog.Logger
	model  *kong.Node // the command line, for completion
	screen *screen    // nil when stderr is no terminal
}

const description = `Hearth builds point-in-time training sets from Parquet, keeps the latest feature values
in Redis (fast, may be lost) and DynamoDB (durable), and refills an empty Redis in minutes.

Examples:
  hearth demo
  hearth init my_features && cd my_features && hearth validate
  hearth dataset build loans
  hearth materialize
  hearth get --feature-service credit_score_v1 zipcode=76104,dob_ssn=19630621_4278
  hearth rewarm --if-cold

` + exitHelp

// run parses args, runs one command and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("hearth"), kong.Description(description),
		kong.Writers(s.out, s.err),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, Summary: true}),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintln(s.err, "hearth:", err)
		return exitFailed
	}
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help": // as in other tools: hearth help rewarm
		args = append(slices.Clone(args[1:]), "--help")
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // --help was asked for and printed
		return exited
	}
	if err != nil {
		fmt.Fprintf(s.err, "hearth: %v\nTry: hearth %s--help\n", err, commandHint(parser.Model.Node, args))
		return exitUsage
	}
	screen := screenOf(s.err)
	s.out, s.err = screen.through(s.out), screen.through(s.err)
	e := &env{screen: screen, ctx: ctx, cli: &c, streams: s, log: newLogger(s.err, c.LogFormat, c.LogLevel), model: parser.Model.Node}
	err = parsed.Run(e)
	if err != nil {
		e.report(err)
	}
	return exitCode(ctx, err)
}

// commandHint is the part of args that names a command, for the advice to ask for its help.
func commandHint(at *kong.Node, args []string) string {
	var b strings.Builder
	for _, a := range args {
		i := slices.IndexFunc(at.Children, func(n *kong.Node) bool { return n.Type == kong.CommandNode && n.Name == a })
		if i < 0 {
			break
		}
		at = at.Children[i]
		b.WriteString(a + " ")
	}
	return b.String()
}

func newLogger(w io.Writer, format, level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // the flag's enum allows valid levels only
	opts := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// report prints an error for a person, or as a JSON line when the output is JSON.
func (e *env) report(err error) {
	var problems feature.Problems
	switch {
	case errors.As(err, &problems) && e.cli.JSON:
		e.printJSON(e.err, map[string]any{"error": "invalid", "problems": problems})
	case errors.As(err, &problems):
		for _, p := range problems {
			fmt.Fprintln(e.err, p)
		}
		fmt.Fprintf(e.err, "hearth: %d problem(s); nothing was done\n", len(problems))
	case e.cli.JSON:
		e.printJSON(e.err, map[string]any{"error": err.Error()})
	default:
		fmt.Fprintln(e.err, "hearth:", err)
		if hint := hintFor(err); hint != "" {
			fmt.Fprintln(e.err, "Try:", hint)
		}
	}
}

// hintFor says what an operator does next.
func hintFor(err error) string {
	switch {
	case errors.Is(err, feature.ErrNotApplied):
		return "hearth apply"
	case errors.Is(err, feature.ErrLeaseHeld):
		return "hearth status (it shows who holds it); nothing was done here"
	case errors.Is(err, feature.ErrDenied):
		return "check credentials and rights (docs/OPERATIONS.md lists the IAM actions and the Redis ACL that are needed)"
	}
	return ""
}

func (e *env) printJSON(w io.Writer, doc any) {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		fmt.Fprintln(e.err, "hearth: print result:", err)
	}
}

// emit prints the result: the document with --json, else the table.
func (e *env) emit(doc any, table func(io.Writer) error) error {
	if e.cli.JSON {
		e.printJSON(e.out, doc)
		return nil
	}
	return table(e.out)
}

// reporter is a report that a person can read.
type reporter interface {
	comparable
	WriteTable(w io.Writer) error
}

// conclude prints the report of a run that began, whatever its end, and judges it: the
// error of the run first, then what the report says. A zero report is a run that never
// began.
func conclude[R reporter](e *env, report R, err error, verdict func(R) error) error {
	var none R
	if report == none {
		return err
	}
	if perr := e.emit(report, report.WriteTable); perr != nil {
		return perr
	}
	if err != nil {
		return err
	}
	return verdict(report)
}

// open opens the application on the configuration file.
func (e *env) open(stage string) (*app.App, error) {
	return app.Open(e.ctx, app.Options{
		ConfigPath: e.cli.Config, Log: e.log, Clock: clock.System, Progress: newProgress(e, stage, clock.System),
	})
}

// with opens the application, runs fn and closes it; the first error wins.
func (e *env) with(stage string, fn func(*app.App) error) (err error) {
	a, err := e.open(stage)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := a.Close(); cerr != nil && err == nil {
			err = cerr
		}
	}()
	return fn(a)
}
