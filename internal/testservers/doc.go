// Package testservers starts the real servers that the tests of this module
// talk to: redis-server (alone or as a cluster), Amazon DynamoDB Local and
// dynoxide. Every server listens on a free port, keeps its files in a
// temporary folder and is stopped by its process id.
//
// A test that breaks its server (stops it, fills it, pauses it) starts one of
// its own:
//
//	r := testservers.Redis(t, testservers.RedisOptions{MaxMemory: "8mb"})
//	client := redis.NewClient(&redis.Options{Addr: r.Addr()})
//	r.Kill()
//
// Starting DynamoDB Local costs seconds of CPU, so tests that only need some
// server share one per test process and keep apart by project, table or key
// names:
//
//	func TestMain(m *testing.M) { testservers.Run(m) }
//
//	func TestPut(t *testing.T) {
//		endpoint := testservers.SharedDynamoDB(t)
//		...
//	}
//
// A server that is not installed fails the test and says how to install it. It
// never skips: a check that did not run has not passed.
//
// Servers do not outlive the test process, even when that is killed: a small
// shell process reads from a pipe that only the test process holds open, and
// kills what is left when the pipe closes.
//
// The package starts no goroutine that outlives a call, so tests may look for
// leaked goroutines while servers run.
package testservers
