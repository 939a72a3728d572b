package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/internal/faults"
	"github.com/hearthstore/hearth/internal/testservers"
)

// How much is killed, and how often in a row before a run is let through.
const (
	kills     = 50
	killsEach = 8
	// A loaded machine takes long over everything; a kill does not wait that long.
	killWithin = 1500 * time.Millisecond
)

// TestKilledAtRandom kills materialize -9 at random moments, more than 50 times, over
// redis-server and DynamoDB Local, each time with new files in the source. After every few
// kills the same command is let through, and both stores hold exactly what they would hold
// without any kill: values, event and created times (I6); another run writes nothing (I7).
// It guards against files that count as taken before their rows are acknowledged.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(faults.Seed(t), 1))
	server := testservers.Redis(t, testservers.RedisOptions{})
	table := testservers.DynamoDBLocal(t, testservers.DynamoDBOptions{})
	a := newAccounts(t, rng, 1500, fmt.Sprintf("{redis: {addrs: [%q]}}", server.Addr()),
		fmt.Sprintf("{dynamodb: {table: accounts, region: us-east-1, endpoint: %q}}", table.Endpoint()))
	cache := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = cache.Close() }()
	db := rawTable(table.Endpoint())
	a.r.must(0, nil, "apply")
	a.r.edit(func(text string) string { return text + "offline: {chunk: 10KB}\n" }) // a file or two
	a.write(700)
	began := time.Now()
	a.r.must(0, nil, "materialize")
	whole := time.Since(began)

	killed, ended := 0, 0
	for killed < kills {
		for range killsEach {
			a.write(150)
			if rng.IntN(6) == 0 { // Redis is lost now and then, too
				if err := cache.FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"materialize"}
			if rng.IntN(5) == 0 {
				args = append(args, "--full")
			}
			freeLeases(t, db, "accounts-state")
			if a.r.kill(time.Duration(rng.Int64N(int64(min(whole*11/10, killWithin)))), args...) {
				killed++
			} else if ended++; ended > 2*kills {
				t.Fatalf("%d runs ended before they were killed, %d were", ended, killed)
			}
		}
		freeLeases(t, db, "accounts-state")
		began = time.Now()
		a.r.must(0, nil, "materialize")
		whole = time.Since(began)
		held := map[string][]byte{}
		for _, item := range scanTable(t, db, "accounts") {
			held[item["e"].(*types.AttributeValueMemberS).Value] = item["p"].(*types.AttributeValueMemberB).Value
		}
		a.check("DynamoDB", held, true)
		// What was flushed under a killed run is not for materialize to bring back.
		a.r.must(0, nil, "rewarm", "--if-cold")
		a.check("Redis", cached(t, cache, "accounts:account@1:{"), false)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d runs were killed, %d had ended before", killed, ended)
	var m materializeDoc
	a.r.must(0, &m, "materialize")
	if m.Status != "nothing" {
		t.Errorf("I7: a second run is %s", m.Status)
	}
	a.r.must(0, &m, "materialize", "--full")
	if v := m.Views[0]; v.Backing.Written+v.Online.Written != 0 {
		t.Errorf("I7: a full run over unchanged files wrote %+v %+v", v.Backing, v.Online)
	}
}

