package vault

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestWordList(t *testing.T) {
	if sum := crc32.ChecksumIEEE([]byte(wordList)); len(words) != 2048 || sum != 0xc1dbd296 {
		t.Fatalf("%d words with CRC-32 %08x", len(words), sum)
	}
	seen := make(map[string]bool)
	for i, w := range words {
		prefix := w[:min(len(w), wordPrefix)]
		if i > 0 && words[i-1] >= w || seen[prefix] || len(w) < 3 {
			t.Errorf("word %d, %q", i, w)
		}
		seen[prefix] = true
	}
}

// TestPhrase checks phrases against the definition, with the bits as text.
func TestPhrase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := Key(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed"))
		phrase := Phrase(seed)
		var bits strings.Builder
		for _, w := range strings.Split(phrase, " ") {
			n, ok := findWord(w)
			if !ok || words[n] != w {
				t.Fatalf("%q", w)
			}
			fmt.Fprintf(&bits, "%011b", n)
		}
		var want strings.Builder
		for _, b := range seed {
			fmt.Fprintf(&want, "%08b", b)
		}
		if sum := sha256.Sum256(seed[:]); bits.String() != want.String()+fmt.Sprintf("%08b", sum[0]) {
			t.Fatalf("%s, want %s and 8 bits", bits.String(), want.String())
		}
		loose := "\t" + strings.ToUpper(strings.ReplaceAll(phrase, " ", " \r\n")) + " "
		short := strings.Fields(phrase)
		for i, w := range short {
			short[i] = w[:min(len(w), rapid.IntRange(wordPrefix, 8).Draw(t, "letters"))]
		}
		for _, p := range []string{phrase, loose, strings.Join(short, " ")} {
			if got, err := ParsePhrase(p); err != nil || got != seed {
				t.Fatalf("read back as something else: %v", err)
			}
		}
	})
}

func TestParsePhraseRefuses(t *testing.T) {
	phrase := Phrase(Key{1})
	given := strings.Fields(phrase)
	with := func(i int, w string) string {
		out := strings.Fields(phrase)
		out[i] = w
		return strings.Join(out, " ")
	}
	for _, test := range []struct {
		name, phrase string
		want         PhraseError
	}{
		{"nothing", "", PhraseError{Count: 0}},
		{"a word too few", strings.Join(given[:23], " "), PhraseError{Count: 23}},
		{"a word too many", phrase + " zoo", PhraseError{Count: 25}},
		{"a wrong word", with(4, "Abandonn"), PhraseError{"Abandonn", 5, 24}},
		{"two wrong words", strings.Replace(with(4, "foo"), given[23], "bar", 1), PhraseError{"foo", 5, 24}},
		{"three letters of a longer word", with(23, "aba"), PhraseError{"aba", 24, 24}},
		{"an accent", with(0, "ábandon"), PhraseError{"ábandon", 1, 24}},
		{"two words in one", strings.Replace(phrase, " ", "", 1), PhraseError{given[0] + given[1], 1, 23}},
		{"a number", "1. " + phrase, PhraseError{"1.", 1, 25}},
		{"another file", strings.Repeat("é", 100_000), PhraseError{strings.Repeat("é", 24) + "…", 1, 1}},
		{"bytes", "\xff\xfe", PhraseError{"\xff\xfe", 1, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			seed, err := ParsePhrase(test.phrase)
			got, ok := errors.AsType[*PhraseError](err)
			if !ok || *got != test.want || seed != (Key{}) {
				t.Fatalf("error %#v, want %#v", got, test.want)
			}
			text := got.Error()
			if got.Position > 0 != strings.Contains(text, "word list") || (got.Count != 24) != strings.Contains(text, "a recovery phrase has 24") || !utf8.ValidString(text) {
				t.Errorf("%q", text)
			}
		})
	}
	if _, err := ParsePhrase(with(7, "zoo")); !errors.Is(err, ErrPhraseChecksum) {
		t.Errorf("another word: %v", err)
	}
	given[0], given[1] = given[1], given[0]
	if _, err := ParsePhrase(strings.Join(given, " ")); !errors.Is(err, ErrPhraseChecksum) {
		t.Errorf("two words exchanged: %v", err)
	}
}

