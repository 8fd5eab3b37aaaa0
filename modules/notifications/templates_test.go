package notifications

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/money"
)

var update = flag.Bool("update", false, "rewrite the mails to what the templates say; read the diff")

// sample is a mail the shop can send.
type sample struct {
	Template string
	To       contact
	Event    any
	Config   Config
}

func samples() map[string]sample {
	eur := func(minor int64) money.Amount { return money.Of(minor, "EUR") }
	at := time.Date(2026, 3, 4, 12, 10, 0, 123456000, time.UTC)
	ann, gus := contact{Email: "ann@example.com", Name: "Ann"}, contact{Email: "gus@example.com", Name: "Gus", Token: "token"}
	pages := Config{VerifyURL: "https://shop.example/verify/", ResetURL: "https://shop.example/reset/", OrderURL: "https://shop.example/orders/"}
	placed := ordersapi.OrderPlaced{
		Order: "ord_1", Number: "B-7K3M-Q9TX", Carrier: "tableau", Service: "standard", Shipping: eur(490), Tax: eur(558), Total: eur(3490), PlacedAt: at,
		Lines: []ordersapi.PlacedLine{
			{SKU: "mug", Name: "Mug <blue> & white", Quantity: 2, UnitPrice: eur(1000), Total: eur(2000)},
			{SKU: "bag", Name: "Bag", Quantity: 1, UnitPrice: eur(1000), Total: eur(1000)},
		},
	}
	cancelled := ordersapi.OrderCancelled{
		Order: "ord_1", Number: "B-7K3M-Q9TX", Lines: []ordersapi.CancelLine{{SKU: "mug", Quantity: 1}}, Refund: eur(1000), CancelledAt: at,
	}
	whole := cancelled
	whole.Whole = true
	untaken := whole
	untaken.Refund = eur(0)
	parcel := []shippingapi.Line{{SKU: "mug", Quantity: 2}, {SKU: "bag", Quantity: 1}}
	return map[string]sample{
		"verify_email":               {"verify_email", contact{Name: "Ann", Token: "secret"}, struct{}{}, Config{}},
		"verify_email_with_page":     {"verify_email", contact{Name: "Ann", Token: "secret"}, struct{}{}, pages},
		"verify_email_of_a_spammer":  {"verify_email", contact{Name: "<b>You won</b>\n\nVisit https://evil.example\n", Token: "secret"}, struct{}{}, pages},
		"reset_password":             {"reset_password", contact{Name: "Ann", Token: "secret"}, struct{}{}, Config{}},
		"reset_password_with_page":   {"reset_password", contact{Name: "Ann", Token: "secret"}, struct{}{}, pages},
		"address_taken":              {"address_taken", contact{}, struct{}{}, pages},
		"order_confirmation":         {"order_confirmation", ann, placed, pages},
		"order_confirmation_guest":   {"order_confirmation", gus, placed, pages},
		"order_confirmation_no_page": {"order_confirmation", gus, placed, Config{}},
		"order_cancelled":            {"order_cancelled", ann, whole, pages},
		"order_cancelled_untaken":    {"order_cancelled", ann, untaken, pages},
		"order_cancelled_in_part":    {"order_cancelled", ann, cancelled, pages},
		"payment_declined":           {"payment_declined", ann, ordersapi.PaymentDeclined{Order: "ord_1", RetryUntil: at}, pages},
		"shipment_shipped":           {"shipment_shipped", ann, shippingapi.ShipmentShipped{Carrier: "tableau", TrackingNumber: "T 123", Lines: parcel}, pages},
		"shipment_shipped_untracked": {"shipment_shipped", ann, shippingapi.ShipmentShipped{Carrier: "tableau", Lines: parcel}, pages},
		"shipment_delivered":         {"shipment_delivered", ann, shippingapi.ShipmentDelivered{Lines: parcel}, pages},
	}
}

func TestMails(t *testing.T) {
	t.Parallel()
	templates, err := LoadTemplates()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for name, s := range samples() {
		shown[s.Template] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := json.Marshal(s.Event)
			if err != nil {
				t.Fatal(err)
			}
			m, err := templates.render(message{Template: s.Template, Locale: "en", Data: data}, s.To, s.Config)
			if err != nil {
				t.Fatal(err)
			}
			got := "Subject: " + m.Subject + "\n\n" + m.Text + "\n--- HTML\n" + m.HTML
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("the mail reads otherwise (-want +got; -update rewrites it):\n%s", d)
			}
		})
	}
	for file := range templates.texts {
		if _, name, _ := strings.Cut(file, "/"); !shown[name] {
			t.Errorf("%s has no sample", file)
		}
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*.golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := samples()[strings.TrimSuffix(filepath.Base(f), ".golden")]; !ok {
			t.Errorf("%s has no sample any more", f)
		}
	}
}

func TestAMailInALocaleWithoutTextsIsInEnglish(t *testing.T) {
	t.Parallel()
	templates, err := LoadTemplates()
	if err != nil {
		t.Fatal(err)
	}
	m, err := templates.render(message{Template: "address_taken", Locale: "xx", Data: []byte(`{}`)}, contact{}, Config{})
	if err != nil || m.Subject != "You already have an account" {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := templates.render(message{Template: "no_such", Locale: "en", Data: []byte(`{}`)}, contact{}, Config{}); !errs.Is(err, errs.NotFound) {
		t.Errorf("no such template: %v", err)
	}
}

func TestAnEventThatLacksWhatTheMailTellsIsNoMail(t *testing.T) {
	t.Parallel()
	templates, err := LoadTemplates()
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{`{}`, `{"whole":true,"number":"B-1","lines":[],"refund":{"amount":"ten"}}`, `{"whole":true,"number":"B-1","refund":5}`, `no json`} {
		if m, err := templates.render(message{Template: "order_cancelled", Locale: "en", Data: []byte(data)}, contact{}, Config{}); err == nil {
			t.Errorf("%s: %+v", data, m)
		}
	}
}
