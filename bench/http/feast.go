package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/hearthstore/hearth/bench/internal/lab"
)

// feastServer is Feast's feature server, as many workers as there are cores.
type feastServer struct {
	o      options
	url    string
	dir    string
	cmd    *exec.Cmd
	client *http.Client
}

func startFeast(ctx context.Context, o options, redisAddr string) (*feastServer, error) {
	dir, err := os.MkdirTemp("", "hearth-bench-feast-")
	if err != nil {
		return nil, err
	}
	f := &feastServer{o: o, dir: dir, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.clients}}}
	prepare := exec.CommandContext(ctx, o.feast, "-c", lab.FeastRepo)
	prepare.Dir = dir
	prepare.Env = append(os.Environ(), "REDIS="+redisAddr, "FEATURES="+strconv.Itoa(o.features), "DTYPE=Float64", "ENTITIES="+strconv.Itoa(entityCount))
	if out, err := prepare.CombinedOutput(); err != nil {
		f.stop()
		return nil, fmt.Errorf("make its repository: %w\n%s", err, out)
	}
	addr, err := lab.FreeAddr(ctx)
	if err != nil {
		f.stop()
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	f.url = "http://" + addr
	f.cmd = exec.Command(o.feast, "-c", "from feast.cli.cli import cli; cli()", "serve",
		"--host", "127.0.0.1", "--port", port, "--workers", "2", "--no-access-log")
	f.cmd.Dir = dir
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its workers end with it
	if err := f.cmd.Start(); err != nil {
		f.stop()
		return nil, err
	}
	one := f.row(1).one
	if err := lab.Await(ctx, func() bool { return one(ctx) == nil }); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

func (f *feastServer) stop() {
	if f.cmd != nil && f.cmd.Process != nil {
		_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL)
		_ = f.cmd.Wait()
	}
	_ = os.RemoveAll(f.dir)
}

func (f *feastServer) row(entities int) *row {
	n := max(1, f.o.requests/10)
	ids, names := make([]int, entities), make([]string, f.o.features)
	for i := range ids {
		ids[i] = i
	}
	if entities > 1 {
		n = max(1, n/10)
	}
	for i := range names {
		names[i] = "v:f" + strconv.Itoa(i)
	}
	request := body(map[string]any{"features": names, "entities": map[string]any{"id": ids}})
	return &row{name: "Feast's feature server, 2 workers", n: n, one: post(f.client, f.url+"/get-online-features", request, "", entities*f.o.features*4)}
}
