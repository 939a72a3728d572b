package online

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

// TestReplies reads generated replies back, and cut or random ones as broken: a reader
// must never take the rest of one value for another. Seen red with take that trusts the
// announced length.
func TestReplies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		var wire []byte
		want := make([]feature.GetResult, rapid.IntRange(1, 6).Draw(r, "n"))
		for i := range want {
			switch rapid.IntRange(0, 4).Draw(r, "kind") {
			case 0:
				wire = append(wire, "$-1\r\n"...)
			case 1:
				wire = append(wire, "_\r\n"...)
			default:
				want[i].Payload = rapid.SliceOfN(rapid.Byte(), 0, rapid.SampledFrom([]int{0, 40, 3000}).Draw(r, "size")).Draw(r, "payload")
				if want[i].Payload == nil {
					want[i].Payload = []byte{}
				}
				wire = fmt.Appendf(wire, "$%d\r\n%s\r\n", len(want[i].Payload), want[i].Payload)
			}
		}
		var block payloads
		rest := wire
		var err error
		for i := range want {
			var got feature.GetResult
			if rest, err = block.take(rest, &got); err != nil {
				r.Fatal(err)
			}
			if !bytes.Equal(got.Payload, want[i].Payload) || (got.Payload == nil) != (want[i].Payload == nil) {
				r.Fatalf("value %d: %q, want %q", i, got.Payload, want[i].Payload)
			}
			got.Payload = append(got.Payload, 'x') // must not reach into a neighbour's block
		}
		if len(rest) != 0 {
			r.Fatalf("%d bytes left", len(rest))
		}
		// Cut anywhere, the last value is never there in part.
		cut := wire[:rapid.IntRange(0, len(wire)-1).Draw(r, "cut")]
		for i := 0; ; i++ {
			var got feature.GetResult
			if cut, err = block.take(cut, &got); err != nil {
				if !errors.Is(err, errProtocol) {
					r.Fatal(err)
				}
				break
			}
			if !bytes.Equal(got.Payload, want[i].Payload) {
				r.Fatalf("value %d of a cut reply: %q, want %q", i, got.Payload, want[i].Payload)
			}
		}
	})
	rapid.Check(t, func(r *rapid.T) {
		wire := []byte(rapid.StringMatching(`[$_!*-][-0-9]{0,20}(\r\n)?.{0,20}(\r\n)?`).Draw(r, "garbage"))
		var block payloads
		var got feature.GetResult
		_, err := block.take(wire, &got) // does not panic
		if err == nil && got.Payload != nil && wire[0] != '$' {
			r.Fatalf("%q read as a value", wire)
		}
		_, _, _ = parseArray(wire)
	})
	for reply, want := range map[string]error{
		"-WRONGTYPE x\r\n": feature.ErrCorrupt, "!10\r\nNOPERM abc\r\n": feature.ErrDenied, "-LOADING x\r\n": feature.ErrUnreachable,
		"-CLUSTERDOWN x\r\n": feature.ErrUnreachable, "-OOM x\r\n": ErrFull, "-ERR READONLY x\r\n": ErrReadOnly,
	} {
		var block payloads
		var got feature.GetResult
		_, err := block.take([]byte(reply), &got)
		if err = classify(err); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", reply, err, want)
		}
	}
	var block payloads
	var got feature.GetResult
	var redirect *errRedirected
	if _, err := block.take([]byte("-MOVED 1 a:1\r\n"), &got); !errors.As(err, &redirect) {
		t.Errorf("MOVED: %v", err)
	}
}

// TestChunks: pipelines are bounded by records and by bytes, and a huge record still goes.
func TestChunks(t *testing.T) {
	t.Parallel()
	s := &Store{cfg: Config{PipelineSize: 3}}
	recs := []feature.Record{{Payload: make([]byte, maxPipelineBytes+1)}, {Payload: make([]byte, maxPipelineBytes-1)}, {Payload: []byte("ab")}, {}, {}, {}, {}}
	items := make([]item, len(recs))
	for i := range items {
		items[i].index = i
	}
	var sizes []string
	for rest := items; len(rest) > 0; {
		n := s.chunk(recs, rest)
		sizes = append(sizes, fmt.Sprint(n))
		rest = rest[n:]
	}
	if got := strings.Join(sizes, " "); got != "1 1 3 2" {
		t.Fatalf("chunks of %s, want 1 1 3 2", got)
	}
}
