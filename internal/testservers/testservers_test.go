//go:build unix

package testservers

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Run(m) }

// do sends a command that must succeed.
func do(t *testing.T, s *RedisServer, args ...string) any {
	t.Helper()
	v, err := s.Do(args...)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return v
}

func TestRedisLosesAndKeepsData(t *testing.T) {
	t.Parallel()
	for _, aof := range []bool{false, true} {
		s := Redis(t, RedisOptions{AOF: aof})
		do(t, s, "SET", "k", "v")
		addr, pid := s.Addr(), s.PID()
		s.Kill()
		if _, err := s.Do("PING"); err == nil {
			t.Error("a killed server answers")
		}
		s.Restart()
		if s.Addr() != addr || s.PID() == pid {
			t.Errorf("restart: address %s, was %s; process %d, was %d", s.Addr(), addr, s.PID(), pid)
		}
		var want any
		if aof {
			want = "v"
		}
		if got := do(t, s, "GET", "k"); got != want {
			t.Errorf("aof %v: after kill and restart k = %v, want %v", aof, got, want)
		}
		s.Stop()
		s.Stop() // harmless
		if s.PID() != 0 {
			t.Error("a stopped server has a process id")
		}
	}
}

func TestRedisLimits(t *testing.T) {
	t.Parallel()
	s := Redis(t, RedisOptions{MaxMemory: "2mb", Policy: "allkeys-lru", Args: []string{"--maxclients", "33"}})
	for key, want := range map[string]string{"maxmemory": "2097152", "maxmemory-policy": "allkeys-lru", "maxclients": "33"} {
		got, _ := do(t, s, "CONFIG", "GET", key).([]any)
		if len(got) != 2 || got[1] != want {
			t.Errorf("%s = %v, want %s", key, got, want)
		}
	}
}

