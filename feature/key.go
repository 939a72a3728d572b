package feature

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxKeyBytes is the longest entity key. DynamoDB allows a partition key of 2,048 bytes.
const MaxKeyBytes = 2048

// Key is the canonical text of one entity: name=value pairs sorted by name,
// percent-encoded (RFC 3986 unreserved characters stay), joined by '&'. Two entities
// are the same if and only if their keys are equal; nothing else joins strings to keys.
//
// Make one with [NewKey] or [ParseKey].
type Key string

// KeyPart is one component of an entity key.
type KeyPart struct {
	Name  string
	Value string // canonical text: see [Value.KeyText]
}

// NewKey builds the key of the given parts. The order of parts does not matter. No part,
// an empty or repeated name, or a key over [MaxKeyBytes] is an error matching ErrInvalid.
func NewKey(parts ...KeyPart) (Key, error) {
	if len(parts) == 0 {
		return "", fmt.Errorf("entity key: %w: no join key given", ErrInvalid)
	}
	sorted := parts
	if !slices.IsSortedFunc(parts, comparePart) {
		sorted = slices.Clone(parts)
		slices.SortFunc(sorted, comparePart)
	}
	dst := make([]byte, 0, 32*len(parts))
	for i, p := range sorted {
		if p.Name == "" {
			return "", fmt.Errorf("entity key: %w: empty join key name", ErrInvalid)
		}
		if i > 0 && sorted[i-1].Name == p.Name {
			return "", fmt.Errorf("entity key: %w: join key %q given twice", ErrInvalid, p.Name)
		}
		dst = AppendKeyPart(dst, p.Name, p.Value)
	}
	if len(dst) > MaxKeyBytes {
		return "", fmt.Errorf("entity key: %w: %d bytes, the limit is %d", ErrInvalid, len(dst), MaxKeyBytes)
	}
	return Key(dst), nil
}

func comparePart(a, b KeyPart) int { return strings.Compare(a.Name, b.Name) }

// AppendKeyPart appends one encoded name=value pair to a key under construction, with the
// '&' before it when dst is not empty. The caller appends parts in ascending order of
// name; writers of millions of keys use it to avoid the slice that [NewKey] wants.
func AppendKeyPart(dst []byte, name, value string) []byte {
	if len(dst) > 0 {
		dst = append(dst, '&')
	}
	dst = appendEscaped(dst, name)
	dst = append(dst, '=')
	return appendEscaped(dst, value)
}

// Parts returns the components, sorted by name.
func (k Key) Parts() ([]KeyPart, error) {
	if k == "" {
		return nil, fmt.Errorf("entity key %q: %w: empty", string(k), ErrInvalid)
	}
	pairs := strings.Split(string(k), "&")
	parts := make([]KeyPart, len(pairs))
	for i, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("entity key %q: %w: %q has no '='", string(k), ErrInvalid, pair)
		}
		var err error
		if parts[i].Name, err = unescape(name); err != nil {
			return nil, fmt.Errorf("entity key %q: %w", string(k), err)
		}
		if parts[i].Value, err = unescape(value); err != nil {
			return nil, fmt.Errorf("entity key %q: %w", string(k), err)
		}
	}
	return parts, nil
}

// ParseKey is the exact inverse of [NewKey]: it accepts canonical text only, so that one
// entity never has two keys.
func ParseKey(s string) (Key, error) {
	parts, err := Key(s).Parts()
	if err != nil {
		return "", err
	}
	k, err := NewKey(parts...)
	if err != nil {
		return "", err
	}
	if string(k) != s {
		return "", fmt.Errorf("entity key %q: %w: not canonical, want %q", s, ErrInvalid, string(k))
	}
	return k, nil
}

const upperHex = "0123456789ABCDEF"

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func appendEscaped(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; unreserved(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		for i := 0; i < len(s); i++ {
			if !unreserved(s[i]) {
				return "", fmt.Errorf("%w: character %q must be percent-encoded", ErrInvalid, s[i])
			}
		}
		return s, nil
	}
	dst := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return "", fmt.Errorf("%w: cut percent-encoding in %q", ErrInvalid, s)
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", fmt.Errorf("%w: bad percent-encoding %q", ErrInvalid, s[i:i+3])
			}
			dst = append(dst, byte(n))
			i += 2
		case unreserved(c):
			dst = append(dst, c)
		default:
			return "", fmt.Errorf("%w: character %q must be percent-encoded", ErrInvalid, c)
		}
	}
	return string(dst), nil
}

// KeyText returns the canonical text of a join key value of type t, the text that
// [KeyPart.Value] holds: decimal integers, true/false, the string itself, unpadded
// base64url for bytes. Floats, timestamps and lists cannot be join keys.
func (v Value) KeyText(t Type) (string, error) {
	if v.IsNull() {
		return "", fmt.Errorf("join key: %w: null", ErrInvalid)
	}
	switch t {
	case Int64, Int32:
		return strconv.FormatInt(v.Int(), 10), nil
	case Bool:
		return strconv.FormatBool(v.Bool()), nil
	case String:
		return v.Str(), nil
	case Bytes:
		return base64.RawURLEncoding.EncodeToString(v.Bytes()), nil
	}
	return "", fmt.Errorf("join key: %w: type %s cannot be a join key; use int64, int32, string, bool or bytes", ErrInvalid, t)
}

// CanonicalKeyText checks text that a person or a request gave for a join key of type t
// and returns its canonical form ("007" for an int64 becomes "7").
func CanonicalKeyText(t Type, text string) (string, error) {
	switch t {
	case Int64, Int32:
		bits := 64
		if t == Int32 {
			bits = 32
		}
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return "", fmt.Errorf("join key: %w: %q is no %s", ErrInvalid, text, t)
		}
		return strconv.FormatInt(n, 10), nil
	case Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return "", fmt.Errorf("join key: %w: %q is no bool", ErrInvalid, text)
		}
		return strconv.FormatBool(b), nil
	case String:
		if !utf8.ValidString(text) {
			return "", fmt.Errorf("join key: %w: %q is not UTF-8", ErrInvalid, text)
		}
		return text, nil
	case Bytes:
		if b, err := base64.RawURLEncoding.Strict().DecodeString(text); err == nil {
			return base64.RawURLEncoding.EncodeToString(b), nil
		}
		return "", fmt.Errorf("join key: %w: %q is no unpadded base64url", ErrInvalid, text)
	}
	return "", fmt.Errorf("join key: %w: type %s cannot be a join key", ErrInvalid, t)
}
