package offline

import "github.com/hearthstore/hearth/offline/internal/duck"

// Version is the version of DuckDB that this build carries, for example "v1.5.5".
func Version() string { return duck.Version() }
