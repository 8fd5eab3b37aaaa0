package catalog

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/errs"
)

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImportFile(t *testing.T) {
	t.Parallel()
	const header = "external_id,sku,name,brand,category,price,currency,stock,description,image,weight_grams\n"
	type want struct {
		created int64
		errors  []string // line column code
	}
	files := map[string]struct {
		name, text string
		want       want
	}{
		"a plain table": {"a.csv", header + "1,S1,Mug,Tarn,Cups,12.50,EUR,3,Nice,,300\n2,,Cup,,Cups,9,,0,,,\n", want{created: 2}},
		"quoted newlines keep the lines right": {"a.csv", header + "1,,Mug,,Cups,1,,1,\"two\nlines, and \"\"quotes\"\"\",,\n2,,Cup,,Cups,x,,1,,,\n",
			want{1, []string{"4 price invalid_amount"}}},
		"rows with too few or too many columns": {"a.csv", header + "1,,Mug,,Cups,1,,1,,,\n2,,Cup\n3,,Cup,,Cups,1,,1,,,,,\n4,,Pot,,Cups,1,,1,,,\n",
			want{2, []string{"3  malformed", "4  malformed"}}},
		"a quote that is never closed": {"a.csv", header + "1,,\"Mug,,Cups,1,,1,,,\n2,,Cup,,Cups,1,,1,,,\n3,,\"Pot\",,Cups,1,,1,,,\n4,,Pan,,Cups,1,,1,,,\n",
			want{3, []string{"2  malformed"}}},
		"a quote never closed at the end": {"a.csv", header + "1,,Mug,,Cups,1,,1,,,\n2,,\"Cup,,Cups,1,,1,,,", want{1, []string{"3  malformed"}}},
		"a quote inside a value":          {"a.csv", header + "1,,27\" screen,,Cups,1,,1,,,\n2,,Cup,,Cups,1,,1,,,\n", want{1, []string{"2  malformed"}}},
		"values that make no sense": {"a.csv", header + strings.Join([]string{
			",,Mug,,Cups,1,,1,,,", "2,,,,Cups,1,,1,,,", "3,,Mug,,,1,,1,,,", "4,,Mug,,Cups,1.234,,1,,,", "5,,Mug,,Cups,1,XXX,1,,,",
			"6,,Mug,,Cups,1,,1.5,,,", "7,,Mug,,Cups,-1,,1,,,", "8,,Mug,,Cups,1,,-1,,,", "9,,Mug,,Cups,1,,1,,,heavy", "10,,Mug,,Cups,1,,1,,../x.png,",
			"11,,Mug,,Cups,1,,1,,http://example.com/x.png,", "12,,Mug,,Cups,5,JPY,1,,,", "13,,Mug,,Cups,5.0,JPY,1,,,", "12,,Mug,,Cups,5,JPY,1,,,",
			"15,,M\xffg,,Cups,1,,1,,,",
		}, "\n"), want{1, []string{"2 external_id required", "3 name required", "4 category required", "5 price invalid_amount", "6 currency unknown_currency",
			"7 stock invalid_number", "8 price out_of_range", "9 stock out_of_range", "10 weight_grams invalid_number", "11 image invalid_name",
			"12 image invalid_name", "14 price invalid_amount", "15 sku repeated", "16 name invalid_text"}}},
		"windows line ends and a byte order mark": {"a.csv", "\xef\xbb\xbf" + strings.ReplaceAll(header+"1,,Mug,,Cups,1,,1,,,\n\n2,,Cup,,Cups,1,,1,\"a\nb\",,\n", "\n", "\r\n"), want{created: 2}},
		"objects line by line": {"a.jsonl", `{"external_id":1,"name":"Mug","category":"Cups","price":12.50,"stock":3}` + "\n\n" + `{"external_id":` + "\n" +
			`{"external_id":"3","name":"Cup","category":"Cups","price":"9.99","stock":0} x` + "\n" + `[1]` + "\n" +
			`{"external_id":"4","name":"Cup","category":"Cups","price":1e2,"stock":0}` + "\n" + `{"external_id":"5","name":"Cup","category":"Cups","price":1}` + "\n",
			want{1, []string{"3  malformed", "4  malformed", "5  malformed", "6 price invalid_amount", "7  malformed"}}},
		"one array": {"a.json", "[\n {\"external_id\": \"1\", \"name\": \"Mug\",\n  \"category\": \"Cups\", \"price\": 1, \"stock\": 2},\n 7,\n " +
			"{\"external_id\": \"2\", \"name\": \"\", \"category\": \"Cups\", \"price\": 1, \"stock\": 2},\n" +
			" {\"external_id\": \"3\", \"name\": \"Cup\", \"category\": \"Cups\", \"price\": 1, \"stock\": 2},\n {\"external\n",
			want{2, []string{"4  malformed", "5 name required", "7  malformed"}}},
	}
	for name, f := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			o := ImportOptions{Path: write(t, f.name, f.text)}
			for _, run := range []string{"dry", "first", "second"} {
				o.DryRun = run == "dry"
				r, err := ImportFile(t.Context(), b.orders, o)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, e := range r.Errors {
					got = append(got, fmt.Sprintf("%d %s %s", e.Line, e.Column, e.Code))
				}
				if d := cmp.Diff(f.want.errors, got); d != "" {
					t.Errorf("%s run: errors (-want +got):\n%s", run, d)
				}
				created, unchanged := f.want.created, int64(0)
				if run == "second" {
					created, unchanged = 0, f.want.created
				}
				if r.Created != created || r.Unchanged != unchanged || r.Updated != 0 {
					t.Errorf("%s run: %d created, %d updated, %d unchanged", run, r.Created, r.Updated, r.Unchanged)
				}
				if run == "dry" {
					if n := b.count(t, `SELECT count(*) FROM catalog.products`) + b.count(t, `SELECT count(*) FROM catalog.categories`); n != 0 {
						t.Errorf("the dry run left %d rows", n)
					}
				}
			}
			b.addsUp(t)
		})
	}
}

func TestImportRefusesAFileItCanNotRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, f := range map[string]struct{ file, text string }{
		"no such format":    {"a.xml", "<a/>"},
		"an empty file":     {"a.csv", ""},
		"no column of ours": {"a.csv", "id,name\n1,Mug\n"},
		"a column twice":    {"a.csv", "external_id,name,name,category,price,stock\n"},
		"an object":         {"a.json", `{"a":1}`},
	} {
		if r, err := ImportFile(t.Context(), b.orders, ImportOptions{Path: write(t, f.file, f.text)}); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if _, err := ImportFile(t.Context(), b.orders, ImportOptions{Path: write(t, "a.csv", "x"), Map: map[string]string{"prize": "x"}}); err == nil {
		t.Error("a map of a column that is none of ours")
	}
}

func TestImportGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	text := "external_id,name,category,price,stock\n1,A,X,1,1\n2,B,X,1,1\n3,C,X,1,1\n"
	r, err := ImportFile(t.Context(), b.orders, ImportOptions{Path: write(t, "a.csv", text), After: 3})
	if err != nil || r.Rows != 1 || r.Created != 1 || r.LastLine != 4 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestImportChangesOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 10, "A", "B")
	version := func(slug string) float64 { return b.get(t, "/v1/products/"+slug)["version"].(float64) }
	was := version("thing-b")
	row := func(sku string) catalogapi.ImportRow {
		r := catalogapi.ImportRow{Line: 2, ExternalID: sku, Name: "Thing " + sku, Category: "Things", Stock: 10}
		r.Price.Minor, r.Price.Currency = 100, "EUR"
		return r
	}
	a := row("A")
	a.Name, a.Price.Minor, a.Stock, a.WeightGrams = "Thing One", 250, 4, 90
	second := row("A")
	second.SKU, second.Name, second.Line = "A-2", "Thing One", 3
	other := second
	other.SKU, other.Name, other.Line = "A-3", "Contradiction", 4
	stolen := row("C")
	stolen.SKU, stolen.Line = "B", 5
	res, err := b.Import(t.Context(), catalogapi.ImportRequest{Rows: []catalogapi.ImportRow{a, second, other, stolen, row("B")}})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{fmt.Sprintf("%d created %d updated %d unchanged", res.Created, res.Updated, res.Unchanged)}
	for _, e := range res.Errors {
		got = append(got, fmt.Sprintf("%d %s %s", e.Line, e.Column, e.Code))
	}
	if d := cmp.Diff([]string{"0 created 2 updated 0 unchanged", "2 sku repeated", "4 external_id contradicts", "5 sku taken"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	p, err := b.Product(t.Context(), catalogapi.ProductRequest{Ref: "thing-a"})
	if err != nil || p.Name != "Thing One" || len(p.Variants) != 2 || p.Variants[0].Price.Minor != 250 || p.Variants[0].Available != 4 || p.Variants[0].WeightGrams != 90 {
		t.Errorf("%+v %v", p, err)
	}
	if version("thing-b") != was {
		t.Error("a product nobody changed has a new version")
	}
	if n := b.count(t, `SELECT count(*) FROM catalog.movements m WHERE m.sku = 'A'`); n != 2 {
		t.Errorf("%d movements of A, want the first stock and the difference", n)
	}
	b.addsUp(t)

	if err := b.hold("k", "chk_1", catalogapi.Quantity{SKU: "B", Quantity: 6}); err != nil {
		t.Fatal(err)
	}
	low := row("B")
	low.Stock = 5
	if res, err = b.Import(t.Context(), catalogapi.ImportRequest{Rows: []catalogapi.ImportRow{low}}); err != nil || len(res.Errors) != 1 || res.Errors[0].Code != "below_reserved" {
		t.Errorf("less than is promised: %+v %v", res, err)
	}
	if _, err := b.Import(t.Context(), catalogapi.ImportRequest{Rows: make([]catalogapi.ImportRow, 501)}); !errs.Is(err, errs.Invalid) {
		t.Errorf("too many rows: %v", err)
	}
}

func TestImportedPictures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dir := t.TempDir()
	picture := image.NewGray(image.Rect(0, 0, 8, 6))
	var pngBytes, jpegBytes bytes.Buffer
	if err := png.Encode(&pngBytes, picture); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&jpegBytes, picture, nil); err != nil {
		t.Fatal(err)
	}
	// A JPEG with a place in it, and a PNG with a text, as cameras and programs write them.
	exif := append([]byte{0xff, 0xd8, 0xff, 0xe1, 0, 18}, "Exif\x00\x00 52.5 13.4"[:16]...)
	secret := append(exif, jpegBytes.Bytes()[2:]...)
	huge := pngBytes.Bytes()
	huge = append([]byte{}, huge...)
	copy(huge[16:24], []byte{0, 1, 0, 0, 0, 1, 0, 0}) // says it is 65536 × 65536
	binary.BigEndian.PutUint32(huge[29:], crc32.ChecksumIEEE(huge[12:29]))
	for name, content := range map[string][]byte{"a.png": pngBytes.Bytes(), "b.jpg": secret, "lies.png": []byte("<svg onload=alert(1)>"), "huge.png": huge} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link.png")); err != nil {
		t.Fatal(err)
	}
	text := "external_id,name,category,price,stock,image\n1,A,X,1,1,a.png\n2,B,X,1,1,b.jpg\n3,C,X,1,1,lies.png\n4,D,X,1,1,huge.png\n5,E,X,1,1,link.png\n6,F,X,1,1,missing.png\n"
	o := ImportOptions{Path: write(t, "a.csv", text), ImagesDir: dir}
	for _, unchanged := range []int64{0, 3} {
		r, err := ImportFile(t.Context(), b.orders, o)
		if err != nil {
			t.Fatal(err)
		}
		var codes []string
		for _, e := range r.Errors {
			codes = append(codes, fmt.Sprintf("%d %s", e.Line, e.Code))
		}
		if d := cmp.Diff([]string{"4 unsupported_image", "5 image_too_large", "6 unreadable"}, codes); d != "" || r.MissingImages != 1 || r.Unchanged != unchanged {
			t.Errorf("%+v\n%s", r, d)
		}
	}
	p := b.get(t, "/v1/products/b")
	w, _ := b.request(t, "GET", p["image"].(string), "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "image/jpeg" || bytes.Contains(w.Body.Bytes(), []byte("Exif")) {
		t.Errorf("the picture: %d %v", w.Code, w.Header())
	}
	if c, err := jpeg.DecodeConfig(w.Body); err != nil || c.Width != 8 {
		t.Errorf("the picture is damaged: %v", err)
	}
}

