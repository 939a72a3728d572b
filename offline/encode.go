package offline

import (
	"encoding/base64"
	"strconv"

	"github.com/tinylib/msgp/msgp"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
)

// appendColumn appends row i of a column in normal form (see package sql) as the
// MessagePack that feature.AppendValue would write, without building a feature.Value.
func appendColumn(dst []byte, c *duck.Column, i int, t feature.Type) []byte {
	if c.Null(i) {
		return msgp.AppendNil(dst)
	}
	switch t {
	case feature.Int64, feature.Int32, feature.Timestamp:
		return msgp.AppendInt64(dst, c.Int(i))
	case feature.Float64:
		return msgp.AppendFloat64(dst, c.Float64(i))
	case feature.Float32:
		return msgp.AppendFloat32(dst, c.Float32(i))
	case feature.String:
		return msgp.AppendStringFromBytes(dst, c.Bytes(i))
	case feature.Bool:
		return msgp.AppendBool(dst, c.Bool(i))
	case feature.Bytes:
		return msgp.AppendBytes(dst, c.Bytes(i))
	}
	offset, n := c.List(i)
	dst = feature.AppendArrayHeader(dst, n)
	for j := range n {
		dst = appendColumn(dst, c.Child, offset+j, t.Elem())
	}
	return dst
}

// appendKeyText appends the canonical text of a join key (see feature.Value.KeyText).
func appendKeyText(dst []byte, c *duck.Column, i int, t feature.Type) []byte {
	switch t {
	case feature.Int64, feature.Int32:
		return strconv.AppendInt(dst, c.Int(i), 10)
	case feature.Bool:
		return strconv.AppendBool(dst, c.Bool(i))
	case feature.Bytes:
		return base64.RawURLEncoding.AppendEncode(dst, c.Bytes(i))
	}
	return append(dst, c.Bytes(i)...)
}
