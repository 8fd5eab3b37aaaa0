package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestNobodyLearnsWhoIsKnown asks about an address that somebody has and one that nobody has, in every way there is to ask,
// and gets answers that differ in nothing but what is random. How long they take, modules/users tests.
func TestNobodyLearnsWhoIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	known, unknown := "owner@example.com", "nobody-at-all@example.com"
	refreshed := w.must(w.send(call{method: "POST", target: "/v1/auth/register", body: fmt.Sprintf(`{"email":"r@example.com","password":%q,"name":"R"}`, password)}), 201)
	for _, ask := range []struct{ why, target, body string }{
		{"register", "/v1/auth/register", `{"email":"%s","password":"a long new password of mine","name":"Same Name"}`},
		{"register again", "/v1/auth/register", `{"email":"%s","password":"a long new password of mine","name":"Same Name"}`},
		{"register with a weak password", "/v1/auth/register", `{"email":"%s","password":"12345678","name":"Same Name"}`},
		{"log in with a wrong password", "/v1/auth/login", `{"email":"%s","password":"wrong in any case"}`},
		{"log in with another wrong password", "/v1/auth/login", `{"email":"%s","password":"wrong once more"}`},
		{"ask for a reset", "/v1/auth/password-resets", `{"email":"%s"}`},
		{"ask for a reset again", "/v1/auth/password-resets", `{"email":"%s"}`},
	} {
		if ask.why == "register" { // whoever registers an unknown address is known by his own password from then on
			fresh := fmt.Sprintf("fresh%d@example.com", w.next())
			same(t, ask.why, w.send(call{method: "POST", target: ask.target, body: fmt.Sprintf(ask.body, known)}), w.send(call{method: "POST", target: ask.target, body: fmt.Sprintf(ask.body, fresh)}))
			continue
		}
		of := unknown
		if strings.HasPrefix(ask.why, "register") {
			of = "fresh-again@example.com"
		}
		same(t, ask.why, w.send(call{method: "POST", target: ask.target, body: fmt.Sprintf(ask.body, known)}), w.send(call{method: "POST", target: ask.target, body: fmt.Sprintf(ask.body, of)}))
	}
	// Tokens that were true, and such that never were.
	used := w.mailToken("verify_email", "r@example.com")
	w.must(w.send(call{method: "POST", target: "/v1/auth/verify", body: fmt.Sprintf(`{"token":%q}`, used)}), 204)
	for _, target := range []string{"/v1/auth/verify", "/v1/auth/password-resets/confirm"} {
		body := `{"token":"%s"}`
		if strings.HasSuffix(target, "confirm") {
			body = `{"token":"%s","password":"a long new password of mine"}`
		}
		same(t, target, w.send(call{method: "POST", target: target, body: fmt.Sprintf(body, used)}),
			w.send(call{method: "POST", target: target, body: fmt.Sprintf(body, nothing("mal")+".AAAA")}))
	}
	token := refreshed.text("refresh_token")
	w.must(w.send(call{method: "POST", target: "/v1/auth/logout", token: refreshed.text("access_token")}), 204)
	same(t, "refresh", w.send(call{method: "POST", target: "/v1/auth/refresh", body: fmt.Sprintf(`{"refresh_token":%q}`, token)}),
		w.send(call{method: "POST", target: "/v1/auth/refresh", body: `{"refresh_token":"ses_never.0.there"}`}))
	// Carts, orders, checkouts and addresses of others, and of nobody.
	other, nobody := w.of("other"), w.of("nobody")
	for _, r := range rows {
		if r.kind != ofCart && r.kind != ofOrder && r.kind != ofParcels && r.kind != ofCheckout && r.kind != ofEntry {
			continue
		}
		theirs, none := r.make(w, other), r.make(w, nobody)
		theirs.token, none.token = w.tokens["owner"], w.tokens["owner"]
		same(t, r.id, w.send(theirs), w.send(none))
	}
	// Whoever has an account is told by mail, and only he, that somebody tried to register with his address.
	w.quiet()
	if mails := w.must(w.send(call{method: "GET", target: "/dev/mail.json?to=" + known}), 200); len(mails.at("data").([]any)) < 3 {
		t.Errorf("the owner of the address was not told: %s", mails)
	}
	if mails := w.must(w.send(call{method: "GET", target: "/dev/mail.json?to=" + unknown}), 200); len(mails.at("data").([]any)) != 0 {
		t.Errorf("mail to nobody: %s", mails)
	}
	// The right password is let in all the same: failures of others lock nobody out.
	w.login("owner")
}

var random = regexp.MustCompile(`[\w-]+\.[\w-]+\.[\w-]+|[a-z]{3}_[0-9a-z]{26}|req_[0-9a-zA-Z]+`)

// shape is an answer without what is random in it, or what the client said himself.
func shape(a answer) string {
	var v any
	if err := json.Unmarshal(a.body, &v); len(a.body) > 0 && err != nil {
		return "not JSON"
	}
	if m, ok := v.(map[string]any); ok {
		if u, ok := m["user"].(map[string]any); ok {
			delete(u, "email")
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	h := http.Header{}
	maps.Copy(h, a.header)
	for _, name := range []string{"Date", "X-Request-Id", "Content-Length"} {
		h.Del(name)
	}
	var headers []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		headers = append(headers, fmt.Sprint(name, h[name]))
	}
	return fmt.Sprintf("%d\n%s\n%s", a.status, strings.Join(headers, "\n"), random.ReplaceAllString(string(b), "*"))
}

func same(t *testing.T, why string, a, b answer) {
	t.Helper()
	if a, b := shape(a), shape(b); a != b {
		t.Errorf("%s: one can tell:\n%s\nfrom\n%s", why, a, b)
	}
}
