package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

const redacted = "[redacted]"

// Secret says where a secret is kept: in an environment variable or in a file. It never
// holds the secret: [Secret.Reveal] reads it when it is needed, so commands that do not
// need the secret do not ask for it. Printing, logging or marshalling a Secret shows "[redacted]".
type Secret struct {
	env    string
	file   string
	lookup func(string) (string, bool)
}

// IsSet reports whether the configuration names a place for the secret.
func (s Secret) IsSet() bool { return s.env != "" || s.file != "" }

// MayChange reports whether the secret may be another one the next time it is read: a file
// may be rotated, the environment of a process may not.
func (s Secret) MayChange() bool { return s.file != "" }

// Reveal reads the secret; "" when none is configured. A missing or empty variable or
// file is an error matching feature.ErrInvalid that names the place. A line break at the
// end of a file is not part of the secret.
func (s Secret) Reveal() (string, error) {
	switch {
	case s.env != "":
		v, ok := s.lookup(s.env)
		if !ok || v == "" {
			return "", fmt.Errorf("read secret: %w: environment variable %s is not set or empty", feature.ErrInvalid, s.env)
		}
		return v, nil
	case s.file != "":
		b, err := os.ReadFile(s.file)
		if err != nil {
			return "", fmt.Errorf("read secret: %w: %w", feature.ErrInvalid, err)
		}
		v := strings.TrimRight(string(b), "\r\n")
		if v == "" {
			return "", fmt.Errorf("read secret: %w: file %s is empty", feature.ErrInvalid, s.file)
		}
		return v, nil
	}
	return "", nil
}

// String never shows the secret.
func (s Secret) String() string {
	if !s.IsSet() {
		return ""
	}
	return redacted
}

// GoString never shows the secret.
func (s Secret) GoString() string { return "config.Secret(" + s.String() + ")" }

// MarshalJSON never shows the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// LogValue never shows the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
