// Package e2e drives the built binary against real servers, as a user would. It holds
// tests only.
package e2e
