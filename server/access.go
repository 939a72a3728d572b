package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// access is what a path asks of its caller.
type access uint8

const (
	anyone    access = iota // health: probes carry no tokens and are always answered
	readers                 // features and metrics
	operators               // the status page: the admin token where there is one, else the read token
	writers                 // everything that writes: off unless there is an admin token
)

// token is the digest of a token: comparing digests takes a time that says nothing about
// the token, nor about its length.
type token struct {
	set    bool
	digest [sha256.Size]byte
}

func newToken(text string) token { return token{text != "", sha256.Sum256([]byte(text))} }

func (t token) is(given [sha256.Size]byte) bool {
	return t.set && subtle.ConstantTimeCompare(t.digest[:], given[:]) == 1
}

// admit checks the token. A path that needs none is open to every page in a browser of
// the machine, so a request that a foreign page sent, or that came under a foreign name,
// is refused.
func (s *Server) admit(rt *route, r *http.Request) error {
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return problem{http.StatusForbidden, "Forbidden", "requests from other web pages are not answered"}
		}
	}
	var need token
	switch rt.access {
	case anyone:
		return nil
	case readers:
		need = s.read
	case operators:
		if need = s.admin; !need.set {
			need = s.read
		}
	case writers:
		if need = s.admin; !need.set {
			return problem{http.StatusForbidden, "WritesOff", "this server does not write: it has no admin token (server.auth.admin_token_env)"}
		}
	}
	if !need.set {
		if host := hostname(r.Host); !s.cfg.Insecure && !loopback(host) {
			return problem{http.StatusForbidden, "Forbidden", "without a token only requests to a loopback name are answered"}
		}
		return nil
	}
	given, ok := bearer(r, rt.method == http.MethodGet)
	if !ok {
		return problem{http.StatusUnauthorized, "Unauthorized", "send Authorization: Bearer <token>"}
	}
	digest := sha256.Sum256([]byte(given))
	isRead, isAdmin := s.read.is(digest), s.admin.is(digest)
	switch {
	case isAdmin, isRead && need == s.read:
		return nil
	case isRead:
		return problem{http.StatusForbidden, "Forbidden", "this path needs the admin token"}
	}
	return problem{http.StatusUnauthorized, "Unauthorized", "the token is not known"}
}

// bearer is the token of a request. A browser cannot send one, so that pages that only
// show something also take it as the password of its dialogue.
func bearer(r *http.Request, basic bool) (string, bool) {
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return t, true
	}
	if basic {
		if _, password, ok := r.BasicAuth(); ok {
			return password, true
		}
	}
	return "", false
}

func hostname(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return strings.Trim(host, "[]")
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// mayListen refuses to offer features, which are often personal data, to a network without
// asking for a token.
func (s *Server) mayListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen on %q: %w: write host:port", address, feature.ErrInvalid)
	}
	if !loopback(host) && !s.read.set && !s.cfg.Insecure {
		return fmt.Errorf("listen on %s: %w: an address that is not loopback needs a token for reads: set server.auth.read_token_env, or say server.insecure: true (hearth serve --insecure) where the network itself keeps others out", address, feature.ErrInvalid)
	}
	return nil
}
