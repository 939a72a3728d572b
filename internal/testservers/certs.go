package testservers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certs are the files of a test certificate authority with one server
// certificate (localhost, 127.0.0.1, ::1) and one client certificate.
type Certs struct {
	CAFile         string
	ServerCertFile string
	ServerKeyFile  string
	ClientCertFile string
	ClientKeyFile  string

	pool   *x509.CertPool
	client tls.Certificate
}

// NewCerts makes certificates in a temporary folder of the test.
func NewCerts(t testing.TB) *Certs {
	t.Helper()
	c, err := newCerts(t.TempDir())
	if err != nil {
		t.Fatalf("testservers: %v", err)
	}
	return c
}

// ClientConfig trusts the authority and presents the client certificate.
func (c *Certs) ClientConfig() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		RootCAs:      c.pool,
		ServerName:   "localhost",
		Certificates: []tls.Certificate{c.client},
	}
}

func newCerts(dir string) (*Certs, error) {
	file := func(name string) string { return filepath.Join(dir, name) }
	c := &Certs{
		CAFile:         file("ca.crt"),
		ServerCertFile: file("server.crt"), ServerKeyFile: file("server.key"),
		ClientCertFile: file("client.crt"), ClientKeyFile: file("client.key"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	ca := certTemplate(1, "hearth test authority")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	caKey, caCert, err := issue(ca, nil, nil, c.CAFile, "")
	if err != nil {
		return nil, err
	}
	for i, out := range [][2]string{{c.ServerCertFile, c.ServerKeyFile}, {c.ClientCertFile, c.ClientKeyFile}} {
		leaf := certTemplate(int64(i+2), "localhost")
		leaf.KeyUsage = x509.KeyUsageDigitalSignature
		// Nodes of a Redis cluster are servers and clients of each other.
		leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		leaf.DNSNames = []string{"localhost"}
		leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		if _, _, err := issue(leaf, caCert, caKey, out[0], out[1]); err != nil {
			return nil, err
		}
	}
	c.pool = x509.NewCertPool()
	c.pool.AddCert(caCert)
	if c.client, err = tls.LoadX509KeyPair(c.ClientCertFile, c.ClientKeyFile); err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	return c, nil
}

func certTemplate(serial int64, name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
	}
}

// issue signs template with the parent (with itself when that is nil) and
// writes the files; keyFile may be empty.
func issue(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, certFile, keyFile string) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	fail := func(err error) (*ecdsa.PrivateKey, *x509.Certificate, error) {
		return nil, nil, fmt.Errorf("make certificate %s: %w", template.Subject.CommonName, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return fail(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	if err := writePEM(certFile, "CERTIFICATE", der); err != nil {
		return fail(err)
	}
	if keyFile == "" {
		return key, cert, nil
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fail(err)
	}
	if err := writePEM(keyFile, "EC PRIVATE KEY", keyDER); err != nil {
		return fail(err)
	}
	return key, cert, nil
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