// TestResumedAfterKill: a run that is killed -9 after its first chunk is gone on with: what was
// recorded is not read again. It guards against chunks that are recorded too late, or of
// which nothing is written down.
func TestResumedAfterKill(t *testing.T) {
	t.Parallel()
	const files, perFile = 6, 500
	server := testservers.Redis(t, testservers.RedisOptions{})
	p := single(t, server, server.Addr(), "", redis.Options{})
	a := newAccounts(t, rand.New(rand.NewPCG(faults.Seed(t), 2)), 900, p.online, "{sqlite: {path: .hearth/backing.db}}")
	a.r.edit(func(text string) string { return text + "offline: {chunk: 1KB}\n" }) // each file is larger
	for range files {
		a.write(perFile)
	}
	chunks := a.r.killAt("chunk recorded", "materialize", "--log-level", "info")
	if chunks == 0 {
		t.Fatal("no chunk was recorded")
	}
	var m materializeDoc
	a.r.must(0, &m, "materialize")
	v := m.Views[0]
	t.Logf("killed after %d chunks; then %d files and %d rows were read", chunks, v.Files, v.RowsRead)
	if most := files - chunks; v.Files > most || v.RowsRead != int64(v.Files*perFile) {
		t.Errorf("%d of %d files were recorded, and yet %d files and %d rows were read", chunks, files, v.Files, v.RowsRead)
	}
	a.check("Redis", p.contents(), false)
	a.r.must(0, &m, "materialize", "--full")
	if v := m.Views[0]; v.RowsRead != files*perFile || v.Backing.Written+v.Online.Written != 0 {
		t.Errorf("a full run over the same files: %+v", v)
	}
}

// killAt kills a command when a line of its log holds text, and returns how many lines did.
func (r *repo) killAt(text string, args ...string) (lines int) {
	r.t.Helper()
	r.watched(func(c *exec.Cmd, line string) {
		if strings.Contains(line, text) {
			if lines++; lines == 1 {
				_ = c.Process.Kill() // it may just have ended
			}
		}
	}, args...)
	return lines
}

// watched runs a command and shows each line that it logs, at once, to see.
func (r *repo) watched(see func(c *exec.Cmd, line string), args ...string) (stdout []byte, code int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), commandTimeout)
	defer cancel()
	c := r.command(ctx, args...)
	var out bytes.Buffer
	c.Stdout = &out
	log, err := c.StderrPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Process.Kill() }) // without effect on one that ended
	for scan := bufio.NewScanner(log); scan.Scan(); {
		see(c, scan.Text())
	}
	_ = c.Wait() // the exit code says it
	return out.Bytes(), c.ProcessState.ExitCode()
}

// kill starts a command and kills it after a while; false means that it ended before.
func (r *repo) kill(after time.Duration, args ...string) bool {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), commandTimeout)
	defer cancel()
	c := r.command(ctx, args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		r.t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- c.Wait() }()
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
		_ = c.Process.Kill() // it may just have ended
	case err := <-exited:
		r.ended(err, args, errs.String())
		return false
	}
	err := <-exited
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return true
	}
	r.ended(err, args, errs.String())
	return false
}

// ended checks how a run that was not killed ended.
func (r *repo) ended(err error, args []string, stderr string) {
	r.t.Helper()
	if err != nil {
		r.t.Errorf("hearth %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
}

// freeLeases does to the leases of killed processes what half a minute would do. Their run
// numbers, which the versions hold, are not touched.
func freeLeases(t *testing.T, db *dynamodb.Client, state string) {
	t.Helper()
	for _, item := range scanTable(t, db, state) {
		if k, ok := item["k"].(*types.AttributeValueMemberS); !ok || k.Value != "lease" {
			continue
		}
		_, err := db.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &state, Key: map[string]types.AttributeValue{"k": item["k"], "n": item["n"]}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// cached returns the payloads of the keys with a prefix, by what follows it.
func cached(t *testing.T, c *redis.Client, prefix string) map[string][]byte {
	t.Helper()
	keys, err := c.Keys(t.Context(), prefix+"*").Result()
	if err != nil {
		t.Fatal(err)
	}
	held := map[string][]byte{}
	// A rewarm's canaries are no values of the source.
	keys = slices.DeleteFunc(keys, func(k string) bool { return strings.Contains(k, "{hearth_canary=") })
	pipe := c.Pipeline()
	for _, k := range keys {
		pipe.Get(t.Context(), k)
	}
	cmds, err := pipe.Exec(t.Context())
	if err != nil && !errors.Is(err, redis.Nil) { // one may just have expired
		t.Fatal(err)
	}
	for i, cmd := range cmds {
		if text, err := cmd.(*redis.StringCmd).Bytes(); err == nil {
			held[strings.TrimSuffix(strings.TrimPrefix(keys[i], prefix), "}")] = text
		}
	}
	return held
}
