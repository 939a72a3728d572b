package main

import (
	"time"

	"github.com/hearthstore/hearth/internal/app"
)

type sizeCmd struct {
	PeakRPS  int           `name:"peak-rps" help:"Reads a second of one process at the peak (default reader.peak_rps)." placeholder:"N"`
	Latency  time.Duration `help:"How long a read holds a connection at worst (default: measured)." placeholder:"2ms"`
	Entities int64         `help:"Entities per view, instead of those that are stored." placeholder:"N"`
	Growth   float64       `help:"Plan for so many times the entities." default:"1"`
	Sample   int           `help:"Stored values to look at per view." default:"10000"`
}

// Help is shown by hearth size --help.
func (sizeCmd) Help() string {
	return `Computes the memory that Redis needs and the connections that readers need, from a sample
of the stored values and the latency of Redis. The formulas are in docs/SERVING.md. It
changes nothing.

Examples:
  hearth size --peak-rps 2000
  hearth size --entities 50000000 --growth 1.5 --json`
}

// Run carries out the command.
func (c *sizeCmd) Run(e *env) error {
	return e.with("size", func(a *app.App) error {
		report, err := a.Size(e.ctx, app.SizeOptions{PeakRPS: c.PeakRPS, Latency: c.Latency, Entities: c.Entities, Growth: c.Growth, Sample: c.Sample})
		if err != nil {
			return err
		}
		return e.emit(report, report.WriteTable)
	})
}
