package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/online"
)

// A live reader stands for a service: a process of its own that asks for a key every
// millisecond, on one connection, and knows nothing of the rewarm.

// readLive is that process. It reads until its standard input closes, and then writes how
// long each read took.
func readLive(ctx context.Context, addrs []string, items int, out io.Writer) error {
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, IsClusterMode: len(addrs) > 1, PoolSize: 1})
	defer func() { _ = client.Close() }()
	store, err := online.Open(ctx, online.Config{Project: "bench", Addrs: addrs, Cluster: len(addrs) > 1})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	ctx, stop := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var took []time.Duration
	for i := 0; ctx.Err() == nil; i++ {
		ref := feature.Ref{View: benchView().ID(), Key: feature.Key(entity(i * 7919 % items))}
		key := store.RedisKey(ref)
		began := clock.System.Now()
		err := client.Get(ctx, key).Err()
		if err == nil || errors.Is(err, redis.Nil) {
			took = append(took, clock.System.Now().Sub(began))
		}
		if i == 0 {
			fmt.Fprintln(out, "reading")
		}
		_ = clock.System.Sleep(ctx, time.Millisecond) // its end is the loop's
	}
	return json.NewEncoder(out).Encode(took)
}

// startLive starts a live reader; stop ends it and returns what it saw.
func startLive(ctx context.Context, t *target, items int) (stop func() ([]time.Duration, error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-reader", strings.Join(t.addrs, ","), "-items", fmt.Sprint(items))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	out := bufio.NewReader(pipe)
	if _, err := out.ReadString('\n'); err != nil { // it reads
		_ = in.Close()
		return nil, errors.Join(fmt.Errorf("start the live reader: %w", err), cmd.Wait())
	}
	return func() (took []time.Duration, err error) {
		_ = in.Close()
		err = json.NewDecoder(out).Decode(&took)
		return took, errors.Join(err, cmd.Wait())
	}, nil
}
