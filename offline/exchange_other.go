//go:build !linux

package offline

import "errors"

// exchange swaps two folders in one atomic step, where the system can.
func exchange(_, _ string) error { return errors.ErrUnsupported }
