//go:build unix

package testservers

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// watchdogScript keeps the ids of running servers and kills them when its
// input ends, which the kernel brings about when the test process dies in
// whatever way. A death signal (PR_SET_PDEATHSIG) would do it without a shell,
// but it follows the thread that started the server, not the process, and
// exists on Linux only.
const watchdogScript = `
trap '' INT TERM HUP QUIT
pids=' '
while read -r op pid; do
  case $op in
    add) pids="$pids$pid " ;;
    del) case $pids in *" $pid "*) pids="${pids%%" $pid "*} ${pids#*" $pid "}" ;; esac ;;
  esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
`

// guard is the watchdog of this test process.
var guard watchdog

type watchdog struct {
	mu   sync.Mutex
	pipe *os.File // nil until the first server starts
}

// ready starts the watchdog on first use.
func (w *watchdog) ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pipe != nil {
		return nil
	}
	r, wr, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("watchdog pipe: %w", err)
	}
	defer r.Close() //nolint:errcheck // the child has its own copy
	cmd := exec.Command("/bin/sh", "-c", watchdogScript)
	cmd.Stdin = r
	cmd.Dir = "/" // holds no temporary folder busy
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the watchdog: %w", err)
	}
	// Kept open until this process ends: closing is what triggers the watchdog.
	w.pipe = wr
	return nil
}

func (w *watchdog) add(pid int) error { return w.write("add", pid) }

// remove forgets a process that has ended, before its id can be used again.
// A failed write means that the watchdog is gone and kills nothing any more.
func (w *watchdog) remove(pid int) { _ = w.write("del", pid) }

func (w *watchdog) write(op string, pid int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pipe == nil {
		return fmt.Errorf("watchdog: not started")
	}
	if _, err := fmt.Fprintf(w.pipe, "%s %d\n", op, pid); err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	return nil
}
