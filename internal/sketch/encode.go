package sketch

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// The encoded form of a list of entries, made to fit state items:
//
//	byte    format, 0x01
//	uvarint number of views, then each view: uvarint length, text "name@n"
//	entries sorted by view and key, until the end:
//	        uvarint view, uvarint bytes shared with the key before, uvarint length of the
//	        rest, the rest, uvarint count
const format = 0x01

// Encode writes entries as parts of at most maxBytes each (0: one part). Every part stands
// alone: [Decode] each and [Merge] them. No entries give no parts. An entry that does not
// fit maxBytes by itself is left out.
func Encode(entries []Entry, maxBytes int) [][]byte {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b Entry) int {
		return cmp.Or(strings.Compare(a.Ref.View.Name, b.Ref.View.Name), a.Ref.View.Version-b.Ref.View.Version,
			strings.Compare(string(a.Ref.Key), string(b.Ref.Key)))
	})
	views := map[feature.ViewID]uint64{}
	head := []byte{format}
	var names []byte
	for _, e := range sorted {
		if _, ok := views[e.Ref.View]; !ok {
			views[e.Ref.View] = uint64(len(views))
			name := e.Ref.View.String()
			names = binary.AppendUvarint(names, uint64(len(name)))
			names = append(names, name...)
		}
	}
	head = binary.AppendUvarint(head, uint64(len(views)))
	head = append(head, names...)

	var (
		parts [][]byte
		part  []byte
		last  string
		one   []byte
	)
	for _, e := range sorted {
		if part == nil {
			part, last = slices.Clone(head), ""
		}
		one = appendEntry(one[:0], views[e.Ref.View], last, e)
		if maxBytes > 0 && len(part)+len(one) > maxBytes {
			if len(part) > len(head) {
				parts = append(parts, part)
				part = slices.Clone(head)
			}
			one = appendEntry(one[:0], views[e.Ref.View], "", e)
			last = ""
			if len(part)+len(one) > maxBytes {
				continue
			}
		}
		part = append(part, one...)
		last = string(e.Ref.Key)
	}
	if len(part) > len(head) {
		parts = append(parts, part)
	}
	return parts
}

func appendEntry(dst []byte, view uint64, last string, e Entry) []byte {
	key := string(e.Ref.Key)
	shared := 0
	for shared < len(key) && shared < len(last) && key[shared] == last[shared] {
		shared++
	}
	dst = binary.AppendUvarint(dst, view)
	dst = binary.AppendUvarint(dst, uint64(shared))
	dst = binary.AppendUvarint(dst, uint64(len(key)-shared))
	dst = append(dst, key[shared:]...)
	return binary.AppendUvarint(dst, e.Count)
}

// Decode reads one part. It matches feature.ErrCorrupt for anything that [Encode] does not
// write and feature.ErrUnknownFormat for another format; it never panics, and takes memory
// in proportion to the input.
func Decode(part []byte) ([]Entry, error) {
	if len(part) == 0 {
		return nil, fmt.Errorf("sketch: %w: empty", feature.ErrCorrupt)
	}
	if part[0] != format {
		return nil, fmt.Errorf("sketch: %w: format byte 0x%02x", feature.ErrUnknownFormat, part[0])
	}
	d := decoder{b: part[1:]}
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		return nil, fmt.Errorf("sketch: %w: %d views in %d bytes", feature.ErrCorrupt, n, len(d.b))
	}
	views := make([]feature.ViewID, n)
	for i := range views {
		id, err := feature.ParseViewID(string(d.bytes(d.uvarint())))
		if err != nil {
			return nil, fmt.Errorf("sketch: %w: %v", feature.ErrCorrupt, err)
		}
		views[i] = id
	}
	var entries []Entry
	last := ""
	for len(d.b) > 0 && !d.bad {
		view, shared := d.uvarint(), d.uvarint()
		rest := d.bytes(d.uvarint())
		count := d.uvarint()
		if d.bad || view >= n || shared > uint64(len(last)) || shared+uint64(len(rest)) > feature.MaxKeyBytes {
			return nil, fmt.Errorf("sketch: %w: entry %d", feature.ErrCorrupt, len(entries))
		}
		last = last[:shared] + string(rest)
		entries = append(entries, Entry{feature.Ref{View: views[view], Key: feature.Key(last)}, count})
	}
	if d.bad {
		return nil, fmt.Errorf("sketch: %w: cut short", feature.ErrCorrupt)
	}
	return entries, nil
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}
