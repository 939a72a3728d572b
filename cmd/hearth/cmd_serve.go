package main

import (
	"fmt"

	"github.com/hearthstore/hearth/internal/app"
	"github.com/hearthstore/hearth/internal/clock"
)

type serveCmd struct {
	Listen   string `help:"Address, instead of server.listen." placeholder:"HOST:PORT"`
	Jobs     bool   `help:"Run the schedule in the same process."`
	Insecure bool   `help:"Serve features on other addresses than loopback without a read token."`
}

// Help is shown by hearth serve --help.
func (serveCmd) Help() string {
	return `Answers POST /get-online-features in Feast's shape and POST /v1/features with tiers and
ages; /livez, /readyz, /metrics, and a status page at /. Without server.auth reads are open
to this machine alone, and what writes (push, materialize) is off.

Examples:
  hearth serve
  curl -s localhost:6566/v1/features -d '{"feature_service": "credit_score_v1",
    "entities": [{"zipcode": 76104, "dob_ssn": "19630621_4278"}], "layout": "rows"}'
  hearth serve --jobs`
}

// Run carries out the command.
func (c *serveCmd) Run(e *env) (err error) {
	a, err := app.Open(e.ctx, app.Options{ConfigPath: e.cli.Config, Log: e.log, Clock: clock.System, Serving: true})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := a.Close(); err == nil {
			err = cerr
		}
	}()
	return a.Serve(e.ctx, app.ServeOptions{
		Listen: c.Listen, Insecure: c.Insecure, Jobs: c.Jobs, Version: buildVersion(),
		Ready: func(url string) { fmt.Fprintf(e.err, "hearth serves on %s\n", url) },
	})
}
