package feature

import (
	"errors"
	"fmt"
	"strings"
)

// Sentinels that callers decide on. Test with errors.Is.
var (
	// ErrCorrupt marks bytes that are not what their format promises. A reader falls
	// through to the next tier and counts them.
	ErrCorrupt = errors.New("corrupt value")
	// ErrUnknownFormat marks a format byte or schema fingerprint that this build or this
	// configuration does not know. A reader falls through to the next tier and counts it.
	ErrUnknownFormat = errors.New("unknown value format")
	// ErrUnreachable marks a tier that did not answer (refused, timed out, breaker open).
	// It is never to be read as "not found".
	ErrUnreachable = errors.New("tier unreachable")
	// ErrThrottled marks a request that the store refused for its rate. Retrying later is right.
	ErrThrottled = errors.New("throttled")
	// ErrFull marks a write that a tier refused because its memory is full. Waiting does not
	// help.
	ErrFull = errors.New("tier is full")
	// ErrDenied marks missing or wrong credentials or rights. Retrying is useless.
	ErrDenied = errors.New("access denied")
	// ErrNotApplied marks a store whose tables do not exist yet: `hearth apply` makes them.
	ErrNotApplied = errors.New("store is not set up")
	// ErrLeaseHeld marks work that another live run is doing.
	ErrLeaseHeld = errors.New("lease held by another run")
	// ErrLeaseLost marks a run that must stop writing because its lease went to another.
	ErrLeaseLost = errors.New("lease lost")
	// ErrConflict marks a conditional state write that found another revision.
	ErrConflict = errors.New("state changed by another writer")
	// ErrNotFound marks a state item or name that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrInvalid marks bad input (usage, configuration, request).
	ErrInvalid = errors.New("invalid")
)

// Problem is one thing wrong in what a person wrote, with where it stands and what would
// be right.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`   // 1-based; 0 when unknown
	Column  int    `json:"column,omitempty"` // 1-based; 0 when unknown
	Path    string `json:"path,omitempty"`   // e.g. feature_views[0].source.path
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Problems is every problem found, reported at once. It matches [ErrInvalid].
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Is makes errors.Is(err, ErrInvalid) true.
func (ps Problems) Is(target error) bool { return target == ErrInvalid }

// Err returns ps as an error, or nil when there is none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// PartialError says that a batch did part of its work: Done items are safe, Failed are
// not, and Err is the first cause. Partial is never success.
type PartialError struct {
	Op     string
	Done   int64
	Failed int64
	Err    error
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("%s: %d done, %d failed: %v", e.Op, e.Done, e.Failed, e.Err)
}

func (e *PartialError) Unwrap() error { return e.Err }
