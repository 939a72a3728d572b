// Package materializer brings the latest value of every entity from the source to both
// tiers: the backing tier first, conditionally, and then to the online tier exactly what
// the backing tier acknowledged.
//
// The rules that make it safe to kill at any point and to run twice:
//
//   - Every value carries its version (event time, created time, run). Both tiers refuse
//     to go back, so the order in which batches, runs and writers arrive does not matter.
//   - A file is recorded as taken only after the backing tier has acknowledged every row
//     of it. A run that ends early records nothing; the next one reads the same files
//     again and finds most values unchanged.
//   - The online tier never gets what the backing tier does not hold: a value that was
//     there already is sent on with the version under which it is stored, and one that the
//     backing tier refused as older is not sent.
//   - The online tier being away does not stop a run. The files whose values did not
//     arrive are remembered, and the next run sends them from the backing tier.
//
// docs/CONSISTENCY.md says what that adds up to.
package materializer
