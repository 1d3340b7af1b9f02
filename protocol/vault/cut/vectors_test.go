package cut

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorsFile = "testdata/cuts.json"

// vector is a key and what follows from it. Binary values are hexadecimal.
type vector struct {
	Key      hexBytes        `json:"key"`
	FoldKey  hexBytes        `json:"fold_key"`
	BlockKey hexBytes        `json:"block_key"`
	Windows  []windowVector  `json:"windows"`
	Contents []contentVector `json:"contents"`
}

type windowVector struct {
	Window hexBytes `json:"window"`
	Fold   hexBytes `json:"fold"`
	Block  hexBytes `json:"block"`
	Value  uint32   `json:"value"`
}

// contentVector is a content, its parts one after the other, and the lengths of
// its chunks.
type contentVector struct {
	Name   string       `json:"name"`
	Parts  []partVector `json:"parts"`
	SHA256 hexBytes     `json:"sha256"`
	Chunks []int        `json:"chunks"`
}

// partVector is Length bytes: of Repeat, again and again, or if that is empty of
// SHA-256(From), SHA-256(From+1), …, where each number is a u64 LE.
type partVector struct {
	Repeat hexBytes `json:"repeat,omitempty"`
	From   uint64   `json:"from,omitempty"`
	Length int      `json:"length"`
}

type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func (v contentVector) content() (out []byte) {
	for _, p := range v.Parts {
		end := len(out) + p.Length
		for i := p.From; len(out) < end; i++ {
			piece := []byte(p.Repeat)
			if len(piece) == 0 {
				sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, i))
				piece = sum[:]
			}
			out = append(out, piece[:min(len(piece), end-len(out))]...)
		}
	}
	return out
}

// derive fills in what follows from the inputs.
func (v vector) derive() vector {
	c := New([32]byte(v.Key))
	v.FoldKey, v.BlockKey = c.keys.fold[:], c.keys.rounds[:16]
	v.Windows = append([]windowVector(nil), v.Windows...)
	for i := range v.Windows {
		w := &v.Windows[i]
		var block [16]byte
		c.keys.foldWindow(&block, (*[windowSize]byte)(w.Window))
		w.Fold = bytes.Clone(block[:])
		c.block.Encrypt(block[:], block[:])
		w.Block, w.Value = block[:], binary.LittleEndian.Uint32(block[:])
	}
	v.Contents = append([]contentVector(nil), v.Contents...)
	for i := range v.Contents {
		content := v.Contents[i].content()
		sum := sha256.Sum256(content)
		v.Contents[i].SHA256, v.Contents[i].Chunks = sum[:], lengths(c, content)
	}
	return v
}

// inputs are what the vectors are about.
func inputs() []vector {
	counting := make([]byte, windowSize)
	for i := range counting {
		counting[i] = byte(i)
	}
	windows := []windowVector{
		{Window: make([]byte, windowSize)},
		{Window: bytes.Repeat([]byte{0xff}, windowSize)},
		{Window: counting},
		{Window: append([]byte{1}, make([]byte, windowSize-1)...)},
		{Window: append(make([]byte, windowSize-1), 0x80)},
	}
	return []vector{
		{Key: counting[:32], Windows: windows, Contents: []contentVector{
			{Name: "shorter than the shortest chunk", Parts: []partVector{{Length: minSize - 1}}},
			{Name: "random", Parts: []partVector{{Length: 16 << 20}}},
			{Name: "random with an insertion", Parts: []partVector{{Length: 3_000_000}, {Repeat: hexBytes("inserted"), Length: 8}, {From: 93_750, Length: 13<<20 + 777_216}}},
			{Name: "zeros between", Parts: []partVector{{From: 1 << 40, Length: 2_000_000}, {Repeat: []byte{0}, Length: 9_000_000}, {From: 1 << 41, Length: 3_000_000}}},
		}},
		{Key: make([]byte, 32), Windows: windows, Contents: []contentVector{
			{Name: "random", Parts: []partVector{{Length: 16 << 20}}},
			{Name: "zeros", Parts: []partVector{{Repeat: []byte{0}, Length: 9_000_000}}},
		}},
	}
}

func TestVectors(t *testing.T) {
	if *update {
		var vectors []vector
		for _, v := range inputs() {
			vectors = append(vectors, v.derive())
		}
		data, err := json.MarshalIndent(vectors, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorsFile, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var vectors []vector
	if err := d.Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) == 0 {
		t.Error("no vectors")
	}
	for _, v := range vectors {
		t.Run(hex.EncodeToString(v.Key[:4]), func(t *testing.T) {
			want, _ := json.MarshalIndent(v, "", "\t")
			if got, _ := json.MarshalIndent(v.derive(), "", "\t"); !bytes.Equal(got, want) {
				t.Errorf("the key gives %s\nwant %s", got, want)
			}
		})
	}
}
