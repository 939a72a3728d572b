//go:build unix

package dynamodb

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// cpuTime is the CPU that this process has used: on a machine with other work it says more
// than the time on the wall.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// scanBenchPage is a page of about 1 MB of items of the size in docs: 3,700 of 271 bytes.
func scanBenchPage() string {
	rng := rand.New(rand.NewPCG(1, 2))
	items := make([]string, 3700)
	for i := range items {
		v := feature.Version{Event: feature.Micros(rng.Int64()), Created: feature.NoTime, Run: 1}
		features := make([]byte, 220-feature.HeaderSize)
		for j := range features {
			features[j] = byte(rng.Uint32())
		}
		items[i] = fmt.Sprintf(`{"e":{"S":"driver_id=%07d"},"v":{"S":"view@1"},"p":{"B":"%s"}}`, i,
			base64.StdEncoding.EncodeToString(feature.AppendPayload(nil, feature.Header{Version: v}, features)))
	}
	return `{"ConsumedCapacity":{"CapacityUnits":128.5,"TableName":"table"},"Count":3700,"Items":[` + strings.Join(items, ",") +
		`],"LastEvaluatedKey":{"e":{"S":"driver_id=3699"},"v":{"S":"view@1"}},"ScannedCount":3700}`
}

func BenchmarkScanPage(b *testing.B) {
	for _, stock := range []bool{false, true} {
		b.Run(map[bool]string{false: "fast", true: "stock"}[stock], func(b *testing.B) {
			s, answer := cannedStore(b, stock)
			answer.body = []byte(scanBenchPage())
			b.SetBytes(int64(len(answer.body)))
			b.ReportAllocs()
			var page feature.ScanPage
			before := cpuTime(b)
			for b.Loop() {
				if err := s.Scan(b.Context(), feature.ScanRequest{Segments: 1}, &page); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N)/3700, "cpu-ns/item")
			if len(page.Records) != 3700 {
				b.Fatalf("%d records", len(page.Records))
			}
		})
	}
}
