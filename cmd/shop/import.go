package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/mattn/go-isatty"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/modules/catalog"
)

type importCommands struct {
	Products importProductsCommand `cmd:"" help:"Import products from a .csv, .jsonl or .json file."`
}

func (importCommands) Help() string {
	return examples("shop import products products.csv --dry-run", "shop import products products.csv --images pictures")
}

type importProductsCommand struct {
	File     string `arg:"" help:"The file; its ending tells the format."`
	DryRun   bool   `help:"Check every row and store nothing."`
	Currency string `help:"Currency of rows that name none." default:"EUR"`
	Map      string `help:"YAML file of ours: theirs, where the columns have other names." placeholder:"FILE"`
	Images   string `help:"Folder with the pictures that the rows name; nothing is ever fetched." placeholder:"DIR"`
	After    int64  `help:"Skip rows up to this line: where an earlier run stopped." placeholder:"LINE"`
	Output   string `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

func (importProductsCommand) Help() string {
	return "Columns: external_id, name, category, price, stock; optional sku, brand, currency, description, image, weight_grams.\n" +
		"Rows are found again by external_id, so a file may be imported repeatedly.\n\n" +
		examples("shop import products products.csv --dry-run", "shop import products catalog.json --map columns.yaml --currency USD --images pictures -o json")
}

// importReport is the report as -o json tells it.
type importReport struct {
	DryRun        bool                  `json:"dry_run"`
	Rows          int64                 `json:"rows"`
	Created       int64                 `json:"created"`
	Updated       int64                 `json:"updated"`
	Unchanged     int64                 `json:"unchanged"`
	MissingImages int64                 `json:"missing_images"`
	Errors        []catalogapi.RowError `json:"errors"`
	LastLine      int64                 `json:"last_line"`
	NextSteps     []string              `json:"next_steps"`
}

func (i *importProductsCommand) Run(ctx context.Context, c *cli, p *process) (err error) {
	o := catalog.ImportOptions{Path: i.File, Currency: i.Currency, ImagesDir: i.Images, DryRun: i.DryRun, After: i.After, Progress: progress(p.stderr)}
	if i.Map != "" {
		if o.Map, err = catalog.ReadImportMap(i.Map); err != nil {
			return err
		}
	}
	if _, err := os.Stat(i.File); err != nil {
		return err // before a database is started for it
	}
	h, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer closing(h, &err)
	r, err := catalog.ImportFile(ctx, catalogapi.Dial(h.Dialer("shop")), o)
	report := importReport{i.DryRun, r.Rows, r.Created, r.Updated, r.Unchanged, r.MissingImages, append([]catalogapi.RowError{}, r.Errors...), r.LastLine, []string{}}
	switch {
	case err != nil:
		report.NextSteps = append(report.NextSteps, fmt.Sprintf("mend the cause and go on with --after %d", r.LastLine))
	case len(r.Errors) > 0:
		report.NextSteps = append(report.NextSteps, "mend the rows and run the same command again: rows that are there are left alone")
	case i.DryRun:
		report.NextSteps = append(report.NextSteps, "run it without --dry-run")
	}
	if printed := i.print(p, report); printed != nil && err == nil {
		err = printed
	}
	if err == nil && len(r.Errors) > 0 {
		err = fmt.Errorf("%d of %d rows were refused", len(r.Errors), r.Rows)
	}
	return err
}

// shownErrors keeps a file of the wrong kind from filling the screen.
const shownErrors = 20

func (i *importProductsCommand) print(p *process, r importReport) error {
	if i.Output == "json" {
		return printJSON(p.stdout, r)
	}
	t := table(p.stdout, "ROWS", "CREATED", "UPDATED", "UNCHANGED", "REFUSED", "WITHOUT PICTURE")
	fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\n", r.Rows, r.Created, r.Updated, r.Unchanged, len(r.Errors), r.MissingImages)
	if err := t.Flush(); err != nil {
		return err
	}
	for n, e := range r.Errors {
		if n == shownErrors {
			fmt.Fprintf(p.stderr, "and %d more: -o json lists all\n", len(r.Errors)-n)
			break
		}
		fmt.Fprintf(p.stderr, "%s:%d: %s: %s (%s)\n", i.File, e.Line, e.Column, e.Message, e.Code)
	}
	if i.DryRun {
		fmt.Fprintln(p.stderr, "nothing was stored: this was a dry run")
	}
	for _, step := range r.NextSteps {
		fmt.Fprintln(p.stderr, "next:", step)
	}
	return nil
}

// progress shows how far a long job is, on a terminal.
func progress(w io.Writer) func(done, total int64) {
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return nil
	}
	return func(done, total int64) {
		fmt.Fprintf(w, "\r%3d %%", 100*done/max(total, 1))
		if done >= total {
			fmt.Fprint(w, "\r      \r")
		}
	}
}
