package notifications

import (
	"bytes"
	"context"
	"fmt"
	"html/template"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/web"
)

// Routes are the local sink's two views: there are none of them where mails really go out.
func (m *Module) Routes(r *web.Router) {
	web.Get(r, "/dev/mail", web.Public, web.Route{ID: "viewMails", Tag: "development", Summary: "Mails of the local sink, to look at", Hidden: true}, m.getPage)
	web.Get(r, "/dev/mail.json", web.Public, web.Route{ID: "listMails", Tag: "development", Summary: "Mails of the local sink", Hidden: true}, m.getMails)
}

type mailsInput struct {
	To string `query:"to" maxLength:"254" doc:"Only mails to this address"`
}

// sunkMails are the sink's newest mails. Codes: not_found where mails really go out.
func (m *Module) sunkMails(ctx context.Context, to string) ([]sunk, error) {
	if _, ok := m.Sender.(sink); !ok {
		return nil, errs.NotFoundf("mails go out by SMTP")
	}
	return newestSunk(ctx, m.DB, to)
}

func (m *Module) getMails(ctx context.Context, in *mailsInput) (*web.Reply[web.Page[sunk]], error) {
	mails, err := m.sunkMails(ctx, in.To)
	if err != nil {
		return nil, err
	}
	return &web.Reply[web.Page[sunk]]{Body: web.Page[sunk]{Data: append([]sunk{}, mails...)}}, nil
}

var page = template.Must(template.New("mails").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Mails</title></head><body>
<h1>Mails that would have been sent</h1>
{{range .}}<h2>{{.Subject}}</h2><p>to {{.Recipient}}, {{.At.Format "2006-01-02 15:04:05 UTC"}}</p><pre>{{.Text}}</pre><hr>
{{else}}<p>None yet.</p>{{end}}
</body></html>
`))

func (m *Module) getPage(ctx context.Context, in *mailsInput) (*web.Raw, error) {
	mails, err := m.sunkMails(ctx, in.To)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := page.Execute(&b, mails); err != nil {
		return nil, fmt.Errorf("page of mails: %w", err)
	}
	return &web.Raw{ContentType: "text/html; charset=utf-8", CacheControl: "no-store", Body: b.Bytes()}, nil
}
