package catalog

import (
	"fmt"
	"hash/fnv"
	"html"
	"math/rand/v2"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/banyan-shop/banyan/api/catalogapi"
)

// The demo catalogue is made up here, the same every time: a product is a function of its number alone, and so is its picture.

// department is a category of the demo catalogue; those without nouns are the top of the tree.
type department struct {
	slug, name, parent string
	nouns              []string // what it sells; "" splits nothing
	materials          []string
	traits             []string // sentences that praise
	uses               []string // "for …"
	sizes              []string // besides colours
	from, to           int64    // whole euros
	grams              int64
	hue                int // of its pictures
	shape              string
}

var departments = []department{
	{slug: "outdoor", name: "Outdoor", hue: 140, shape: "peak"},
	{slug: "tents", name: "Tents", parent: "outdoor", from: 89, to: 649, grams: 2400, hue: 135, shape: "tent",
		nouns: []string{"Two-Person Tent", "Family Tent", "Trekking Tent", "Dome Tent"}, materials: []string{"ripstop nylon", "waxed polyester", "silicone-coated nylon"},
		traits: []string{"It pitches in four minutes, even in wind.", "Taped seams keep a week of rain outside.", "The porch leaves room for wet boots."},
		uses:   []string{"long weekends in the hills", "three-season camping", "cycle tours with little room to spare"}},
	{slug: "sleeping-bags", name: "Sleeping bags", parent: "outdoor", from: 59, to: 389, grams: 1100, hue: 190, shape: "drop",
		nouns: []string{"Down Sleeping Bag", "Summer Quilt", "Winter Sleeping Bag", "Sleeping Mat"}, materials: []string{"recycled down", "hollow fibre", "brushed microfibre"},
		traits: []string{"It packs to the size of a loaf of bread.", "The hood closes with one hand.", "A second zip lets warm feet breathe."},
		uses:   []string{"cold nights under a clear sky", "huts and hostels", "spring tours above the tree line"}},
	{slug: "backpacks", name: "Backpacks", parent: "outdoor", from: 39, to: 289, grams: 1300, hue: 95, shape: "pack",
		nouns: []string{"Daypack", "Trekking Backpack", "Roll-Top Backpack", "Travel Pack"}, materials: []string{"waxed canvas", "recycled nylon", "robust cordura"},
		traits: []string{"The hip belt carries what the shoulders should not.", "A side zip reaches the bottom without unpacking.", "A padded sleeve holds a laptop."},
		uses:   []string{"the daily commute", "a week from hut to hut", "carry-on travel"}},
	{slug: "clothing", name: "Clothing", hue: 330, shape: "shirt"},
	{slug: "jackets", name: "Jackets", parent: "clothing", from: 69, to: 429, grams: 620, hue: 345, shape: "shirt", sizes: []string{"S", "M", "L", "XL"},
		nouns: []string{"Rain Jacket", "Down Jacket", "Wool Coat", "Wind Jacket"}, materials: []string{"organic cotton", "merino wool", "three-layer laminate"},
		traits: []string{"Breathes uphill and keeps dry downhill.", "Two inside pockets close with a zip.", "The hood fits over a helmet."},
		uses:   []string{"changing weather", "the walk to work", "autumn by the sea"}},
	{slug: "shirts", name: "Shirts", parent: "clothing", from: 19, to: 119, grams: 220, hue: 310, shape: "shirt", sizes: []string{"S", "M", "L", "XL"},
		nouns: []string{"Linen Shirt", "Merino T-Shirt", "Oxford Shirt", "Flannel Shirt"}, materials: []string{"washed linen", "fine merino wool", "organic cotton"},
		traits: []string{"Soft from the first day.", "Needs no iron if you hang it wet.", "Cut a little longer, to be worn tucked in or out."},
		uses:   []string{"warm evenings", "the office and after", "travelling with one small bag"}},
	{slug: "shoes", name: "Shoes", parent: "clothing", from: 49, to: 249, grams: 880, hue: 15, shape: "shoe", sizes: []string{"39", "41", "43", "45"},
		nouns: []string{"Running Shoes", "Hiking Boots", "Leather Sneakers", "Trail Shoes"}, materials: []string{"full-grain leather", "breathable mesh", "waterproof suede"},
		traits: []string{"The sole grips on wet rock and kitchen tiles alike.", "A wide toe box leaves room on the way down.", "Can be resoled, twice if need be."},
		uses:   []string{"forest paths", "city streets", "the first ten kilometres and the last"}},
	{slug: "kitchen", name: "Kitchen", hue: 25, shape: "pot"},
	{slug: "cookware", name: "Cookware", parent: "kitchen", from: 24, to: 279, grams: 2100, hue: 20, shape: "pot",
		nouns: []string{"Cast-Iron Pan", "Saucepan", "Stockpot", "Wok"}, materials: []string{"cast iron", "brushed steel", "hard-anodised aluminium"},
		traits: []string{"Works on every stove, induction included.", "Holds its heat when the steak goes in.", "The lid fits so well that rice forgives you."},
		uses:   []string{"slow Sunday stews", "weekday pasta", "searing, then straight into the oven"}},
	{slug: "knives", name: "Knives", parent: "kitchen", from: 19, to: 219, grams: 240, hue: 210, shape: "blade",
		nouns: []string{"Chef's Knife", "Bread Knife", "Paring Knife", "Santoku Knife"}, materials: []string{"carbon steel", "Damascus steel", "stainless steel"},
		traits: []string{"Sharp out of the box and easy to keep so.", "Balanced at the bolster.", "The handle stays dry in wet hands."},
		uses:   []string{"herbs and onions", "crusty loaves", "everything but bones"}},
	{slug: "tableware", name: "Tableware", parent: "kitchen", from: 9, to: 99, grams: 540, hue: 45, shape: "cup",
		nouns: []string{"Coffee Mug", "Dinner Plate Set", "Serving Bowl", "Glass Carafe"}, materials: []string{"stoneware", "hand-blown glass", "bone china"},
		traits: []string{"Glazed by hand, so each is a little different.", "Goes into the dishwasher every day.", "Stacks without wobbling."},
		uses:   []string{"long breakfasts", "tables with more guests than chairs", "the first coffee of the day"}},
	{slug: "home", name: "Home", hue: 265, shape: "lamp"},
	{slug: "lighting", name: "Lighting", parent: "home", from: 29, to: 349, grams: 1500, hue: 50, shape: "lamp",
		nouns: []string{"Desk Lamp", "Pendant Light", "Floor Lamp", "Reading Light"}, materials: []string{"spun brass", "frosted glass", "powder-coated steel"},
		traits: []string{"Dims down to candle light.", "The light is warm and does not flicker.", "Turns to where you need it and stays there."},
		uses:   []string{"late reading", "a corner that was always too dark", "the dining table"}},
	{slug: "textiles", name: "Textiles", parent: "home", from: 15, to: 189, grams: 900, hue: 285, shape: "wave",
		nouns: []string{"Wool Blanket", "Linen Bedding", "Cushion", "Cotton Towel Set"}, materials: []string{"lambswool", "stonewashed linen", "long-staple cotton"},
		traits: []string{"Gets softer with every wash.", "Woven in a mill that has done little else for a century.", "Dries overnight."},
		uses:   []string{"winter evenings", "guests who stay longer", "naps"}},
	{slug: "furniture", name: "Furniture", parent: "home", from: 79, to: 899, grams: 9000, hue: 30, shape: "chair",
		nouns: []string{"Oak Side Table", "Dining Chair", "Bookshelf", "Bench"}, materials: []string{"solid oak", "bent ash", "oiled walnut"},
		traits: []string{"Assembled with one key and no swearing.", "Oiled rather than varnished, so scratches can be mended.", "Stands firm on old floors."},
		uses:   []string{"small flats", "halls and hallways", "a room that is finished except for one thing"}},
	{slug: "electronics", name: "Electronics", hue: 225, shape: "wave"},
	{slug: "headphones", name: "Headphones", parent: "electronics", from: 29, to: 449, grams: 260, hue: 235, shape: "arc",
		nouns: []string{"Wireless Headphones", "In-Ear Headphones", "Studio Headphones", "Sports Earbuds"}, materials: []string{"anodised aluminium", "soft-touch polymer", "memory foam and leather"},
		traits: []string{"Thirty hours on one charge.", "Noise cancelling that leaves voices in.", "Folds flat into its case."},
		uses:   []string{"open-plan offices", "long flights", "running in the rain"}},
	{slug: "speakers", name: "Speakers", parent: "electronics", from: 39, to: 599, grams: 1900, hue: 250, shape: "disc",
		nouns: []string{"Bookshelf Speaker", "Portable Speaker", "Soundbar", "Kitchen Radio"}, materials: []string{"walnut veneer", "woven fabric", "recycled plastic"},
		traits: []string{"Fills the room without shaking the neighbours.", "Pairs with the phone in your pocket at once.", "Survives a fall into the sink."},
		uses:   []string{"vinyl and podcasts", "the garden", "films that deserve more than a television's own sound"}},
	{slug: "watches", name: "Watches", parent: "electronics", from: 69, to: 699, grams: 90, hue: 205, shape: "disc",
		nouns: []string{"Sports Watch", "Field Watch", "Fitness Band", "Diving Watch"}, materials: []string{"brushed titanium", "sapphire glass and steel", "forged carbon"},
		traits: []string{"Readable in full sun and in none.", "The strap changes without a tool.", "Charged once a fortnight."},
		uses:   []string{"pools, peaks and meetings", "intervals on the track", "people who are always five minutes early"}},
}

