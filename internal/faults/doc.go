// Package faults breaks connections and answers on purpose, for tests.
//
// A [Proxy] stands between a client and a TCP server and delays, withholds,
// cuts or resets what flows. A [DynamoDBTransport] stands inside a DynamoDB
// client and gives the answers that no emulator gives: throttling, batches of
// which a part is left unprocessed, answers that get lost after the server has
// applied the request.
package faults
