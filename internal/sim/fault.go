package sim

import (
	"errors"
	"sync"
)

// Call is one call of a dependency.
type Call struct {
	Op string // "backing.put", "online.get", "state.save", …
	N  int    // records, refs or rows; 0 where there is nothing to count
}

// Fault is what happens to a call instead of success.
type Fault struct {
	// Err is what the call returns.
	Err error
	// Apply is how many of the call's records take effect all the same: the answer was lost.
	Apply int
	// Record, if set, replaces Err and Apply: it decides for each record on its own.
	Record func(i int) error
}

// Injector decides about each call; nil lets it pass. It must be safe for concurrent use.
type Injector func(Call) *Fault

func (f Injector) at(op string, n int) *Fault {
	if f == nil {
		return nil
	}
	return f(Call{Op: op, N: n})
}

// ErrKilled is what every call of a killed process returns. It is not one of the errors
// that callers know, and after it nothing takes effect any more.
var ErrKilled = errors.New("process killed")

// Killer ends a process at its n-th call: of that call only a part takes effect, and of
// the calls after it nothing.
type Killer struct {
	mu    sync.Mutex
	at    int // 1-based; 0: never
	apply func(n int) int
	calls []string
}

// NewKiller kills at call number at. apply says how many of the call's n records still take
// effect; nil means none.
func NewKiller(at int, apply func(n int) int) *Killer { return &Killer{at: at, apply: apply} }

// Inject is an Injector.
func (k *Killer) Inject(c Call) *Fault {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, c.Op)
	switch n := len(k.calls); {
	case k.at == 0 || n < k.at:
		return nil
	case n == k.at && k.apply != nil:
		return &Fault{Err: ErrKilled, Apply: k.apply(c.N)}
	}
	return &Fault{Err: ErrKilled}
}

// Calls returns the operations so far.
func (k *Killer) Calls() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.calls...)
}