var (
	brands = []string{"Northfell", "Alder & Ash", "Kestrel", "Fjordline", "Marlow", "Hearthstone", "Juniper", "Brightwater", "Oakhaven", "Tarn",
		"Velamo", "Copperfield", "Halden", "Solstice", "Wrenbury", "Larkspur", "Ironbridge", "Meridian", "Saltmarsh", "Thistle"}
	series = []string{"Ridge", "Harbour", "Willow", "Summit", "Ember", "Drift", "Cedar", "Lumen", "Pebble", "Aurora", "Canyon", "Meadow",
		"Breeze", "Granite", "Heron", "Indigo", "Jasper", "Kite", "Linden", "Mistral", "Nimbus", "Orchard", "Pine", "Quarry", "River",
		"Sierra", "Tide", "Umber", "Valley", "Wander", "Yarrow", "Zephyr", "Birch", "Coast", "Dune", "Fern"}
	colours  = []struct{ code, name string }{{"BLK", "Black"}, {"GRN", "Green"}, {"BLU", "Blue"}, {"RED", "Red"}, {"SND", "Sand"}, {"GRY", "Grey"}}
	finishes = []string{"a clean, quiet finish", "honest stitching", "rounded edges", "a finish that ages well", "no more logo than necessary", "a slim profile"}
	promises = []string{"Spare parts are kept for ten years.", "Made in small batches.", "We repair it for three years, free of charge.",
		"Comes in a box without plastic.", "Tested for a winter by people who were not paid to like it.", "Designed to be handed on."}
)

