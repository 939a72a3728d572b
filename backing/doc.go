// Package backing is the durable tier: the values that survive a lost Redis, and the
// state of the runs that write them.
//
// [Store] is the interface of the tier; backing/dynamodb and backing/sqlite implement it
// and one conformance suite (backing/backingtest) runs over both. On top of its
// [StateStore] half, and so the same for every store, this package builds
//
//   - [Leases]: one run at a time, with a fencing number that only grows;
//   - [NextRun], [Ledger]: run numbers, the record of runs, and the claim that makes each
//     due run happen once;
//   - the file sets ([LoadFiles], [SaveFiles]): any number of files, saved whole;
//   - [LoadJSON], [SaveJSON], [UpdateJSON]: checkpoints and anything else small.
//
// All state values are JSON, so that an operator can read them in the console.
package backing
