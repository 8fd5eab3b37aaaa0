package notifications

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"path"
	"strings"
	texttemplate "text/template"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/money"
)

//go:embed templates
var templateFiles embed.FS

// Templates are the texts of mails by locale and name. A file is a text: its first line the subject, then the body. The HTML
// part is the same text, escaped.
type Templates struct {
	texts map[string]*texttemplate.Template // "en/order_confirmation"
	frame *htmltemplate.Template
}

// fallback is the locale of texts that are not translated.
const fallback = "en"

// LoadTemplates parses all templates, so that a broken one is found at start.
func LoadTemplates() (Templates, error) {
	t := Templates{texts: map[string]*texttemplate.Template{}}
	funcs := texttemplate.FuncMap{"money": formatMoney, "time": formatTime}
	err := fs.WalkDir(templateFiles, "templates", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(file) != ".txt" {
			return err
		}
		raw, err := templateFiles.ReadFile(file)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(file, "templates/"), ".txt")
		t.texts[name], err = texttemplate.New(name).Funcs(funcs).Option("missingkey=error").Parse(string(raw))
		return err
	})
	if err != nil {
		return Templates{}, fmt.Errorf("mail templates: %w", err)
	}
	t.frame, err = htmltemplate.ParseFS(templateFiles, "templates/frame.html")
	if err != nil {
		return Templates{}, fmt.Errorf("mail templates: %w", err)
	}
	return t, nil
}

// formatMoney is an amount as events carry it, for people.
func formatMoney(v map[string]any) (string, error) {
	minor, err := v["amount"].(json.Number).Int64()
	if err != nil {
		return "", err
	}
	return money.Of(minor, v["currency"].(string)).String(), nil
}

// formatTime is a time as events carry it, for people.
func formatTime(v string) (string, error) {
	t, err := time.Parse(time.RFC3339Nano, v)
	return t.UTC().Format("2 January 2006, 15:04 UTC"), err
}

// render makes the mail of a message.
func (t Templates) render(msg message, to contact, c Config) (Mail, error) {
	text, ok := t.texts[msg.Locale+"/"+msg.Template]
	if !ok {
		text, ok = t.texts[fallback+"/"+msg.Template]
	}
	if !ok {
		return Mail{}, errs.NotFoundf("no mail template %s", msg.Template)
	}
	var event map[string]any
	d := json.NewDecoder(bytes.NewReader(msg.Data))
	d.UseNumber()
	if err := d.Decode(&event); err != nil {
		return Mail{}, fmt.Errorf("render %s: %w", msg.Template, err)
	}
	// Anybody may register anybody's address: what they call themselves must not become a letter of its own.
	to.Name = strings.Join(strings.Fields(to.Name), " ")
	var out strings.Builder
	err := text.Execute(&out, map[string]any{
		"To": to, "Event": event, "VerifyURL": c.VerifyURL, "ResetURL": c.ResetURL, "OrderURL": c.OrderURL,
	})
	if err != nil {
		return Mail{}, fmt.Errorf("render %s: %w", msg.Template, err)
	}
	subject, body, _ := strings.Cut(out.String(), "\n")
	body = strings.TrimSpace(body) + "\n"
	var html strings.Builder
	if err := t.frame.Execute(&html, map[string]any{"Subject": subject, "Paragraphs": strings.Split(strings.TrimSpace(body), "\n\n")}); err != nil {
		return Mail{}, fmt.Errorf("render %s: %w", msg.Template, err)
	}
	return Mail{Subject: strings.TrimSpace(subject), Text: body, HTML: html.String()}, nil
}
