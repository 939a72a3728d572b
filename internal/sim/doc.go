// Package sim holds small, exact implementations of the tiers, the state and the source in
// memory, in which every call can be made to fail, to lose its answer, or to be the last
// thing that a process does. Tests of the workers use them, and the simulation in this
// package's tests interleaves the real workers over them.
//
// Nothing in the binary imports it.
package sim
