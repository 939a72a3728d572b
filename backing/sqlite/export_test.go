package sqlite

import (
	"context"
	"fmt"
)

// LimitPages bounds the size of the file for the writer of this store: SQLite then behaves
// as on a full disk.
func (s *Store) LimitPages(ctx context.Context, n int) error {
	_, err := s.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count=%d", n))
	return err
}
