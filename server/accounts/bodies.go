package accounts

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"backstay/protocol/cbor"
	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// root is what the tls key of a vault's root stands for.
type root struct {
	vault   vault.ID
	account string
}

// invitation is one as the registry has it.
type invitation struct {
	account string
	expires time.Time
	used    time.Time // the zero time until it is
	device  vault.DeviceID
}

func accountKey(name string) storage.Key { return sha256.Sum256([]byte(name)) }

func deviceKey(id vault.DeviceID) (k storage.Key) {
	copy(k[:], id[:])
	return k
}

func (a *account) item() storage.Item {
	return storage.Item{Kind: storage.KindAccount, Key: accountKey(a.Name), Rev: a.rev, Body: a.encode()}
}

func (a *Account) encode() []byte {
	n := 2
	if a.Vault != nil {
		n++
	}
	b := cbor.AppendText(cbor.AppendInt(cbor.AppendMap(nil, n), 1), a.Name)
	if a.Vault != nil {
		b = cbor.AppendBytes(cbor.AppendInt(b, 2), a.Vault[:])
	}
	return cbor.AppendInt(cbor.AppendInt(b, 3), a.Created.UnixNano())
}

func decodeAccount(body []byte) (a Account, err error) {
	m := parse(body, 3)
	a.Name = m.text(1, wire.MaxAccount)
	if m.has(2) {
		a.Vault = new(vault.ID)
		m.bytes(2, a.Vault[:])
	}
	a.Created = m.time(3)
	return a, m.err
}

func (d *Device) encode(public vault.Public) []byte {
	b := cbor.AppendBytes(cbor.AppendInt(cbor.AppendMap(nil, 4), 1), public[:])
	b = cbor.AppendText(cbor.AppendInt(b, 2), d.Name)
	b = cbor.AppendText(cbor.AppendInt(b, 3), d.Account)
	return cbor.AppendInt(cbor.AppendInt(b, 4), d.Enrolled.UnixNano())
}

// decodeDevice does not try the identity's keys: that was done when it came.
func decodeDevice(body []byte) (*Device, error) {
	m := parse(body, 4)
	var public vault.Public
	m.bytes(1, public[:])
	d := &Device{
		ID: public.ID(), Name: m.text(2, wire.MaxName), Account: m.text(3, wire.MaxAccount), Enrolled: m.time(4),
		Sign: public.SignKey(), tls: tlsKey(public.TLS()),
	}
	return d, m.err
}

func (i invitation) encode() []byte {
	n := 2
	if !i.used.IsZero() {
		n = 4
	}
	b := cbor.AppendText(cbor.AppendInt(cbor.AppendMap(nil, n), 1), i.account)
	b = cbor.AppendInt(cbor.AppendInt(b, 2), i.expires.UnixNano())
	if !i.used.IsZero() {
		b = cbor.AppendInt(cbor.AppendInt(b, 3), i.used.UnixNano())
		b = cbor.AppendBytes(cbor.AppendInt(b, 4), i.device[:])
	}
	return b
}

func decodeInvitation(body []byte) (i invitation, err error) {
	m := parse(body, 4)
	i.account, i.expires = m.text(1, wire.MaxAccount), m.time(2)
	if m.has(3) || m.has(4) { // neither is without the other
		i.used = m.time(3)
		m.bytes(4, i.device[:])
	}
	return i, m.err
}

func (r root) encode() []byte {
	b := cbor.AppendBytes(cbor.AppendInt(cbor.AppendMap(nil, 2), 1), r.vault[:])
	return cbor.AppendText(cbor.AppendInt(b, 2), r.account)
}

func decodeRoot(body []byte) (r root, err error) {
	m := parse(body, 2)
	m.bytes(1, r.vault[:])
	r.account = m.text(2, wire.MaxAccount)
	return r, m.err
}

// fields are the values of a body by key. The first fault stays in err.
type fields struct {
	values [5]cbor.Value
	err    error
}

// parse reads a map with keys from 1 to last.
func parse(body []byte, last int64) *fields {
	m := &fields{}
	v, err := cbor.Parse(body)
	if err != nil {
		m.err = err
		return m
	}
	_, pairs, err := v.Map()
	if err != nil {
		m.err = err
		return m
	}
	for key, v := range pairs {
		if key < 1 || key > last {
			m.err = fmt.Errorf("key %d: written by a newer version of this program", key)
			return m
		}
		m.values[key] = v
	}
	return m
}

func (m *fields) has(key int) bool { return m.values[key].Raw() != nil }

func (m *fields) fail(key int, err error) {
	if m.err == nil && err != nil {
		m.err = fmt.Errorf("key %d: %w", key, err)
	}
}

func (m *fields) text(key, most int) string {
	s, err := m.values[key].Text()
	if err == nil && (s == "" || len(s) > most) {
		err = fmt.Errorf("%d bytes of text", len(s))
	}
	m.fail(key, err)
	return s
}

func (m *fields) time(key int) time.Time {
	ns, err := m.values[key].Int()
	m.fail(key, err)
	return time.Unix(0, ns).UTC()
}

func (m *fields) bytes(key int, into []byte) {
	b, err := m.values[key].Bytes()
	if err == nil && len(b) != len(into) {
		err = fmt.Errorf("%d bytes, want %d", len(b), len(into))
	}
	m.fail(key, err)
	copy(into, b)
}

// checkAccount returns [storage.ErrInvalid] for a text that is no account's name.
func checkAccount(name string) error {
	switch {
	case name == "" || len(name) > wire.MaxAccount:
		return fmt.Errorf("name of an account: %w: %d bytes, not 1 to %d", storage.ErrInvalid, len(name), wire.MaxAccount)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("name of an account: %w: not UTF-8, or a control character", storage.ErrInvalid)
	}
	return nil
}
