package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/backingtest"
	"github.com/hearthstore/hearth/backing/sqlite"
)

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func applied(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s := open(t, path)
	if _, err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	backingtest.Run(t, func(t *testing.T) backing.Store {
		return applied(t, filepath.Join(t.TempDir(), "backing.db"))
	})
}
