// Package archtest holds tests of the source tree itself: which package may
// import which, and what code must not do anywhere.
package archtest