// demo is a product of the demo catalogue.
type demo struct {
	n           int
	dept        department
	name, brand string
	description string
	variants    []demoVariant
}

type demoVariant struct {
	sku, name string
	options   []catalogapi.Option
	list      int64
	sale      int64 // −1 for none
	stock     int64
	grams     int64
}

func (v demoVariant) cost() int64 {
	if v.sale >= 0 {
		return v.sale
	}
	return v.list
}

// demoProduct makes up the nth product, n from 1.
func demoProduct(n int) demo {
	h := fnv.New64a()
	fmt.Fprintf(h, "banyan demo %d", n)
	r := rand.New(rand.NewPCG(h.Sum64(), uint64(n)))
	leaves := leafDepartments
	i := n - 1
	d := demo{n: n, dept: leaves[i%len(leaves)]}
	i /= len(leaves)
	noun := d.dept.nouns[i%len(d.dept.nouns)]
	i /= len(d.dept.nouns)
	line := series[i%len(series)]
	d.name = line + " " + noun
	if round := i / len(series); round > 0 {
		d.name += " " + strconv.Itoa(round+1)
	}
	d.brand = brands[r.IntN(len(brands))]
	material, use := pick(r, d.dept.materials), pick(r, d.dept.uses)
	d.description = fmt.Sprintf("The %s from %s is made of %s, with %s. %s %s Made for %s. %s", d.name, d.brand, material, pick(r, finishes),
		d.dept.traits[n%len(d.dept.traits)], d.dept.traits[(n+1)%len(d.dept.traits)], use, pick(r, promises))

	euros := d.dept.from + r.Int64N(d.dept.to-d.dept.from)
	list := euros*100 + []int64{99, 90, 0, 50}[r.IntN(4)]
	sale := int64(-1)
	if n%6 == 0 {
		sale = list * []int64{70, 75, 80, 85, 90}[r.IntN(5)] / 100 / 10 * 10
	}
	grams := d.dept.grams + r.Int64N(d.dept.grams/2)/10*10
	first, count := r.IntN(len(colours)), 1+r.IntN(4)
	for v := range count {
		colour := colours[(first+v)%len(colours)]
		variant := demoVariant{sku: fmt.Sprintf("DEMO-%04d-%s", n, colour.code), name: colour.name, list: list, sale: sale, grams: grams,
			options: []catalogapi.Option{{Name: "colour", Value: colour.name}}, stock: 400 + r.Int64N(1600)}
		if d.dept.sizes != nil { // one colour in several sizes
			colour = colours[first]
			size := d.dept.sizes[v%len(d.dept.sizes)]
			variant.sku = fmt.Sprintf("DEMO-%04d-%s-%s", n, colour.code, size)
			variant.name = colour.name + ", " + size
			variant.options = []catalogapi.Option{{Name: "colour", Value: colour.name}, {Name: "size", Value: size}}
		}
		if v > 0 && v == count-1 {
			variant.list += 1000 // the rare one costs more
			if sale >= 0 {
				variant.sale += 1000
			}
			if n%25 == 0 {
				variant.stock = 0
			}
		}
		d.variants = append(d.variants, variant)
	}
	return d
}

