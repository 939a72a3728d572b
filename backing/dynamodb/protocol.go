package dynamodb

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"
	"sync"

	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/hearthstore/hearth/feature"
)

// protocol is the client's own protocol with three changes: the checksum of every response is
// checked before anything is believed (the client's check runs when the body is closed, and
// its error is only logged), and scan pages and batches of values go to the fast decoder, as
// the requests of Fetch come from where they are written. Signing, retries and errors stay
// the client's.
type protocol struct {
	smithyhttp.ClientProtocol
	stats *counters
}

// errChecksum is sent again by the client.
type errChecksum struct{ got, want uint32 }

func (e *errChecksum) Error() string {
	return fmt.Sprintf("response damaged in transit: checksum %08x, want %08x", e.got, e.want)
}

// RetryableError tells the AWS client to send the request again.
func (e *errChecksum) RetryableError() bool { return true }

// SerializeRequest implements the client's protocol interface.
func (p *protocol) SerializeRequest(ctx context.Context, schema *smithy.OperationSchema, in smithy.Serializable, req *smithyhttp.Request) error {
	if err := p.ClientProtocol.SerializeRequest(ctx, schema, in, req); err != nil {
		return err
	}
	sink, ok := ctx.Value(sinkKey{}).(*getSink)
	if _, get := in.(*ddb.BatchGetItemInput); !ok || !get || sink.body == nil {
		return nil
	}
	whole, err := req.SetStream(bytes.NewReader(sink.body))
	if err != nil {
		return &smithy.SerializationError{Err: err}
	}
	*req = *whole
	return nil
}

// DeserializeResponse implements the client's protocol interface.
func (p *protocol) DeserializeResponse(ctx context.Context, schema *smithy.OperationSchema, types *smithy.TypeRegistry, resp *smithyhttp.Response, out smithy.Deserializable) error {
	if text := resp.Header.Get("X-Amz-Crc32"); text != "" {
		want, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return &smithy.DeserializationError{Err: fmt.Errorf("checksum header %q: %w", text, err)}
		}
		resp.Body = &checkedBody{ReadCloser: resp.Body, hash: crc32.NewIEEE(), want: uint32(want), stats: p.stats}
	}
	if sink, ok := ctx.Value(sinkKey{}).(*getSink); ok {
		if _, get := out.(*ddb.BatchGetItemOutput); get && !sink.stock && resp.StatusCode/100 == 2 {
			if done, err := sink.take(resp); done || err != nil {
				return err
			}
		}
	}
	sink, ok := ctx.Value(sinkKey{}).(*scanSink)
	if _, scan := out.(*ddb.ScanOutput); !ok || !scan || resp.StatusCode/100 != 2 {
		return p.ClientProtocol.DeserializeResponse(ctx, schema, types, resp, out)
	}
	if err := sink.read(resp.Body, resp.ContentLength); err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	return nil
}

// checkedBody fails at its end if the checksum is wrong.
type checkedBody struct {
	io.ReadCloser
	hash  hash.Hash32
	want  uint32
	bad   error
	stats *counters
}

// Read implements io.Reader.
func (b *checkedBody) Read(p []byte) (int, error) {
	if b.bad != nil {
		return 0, b.bad
	}
	n, err := b.ReadCloser.Read(p)
	b.hash.Write(p[:n]) // never fails
	if err == io.EOF {
		if got := b.hash.Sum32(); got != b.want {
			b.stats.checksums.Add(1)
			b.bad = &errChecksum{got: got, want: b.want}
			return n, b.bad
		}
	}
	return n, err
}

// sinkKey marks a context whose answer goes to a *scanSink or a *getSink.
type sinkKey struct{}

// scanSink takes one scan page from the wire to a feature.ScanPage.
type scanSink struct {
	page    *feature.ScanPage
	used    bool
	foreign int64
}

// buffers holds page bodies for reuse. A body is about 1.5 MB, and none is kept longer than
// its decoding: records get copies.
var buffers = sync.Pool{New: func() any { return new(pageBuffer) }}

type pageBuffer struct {
	body []byte
	scanDecoder
}

func (k *scanSink) read(body io.Reader, size int64) error {
	b := buffers.Get().(*pageBuffer)
	defer buffers.Put(b)
	if err := b.fillFrom(body, size); err != nil {
		return err
	}
	k.used = true
	foreign, err := b.decode(b.body, k.page)
	k.foreign = foreign
	return err
}

func (b *pageBuffer) fillFrom(body io.Reader, size int64) error {
	if size > 0 && int64(cap(b.body)) < size && size < 64<<20 {
		b.body = make([]byte, 0, size+1)
	}
	b.body = b.body[:0]
	for {
		if len(b.body) == cap(b.body) {
			b.body = append(b.body, 0)[:len(b.body)]
		}
		n, err := body.Read(b.body[len(b.body):cap(b.body)])
		b.body = b.body[:len(b.body)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// getSink takes the values of one BatchGetItem from the wire.
type getSink struct {
	table string
	body  []byte // the request; nil for the client's own writing of it
	page  *feature.ScanPage
	stock bool     // the answer is for the client's own decoder
	used  bool     // else the answer is with the client's own decoder
	sent  *outcome // of the request that was sent ahead, until the client takes it
}

// take reads an answer that holds nothing but values; done is false for every other one,
// which is then still to be read from resp.
func (k *getSink) take(resp *smithyhttp.Response) (done bool, err error) {
	b := buffers.Get().(*pageBuffer)
	defer buffers.Put(b)
	if err := b.fillFrom(resp.Body, resp.ContentLength); err != nil {
		return false, &smithy.DeserializationError{Err: err}
	}
	if k.decode(b) {
		return true, nil
	}
	resp.Body = again(resp.Body, b.body)
	return false, nil
}

// decode reads the values of an answer that holds nothing else.
func (k *getSink) decode(b *pageBuffer) bool {
	// Escapes are read in place, and the text may still be needed.
	k.used = bytes.IndexByte(b.body, '\\') < 0 && b.decodeGet(b.body, k.table, k.page)
	return k.used
}

// again is body with what was read of it put back, and after it what else is to come.
func again(body io.ReadCloser, read []byte, after ...io.Reader) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(append([]io.Reader{bytes.NewReader(bytes.Clone(read))}, after...)...), body}
}
