package storagetest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"backstay/protocol/vault"
)

// seal builds an object whose clear part is as given and whose sealed part is
// body, opened by no key: a store cannot tell. Layout: SPEC.md, "Objects".
func seal(typ vault.Type, refs []vault.ObjectID, r *vault.RecordHeader, body []byte) []byte {
	b := append([]byte("bkst"), 1, byte(typ))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(refs)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	for _, id := range refs {
		b = append(b, id[:]...)
	}
	if r != nil {
		b = append(b, r.Device[:]...)
		b = binary.LittleEndian.AppendUint64(b, r.Seq)
		b = append(b, r.Path[:]...)
		b = append(b, r.Parent[:]...)
		b = append(b, byte(r.Op))
	}
	siv := sha256.Sum256(body)
	b = append(b, siv[:]...)
	b = append(b, body...)
	return append(b, make([]byte, 9+16)...) // at least an encoding's header and a tag
}

// Chunk returns a chunk that carries body in place of a ciphertext.
func Chunk(body []byte) []byte { return seal(vault.TypeChunk, nil, nil, body) }

// List returns a list of objects; name tells it from other lists of the same.
func List(name string, refs ...[]byte) []byte {
	return seal(vault.TypeList, identify(refs), nil, []byte(name))
}

// Record returns a record with the header h that refers to objects.
func Record(h vault.RecordHeader, refs ...[]byte) []byte {
	return seal(vault.TypeRecord, identify(refs), &h, nil)
}

func identify(objects [][]byte) []vault.ObjectID {
	ids := make([]vault.ObjectID, len(objects))
	for i, o := range objects {
		ids[i] = vault.Identify(o)
	}
	return ids
}

// text returns a chunk with formatted content.
func text(format string, args ...any) []byte { return Chunk(fmt.Appendf(nil, format, args...)) }

// name16 makes an id of a word.
func name16[T ~[16]byte](word string) T {
	sum := sha256.Sum256([]byte(word))
	return T(sum[:16])
}

func vaultID(word string) vault.ID        { return name16[vault.ID](word) }
func deviceID(word string) vault.DeviceID { return name16[vault.DeviceID](word) }
func pathID(word string) vault.PathID     { return name16[vault.PathID](word) }
