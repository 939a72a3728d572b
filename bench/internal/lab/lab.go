// Package lab is what the benchmark programs share: how they begin and end, the servers that
// they measure, and what they read off processes.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hearthstore/hearth/internal/clock"
)

// Main runs a benchmark program until it is through or interrupted, and ends the process with
// 1 when it failed. Flags are parsed before.
func Main(name string, run func(ctx context.Context, out io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", name, err)
		os.Exit(1)
	}
}

// CPU is the user and system time of this process so far.
func CPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Await asks until something is ready, for a minute at most.
func Await(ctx context.Context, ready func() bool) error {
	for range 3000 {
		if ready() {
			return nil
		}
		if err := clock.System.Sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("not ready in a minute")
}
