//go:build unix

package testservers

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// What DynamoDB emulators want to see in a client's configuration. They check
// the form of the credentials and nothing else.
const (
	AWSRegion          = "us-east-1"
	AWSAccessKeyID     = "local"
	AWSSecretAccessKey = "local"
)

const (
	// A JVM on a busy machine with two cores needs its time.
	jvmStartTime    = 3 * time.Minute
	nativeStartTime = 2 * time.Minute
	probeTimeout    = 10 * time.Second
)

// DynamoDBOptions describe a DynamoDB emulator. The zero value keeps its
// tables in memory.
type DynamoDBOptions struct {
	// File keeps the tables in a file, so that they survive Stop, Kill and
	// Restart. Defaults to memory, which is many times faster.
	File bool
	// Heap is the largest Java heap of DynamoDB Local. Defaults to "512m".
	Heap string
}

// DynamoDBServer is a process that speaks the DynamoDB protocol. Its methods
// fail the test that started it, so they belong into that test's goroutine.
type DynamoDBServer struct {
	t         testing.TB // nil for servers that tests share
	port      *port
	proc      *process
	startTime time.Duration
}

// DynamoDBLocal starts an Amazon DynamoDB Local for one test and stops it when
// the test ends. That costs seconds: see [SharedDynamoDB].
func DynamoDBLocal(t testing.TB, o DynamoDBOptions) *DynamoDBServer {
	t.Helper()
	return own(t, startDynamoDBLocal, o)
}

// Dynoxide starts a dynoxide server: a second, independent implementation of
// DynamoDB, which starts in milliseconds.
func Dynoxide(t testing.TB, o DynamoDBOptions) *DynamoDBServer {
	t.Helper()
	return own(t, startDynoxide, o)
}

func own(t testing.TB, start func(string, DynamoDBOptions) (*DynamoDBServer, error), o DynamoDBOptions) *DynamoDBServer {
	t.Helper()
	s, err := start(t.TempDir(), o)
	if err != nil {
		t.Fatalf("testservers: %v", err)
	}
	s.t = t
	t.Cleanup(s.cleanup)
	return s
}

// Endpoint is the URL of the server. It stays the same over Restart.
func (s *DynamoDBServer) Endpoint() string { return "http://" + s.port.addr() }

// Addr is host:port of the server.
func (s *DynamoDBServer) Addr() string { return s.port.addr() }

// PID is the process id, or 0 while the server is down.
func (s *DynamoDBServer) PID() int { return s.proc.currentPID() }

// Stop ends the server in the orderly way and waits for it.
func (s *DynamoDBServer) Stop() { s.t.Helper(); must(s.t, s.proc.stop()) }

// Kill ends the server with SIGKILL and waits for it.
func (s *DynamoDBServer) Kill() { s.t.Helper(); must(s.t, s.proc.kill()) }

// Pause freezes the server: connections stay open, nothing is answered.
func (s *DynamoDBServer) Pause() { s.t.Helper(); must(s.t, s.proc.pause()) }

// Resume lets a paused server go on.
func (s *DynamoDBServer) Resume() { s.t.Helper(); must(s.t, s.proc.signal(syscall.SIGCONT)) }

// Restart starts the server again on the same port (stopping it first when it
// runs) and waits until it answers. Without File it comes back empty.
func (s *DynamoDBServer) Restart() {
	s.t.Helper()
	must(s.t, s.proc.stop())
	must(s.t, s.proc.start())
	must(s.t, s.waitReady())
}

func startDynamoDBLocal(dir string, o DynamoDBOptions) (*DynamoDBServer, error) {
	home, err := DynamoDBLocalDir()
	if err != nil {
		return nil, err
	}
	if !Complete(home) {
		return nil, fmt.Errorf("DynamoDB Local %s is not in %s; %s", DynamoDBLocalVersion, home, remedy)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("java is not installed; %s", remedy)
	}
	heap := o.Heap
	if heap == "" {
		heap = "512m"
	}
	argv := []string{
		java, "-Xmx" + heap,
		// Tests run on few cores and end soon: no parallel collector, and only
		// the compiler that pays back at once.
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Djava.library.path=" + home,
		"-cp", filepath.Join(home, "*"), "com.amazonaws.services.dynamodbv2.local.main.ServerRunner",
		"-sharedDb", "-disableTelemetry",
	}
	if o.File {
		argv = append(argv, "-dbPath", dir)
	} else {
		argv = append(argv, "-inMemory")
	}
	return startEmulator(dir, "DynamoDB Local", append(argv, "-port"), jvmStartTime)
}

func startDynoxide(dir string, o DynamoDBOptions) (*DynamoDBServer, error) {
	home, err := DynoxideDir()
	if err != nil {
		return nil, err
	}
	if !Complete(home) {
		return nil, fmt.Errorf("dynoxide %s is not in %s; %s", DynoxideVersion, home, remedy)
	}
	argv := []string{filepath.Join(home, "dynoxide")}
	if o.File {
		argv = append(argv, "--db-path", filepath.Join(dir, "dynoxide.db"))
	}
	return startEmulator(dir, "dynoxide", append(argv, "--port"), nativeStartTime)
}

// startEmulator runs argv followed by a port number.
func startEmulator(dir, name string, argv []string, startTime time.Duration) (*DynamoDBServer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	var last error
	for range startTries {
		p, err := reservePort()
		if err != nil {
			return nil, err
		}
		number := strconv.Itoa(p.number)
		s := &DynamoDBServer{port: p, startTime: startTime, proc: &process{
			name: name + " on port " + number,
			argv: append(argv[:len(argv):len(argv)], number),
			dir:  dir, log: filepath.Join(dir, "log-"+number),
		}}
		if err := s.proc.start(); err != nil {
			p.release()
			return nil, err
		}
		if last = s.waitReady(); last == nil {
			return s, nil
		}
		if err := s.shutdown(); err != nil {
			return nil, errors.Join(last, err)
		}
	}
	return nil, last
}

// waitReady waits until the server answers anything at all: a request without
// a signature gets an error answer, and that is enough.
func (s *DynamoDBServer) waitReady() error {
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	return s.proc.waitReady(s.startTime, func() error {
		resp, err := client.Get(s.Endpoint())
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

func (s *DynamoDBServer) shutdown() error {
	err := s.proc.stop()
	s.port.release()
	return err
}

func (s *DynamoDBServer) cleanup() {
	if err := s.shutdown(); err != nil {
		s.t.Errorf("testservers: %v", err)
	}
	if s.t.Failed() {
		s.t.Log(s.proc.tail())
	}
}
