package online

import (
	"strconv"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// slots is the number of hash slots of a Redis Cluster.
const slots = 16384

// appendKey appends the Redis key of ref: "<project>:<view>@<n>:{<entity key>}". The
// braces make the entity key alone decide the slot, so that all views of an entity live on
// one node. An entity key is percent-encoded and so has no brace of its own.
func (s *Store) appendKey(dst []byte, ref feature.Ref) []byte {
	dst = s.appendPrefix(dst, ref.View)
	dst = append(dst, ref.Key...)
	return append(dst, '}')
}

func (s *Store) appendPrefix(dst []byte, id feature.ViewID) []byte {
	dst = append(dst, s.cfg.Project...)
	dst = append(dst, ':')
	dst = append(dst, id.Name...)
	dst = append(dst, '@')
	dst = strconv.AppendInt(dst, int64(id.Version), 10)
	return append(dst, ':', '{')
}

// RedisKey returns the key under which ref is stored.
func (s *Store) RedisKey(ref feature.Ref) string { return string(s.appendKey(nil, ref)) }

// keySize is the length of the Redis key of ref, a little generous.
func (s *Store) keySize(ref feature.Ref) int {
	return len(s.cfg.Project) + len(ref.View.Name) + len(ref.Key) + len(":@12345678:{}")
}

// keys builds the Redis keys of all refs over one piece of memory.
func (s *Store) keys(n int, ref func(i int) feature.Ref) []string {
	size := 0
	for i := range n {
		size += s.keySize(ref(i))
	}
	var b strings.Builder
	b.Grow(size)
	out := make([]string, n)
	var scratch [256]byte
	for i := range n {
		start := b.Len()
		b.Write(s.appendKey(scratch[:0], ref(i)))
		out[i] = b.String()[start:]
	}
	return out
}

// parseKey is the inverse of appendKey for the keys of one view.
func parseKey(prefix, key string) (feature.Key, bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok || !strings.HasSuffix(rest, "}") {
		return "", false
	}
	k, err := feature.ParseKey(rest[:len(rest)-1])
	return k, err == nil
}

// globEscape makes s match itself in a SCAN pattern.
func globEscape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(`*?[]\^`, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// slotOf is the cluster slot of a key: CRC-16/XMODEM of its hash tag, or of the whole key
// when it has none.
func slotOf(key string) int {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if end := strings.IndexByte(key[open+1:], '}'); end > 0 {
			key = key[open+1 : open+1+end]
		}
	}
	return int(crc16(key)) % slots
}

func crc16(s string) uint16 {
	var crc uint16
	for i := 0; i < len(s); i++ {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
