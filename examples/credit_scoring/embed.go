// Package creditscoring carries the credit-scoring example inside the binary, so that
// `hearth demo` needs nothing but the binary.
package creditscoring

import (
	"embed"
	"io/fs"
)

//go:embed hearth.yaml README.md data/*.parquet
var files embed.FS

// FS returns the feature repository: hearth.yaml, README.md and data/*.parquet.
func FS() fs.FS { return files }
