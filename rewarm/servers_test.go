package rewarm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/testservers"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/rewarm"
)

// The tests of this file run over a Redis Cluster of three masters with a replica each, and
// DynamoDB Local. HEARTH_REWARM_ITEMS sets how many entities they have (1,000 by default;
// the full size is 1,000,000).
const (
	itemsEnv  = "HEARTH_REWARM_ITEMS"
	helperEnv = "HEARTH_REWARM_HELPER" // table endpoint, pages file, cluster addresses
	project   = "servers"
)

var serversView = &feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}},
	Features: []feature.Feature{{Field: feature.Field{Name: "n", Type: feature.Int64}}}}

func entityRef(i int) feature.Ref {
	return feature.Ref{View: serversView.ID(), Key: feature.Key(fmt.Sprintf("id=%d", i))}
}

// record makes the value of an entity in one of its versions; every seventh is a deletion.
func serversRecord(t testing.TB, i int, run uint64) feature.Record {
	h := feature.Header{Fingerprint: serversView.Fingerprint(), Version: feature.Version{Event: feature.Micros(1_700_000_000_000_000 + run), Created: feature.NoTime, Run: run}}
	h.Tombstone = run > 1 && (uint64(i)+run)%7 == 0
	var features []byte
	if !h.Tombstone {
		var err error
		if features, err = feature.AppendFeatures(nil, serversView.Fields(), []feature.Value{feature.IntValue(int64(run))}); err != nil {
			t.Fatal(err)
		}
	}
	rec, err := feature.NewRecord(serversView, entityRef(i).Key, feature.AppendPayload(nil, h, features))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// pages is the table with small pages, each of which may have a side effect or be noted.
type pages struct {
	*dynamodb.Store
	limit int
	read  atomic.Int64
	after func(n int64, req feature.ScanRequest) // the n-th page was read
}

func (p *pages) Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error {
	req.Limit = p.limit
	if err := p.Store.Scan(ctx, req, page); err != nil {
		return err
	}
	n := p.read.Add(1)
	if p.after != nil {
		p.after(n, req)
	}
	return nil
}

func (p *pages) Table(ctx context.Context) (rewarm.Table, error) {
	d, err := p.Describe(ctx)
	return rewarm.Table{Name: d.Name, Items: d.Items, Bytes: d.Bytes}, err
}

type documents struct{ backing.StateStore }

func (d documents) Load(ctx context.Context, name string) ([]byte, int64, error) {
	item, err := d.GetState(ctx, "rewarm", name)
	return item.Value, item.Revision, err
}

func (d documents) Save(ctx context.Context, name string, value []byte, revision int64) (int64, error) {
	item, err := d.PutState(ctx, backing.StateItem{Kind: "rewarm", Name: name, Value: value, Revision: revision, ExpireAt: feature.NoTime})
	return item.Revision, err
}

func (d documents) Delete(ctx context.Context, name string, revision int64) error {
	return d.DeleteState(ctx, "rewarm", name, revision)
}

func openTable(t testing.TB, endpoint string) *dynamodb.Store {
	return openTableOf(t, endpoint, project)
}

func openTableOf(t testing.TB, endpoint, name string) *dynamodb.Store {
	t.Helper()
	s, err := dynamodb.Open(t.Context(), dynamodb.Config{Table: name, Region: testservers.AWSRegion, Endpoint: endpoint,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: testservers.AWSAccessKeyID, SecretAccessKey: testservers.AWSSecretAccessKey}, nil
		})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func openOnline(t testing.TB, addrs []string) *online.Store {
	return openOnlineOf(t, addrs, project)
}

func openOnlineOf(t testing.TB, addrs []string, name string) *online.Store {
	t.Helper()
	s, err := online.Open(t.Context(), online.Config{Project: name, Addrs: addrs, Cluster: len(addrs) > 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func serversRewarmer(t testing.TB, table *pages, to *online.Store) *rewarm.Rewarmer {
	t.Helper()
	r, err := rewarm.New(rewarm.Config{Backing: table, Online: to, State: documents{table.Store}, Views: []*feature.View{serversView},
		Project: project, Workers: 4, BatchSize: 100, CheckEvery: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type servers struct {
	*testing.T
	n       int
	cluster *testservers.RedisClusterServers
	dynamo  *testservers.DynamoDBServer
	table   *pages
	online  *online.Store
	run     uint64
}

func startServers(t *testing.T) *servers {
	t.Helper()
	s := &servers{T: t, n: 1000}
	if text := os.Getenv(itemsEnv); text != "" {
		var err error
		if s.n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	began := clock.System.Now()
	took := func(what string) { t.Logf("%s after %.1f s", what, clock.System.Now().Sub(began).Seconds()) }
	s.cluster = testservers.RedisCluster(t, testservers.ClusterOptions{Replicas: 1})
	took("cluster")
	s.dynamo = testservers.DynamoDBLocal(t, testservers.DynamoDBOptions{File: true})
	took("table")
	s.table = &pages{Store: openTable(t, s.dynamo.Endpoint()), limit: max(s.n/50, 1)}
	s.online = openOnline(t, s.cluster.Addrs())
	if _, err := s.table.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	recs := make([]feature.Record, 0, 1000)
	for i := 0; i < s.n; i++ {
		recs = append(recs, serversRecord(t, i, 1))
		if len(recs) == cap(recs) || i == s.n-1 {
			results, err := s.table.Put(t.Context(), recs)
			if err != nil || slices.ContainsFunc(results, func(r feature.PutResult) bool { return r.Outcome != feature.Written && r.Outcome != feature.Unchanged }) {
				t.Fatal("fill the table: ", err, results)
			}
			recs = recs[:0]
		}
	}
	took("filled")
	return s
}

// rewarm runs once. mayFail allows a run that a fault ended.
func (s *servers) rewarm(mayFail bool, change ...func(*rewarm.Request)) *rewarm.Report {
	s.Helper()
	s.run++
	req := rewarm.Request{Run: 1000 + s.run, IfCold: true, Segments: 8}
	for _, f := range change {
		f(&req)
	}
	rep, err := serversRewarmer(s, s.table, s.online).Run(s.Context(), req)
	s.Logf("rewarm %d: %s, %d scanned, %d written, %d already there, %d in warm shards, %d flushes, %.1f s %v", req.Run, rep.Status, rep.Scanned, rep.Written, rep.AlreadyNewer, rep.WarmShard, rep.Flushes, rep.Seconds, rep.Problems)
	if err != nil && !mayFail {
		s.Fatal(err)
	}
	return rep
}

// settle runs until the tier is warm, and then proves it.
func (s *servers) settle() {
	s.Helper()
	s.table.after = nil
	for try := 0; ; try++ {
		rep := s.rewarm(true)
		if rep.Warm || rep.Reason == rewarm.ReasonWarm {
			break
		}
		if try == 5 {
			s.Fatalf("not warm: %+v", rep)
		}
	}
	s.verify()
}

func (s *servers) verify() {
	s.Helper()
	rep, err := serversRewarmer(s, s.table, s.online).Verify(s.Context(), rewarm.VerifyRequest{Fraction: 1})
	if err != nil || !rep.OK() || rep.Compared != int64(s.n) {
		s.Fatalf("verify: %v, %d compared of %d: %d missing, %d older, %d different, %d extra, %d ahead %v", err, rep.Compared, s.n, rep.Missing, rep.Older, rep.Different, rep.Extra, rep.Ahead, rep.Examples)
	}
}

func (s *servers) flush(nodes ...*testservers.RedisServer) {
	s.Helper()
	if len(nodes) == 0 {
		nodes = s.masters()
	}
	for _, node := range nodes {
		if _, err := node.Do("FLUSHALL"); err != nil {
			s.Error(err)
		}
	}
}

func (s *servers) masters() []*testservers.RedisServer {
	var out []*testservers.RedisServer
	for _, node := range s.cluster.Nodes {
		if info, err := node.Do("INFO", "replication"); err == nil && strings.Contains(fmt.Sprint(info), "role:master") {
			out = append(out, node)
		}
	}
	return out
}

// TestServers is one story over one set of servers; its parts need one another's end.
//
// Seen red when the records of a page shared memory. It guards against puts to shards that
// are not cold, pages that are read again after a kill, and a flush in the middle that the
// markers cover up.
func TestServers(t *testing.T) {
	t.Parallel()
	s := startServers(t)
	if rep := s.rewarm(false); rep.Status != rewarm.StatusDone || rep.Written != int64(s.n) || !rep.Warm || len(rep.ColdShards) != 3 {
		t.Fatalf("into an empty cluster: %+v", rep)
	}
	s.verify()
	if rep := s.rewarm(false); rep.Reason != rewarm.ReasonWarm || rep.Scanned != 0 {
		t.Fatalf("when warm: %+v", rep)
	}
	for _, part := range []struct {
		name string
		run  func(*servers)
	}{
		{"one master is flushed", oneMasterFlushed}, {"ranges on two machines", twoRanges}, {"the hottest part", hottestPart},
		{"killed and resumed", killedAndResumed}, {"writers and readers", writersAndReaders},
		{"a second flush", secondFlush}, {"resharding", resharding}, {"the table restarts", tableRestarts}, {"failover", failover},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			inner := *s
			inner.T = t
			part.run(&inner)
			s.run = inner.run
		}) {
			break
		}
	}
}

// Only the slots of the lost master are filled.
func oneMasterFlushed(s *servers) {
	victim := s.masters()[1]
	keys, err := victim.Do("KEYS", project+":v@1:{id=*")
	if err != nil {
		s.Fatal(err)
	}
	want := int64(len(keys.([]any)))
	s.flush(victim)
	rep := s.rewarm(false)
	if rep.Status != rewarm.StatusDone || !rep.Warm || rep.Written != want || rep.WarmShard != int64(s.n)-want || !slices.Equal(rep.ColdShards, []string{victim.Addr()}) {
		s.Errorf("%+v, want the %d keys of %s put and no other", rep, want, victim.Addr())
	}
	s.verify()
}

// kill -9 in the middle: the next run reads at most one page of each segment again.
func killedAndResumed(s *servers) {
	s.flush()
	file := s.TempDir() + "/pages"
	child := exec.Command(os.Args[0], "-test.run=^TestServersHelper$")
	child.Env = append(os.Environ(), helperEnv+"="+s.dynamo.Endpoint()+" "+file+" "+strings.Join(s.cluster.Addrs(), ","), itemsEnv+"="+strconv.Itoa(s.n))
	var out bytes.Buffer
	child.Stdout, child.Stderr = &out, &out
	if err := child.Start(); err != nil {
		s.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for deadline := clock.System.Now().Add(2 * time.Minute); bytes.Count(readFile(file), []byte("\n")) < 20; {
		select {
		case err := <-ended:
			s.Fatalf("it was not killed: %v\n%s", err, out.String())
		default:
		}
		if clock.System.Now().After(deadline) {
			s.Error("it reads no pages")
			break
		}
		_ = clock.System.Sleep(s.Context(), 5*time.Millisecond)
	}
	if err := child.Process.Kill(); err != nil {
		s.Fatal(err)
	}
	if err := <-ended; err == nil {
		s.Fatal("it was not killed")
	}
	var mu sync.Mutex
	read := strings.Fields(string(readFile(file)))
	s.table.after = func(_ int64, req feature.ScanRequest) {
		mu.Lock()
		defer mu.Unlock()
		read = append(read, pageName(req))
	}
	rep := s.rewarm(false)
	s.table.after = nil
	if rep.Status != rewarm.StatusDone || !rep.Warm || rep.ResumedFrom == nil || rep.ResumedItems == 0 || rep.ResumedItems+rep.Scanned != int64(s.n) {
		s.Errorf("resumed: %+v", rep)
	}
	seen, again := map[string]int{}, map[string]int{}
	for _, page := range read {
		if seen[page]++; seen[page] > 1 {
			segment, _, _ := strings.Cut(page, ":")
			again[segment]++
		}
	}
	for segment, n := range again {
		if n > 1 {
			s.Errorf("%d pages of segment %s were read again, at most one may be", n, segment)
		}
	}
	s.verify()
}

func readFile(name string) []byte {
	b, _ := os.ReadFile(name) // not there yet: nothing read
	return b
}

func pageName(req feature.ScanRequest) string { return fmt.Sprintf("%d:%x", req.Segment, req.Cursor) }

// TestServersHelper is the child that killedAndResumed kills.
func TestServersHelper(t *testing.T) {
	args := strings.Fields(os.Getenv(helperEnv))
	if len(args) != 3 {
		return // an ordinary test run
	}
	file, err := os.OpenFile(args[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(os.Getenv(itemsEnv))
	if err != nil {
		t.Fatal(err)
	}
	table := &pages{Store: openTable(t, args[0]), limit: max(n/50, 1), after: func(_ int64, req feature.ScanRequest) {
		if _, err := fmt.Fprintln(file, pageName(req)); err != nil {
			t.Error(err)
		}
	}}
	// Slow enough to be killed half-way.
	_, err = serversRewarmer(t, table, openOnline(t, strings.Split(args[2], ","))).Run(t.Context(), rewarm.Request{Run: 500, IfCold: true, Segments: 8, MaxWriteRate: float64(n) / 10})
	t.Error("the run ended before it was killed: ", err)
}

// Writers and readers work while the cluster is filled. Each read of a key, Redis first and
// the table where it has nothing, gives a version at least as new as any whose write had
// been acknowledged by both tiers when the read began, deletions included.
func writersAndReaders(s *servers) {
	const seed = 5
	s.flush()
	ctx, stop := context.WithCancel(s.Context())
	defer stop()
	acked := make([]atomic.Uint64, s.n)
	var wg sync.WaitGroup
	var writes, reads atomic.Int64
	for w := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			for run := uint64(10); ctx.Err() == nil; run++ {
				i := rng.IntN(s.n/2)*2 + w // each writer has its own keys
				rec := []feature.Record{serversRecord(s, i, run)}
				for _, put := range []func(context.Context, []feature.Record) ([]feature.PutResult, error){s.table.Put, s.online.Put} {
					results, err := put(s.Context(), rec)
					if err != nil || results[0].Outcome != feature.Written && results[0].Outcome != feature.Unchanged {
						s.Errorf("write %s: %v %+v", rec[0].Ref, err, results)
						return
					}
				}
				acked[i].Store(run)
				writes.Add(1)
			}
		})
	}
	for r := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(10+r)))
			for ctx.Err() == nil {
				i := rng.IntN(s.n)
				floor := acked[i].Load()
				refs := []feature.Ref{entityRef(i)}
				got, err := s.online.Get(s.Context(), refs)
				if err == nil && got[0].Err == nil && got[0].Payload == nil {
					got, err = s.table.Get(s.Context(), refs)
				}
				if err != nil || got[0].Err != nil || got[0].Payload == nil {
					s.Errorf("read %s: %v %+v", refs[0], err, got)
					return
				}
				h, _, err := feature.ParsePayload(got[0].Payload)
				if err != nil || h.Version.Run < floor {
					s.Errorf("read %s: run %d (%v), run %d had been acknowledged (seed %d)", refs[0], h.Version.Run, err, floor, seed)
					return
				}
				reads.Add(1)
			}
		})
	}
	rep := s.rewarm(false, func(r *rewarm.Request) { r.MaxWriteRate = float64(s.n) })
	stop()
	wg.Wait()
	s.Logf("%d writes and %d reads meanwhile", writes.Load(), reads.Load())
	if rep.Status != rewarm.StatusDone || !rep.Warm {
		s.Errorf("%+v", rep)
	}
	if writes.Load() == 0 || reads.Load() == 0 {
		s.Error("nothing happened meanwhile")
	}
	s.verify()
}

// once runs a fault when half of the pages have been read.
func (s *servers) once(fault func()) {
	var once sync.Once
	s.table.read.Store(0)
	s.table.after = func(n int64, _ feature.ScanRequest) {
		if n >= 25 {
			once.Do(fault)
		}
	}
}

func secondFlush(s *servers) {
	s.flush()
	s.once(func() { s.flush() })
	rep := s.rewarm(false)
	if rep.Flushes != 1 || !rep.Warm {
		s.Errorf("%+v, want the flush noticed and everything brought again", rep)
	}
	s.verify()
	// The same between two runs.
	s.flush()
	ctx, die := context.WithCancelCause(s.Context())
	s.once(func() { die(errors.New("stopped")) })
	if _, err := serversRewarmer(s, s.table, s.online).Run(ctx, rewarm.Request{Run: 900, IfCold: true, Segments: 8}); err == nil {
		s.Error("not stopped")
	}
	s.table.after = nil
	s.flush(s.masters()[0])
	if rep := s.rewarm(false); rep.ResumedFrom != nil || !rep.Warm {
		s.Errorf("after a flush between runs: %+v", rep)
	}
	s.verify()
}

// Slots move from the shard that is being filled to one that is warm, with what they hold:
// half of their keys.
func resharding(s *servers) {
	masters := s.masters()
	s.flush(masters[0])
	s.once(func() {
		id := func(node *testservers.RedisServer) string {
			id, err := node.Do("CLUSTER", "MYID")
			if err != nil {
				s.Error(err)
			}
			return fmt.Sprint(id)
		}
		out, err := exec.Command("redis-cli", "--cluster", "reshard", masters[0].Addr(), "--cluster-from", id(masters[0]), "--cluster-to", id(masters[1]),
			"--cluster-slots", "1500", "--cluster-yes").CombinedOutput()
		if err != nil {
			s.Errorf("reshard: %v\n%s", err, out)
		}
	})
	s.rewarm(true)
	s.settle()
}

func tableRestarts(s *servers) {
	s.flush()
	restarted := make(chan struct{})
	s.once(func() {
		go func() { // as it happens: the workers go on meanwhile
			defer close(restarted)
			s.dynamo.Restart()
		}()
	})
	s.rewarm(true)
	<-restarted
	s.settle()
}

// A master dies and its replica takes over, while the cluster is filled.
func failover(s *servers) {
	victim := s.masters()[2]
	s.flush()
	over := make(chan struct{})
	s.once(func() {
		go func() {
			defer close(over)
			victim.Kill()
			s.cluster.WaitReady()
		}()
	})
	s.rewarm(true)
	<-over
	s.settle()
	victim.Restart()
	s.cluster.WaitReady()
	s.settle()
}