func pick(r *rand.Rand, all []string) string { return all[r.IntN(len(all))] }

var leafDepartments = func() (leaves []department) {
	for _, d := range departments {
		if d.parent != "" {
			leaves = append(leaves, d)
		}
	}
	return leaves
}()

func demoImageName(n int) string { return fmt.Sprintf("demo-%04d.svg", n) }

// demoImage is the number of the demo product a picture's name stands for.
func demoImage(file string) (int, bool) {
	digits := strings.TrimSuffix(strings.TrimPrefix(file, "demo-"), ".svg")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 1_000_000 || demoImageName(n) != file {
		return 0, false
	}
	return n, true
}

// shapes are drawn in a box of 200 × 200 in white of various strength.
var shapes = map[string]string{
	"peak":  `<path d="M10 170 80 50l40 66 22-34 48 88z"/><circle cx="150" cy="50" r="18" opacity=".6"/>`,
	"tent":  `<path d="M100 30 185 170H15z"/><path d="M100 92 128 170H72z" opacity=".5" fill="#000"/>`,
	"drop":  `<path d="M100 20c36 50 56 76 56 104a56 56 0 0 1-112 0c0-28 20-54 56-104z"/><path d="M72 128a28 28 0 0 0 28 28" fill="none" stroke="#000" stroke-opacity=".35" stroke-width="8"/>`,
	"pack":  `<rect x="48" y="50" width="104" height="126" rx="26"/><path d="M76 52a24 24 0 0 1 48 0" fill="none" stroke="#fff" stroke-width="10"/><rect x="66" y="112" width="68" height="44" rx="10" fill="#000" opacity=".3"/>`,
	"shirt": `<path d="M72 34 28 60l18 36 18-8v84h72V88l18 8 18-36-44-26c-8 16-48 16-56 0z"/>`,
	"shoe":  `<path d="M22 78c22 14 42 10 56-10l48 44c18 10 52 8 54 40H22z"/><path d="M22 158h158v14H22z" opacity=".55"/>`,
	"pot":   `<path d="M38 84h124v58a28 28 0 0 1-28 28H66a28 28 0 0 1-28-28z"/><path d="M30 68h140" stroke="#fff" stroke-width="10" stroke-linecap="round"/><circle cx="100" cy="52" r="9"/>`,
	"blade": `<path d="M30 132 150 30c20 30 8 62-30 88l-42 28z"/><path d="m74 138-40 34" stroke="#fff" stroke-width="18" stroke-linecap="round" opacity=".6"/>`,
	"cup":   `<path d="M44 58h92v72a34 34 0 0 1-34 34H78a34 34 0 0 1-34-34z"/><path d="M136 78h10a22 22 0 0 1 0 44h-10" fill="none" stroke="#fff" stroke-width="11"/>`,
	"lamp":  `<path d="M70 36h60l34 80H36z"/><path d="M100 116v46" stroke="#fff" stroke-width="9"/><path d="M66 168h68" stroke="#fff" stroke-width="11" stroke-linecap="round"/>`,
	"wave":  `<path d="M20 70q40-34 80 0t80 0M20 108q40-34 80 0t80 0M20 146q40-34 80 0t80 0" fill="none" stroke="#fff" stroke-width="16" stroke-linecap="round"/>`,
	"chair": `<path d="M56 26h16v82h72v62h-14v-40H70v40H56z"/><path d="M72 40h50v44H72z" opacity=".5"/>`,
	"arc":   `<path d="M40 120a60 60 0 0 1 120 0" fill="none" stroke="#fff" stroke-width="13"/><rect x="26" y="112" width="34" height="56" rx="15"/><rect x="140" y="112" width="34" height="56" rx="15"/>`,
	"disc":  `<rect x="50" y="22" width="100" height="156" rx="18"/><circle cx="100" cy="122" r="34" fill="#000" opacity=".35"/><circle cx="100" cy="58" r="14" fill="#000" opacity=".35"/>`,
}

