// Package jobs decides when work runs, makes sure that one run of a job goes on at a time
// on any number of machines, and keeps the record of what ran. It knows no worker: what a
// run does is a function that the caller gives it.
//
//   - [ParseSchedule] reads cron lines and says when a job is due, also when the clocks of
//     a time zone change.
//   - [Runner] executes one run: lease, run number, ledger, retries, timeout.
//   - [Scheduler] runs the jobs of a configuration when they are due, once each, and
//     catches up what was missed as each job says.
//   - [Task] runs one job for AWS Step Functions, with heartbeats.
package jobs
