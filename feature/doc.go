// Package feature is the dictionary of Hearth: the words that configuration, code,
// formats and metrics share, and the bytes that both stores hold. It imports nothing
// else of the project, so every other package can speak it.
//
// The central types are
//
//   - [Project], [Entity], [View], [Service]: what a feature repository declares;
//   - [Key]: the canonical text of one entity ("a=1&b=23");
//   - [Version]: the total order of values, the same bytes in every tier;
//   - [Value] and the payload codec ([AppendPayload], [ParsePayload], [DecodeFeatures]);
//   - [Record], [PutResult], [GetResult]: what travels between the tiers.
package feature