// drawDemo draws the picture of the nth product: its category's colour and shape, its own turn of both, and its initial.
func drawDemo(n int) []byte {
	d := demoProduct(n)
	hue := (d.dept.hue + n*7%50 - 25 + 360) % 360
	initial, _ := utf8.DecodeRuneInString(d.name)
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 400" role="img" aria-label="%s">
<defs><linearGradient id="g" x1="0" y1="0" x2="1" y2="1"><stop offset="0" stop-color="hsl(%d 62%% 62%%)"/><stop offset="1" stop-color="hsl(%d 58%% 34%%)"/></linearGradient></defs>
<rect width="400" height="400" fill="url(#g)"/>
<circle cx="%d" cy="%d" r="150" fill="#fff" opacity=".09"/><circle cx="%d" cy="%d" r="90" fill="#000" opacity=".06"/>
<text x="24" y="378" font-family="Georgia,serif" font-size="96" font-weight="700" fill="#fff" opacity=".28">%c</text>
<g transform="translate(100 84) rotate(%d 100 100)" fill="#fff" opacity=".92">%s</g>
<text x="376" y="372" text-anchor="end" font-family="Helvetica,Arial,sans-serif" font-size="18" letter-spacing="2" fill="#fff" opacity=".8">%s</text>
</svg>
`, html.EscapeString(d.name), hue, (hue+38)%360, 60+n*37%280, 40+n*53%200, 300-n*29%240, 360-n*41%180, initial, n%13-6, shapes[d.dept.shape],
		html.EscapeString(strings.ToUpper(d.brand)))
}
