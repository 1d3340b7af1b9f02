// Package vault seals a person's data before it leaves their machine and opens it
// again: keys, sealed objects, file content and records (SPEC.md, part 2).
//
// The one invariant: what [Keyring.Open] returns is byte for byte what was given
// to [Keyring.Seal] by a holder of the same vault key, under the same header; all
// else is an error. Every sealed thing has the one construction of SPEC.md,
// "Objects", and is named by the SHA-256 of its bytes.
//
// The package does no I/O of its own and keeps no state but keys: where objects
// lie is the caller's business, as is which of them are current. Anybody can
// check an object without a key, with [ParseHeader] and [Identify]; everything
// else starts at a [Keyring]. A file goes through [Keyring.WriteContent] and
// [Keyring.ReadContent], its name and metadata through [Record].
package vault
