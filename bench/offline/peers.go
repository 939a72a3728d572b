package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// peers are the Python contenders. They take part where they are installed.
var peers = []string{"feast", "polars"}

//go:embed peers.py
var script string

// probe lists the peers that are installed. Without Python there are none.
func probe(ctx context.Context, o options) ([]string, error) {
	if _, err := exec.LookPath(o.python); err != nil {
		return nil, nil //nolint:nilerr // no Python is no failure: the table says "not installed"
	}
	out, err := exec.CommandContext(ctx, o.python, "-c", script, "probe").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its libraries: %w", o.python, err)
	}
	var found []string
	if err := json.Unmarshal(out, &found); err != nil {
		return nil, fmt.Errorf("ask %s for its libraries: %w", o.python, err)
	}
	return found, nil
}

func output(o options, name string) string {
	return filepath.Join(o.dir, "out-"+strings.ReplaceAll(name, " ", "-"))
}

// peerCommand runs a peer. It bounds no memory: the libraries have no setting for it.
func peerCommand(ctx context.Context, o options, name string) (*exec.Cmd, error) {
	out := output(o, name)
	if err := os.RemoveAll(out); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, o.python, "-c", script, name, o.dir, out, strconv.Itoa(o.threads)), nil
}

// checksum sums up what a contender wrote, whatever the order of its rows: the number of
// rows, the count of every feature, and a sum over hashes of every feature and its label.
func checksum(ctx context.Context, o options, name string) (sum string, err error) {
	conn, closeAll, err := open(ctx, o)
	if err != nil {
		return "", err
	}
	defer func() { _ = closeAll() }()
	terms := []string{"count(*)", "count(DISTINCT label_id)"}
	for _, v := range []string{"a", "b"} {
		for _, c := range strings.Split(columns(o, "r", v), ", ") {
			terms = append(terms, "count("+c+")", "sum(hash(r.label_id, "+c+")::HUGEINT)")
		}
	}
	for i, t := range terms {
		terms[i] = "(" + t + ")::VARCHAR"
	}
	query := fmt.Sprintf("SELECT concat_ws(' ', %s) FROM read_parquet('%s') r", strings.Join(terms, ", "), filepath.Join(output(o, name), "*.parquet"))
	err = conn.QueryRowContext(ctx, query).Scan(&sum)
	return sum, err
}
