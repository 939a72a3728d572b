package tiers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hearthstore/hearth/internal/testservers"
)

func TestMain(m *testing.M) { testservers.Run(m) }

// A password file may be rotated under an open store: new connections read it again.
// Red when OpenOnline hands over the password that it read at first.
func TestPasswordFileIsReadForEachConnection(t *testing.T) {
	t.Parallel()
	redis := testservers.Redis(t, testservers.RedisOptions{Username: "admin", Password: "admin"})
	do := func(args ...string) {
		t.Helper()
		if _, err := redis.Do(args...); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "password")
	rotate := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		do("ACL", "SETUSER", "app", "on", "resetpass", ">"+password, "~*", "+@all")
	}
	rotate("first")
	s, err := OpenOnline(t.Context(), load(t, fmt.Sprintf("online: {redis: {addrs: [%q], username: app, password_file: %s}}\n", redis.Addr(), file)), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	rotate("second")
	do("CLIENT", "KILL", "USER", "app") // as a restart or a failover would
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}
