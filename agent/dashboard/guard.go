package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// addressLife is how long an address waits for its browser to open.
	addressLife = 2 * time.Minute
	// maxTokens and maxSessions bound what is remembered; the oldest goes.
	maxTokens, maxSessions = 16, 32
	// keyHeader carries the second half of what a page shows to be let in.
	keyHeader = "Backstay-Key"
)

// guard lets in the browser that was given an address by this process, and nobody
// else: a web page that guesses the port, a name that was made to point to this
// machine, another user of it.
//
// A token in the address is good once. For it the browser gets a cookie, and, in the
// part of the address that is never sent, a key. Both are asked for wherever there is
// something to read or change: browsers give cookies of one port of this machine to
// all others, where another user may listen, and the key to none.
type guard struct {
	host  string // 127.0.0.1:port
	cross *http.CrossOriginProtection
	now   func() time.Time

	mu       sync.Mutex // guards the fields below
	tokens   []secret
	sessions []session
}

// A secret is kept as its hash, so that looking for it tells nothing by its time.
type secret struct {
	hash  [32]byte
	until time.Time
}

type session struct{ token, cookie, key [32]byte }

func newGuard(host string) *guard {
	return &guard{host: host, cross: http.NewCrossOriginProtection(), now: time.Now}
}

func hashOf(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// token makes the secret of an address.
func (g *guard) token() string {
	token := rand.Text()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens = append(g.tokens, secret{hashOf(token), g.now().Add(addressLife)})
	g.tokens = g.tokens[max(0, len(g.tokens)-maxTokens):]
	return token
}

// redeem uses a token up for a session.
func (g *guard) redeem(token string) (cookie, key string, ok bool) {
	hash, now := hashOf(token), g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	kept := g.tokens[:0]
	for _, t := range g.tokens {
		switch {
		case now.After(t.until):
		case t.hash == hash:
			ok = true
		default:
			kept = append(kept, t)
		}
	}
	g.tokens = kept
	if !ok {
		// Whoever comes second with a token may be the one it was for: what the first
		// got by it is taken back.
		g.sessions = slices.DeleteFunc(g.sessions, func(s session) bool { return s.token == hash })
		return "", "", false
	}
	cookie, key = rand.Text(), rand.Text()
	g.sessions = append(g.sessions, session{hash, hashOf(cookie), hashOf(key)})
	g.sessions = g.sessions[max(0, len(g.sessions)-maxSessions):]
	return cookie, key, true
}

// cookieName differs from that of another dashboard of this machine: ports share them.
func (g *guard) cookieName() string {
	return "backstay-" + g.host[strings.LastIndexByte(g.host, ':')+1:]
}

// known says whether a request is of a session, and whether it shows the key, too.
func (g *guard) known(r *http.Request) (cookie, key bool) {
	c, err := r.Cookie(g.cookieName())
	if err != nil {
		return false, false
	}
	cookieHash, keyHash := hashOf(c.Value), hashOf(r.Header.Get(keyHeader))
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		if s.cookie == cookieHash {
			return true, s.key == keyHash
		}
	}
	return false, false
}

// policy is what a page of the dashboard may do: nothing but what comes from here.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// strict refuses what no page of this dashboard would ask.
func (g *guard) strict(next http.Handler) http.Handler {
	next = g.cross.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
		switch {
		case r.Host != g.host:
			http.Error(w, "this is not the address of the dashboard", http.StatusMisdirectedRequest)
		case origin != "" && origin != "http://"+g.host, site != "" && site != "same-origin" && site != "none":
			http.Error(w, "another site may not ask the dashboard", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// enter takes a token and leads on to the page that was asked for.
func (g *guard) enter(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // a HEAD must not use the token up
		http.Error(w, "GET", http.StatusMethodNotAllowed)
		return
	}
	cookie, key, ok := g.redeem(r.URL.Query().Get("token"))
	if !ok {
		refuse(w)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: g.cookieName(), Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	page := r.URL.Query().Get("page")
	if !isPage(page) {
		page = ""
	}
	fragment := url.Values{"key": {key}}
	if i := r.URL.Query().Get("invitation"); i != "" {
		fragment.Set("invitation", i)
	}
	http.Redirect(w, r, "/"+page+"#"+fragment.Encode(), http.StatusSeeOther)
}

// refused is for a person whose address does not work (any more).
const refused = "This address has been used, or is too old. Open the dashboard again: from the tray, or with \"agent dashboard\".\n"

func refuse(w http.ResponseWriter) { http.Error(w, refused, http.StatusForbidden) }

// page asks for the cookie.
func (g *guard) page(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if cookie, _ := g.known(r); !cookie {
			refuse(w)
			return
		}
		next(w, r)
	}
}

// api asks for the cookie and the key.
func (g *guard) api(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, key := g.known(r); !key {
			refuse(w)
			return
		}
		next(w, r)
	}
}
