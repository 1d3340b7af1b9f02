package vault

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"sort"
	"strings"
)

// Form of a recovery phrase (SPEC.md, "Recovery phrase and kit").
const (
	phraseWords = 24
	wordBits    = 11
	// wordPrefix is how many letters of a word tell it from every other.
	wordPrefix = 4
)

//go:embed words.txt
var wordList string

// words is the list in its order, which is the alphabetical one.
var words = strings.Fields(wordList)

// Phrase returns the recovery phrase of a seed: 24 words with spaces between. It
// is as secret as the seed, and does not hide itself when it is printed.
func Phrase(seed Key) string {
	sum := sha256.Sum256(seed[:])
	out := make([]string, 0, phraseWords)
	acc, bits := uint32(0), 0
	for _, b := range append(seed[:len(seed):len(seed)], sum[0]) {
		acc, bits = acc<<8|uint32(b), bits+8
		if bits >= wordBits {
			bits -= wordBits
			out = append(out, words[acc>>bits&(1<<wordBits-1)])
		}
	}
	return strings.Join(out, " ")
}

// PhraseError says what is wrong with the words of a phrase. Of the words it
// names only one that is not in the list, never one that may be right.
type PhraseError struct {
	// Word is the first that is not in the list, shortened if it is long, and
	// Position its number from 1; empty and 0 if all are.
	Word     string
	Position int
	// Count is how many words there are.
	Count int
}

func (e *PhraseError) Error() string {
	var faults []string
	if e.Position > 0 {
		faults = append(faults, fmt.Sprintf("word %d, %q, is not in the word list: compare it with your copy", e.Position, e.Word))
	}
	if e.Count != phraseWords {
		faults = append(faults, fmt.Sprintf("there are %d words, a recovery phrase has %d", e.Count, phraseWords))
	}
	return strings.Join(faults, "; ")
}

// ParsePhrase returns the seed that a recovery phrase stands for. It ignores case
// and the amount of white space, and takes the beginning of a word, from its
// fourth letter on, for the word.
//
// Errors: a [*PhraseError]; [ErrPhraseChecksum].
func ParsePhrase(phrase string) (Key, error) {
	given := strings.Fields(phrase)
	fault := PhraseError{Count: len(given)}
	var data [len(Key{}) + 1]byte
	acc, bits, n := uint32(0), 0, 0
	for i, word := range given {
		number, ok := findWord(strings.ToLower(word))
		if !ok {
			fault.Word, fault.Position = clip(word), i+1
			break
		}
		if len(given) != phraseWords {
			continue
		}
		acc, bits = acc<<wordBits|uint32(number), bits+wordBits
		for ; bits >= 8; n++ {
			bits -= 8
			data[n] = byte(acc >> bits)
		}
	}
	if fault.Position > 0 || fault.Count != phraseWords {
		return Key{}, &fault
	}
	seed := Key(data[:len(Key{})])
	if sum := sha256.Sum256(seed[:]); sum[0] != data[len(seed)] {
		return Key{}, ErrPhraseChecksum
	}
	return seed, nil
}

// findWord returns the number of a word, or of the one that it begins.
func findWord(word string) (int, bool) {
	i := sort.SearchStrings(words, word)
	if i == len(words) || words[i] != word && (len(word) < wordPrefix || !strings.HasPrefix(words[i], word)) {
		return 0, false
	}
	return i, true
}

// clip shortens a word for an error: it may be a whole file by mistake.
func clip(word string) string {
	const most = 24
	if runes := []rune(word[:min(len(word), 4*most)]); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return word
}
