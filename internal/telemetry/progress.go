// Package telemetry holds what long work says about itself while it runs. It imports
// nothing of the project, and no metrics client: the caller decides where reports go.
package telemetry

// Progress is one report of long work.
type Progress struct {
	Stage string // what is going on, for example "materialize credit_history@1"
	Unit  string // what Done and Total count: "rows", "items", "files"
	Done  int64
	Total int64 // 0 when it is not known
}

// ProgressFunc receives reports. It is called often, from one goroutine at a time, and
// must return quickly. A nil ProgressFunc is allowed: use Report.
type ProgressFunc func(Progress)

// Report calls f if it is not nil.
func (f ProgressFunc) Report(p Progress) {
	if f != nil {
		f(p)
	}
}
