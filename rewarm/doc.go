// Package rewarm brings an empty or half-empty online tier back from the backing tier, and
// proves that both hold the same.
//
// The walk of a value: a segment of the table is scanned page by page; each record is
// judged by its header alone (declared view? tombstone? life left?) and its bytes go to the
// online tier as they are, add-or-newer, with the absolute expiry that any other writer
// would have given them. When a page's puts are acknowledged the segment's checkpoint
// moves. When every segment is through, and a sample of what was put is still there, the
// online tier is marked warm.
//
//   - rewarm.go: configuration, request, the run
//   - attempt.go: checkpoints, joining and resuming an attempt
//   - pass.go, segment.go, put.go: one pass over the segments
//   - canary.go, witness.go: noticing that the online tier was flushed meanwhile
//   - hot.go: hot keys first
//   - plan.go, price.go: what it would take
//   - verify.go, compare.go, bound.go: comparing the tiers
package rewarm