func TestRedisUserAndTLS(t *testing.T) {
	t.Parallel()
	s := Redis(t, RedisOptions{Username: "app", Password: "s3cret", TLS: true, RequireClientCert: true})
	if got := do(t, s, "ACL", "WHOAMI"); got != "app" {
		t.Errorf("user = %v", got)
	}
	c, err := dialResp(s.Addr(), s.TLSConfig(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.do("PING"); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("the default user got %v, want NOAUTH", err)
	}
	if c, err := dialResp(s.Addr(), nil, "app", "s3cret"); err == nil {
		c.close()
		t.Error("the plain protocol was accepted")
	}
	noCert := s.TLSConfig()
	noCert.Certificates = nil
	if c, err := dialResp(s.Addr(), noCert, "app", "s3cret"); err == nil {
		c.close()
		t.Error("a client without a certificate was accepted")
	}
}

func TestRedisPassword(t *testing.T) {
	t.Parallel()
	s := Redis(t, RedisOptions{Password: `two words "quoted"`})
	if got := do(t, s, "PING"); got != "PONG" {
		t.Errorf("PING = %v", got)
	}
}

func TestRedisPause(t *testing.T) {
	t.Parallel()
	s := Redis(t, RedisOptions{})
	c, err := dialResp(s.Addr(), nil, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	s.Pause()
	if err := c.conn.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.conn.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.rd.ReadByte(); err == nil {
		t.Error("a paused server answers")
	}
	s.Resume()
	if got := do(t, s, "PING"); got != "PONG" {
		t.Errorf("PING = %v", got)
	}
	s.Pause() // the cleanup must be able to stop a paused server
}

// TestRedisLocale: the server must really run in the locale, which shows in
// how its scripts compare strings (bytes: "B" < "a").
func TestRedisLocale(t *testing.T) {
	t.Parallel()
	const script = `return tostring('a' < 'B')`
	s := Redis(t, RedisOptions{Env: []string{"LC_ALL=en_US.UTF-8"}})
	if got := do(t, s, "EVAL", script, "0"); got != "true" {
		t.Errorf("'a' < 'B' is %v, want true in en_US", got)
	}
	c := Redis(t, RedisOptions{Env: []string{"LC_ALL=C"}})
	if got := do(t, c, "EVAL", script, "0"); got != "false" {
		t.Errorf("'a' < 'B' is %v, want false in C", got)
	}
}

func TestMissingThingsAreErrors(t *testing.T) {
	const want = "run: make deps"
	if err := checkLocale([]string{"LC_ALL=xx_XX.UTF-8"}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("missing locale: %v", err)
	}
	t.Setenv("HEARTH_TEST_CACHE", t.TempDir())
	if _, err := startDynamoDBLocal(t.TempDir(), DynamoDBOptions{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("missing DynamoDB Local: %v", err)
	}
	if _, err := startDynoxide(t.TempDir(), DynamoDBOptions{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("missing dynoxide: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := startRedis(t.TempDir(), RedisOptions{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("missing redis-server: %v", err)
	}
}

func TestFailedStartShowsTheLog(t *testing.T) {
	t.Parallel()
	_, err := startRedis(t.TempDir(), RedisOptions{Args: []string{"--no-such-setting", "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("error = %v, want the complaint from the log", err)
	}
}

func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := RedisCluster(t, ClusterOptions{Replicas: 1, Node: RedisOptions{TLS: true, Username: "app", Password: "pw"}})
	if len(c.Addrs()) != 6 {
		t.Fatalf("nodes = %v", c.Addrs())
	}
	old := c.OwnerOf("key")
	if old == nil {
		t.Fatal("nobody serves the key")
	}
	do(t, old, "SET", "key", "v")
	if n := do(t, old, "WAIT", "1", "30000"); n != int64(1) {
		t.Fatalf("WAIT = %v", n)
	}
	old.Kill()
	var owner *RedisServer
	must(t, poll(2*time.Minute, func() error {
		var err error
		if owner, err = c.ownerOf("key"); err == nil && owner == old {
			err = fmt.Errorf("still %s", old.Addr())
		}
		return err
	}))
	c.WaitReady()
	if got := do(t, owner, "GET", "key"); got != "v" {
		t.Errorf("after the failover key = %v", got)
	}
	old.Restart()
	c.WaitReady()
}

func TestDynamoDBServersStartAgain(t *testing.T) {
	t.Parallel()
	starts := map[string]func(testing.TB, DynamoDBOptions) *DynamoDBServer{"DynamoDB Local": DynamoDBLocal, "dynoxide": Dynoxide}
	for name, start := range starts {
		s := start(t, DynamoDBOptions{File: true})
		if got := callDynamoDB(t, s.Endpoint(), "CreateTable", createTable); got != http.StatusOK {
			t.Fatalf("%s: CreateTable = %d", name, got)
		}
		s.Kill()
		s.Restart()
		if got := callDynamoDB(t, s.Endpoint(), "DescribeTable", `{"TableName":"features"}`); got != http.StatusOK {
			t.Errorf("%s: the table is gone after a restart: %d", name, got)
		}
	}
}

const createTable = `{"TableName":"features","BillingMode":"PAY_PER_REQUEST",
	"AttributeDefinitions":[{"AttributeName":"e","AttributeType":"S"}],
	"KeySchema":[{"AttributeName":"e","KeyType":"HASH"}]}`

// callDynamoDB sends a request whose signature has the right form only.
func callDynamoDB(t *testing.T, endpoint, operation, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	req.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
	req.Header.Set("X-Amz-Date", "20260101T000000Z")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+AWSAccessKeyID+"/20260101/"+AWSRegion+
		"/dynamodb/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("0", 64))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestSharedServersAreShared(t *testing.T) {
	t.Parallel()
	if a, b := SharedRedis(t), SharedRedis(t); a != b {
		t.Errorf("two shared servers: %s, %s", a, b)
	}
	if got := SharedCluster(t); len(got) != 3 {
		t.Errorf("shared cluster: %v", got)
	}
	if got := callDynamoDB(t, SharedDynamoDB(t), "ListTables", `{}`); got != http.StatusOK {
		t.Errorf("ListTables = %d", got)
	}
}

func TestSharedServersNeedRun(t *testing.T) {
	t.Parallel()
	var s shared
	_, err := get(&s, &s.redis, func(dir string) (*RedisServer, error) { return startRedis(dir, RedisOptions{}) })
	if err == nil || !strings.Contains(err.Error(), "testservers.Run(m)") {
		t.Errorf("error = %v", err)
	}
}

// TestServersDieWithTheTestProcess runs this test binary again, lets it start
// a server, kills it and looks for the server.
func TestServersDieWithTheTestProcess(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "server")
	child := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	child.Env = append(os.Environ(), "HEARTH_HELPER_OUT="+out)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()         //nolint:errcheck // it is killed on purpose
	defer child.Process.Kill() //nolint:errcheck // fails when it is gone, as it should be
	var pid int
	must(t, poll(2*time.Minute, func() error {
		b, err := os.ReadFile(out)
		if err != nil {
			return err
		}
		pid, err = strconv.Atoi(string(b))
		return err
	}))
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the server does not run: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	must(t, poll(time.Minute, func() error {
		if !running(pid) {
			return nil
		}
		return fmt.Errorf("server %d outlived the process that started it", pid)
	}))
}

// running is false for a zombie too: nobody may reap an orphan in a container.
func running(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	state := strings.TrimSpace(string(out))
	return err == nil && state != "" && !strings.HasPrefix(state, "Z")
}

// TestHelperProcess is the child of TestServersDieWithTheTestProcess.
func TestHelperProcess(t *testing.T) {
	out := os.Getenv("HEARTH_HELPER_OUT")
	if out == "" {
		return
	}
	s := Redis(t, RedisOptions{})
	if err := os.WriteFile(out, []byte(strconv.Itoa(s.PID())), 0o600); err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done() // until it is killed
}

func TestReservedPortsAreOurs(t *testing.T) {
	t.Parallel()
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	dir := filepath.Dir(p.lock.Name())
	if _, err := tryPort(dir, p.number); err == nil {
		t.Error("a port was given out twice")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a listener of this test
	taken := l.Addr().(*net.TCPAddr).Port
	if _, err := tryPort(t.TempDir(), taken); err == nil {
		t.Error("a port in use was given out")
	}
}
