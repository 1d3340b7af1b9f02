// Package vault seals a person's data before it leaves their machine and opens it
// again: keys, sealed objects, file content and records, and the signed history of
// a vault (SPEC.md, part 2).
//
// The one invariant: what [Keyring.Open] returns is byte for byte what was given
// to [Keyring.Seal] by a holder of the same vault key, under the same header; all
// else is an error. Every sealed thing has the one construction of SPEC.md,
// "Objects", and is named by the SHA-256 of its bytes.
//
// History is signed: a [Commit] is a device's signature over a batch of records,
// over its state, as a [Digest], and over everything before; a [Stamp] is a
// server's word on when it came. Whose signature counts, and who holds which keys,
// is the word of the vault's [Members] alone, which nobody takes from a server
// unverified. An [Identity] is the secret half of one of them.
//
// The package does no I/O of its own and keeps no state but keys and the
// membership log: where objects lie is the caller's business, as is which of them
// are current. Anybody can check an object without a key, with [ParseHeader] and
// [Identify], and history with [OpenCommit], [VerifyAudit] and [OpenStamp];
// everything else starts at a [Keyring], which a member gets from
// [Members.Unlock]. A file goes through [Keyring.WriteContent] and
// [Keyring.ReadContent], its name and metadata through [Record].
package vault
