// Package reader answers online reads: many entities, the features of one selection, from
// the fastest tier that can say.
//
// A read asks the in-process cache, then the online tier in one round trip under a
// deadline of its own, then the backing tier for what is still missing (batches of up to
// 100 keys, one lookup per key however many requests want it, capped per second and in
// flight), and serves the declared default for the rest. What the backing tier answered is
// written up again in the background, if newer.
//
// Every value says where it came from, when its fact held and what it is worth
// ([Item]): found, null, absent, older than its view allows, or unknown because a tier
// that could have had it did not answer. A tier that failed is named in
// [Response.Unreachable]; its failure is never served as "not found".
//
// # What is guaranteed about damaged bytes
//
// Bytes whose checksum fails, or that are not exactly what their schema promises (another
// length, another type, something after the end), are never decoded: they count as a miss
// of that tier, the next one is asked, and the online tier is repaired.
package reader
