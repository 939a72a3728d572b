// Package offline reads Parquet: it joins training sets point in time, and it finds the
// latest value of every entity. It owns DuckDB, and it is the only package that does.
//
// One [Engine] holds one DuckDB instance with a memory limit; every operation runs on a
// connection of its own and leaves nothing behind when its context ends.
package offline