// data is the folder of catalogues nobody here wrote.
func data(t *testing.T, file string) string {
	t.Helper()
	dir := os.Getenv("SHOP_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("SHOP_TEST_DATA") != "" {
			t.Fatal(err)
		}
		t.Skip("no SHOP_TEST_DATA, and no ../shared/data beside the repository")
	}
	return path
}

// minor is a decimal in hundredths, worked out in another way than the import does.
func minor(t *testing.T, decimal string) *big.Int {
	t.Helper()
	r, ok := new(big.Rat).SetString(decimal)
	if !ok {
		t.Fatalf("%q is no number", decimal)
	}
	r.Mul(r, big.NewRat(100, 1))
	if !r.IsInt() {
		t.Fatalf("%q has more than two digits", decimal)
	}
	return r.Num()
}

func TestImportOfRealCatalogues(t *testing.T) {
	t.Parallel()
	type sums struct{ Price, Stock string }
	for name, c := range map[string]struct {
		file, images, columns string
		rows                  int64
		brands, categories    int
		sums                  func(t *testing.T, text []byte) sums
	}{
		"retail demo store": {"retail_demo_store/products.csv", "", "retail_demo_store.yaml", 2465, 0, 20, func(t *testing.T, text []byte) sums {
			records, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			price, stock := new(big.Int), new(big.Int)
			for _, r := range records[1:] {
				n, _ := new(big.Int).SetString(r[1], 10)
				price.Add(price, minor(t, r[6]))
				stock.Add(stock, n)
			}
			return sums{price.String(), stock.String()}
		}},
		"eShop": {"eshop/catalog.json", "eshop/pics", "eshop.yaml", 101, 13, 8, func(t *testing.T, text []byte) sums {
			var all []struct{ Price json.Number }
			if err := json.Unmarshal(text, &all); err != nil {
				t.Fatal(err)
			}
			price := new(big.Int)
			for _, p := range all {
				price.Add(price, minor(t, p.Price.String()))
			}
			return sums{price.String(), fmt.Sprint(100 * len(all))}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := data(t, c.file)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			columns, err := ReadImportMap(filepath.Join("..", "..", "docs", "import", c.columns))
			if err != nil {
				t.Fatal(err)
			}
			b := setup(t)
			b.Config.Currency = "USD"
			o := ImportOptions{Path: path, Map: columns, Currency: "USD"}
			if c.images != "" {
				o.ImagesDir = data(t, c.images)
			}
			r, err := ImportFile(t.Context(), b.orders, o)
			if err != nil || r.Created != c.rows || r.Rows != c.rows || len(r.Errors) > 0 || r.MissingImages > 0 {
				t.Fatalf("first run: %+v %v", r, err)
			}
			var got sums
			if err := b.DB.Get(t.Context(), &got, `
				SELECT sum(pr.list_minor)::text AS price, (SELECT sum(l.on_hand)::text FROM catalog.levels l) AS stock FROM catalog.prices pr`); err != nil {
				t.Fatal(err)
			}
			if want := c.sums(t, text); got != want {
				t.Errorf("sums %v, the file says %v", got, want)
			}
			if n := b.count(t, `SELECT count(*) FROM catalog.categories`); n != c.categories {
				t.Errorf("%d categories, want %d", n, c.categories)
			}
			if n := b.count(t, `SELECT count(DISTINCT p.brand) FROM catalog.products p WHERE p.brand <> ''`); n != c.brands {
				t.Errorf("%d brands, want %d", n, c.brands)
			}
			if c.images != "" {
				if n := b.count(t, `SELECT count(*) FROM catalog.images`); int64(n) != c.rows {
					t.Errorf("%d pictures", n)
				}
				if n := b.count(t, `SELECT count(*) FROM catalog.blobs b WHERE b.content_type <> 'image/webp'`); n != 0 {
					t.Errorf("%d pictures are no WebP", n)
				}
			}
			again, err := ImportFile(t.Context(), b.orders, o)
			if err != nil || again.Unchanged != c.rows || again.Created+again.Updated != 0 || len(again.Errors) > 0 {
				t.Errorf("second run: %+v %v", again, err)
			}
			b.addsUp(t)

			// The same with wrong rows in between, in an empty shop.
			if !strings.HasSuffix(path, ".csv") {
				return
			}
			t.Run("with wrong rows", func(t *testing.T) {
				t.Parallel()
				lines := strings.SplitAfter(string(text), "\n")
				lines[9] = "broken,row\n"
				lines[99] = strings.Replace(lines[99], `"`, `""`, 1)
				lines[1999] = `never closed,15,"name` + "\n"
				o := o
				o.Path = write(t, "broken.csv", strings.Join(lines, ""))
				r, err := ImportFile(t.Context(), setup(t).orders, o)
				if err != nil || r.Created != c.rows-3 || len(r.Errors) != 3 || r.Errors[0].Line != 10 || r.Errors[1].Line != 100 || r.Errors[2].Line != 2000 {
					t.Errorf("%d created, errors %v, %v", r.Created, r.Errors, err)
				}
			})
		})
	}
}

func TestSlugs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Running Shoes": "running-shoes", "Café  Müller's Groß!": "cafe-mullers-gross", "__": "product", "a_b": "a-b", "日本語 Tea": "日本語-tea",
		strings.Repeat("ab ", 40): strings.Repeat("ab-", 26) + "ab",
	} {
		if got := slugify(name); got != want {
			t.Errorf("slug of %q is %q, want %q", name, got, want)
		}
	}
}
