package catalog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/money"
)

// ImportOptions say what to import and how to read it.
type ImportOptions struct {
	Path   string
	Format string // csv, jsonl or json; "" goes by the file's ending
	// Currency of rows that name none; "" is EUR.
	Currency string
	// Map says where each of our columns is found, ours: theirs. A name is their column, "=10" is 10 in every row, and
	// "{Id}.webp" is made of their columns. What is not mapped has our name.
	Map       map[string]string
	ImagesDir string // where the pictures are; "" imports none. Nothing is ever fetched
	DryRun    bool
	After     int64 // rows on lines up to this are skipped: where an earlier run stopped
	Progress  func(done, total int64)
}

// ImportReport tells what came of it.
type ImportReport struct {
	Rows, Created, Updated, Unchanged int64
	MissingImages                     int64 // rows whose picture is not in the folder; they are imported without
	Errors                            []catalogapi.RowError
	LastLine                          int64 // rows up to this line are dealt with: After of a run that goes on
}

// Columns are those of an import file. The first four and stock must be there.
var importColumns = []string{"external_id", "name", "category", "price", "stock", "sku", "brand", "currency", "description", "image", "weight_grams"}

const neededColumns = 5

// ReadImportMap reads a file of `ours: theirs` for ImportOptions.Map.
func ReadImportMap(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the column map: %w", err)
	}
	m := map[string]string{}
	if err := yaml.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("read the column map %s: %w", path, err)
	}
	return m, checkMap(m)
}

func checkMap(m map[string]string) error {
	for ours := range m {
		if !slices.Contains(importColumns, ours) {
			return fmt.Errorf("the column map names %q, but our columns are %s", ours, strings.Join(importColumns, ", "))
		}
	}
	return nil
}

const (
	batchBytes  = 4 << 20 // of pictures in a batch: it must fit a call
	maxRow      = 1 << 20
	batchTime   = time.Minute
	maxProblems = 10_000 // errors kept for the report; a file of the wrong kind has one a row
)

