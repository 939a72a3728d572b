//go:build unix

package testservers

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stopGrace is how long a server may take to end after SIGTERM.
	stopGrace = 30 * time.Second
	// pauseGrace is how long a server may take to stand still after SIGSTOP.
	pauseGrace = 30 * time.Second
	// pollEvery is the pause between two looks at a process or a port.
	pollEvery = 5 * time.Millisecond
	// logTail is how much of a server's log a failure message shows.
	logTail = 4 << 10
)

// process is one child process that can be started again with the same
// arguments. It is reaped with a non-blocking wait and not with exec.Cmd.Wait,
// so that a running server costs no goroutine.
type process struct {
	name string
	argv []string
	env  []string // added to the environment of the test process
	dir  string
	log  string // path of the file that takes stdout and stderr

	mu      sync.Mutex
	pid     int // 0: not running
	lastPID int
	status  syscall.WaitStatus // of the last run, once it has ended
}

// start launches the process. It does not wait until the server answers.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid != 0 {
		return fmt.Errorf("start %s: already running as process %d", p.name, p.pid)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: open its log: %w", p.name, err)
	}
	defer out.Close() //nolint:errcheck // the child holds its own descriptor; nothing of ours is buffered
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	cmd.Env = append(os.Environ(), p.env...)
	// A group of its own: an interrupt typed at the terminal goes to the test
	// process, which decides in which order things end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := guard.ready(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.pid, p.lastPID = cmd.Process.Pid, cmd.Process.Pid
	if err := guard.add(p.pid); err != nil {
		return fmt.Errorf("start %s: %w", p.name, errors.Join(err, p.endLocked(syscall.SIGKILL, stopGrace)))
	}
	return nil
}

// alive says whether the process runs, and reaps it when it has ended.
func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.aliveLocked()
}

func (p *process) aliveLocked() bool {
	if p.pid == 0 {
		return false
	}
	var ws syscall.WaitStatus
	got, err := syscall.Wait4(p.pid, &ws, syscall.WNOHANG, nil)
	if got == 0 && (err == nil || errors.Is(err, syscall.EINTR)) {
		return true
	}
	guard.remove(p.pid)
	p.pid, p.status = 0, ws
	return false
}

// stop asks the process to end, waits, and kills it when it does not.
// Stopping a process that does not run is not an error.
func (p *process) stop() error { return p.end(syscall.SIGTERM, stopGrace) }

// kill ends the process without giving it a chance to clean up.
func (p *process) kill() error { return p.end(syscall.SIGKILL, stopGrace) }

func (p *process) end(sig syscall.Signal, grace time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.endLocked(sig, grace)
}

func (p *process) endLocked(sig syscall.Signal, grace time.Duration) error {
	for _, s := range []syscall.Signal{sig, syscall.SIGKILL} {
		if !p.aliveLocked() {
			return nil
		}
		if err := syscall.Kill(p.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %s (process %d): %w", p.name, p.pid, err)
		}
		// A paused process does not see SIGTERM until it goes on.
		_ = syscall.Kill(p.pid, syscall.SIGCONT)
		for end := time.Now().Add(grace); time.Now().Before(end); time.Sleep(pollEvery) {
			if !p.aliveLocked() {
				return nil
			}
		}
	}
	return fmt.Errorf("stop %s: process %d is still there after SIGKILL", p.name, p.pid)
}

// signal sends sig to the running process.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.aliveLocked() {
		return fmt.Errorf("signal %s: it does not run", p.name)
	}
	if err := syscall.Kill(p.pid, sig); err != nil {
		return fmt.Errorf("signal %s (process %d): %w", p.name, p.pid, err)
	}
	return nil
}

// pause freezes the process and waits until every thread of it stands still. SIGSTOP takes
// effect some time after kill returns: until then a server with several threads may still
// answer what it is asked, as DynamoDB emulators on a busy machine did.
func (p *process) pause() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for end := time.Now().Add(pauseGrace); time.Now().Before(end); time.Sleep(pollEvery) {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(p.pid, &ws, syscall.WNOHANG|syscall.WUNTRACED, nil)
		switch {
		case err != nil && !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("pause %s (process %d): %w", p.name, p.pid, err)
		case got == p.pid && ws.Stopped():
			return nil
		case got == p.pid:
			guard.remove(p.pid)
			p.pid, p.status = 0, ws
			return fmt.Errorf("pause %s: it ended", p.name)
		}
	}
	return fmt.Errorf("pause %s: process %d did not stop within %s", p.name, p.pid, pauseGrace)
}

// currentPID is the process id, or 0 when the process does not run.
func (p *process) currentPID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// waitReady calls probe until it succeeds, the process ends, or time is up.
func (p *process) waitReady(timeout time.Duration, probe func() error) error {
	end := time.Now().Add(timeout)
	for {
		err := probe()
		if err == nil {
			return nil
		}
		if !p.alive() {
			return fmt.Errorf("%s ended while starting (%s)\n%s", p.name, p.ending(), p.tail())
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s was not ready after %s: %w\n%s", p.name, timeout, err, p.tail())
		}
		time.Sleep(pollEvery)
	}
}

func (p *process) ending() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.Signaled() {
		return "signal " + p.status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", p.status.ExitStatus())
}

// tail is the end of the log, for failure messages.
func (p *process) tail() string {
	f, err := os.Open(p.log)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	defer f.Close() //nolint:errcheck // only read
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		if _, err := f.Seek(max(0, size-logTail), io.SeekStart); err != nil {
			return "(log: " + err.Error() + ")"
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return "(log: " + err.Error() + ")"
	}
	return fmt.Sprintf("--- end of the log of %s ---\n%s\n---", p.name, strings.TrimSpace(string(b)))
}
