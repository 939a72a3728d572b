package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/pace"
)

// The replay server stands in for DynamoDB: it answers Scan with pages that were made
// before, as fast as the loopback takes them. So a measurement shows the client and Redis,
// never AWS.

const (
	pageItems   = 3_700 // about 1 MB of items, DynamoDB's page
	payloadSize = 220
	viewName    = "bench"
	epochMicros = 1_780_000_000_000_000
)

func benchView() *feature.View {
	return &feature.View{Name: viewName, Version: 1, Features: []feature.Feature{{Field: feature.Field{Name: "f", Type: feature.Bytes}}}}
}

// page is one canned answer.
type page struct {
	body  []byte
	crc   string
	items int
}

// makePages makes the answers for items entities in segments parts.
func makePages(items, segments int) [][]page {
	view := benchView()
	rng := rand.NewChaCha8([32]byte{1})
	all := make([][]page, segments)
	for s := range all {
		lo, hi := items*s/segments, items*(s+1)/segments
		for lo < hi {
			n := min(pageItems, hi-lo)
			b := []byte(`{"ConsumedCapacity":{"CapacityUnits":128,"TableName":"bench"},"Count":` + strconv.Itoa(n) + `,"Items":[`)
			for i := range n {
				if i > 0 {
					b = append(b, ',')
				}
				b = append(b, `{"e":{"S":"`...)
				b = append(b, entity(lo+i)...)
				b = append(b, `"},"v":{"S":"bench@1"},"p":{"B":"`...)
				h := feature.Header{Fingerprint: view.Fingerprint(), Version: feature.Version{Event: epochMicros, Created: feature.NoTime, Run: 1}}
				var body []byte
				for len(body) < payloadSize-feature.HeaderSize {
					body = binary.LittleEndian.AppendUint64(body, rng.Uint64())
				}
				b = base64.StdEncoding.AppendEncode(b, feature.AppendPayload(nil, h, body[:payloadSize-feature.HeaderSize]))
				b = append(b, `"}}`...)
			}
			b = append(b, ']')
			lo += n
			if lo < hi {
				b = append(b, `,"LastEvaluatedKey":{"e":{"S":"`+entity(lo-1)+`"},"v":{"S":"bench@1"}}`...)
			}
			b = append(b, `,"ScannedCount":`+strconv.Itoa(n)+`}`...)
			all[s] = append(all[s], page{b, strconv.FormatUint(uint64(crc32.ChecksumIEEE(b)), 10), n})
		}
	}
	return all
}

func entity(i int) string { return fmt.Sprintf("customer=%08d", i) }

// serve answers until its standard input closes: it ends with the process that began it.
func serve(ctx context.Context, o options) error {
	items, segments := o.items, o.segments
	pages := makePages(items, segments)
	byKey := itemTexts(pages, items)
	rate := pace.NewBucket(clock.System, o.tableRate, 0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".BatchGetItem") {
			answerGet(w, r, byKey, rate)
			return
		}
		var in struct {
			Segment           int
			ExclusiveStartKey map[string]map[string]string
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Segment >= len(pages) {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		n := 0
		if last := in.ExclusiveStartKey["e"]["S"]; last != "" {
			i, err := strconv.Atoi(strings.TrimPrefix(last, "customer="))
			if err != nil {
				http.Error(w, "bad key", http.StatusBadRequest)
				return
			}
			n = (i + 1 - items*in.Segment/segments) / pageItems
		}
		p := pages[in.Segment][n]
		if rate.Wait(r.Context(), float64(p.items)) != nil {
			return // the client went away
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.Header().Set("X-Amz-Crc32", p.crc)
		w.Header().Set("Content-Length", strconv.Itoa(len(p.body)))
		_, _ = w.Write(p.body) // the client went away: its own row fails
	})}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// itemTexts finds the text of each item in the pages.
func itemTexts(pages [][]page, items int) [][]byte {
	out := make([][]byte, 0, items)
	begin := []byte(`{"e":{"S":"`)
	for _, segment := range pages {
		for _, p := range segment {
			rest := p.body
			for {
				at := bytes.Index(rest, begin)
				end := bytes.Index(rest[max(at, 0):], []byte(`"}}`))
				if at < 0 || end < 0 || bytes.HasPrefix(rest[max(at-len(`"LastEvaluatedKey":`), 0):], []byte(`"LastEvaluatedKey":`)) {
					break
				}
				out = append(out, rest[at:at+end+3])
				rest = rest[at+end+3:]
			}
		}
	}
	return out
}

// answerGet answers BatchGetItem. It looks for the keys by their text alone: its CPU is
// that of this machine too.
func answerGet(w http.ResponseWriter, r *http.Request, byKey [][]byte, rate *pace.Bucket) {
	asked, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	body := append(make([]byte, 0, 40_000), `{"Responses":{"bench":[`...)
	n := 0
	for first := true; ; first = false {
		at := bytes.Index(asked, []byte("customer="))
		if at < 0 || len(asked) < at+17 {
			break
		}
		i, err := strconv.Atoi(string(asked[at+9 : at+17]))
		if err != nil || i >= len(byKey) {
			http.Error(w, "bad key", http.StatusBadRequest)
			return
		}
		if !first {
			body = append(body, ',')
		}
		body = append(body, byKey[i]...)
		asked = asked[at+17:]
		n++
	}
	if rate.Wait(r.Context(), float64(n)) != nil {
		return // the client went away
	}
	body = append(body, `]},"UnprocessedKeys":{}}`...)
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10))
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client went away: its own row fails
}

// startReplay runs this program as a server of its own, so that its CPU is told apart.
func startReplay(ctx context.Context, o options) (addr string, pid int, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-replay", "-items", strconv.Itoa(o.items), "-segments", strconv.Itoa(o.segments), "-table-rate", fmt.Sprint(o.tableRate))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", 0, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	stop = func() { _ = in.Close(); _ = cmd.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", 0, nil, fmt.Errorf("start the replay server: %w", err)
	}
	return strings.TrimSpace(line), cmd.Process.Pid, stop, nil
}