// ImportFile imports a file batch by batch, each in a transaction of its own. Wrong rows are reported by their line and lose
// nothing else. It may be run again: what is there already is left alone, so a run that broke off is completed by another. An
// error is of the file or the catalog as a whole; the report then tells how far it came.
func ImportFile(ctx context.Context, c catalogapi.Catalog, o ImportOptions) (ImportReport, error) {
	i := importer{catalog: c, options: o, seen: map[string]int64{}}
	if o.Currency == "" {
		i.options.Currency = "EUR"
	}
	if err := checkMap(o.Map); err != nil {
		return i.report, err
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return i.report, fmt.Errorf("import: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return i.report, fmt.Errorf("import: %w", err)
	}
	i.total = info.Size()
	if o.ImagesDir != "" {
		if i.images, err = os.OpenRoot(o.ImagesDir); err != nil {
			return i.report, fmt.Errorf("open the pictures: %w", err)
		}
		defer i.images.Close()
	}

	format := o.Format
	if format == "" {
		format = strings.ToLower(strings.TrimPrefix(filepath.Ext(o.Path), "."))
	}
	in := bufio.NewReaderSize(&counter{r: f, n: &i.done}, 1<<16)
	if bom, err := in.Peek(3); err == nil && string(bom) == "\xef\xbb\xbf" {
		_, _ = in.Discard(3)
	}
	switch format {
	case "csv":
		err = i.readCSV(ctx, in)
	case "jsonl", "ndjson":
		err = i.readJSONL(ctx, in)
	case "json":
		err = i.readJSON(ctx, in)
	default:
		err = fmt.Errorf("import: %q is no format of ours: use .csv, .jsonl or .json", format)
	}
	if err == nil {
		err = i.flush(ctx)
	}
	slices.SortStableFunc(i.report.Errors, func(a, b catalogapi.RowError) int { return int(a.Line - b.Line) })
	return i.report, err
}

type counter struct {
	r io.Reader
	n *int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	*c.n += int64(n)
	return n, err
}

type importer struct {
	catalog     catalogapi.Catalog
	options     ImportOptions
	images      *os.Root
	report      ImportReport
	done, total int64
	batch       []catalogapi.ImportRow
	bytes       int
	line        int64
	seen        map[string]int64
}

func (i *importer) problem(line int64, column, code, message string) {
	if len(i.report.Errors) < maxProblems {
		i.report.Errors = append(i.report.Errors, catalogapi.RowError{Line: line, Column: column, Code: code, Message: message})
	}
}

// malformed reports a line that is no row.
func (i *importer) malformed(line int64, message string) {
	i.line = line
	if line > i.options.After {
		i.report.Rows++
		i.problem(line, "", "malformed", message)
	}
}

// lookup finds a value of one of their columns.
type lookup func(theirs string) (string, bool)

// value is what a row has for one of our columns.
func (i *importer) value(ours string, get lookup) string {
	theirs, mapped := i.options.Map[ours]
	if !mapped {
		theirs = ours
	}
	if constant, ok := strings.CutPrefix(theirs, "="); ok {
		return constant
	}
	if !strings.Contains(theirs, "{") {
		v, _ := get(theirs)
		return v
	}
	var out strings.Builder
	for rest := theirs; rest != ""; {
		before, after, open := strings.Cut(rest, "{")
		out.WriteString(before)
		if !open {
			break
		}
		var column string
		column, rest, _ = strings.Cut(after, "}")
		v, _ := get(column)
		out.WriteString(v)
	}
	return out.String()
}

// missing are our columns that must be there and are not.
func (i *importer) missing(has func(theirs string) bool) error {
	for _, ours := range importColumns[:neededColumns] {
		theirs, mapped := i.options.Map[ours]
		if !mapped {
			theirs = ours
		}
		if !strings.HasPrefix(theirs, "=") && !strings.Contains(theirs, "{") && !has(theirs) {
			return fmt.Errorf("import: the file has no column %q for %s: map another one to it, or a constant such as \"%s: =0\"", theirs, ours, ours)
		}
	}
	return nil
}

// add takes a row of the file into the batch.
func (i *importer) add(ctx context.Context, line int64, get lookup) error {
	if line <= i.options.After {
		return nil
	}
	i.line = line
	i.report.Rows++
	get = trimmed(get)
	row := catalogapi.ImportRow{
		Line: line, ExternalID: i.value("external_id", get), SKU: i.value("sku", get), Name: i.value("name", get),
		Brand: i.value("brand", get), Category: i.value("category", get), Description: i.value("description", get),
		ImageName: i.value("image", get),
	}
	if row.SKU == "" {
		row.SKU = row.ExternalID
	}
	currency := strings.ToUpper(i.value("currency", get))
	if currency == "" {
		currency = i.options.Currency
	}
	digits, known := money.Digits(currency)
	if !known {
		i.problem(line, "currency", "unknown_currency", "the currency is not an ISO 4217 code")
		return nil
	}
	var err error
	if row.Price, err = money.Parse(i.value("price", get), currency); err != nil {
		i.problem(line, "price", "invalid_amount", fmt.Sprintf("a price is digits, with at most %d after the point", digits))
		return nil
	}
	for _, number := range []struct {
		column string
		into   *int64
	}{{"stock", &row.Stock}, {"weight_grams", &row.WeightGrams}} {
		text := i.value(number.column, get)
		if text == "" && number.column == "weight_grams" {
			continue
		}
		if *number.into, err = strconv.ParseInt(text, 10, 64); err != nil {
			i.problem(line, number.column, "invalid_number", "the value is not a whole number")
			return nil
		}
	}
	if e := row.Problem(); e.Code != "" {
		i.problem(line, e.Column, e.Code, e.Message)
		return nil
	}
	if first, twice := i.seen[row.SKU]; twice {
		i.problem(line, "sku", "repeated", fmt.Sprintf("the SKU is that of line %d", first))
		return nil
	}
	i.seen[row.SKU] = line
	if !i.picture(&row) {
		return nil
	}
	i.batch = append(i.batch, row)
	i.bytes += len(row.Image)
	if len(i.batch) == catalogapi.MaxImportRows || i.bytes >= batchBytes {
		return i.flush(ctx)
	}
	return nil
}

func trimmed(get lookup) lookup {
	return func(theirs string) (string, bool) {
		v, ok := get(theirs)
		return strings.TrimSpace(v), ok
	}
}

// picture reads a row's picture from the folder, and from nowhere else: the name is a file's, not a path.
func (i *importer) picture(row *catalogapi.ImportRow) bool {
	if row.ImageName == "" {
		return true
	}
	if row.ImageName != filepath.Base(row.ImageName) || strings.ContainsAny(row.ImageName, `/\:`) || strings.HasPrefix(row.ImageName, ".") {
		i.problem(row.Line, "image", "invalid_name", "the picture is named by a file name alone, without folders or addresses")
		return false
	}
	if i.images == nil {
		return true
	}
	f, err := i.images.Open(row.ImageName)
	if errors.Is(err, os.ErrNotExist) {
		i.report.MissingImages++
		return true
	}
	if err == nil {
		row.Image, err = io.ReadAll(io.LimitReader(f, MaxImageBytes+1))
		f.Close()
	}
	if err != nil {
		i.problem(row.Line, "image", "unreadable", "the picture can't be read")
		return false
	}
	if len(row.Image) > MaxImageBytes {
		i.problem(row.Line, "image", "image_too_large", fmt.Sprintf("the picture has more than %d MiB", MaxImageBytes>>20))
		return false
	}
	return true
}

// flush stores the batch.
func (i *importer) flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("import stopped after line %d: %w", i.report.LastLine, err)
	}
	if len(i.batch) > 0 {
		call, cancel := context.WithTimeout(ctx, batchTime)
		defer cancel()
		res, err := i.catalog.Import(call, catalogapi.ImportRequest{Rows: i.batch, DryRun: i.options.DryRun})
		if err != nil {
			return fmt.Errorf("import stopped after line %d: %w", i.report.LastLine, err)
		}
		i.report.Created += res.Created
		i.report.Updated += res.Updated
		i.report.Unchanged += res.Unchanged
		for _, e := range res.Errors {
			i.problem(e.Line, e.Column, e.Code, e.Message)
		}
	}
	i.batch, i.bytes, i.report.LastLine = i.batch[:0], 0, i.line
	if i.options.Progress != nil {
		i.options.Progress(min(i.done, i.total), i.total)
	}
	return nil
}

