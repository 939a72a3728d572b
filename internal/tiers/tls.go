package tiers

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/config"
)

// clientTLS turns the TLS settings of a tier into Go's; nil for no TLS.
func clientTLS(t *config.TLS) (*tls.Config, error) {
	if t == nil || !t.Enabled {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w: %w", feature.ErrInvalid, err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s: %w: it holds no PEM certificate", t.CAFile, feature.ErrInvalid)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w: %w", feature.ErrInvalid, err)
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}