func TestKit(t *testing.T) {
	seed := NewKey()
	full := Kit{Seed: seed, Servers: []string{"backup.example:1256", "[2001:db8::1]:1256"}, Pin: &[32]byte{1}, Vault: &ID{2}}
	phrase := Phrase(seed)
	for _, test := range []struct {
		name, text string
		want       Kit
	}{
		{"as written", string(full.Bytes()), full},
		{"as written, without the rest", string(Kit{Seed: seed}.Bytes()), Kit{Seed: seed}},
		{"lines as on Windows, with a mark", "\ufeff" + strings.ReplaceAll(string(full.Bytes()), "\n", "\r\n"), full},
		{"words alone", phrase, Kit{Seed: seed}},
		{"words alone, on many lines", "# mine\n\n" + strings.ReplaceAll(phrase, " ", "\n") + "\n", Kit{Seed: seed}},
		{"keys of a later version", "colour: blue\nphrase: " + phrase + "\ncolour: red", Kit{Seed: seed}},
		{"capitals", "phrase:  " + strings.ToUpper(phrase) + " \nvault: " + strings.ToUpper(full.Vault.String()), Kit{Seed: seed, Vault: full.Vault}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseKit([]byte(test.text))
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Fatalf("%+v, %v", got, err)
			}
		})
	}
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "", "0 words"},
		{"too long", strings.Repeat("#", MaxKit+1), "more than 65536 bytes"},
		{"not text", "phrase: \xff", "not UTF-8"},
		{"no phrase", "server: a:1\n", "no line begins"},
		{"bad phrase", "# x\nphrase: " + phrase + " zoo", "line 2: there are 25 words"},
		{"bad words alone", phrase + " zoo", "there are 25 words"},
		{"two phrases", "phrase: " + phrase + "\nphrase: " + phrase, "line 2: a second phrase"},
		{"two pins", "pin: " + strings.Repeat("00", 32) + "\npin: " + strings.Repeat("00", 32), "line 2: a second pin"},
		{"two vaults", "vault: " + strings.Repeat("00", 16) + "\nvault: " + strings.Repeat("00", 16), "line 2: a second vault"},
		{"server without port", "server: example", "line 1: server"},
		{"server without name", "server: :1", "line 1: server"},
		{"server with port 0", "server: a:0", "line 1: server"},
		{"server with a port too high", "server: a:65536", "line 1: server"},
		{"short pin", "pin: 00", "line 1: pin is not of 64"},
		{"pin that is no number", "pin: " + strings.Repeat("xy", 32), "line 1: pin is not of 64"},
		{"long vault", "vault: " + strings.Repeat("00", 17), "line 1: vault is not of 32"},
		{"words beside keys", "server: a:1\n" + phrase, "line 2 is neither"},
		{"phrase on two lines", "phrase: " + strings.Replace(phrase, " ", "\n", 1), "line 1: there are 1 words"},
	} {
		t.Run(test.name, func(t *testing.T) {
			kit, err := ParseKit([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) || kit.Seed != (Key{}) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
			for _, w := range strings.Fields(phrase) {
				if strings.Contains(err.Error(), `"`+w+`"`) {
					t.Errorf("%v shows a word of the phrase", err)
				}
			}
		})
	}
}

func FuzzParsePhrase(f *testing.F) {
	f.Add(Phrase(Key{}))
	f.Add("zoo " + Phrase(Key{1}))
	f.Fuzz(func(t *testing.T, phrase string) {
		seed, err := ParsePhrase(phrase)
		if err != nil {
			if _, ok := errors.AsType[*PhraseError](err); !ok && !errors.Is(err, ErrPhraseChecksum) || seed != (Key{}) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if again, err := ParsePhrase(Phrase(seed)); err != nil || again != seed {
			t.Fatalf("%q is another seed as %q", phrase, Phrase(seed))
		}
	})
}

func FuzzParseKit(f *testing.F) {
	f.Add(Kit{Seed: Key{1}, Servers: []string{"a:1"}, Pin: new([32]byte), Vault: new(ID)}.Bytes())
	f.Add([]byte(Phrase(Key{})))
	f.Fuzz(func(t *testing.T, data []byte) {
		kit, err := ParseKit(data)
		if err != nil {
			return
		}
		if again, err := ParseKit(kit.Bytes()); err != nil || !reflect.DeepEqual(again, kit) {
			t.Fatalf("%q is another kit as %q: %v", data, kit.Bytes(), err)
		}
	})
}