func (i *importer) readCSV(ctx context.Context, in *bufio.Reader) error {
	records := csvReader{in: in}
	header, _, problem, err := records.next(0)
	if errors.Is(err, io.EOF) {
		return errors.New("import: the file is empty")
	} else if err != nil {
		return fmt.Errorf("import: %w", err)
	} else if problem != "" {
		return fmt.Errorf("import: the first line must name the columns: %s", problem)
	}
	index := make(map[string]int, len(header))
	for n, name := range header {
		name = strings.TrimSpace(name)
		if _, twice := index[name]; twice {
			return fmt.Errorf("import: the column %q is there twice", name)
		}
		index[name] = n
	}
	if err := i.missing(func(theirs string) bool { _, ok := index[theirs]; return ok }); err != nil {
		return err
	}
	for {
		record, line, problem, err := records.next(len(header))
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("import stopped after line %d: %w", i.report.LastLine, err)
		case problem != "":
			i.malformed(line, problem)
			continue
		}
		if err := i.add(ctx, line, func(theirs string) (string, bool) {
			n, ok := index[theirs]
			if !ok {
				return "", false
			}
			return record[n], true
		}); err != nil {
			return err
		}
	}
}

// csvReader reads records of RFC 4180. Unlike encoding/csv it loses only the first line of a record that is wrong: a quote that
// is never closed would otherwise swallow the rows after it.
type csvReader struct {
	in     *bufio.Reader
	ahead  [][]byte // lines read and not used
	line   int64    // of the next one
	atEnd  bool
	record []string
}

// next is a record of so many fields (0: of any), the line it begins on, and what is wrong with that line if anything is.
func (c *csvReader) next(fields int) (record []string, line int64, problem string, err error) {
	for {
		first, err := c.peek(0)
		if err != nil {
			return nil, 0, "", err
		}
		if len(bytes.TrimRight(first, "\r\n")) > 0 {
			break
		}
		c.take(1)
	}
	line = c.line + 1
	used, problem, err := c.parse()
	if err != nil {
		return nil, line, "", err
	}
	if problem == "" && fields > 0 && len(c.record) != fields {
		problem = fmt.Sprintf("the row has %d columns, the header %d", len(c.record), fields)
	}
	if problem != "" {
		used = 1
	}
	c.take(used)
	return c.record, line, problem, nil
}

// peek is the nth line ahead, with its end.
func (c *csvReader) peek(n int) ([]byte, error) {
	for len(c.ahead) <= n {
		if c.atEnd {
			return nil, io.EOF
		}
		line, err := readLine(c.in)
		if errors.Is(err, io.EOF) {
			c.atEnd = true
			if len(line) == 0 {
				return nil, io.EOF
			}
		} else if err != nil {
			return nil, err
		}
		c.ahead = append(c.ahead, line)
	}
	return c.ahead[n], nil
}

func (c *csvReader) take(n int) {
	c.ahead = c.ahead[n:]
	c.line += int64(n)
}

var errLongLine = errors.New("a line has more than a mebibyte")

func readLine(in *bufio.Reader) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > maxRow {
			return nil, errLongLine
		}
	}
}

