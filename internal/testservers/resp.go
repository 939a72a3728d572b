package testservers

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// respTimeout bounds one command, so that a hanging server fails a test
// instead of stopping it.
const respTimeout = 30 * time.Second

// respConn speaks just enough of the Redis protocol to set servers up and to
// look at them. Tests use the real client.
type respConn struct {
	conn net.Conn
	rd   *bufio.Reader
}

// RedisError is an error that the server answered.
type RedisError string

func (e RedisError) Error() string { return string(e) }

func dialResp(addr string, tlsConfig *tls.Config, user, password string) (*respConn, error) {
	var conn net.Conn
	var err error
	d := &net.Dialer{Timeout: respTimeout}
	if tlsConfig != nil {
		conn, err = tls.DialWithDialer(d, "tcp", addr, tlsConfig)
	} else {
		conn, err = d.Dial("tcp", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("dial redis: %w", err)
	}
	c := &respConn{conn: conn, rd: bufio.NewReader(conn)}
	if password != "" {
		args := []string{"AUTH", password}
		if user != "" {
			args = []string{"AUTH", user, password}
		}
		if _, err := c.do(args...); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

func (c *respConn) close() { _ = c.conn.Close() } // nothing is buffered for writing

// do sends one command and reads its answer: string, int64, nil or []any.
func (c *respConn) do(args ...string) (any, error) {
	if err := c.conn.SetDeadline(time.Now().Add(respTimeout)); err != nil {
		return nil, fmt.Errorf("redis %s: %w", args[0], err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c.conn, b.String()); err != nil {
		return nil, fmt.Errorf("redis %s: %w", args[0], err)
	}
	v, err := c.read()
	if err != nil {
		return nil, fmt.Errorf("redis %s: %w", args[0], err)
	}
	return v, nil
}

func (c *respConn) read() (any, error) {
	line, err := c.rd.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, fmt.Errorf("empty line in the answer")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return nil, RedisError(rest)
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	case '$', '*':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return nil, err
		}
		if kind == '*' {
			return c.readArray(n)
		}
		buf := make([]byte, n+2)
		if _, err := io.ReadFull(c.rd, buf); err != nil {
			return nil, err
		}
		return string(buf[:n]), nil
	}
	return nil, fmt.Errorf("unknown answer %q", line)
}

// readArray reads n elements. An error inside an array is an element.
func (c *respConn) readArray(n int) (any, error) {
	out := make([]any, n)
	for i := range out {
		v, err := c.read()
		if re, ok := err.(RedisError); ok { //nolint:errorlint // read returns it unwrapped; anything else is a broken connection
			v, err = re, nil
		}
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}
