//go:build !race

package newest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pages makes a zeroed slice of n values without pointers outside of Go's heap: it does not
// count towards GOMEMLIMIT, goes back to the system at once, and lies on huge pages, without
// which random access to it waits for address translation a third of the time. free may be called more than once.
func pages[T any](n int) (values []T, free func(), err error) {
	if n == 0 {
		return nil, func() {}, nil
	}
	size := n * int(unsafe.Sizeof(*new(T)))
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("get %d bytes of memory: %w", size, err)
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // where it is not allowed, it is only slower
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), func() { _ = unix.Munmap(b); b = nil }, nil
}