// parse reads the fields of the record ahead and tells how many lines it takes.
func (c *csvReader) parse() (used int, problem string, err error) {
	c.record = c.record[:0:0]
	text, err := c.peek(0)
	if err != nil {
		return 0, "", err
	}
	used = 1
	var field []byte
	size, at := len(text), 0
	for {
		if at < len(text) && text[at] == '"' {
			field, at = field[:0], at+1
			for {
				end := bytes.IndexByte(text[at:], '"')
				if end < 0 {
					field = append(field, text[at:]...)
					if text, err = c.peek(used); errors.Is(err, io.EOF) || err == nil && size > maxRow {
						return used, "a quote is not closed", nil
					} else if err != nil {
						return used, "", err
					}
					used, size, at = used+1, size+len(text), 0
					continue
				}
				field = append(field, text[at:at+end]...)
				at += end + 1
				if at < len(text) && text[at] == '"' {
					field, at = append(field, '"'), at+1
					continue
				}
				break
			}
			c.record = append(c.record, string(bytes.ReplaceAll(field, []byte("\r\n"), []byte("\n"))))
			switch rest := text[at:]; {
			case len(bytes.TrimRight(rest, "\r\n")) == 0:
				return used, "", nil
			case rest[0] != ',':
				return used, "text follows a closing quote", nil
			}
			at++
			continue
		}
		rest := bytes.TrimRight(text[at:], "\r\n")
		end := bytes.IndexByte(rest, ',')
		value := rest
		if end >= 0 {
			value = rest[:end]
		}
		if bytes.IndexByte(value, '"') >= 0 {
			return used, "a quote stands inside a value that does not begin with one", nil
		}
		c.record = append(c.record, string(value))
		if end < 0 {
			return used, "", nil
		}
		at += end + 1
	}
}

func (i *importer) readJSONL(ctx context.Context, in *bufio.Reader) error {
	for line := int64(1); ; line++ {
		text, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("import stopped after line %d: %w", i.report.LastLine, err)
		}
		if len(bytes.TrimSpace(text)) > 0 {
			if err := i.addJSON(ctx, line, text); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// readJSON reads one array of objects as a stream. An element of the wrong kind loses only itself; broken syntax ends the file.
func (i *importer) readJSON(ctx context.Context, in *bufio.Reader) error {
	lines := &lineCounter{r: in}
	d := json.NewDecoder(lines)
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("import: a .json file is one array of objects; for an object a line use .jsonl")
	}
	for d.More() {
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			at := lines.read - 1
			if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
				at = syntax.Offset
			}
			i.malformed(lines.at(at), "the JSON is broken, and what follows can't be read: "+jsonProblem(err))
			return nil
		}
		// The decoder stands behind the element; what it skipped before it is a comma and space.
		if err := i.addJSON(ctx, lines.at(d.InputOffset()-int64(len(element))), element); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		i.malformed(lines.at(d.InputOffset()), "the array is not closed")
	}
	return nil
}

func jsonProblem(err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return "the file ends in the middle"
	}
	return "syntax error"
}

// addJSON adds an object's members as columns.
func (i *importer) addJSON(ctx context.Context, line int64, text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // prices stay as they are written
	var object map[string]any
	if err := d.Decode(&object); err != nil || object == nil {
		i.malformed(line, "the row is not a JSON object")
		return nil
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		i.malformed(line, "text follows the JSON object")
		return nil
	}
	values := make(map[string]string, len(object))
	for name, v := range object {
		switch v := v.(type) {
		case string:
			values[name] = v
		case json.Number:
			values[name] = v.String()
		case bool:
			values[name] = strconv.FormatBool(v)
		}
	}
	if err := i.missing(func(theirs string) bool { _, ok := object[theirs]; return ok }); err != nil {
		i.malformed(line, strings.TrimPrefix(err.Error(), "import: "))
		return nil
	}
	return i.add(ctx, line, func(theirs string) (string, bool) { v, ok := values[theirs]; return v, ok })
}

// lineCounter notes where lines end in what it reads, to tell the line of an offset that is asked for in rising order.
type lineCounter struct {
	r    io.Reader
	read int64
	ends []int64
	line int64
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for at, b := range p[:n] {
		if b == '\n' {
			c.ends = append(c.ends, c.read+int64(at))
		}
	}
	c.read += int64(n)
	return n, err
}

func (c *lineCounter) at(offset int64) int64 {
	for len(c.ends) > 0 && c.ends[0] < offset {
		c.ends = c.ends[1:]
		c.line++
	}
	return c.line + 1
}
