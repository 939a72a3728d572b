//go:build unix

// Package backing_test compares conditional writes through the backing tier with the bare
// AWS client, by the CPU time of this process per item. A second process answers at once,
// as no real DynamoDB does: the figures say what the client costs, not how fast AWS is. The
// aims are 15 µs per item, and 0.9 of the items a second of the fastest bare loop.
//
//	go test ./bench/backing -run xxx -bench . -benchtime 20000x
package backing_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
)

const serverVariable = "HEARTH_BENCH_DYNAMODB"

func TestMain(m *testing.M) {
	if os.Getenv(serverVariable) != "" {
		serve()
		return
	}
	os.Exit(m.Run())
}

// serve is the other process. It prints its address and ends when its input does.
func serve() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
		os.Exit(0)
	}()
	full := []byte(`{"Responses":[` + strings.Repeat(`{"TableName":"table"},`, 24) + `{"TableName":"table"}]}`)
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		answer := []byte(`{}`)
		switch _, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), "."); op {
		case "BatchExecuteStatement":
			if answer = full; bytes.Count(body, []byte(`"Statement":`)) != 25 {
				n := bytes.Count(body, []byte(`"Statement":`))
				answer = []byte(`{"Responses":[` + strings.TrimSuffix(strings.Repeat(`{},`, n), ",") + `]}`)
			}
		case "BatchWriteItem":
			answer = []byte(`{"UnprocessedItems":{}}`)
		}
		_, _ = w.Write(answer)
	}))
	fmt.Fprintln(os.Stderr, err)
}

func startServer(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverVariable+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = stdin.Close() // ends it
		_ = cmd.Wait()
	})
	line := make([]byte, 64)
	n, err := stdout.Read(line)
	if err != nil {
		b.Fatal(err)
	}
	return "http://" + strings.TrimSpace(string(line[:n]))
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func records(n int) []feature.Record {
	recs := make([]feature.Record, n)
	view := feature.ViewID{Name: "view", Version: 1}
	for i := range recs {
		v := feature.Version{Event: feature.Micros(i), Created: feature.NoTime, Run: 1}
		recs[i] = feature.Record{
			Ref: feature.Ref{View: view, Key: feature.Key(fmt.Sprintf("driver_id=%07d", i))}, Version: v,
			Payload: feature.AppendPayload(nil, feature.Header{Version: v}, make([]byte, 220-feature.HeaderSize)), Online: feature.NoTime, Retain: feature.NoTime,
		}
	}
	return recs
}

func bareClient(b *testing.B, endpoint string) *ddb.Client {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	b.Cleanup(transport.CloseIdleConnections)
	return ddb.New(ddb.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint, HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""),
	})
}

// parallel calls f with each of n parts, workers at a time.
func parallel(n, workers int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func item(r *feature.Record) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{
		"e": &types.AttributeValueMemberS{Value: string(r.Key)}, "v": &types.AttributeValueMemberS{Value: r.View.String()},
		"r": &types.AttributeValueMemberB{Value: r.Version.Bytes()}, "p": &types.AttributeValueMemberB{Value: r.Payload},
		"h": &types.AttributeValueMemberB{Value: binary.BigEndian.AppendUint64(nil, feature.ContentHash(r.Payload))},
	}
}

// BenchmarkPut writes b.N items by each of the three in five rounds, in turns, and prints for
// each the median, the fastest and the slowest round, and Hearth's ratio to each: of the CPU
// per item, and of the items a second.
func BenchmarkPut(b *testing.B) {
	endpoint := startServer(b)
	s, err := dynamodb.Open(b.Context(), dynamodb.Config{Table: "table", Endpoint: endpoint})
	if err != nil {
		b.Fatal(err)
	}
	client := bareClient(b, endpoint)
	recs := records(b.N)
	loops := []struct {
		name string
		do   func(*testing.B, []feature.Record)
		cpu  []float64 // µs per item
		wall []float64
	}{
		{name: "hearth", do: func(b *testing.B, recs []feature.Record) { hearthPut(b, s, recs) }},
		{name: "put-item", do: func(b *testing.B, recs []feature.Record) { barePutItem(b, client, recs) }},
		{name: "batch-write", do: func(b *testing.B, recs []feature.Record) { bareBatchWriteItem(b, client, recs) }},
	}
	for i := range loops { // connections, pools
		loops[i].do(b, recs[:min(len(recs), 500)])
	}
	b.ResetTimer()
	for range 5 {
		for i := range loops {
			l := &loops[i]
			used, elapsed := cpu(b), b.Elapsed()
			l.do(b, recs)
			l.cpu = append(l.cpu, float64((cpu(b)-used).Nanoseconds())/1000/float64(b.N))
			l.wall = append(l.wall, float64((b.Elapsed()-elapsed).Nanoseconds())/1000/float64(b.N))
		}
	}
	b.StopTimer()
	for i := range loops {
		l := &loops[i]
		slices.Sort(l.cpu)
		slices.Sort(l.wall)
		b.ReportMetric(l.cpu[2], l.name+"-cpu-µs/item")
		if b.N < 1000 {
			continue // the test runner's first call has one item
		}
		b.Logf("%-11s CPU µs per item %.2f (%.2f to %.2f), items/s %.0f (%.0f to %.0f); Hearth: %.2f of its CPU, %.2f of its items/s", l.name,
			l.cpu[2], l.cpu[0], l.cpu[4], 1e6/l.wall[2], 1e6/l.wall[4], 1e6/l.wall[0], loops[0].cpu[2]/l.cpu[2], l.wall[2]/loops[0].wall[2])
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

func hearthPut(b *testing.B, s *dynamodb.Store, recs []feature.Record) {
	for start := 0; start < len(recs); start += 4096 {
		results, err := s.Put(b.Context(), recs[start:min(start+4096, len(recs))])
		if err != nil || results[0].Outcome != feature.Written {
			b.Fatal(err, results[0])
		}
	}
}

func barePutItem(b *testing.B, client *ddb.Client, recs []feature.Record) {
	parallel(len(recs), 64, func(i int) {
		r := &recs[i]
		_, err := client.PutItem(context.WithoutCancel(b.Context()), &ddb.PutItemInput{
			TableName: aws.String("table"), Item: item(r), ConditionExpression: aws.String("attribute_not_exists(e) OR r < :r"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":r": &types.AttributeValueMemberB{Value: r.Version.Bytes()}},
		})
		if err != nil {
			b.Error(err)
		}
	})
}

// bareBatchWriteItem is the bound: it takes no condition.
func bareBatchWriteItem(b *testing.B, client *ddb.Client, recs []feature.Record) {
	parallel((len(recs)+24)/25, 8, func(i int) {
		part := recs[i*25 : min(i*25+25, len(recs))]
		requests := make([]types.WriteRequest, len(part))
		for j := range part {
			requests[j].PutRequest = &types.PutRequest{Item: item(&part[j])}
		}
		if _, err := client.BatchWriteItem(context.WithoutCancel(b.Context()), &ddb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"table": requests}}); err != nil {
			b.Error(err)
		}
	})
}
