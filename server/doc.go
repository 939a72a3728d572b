// Package server is hearth serve: feature reads over HTTP (Feast's shapes, and Hearth's own
// with tiers and ages), writes and runs that a Feast client may ask for, health, metrics
// and a status page. It sees a reader and small interfaces; internal/app wires it.
package server
