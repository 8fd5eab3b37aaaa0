package catalog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"image"
	_ "image/gif" // formats that are imported
	_ "image/jpeg"
	_ "image/png"
	"net/http"
	"strings"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/web"
)

const imagePath = "/v1/images/"

// imageURL is the path of a picture, "" without one.
func imageURL(name string) string {
	if name == "" {
		return ""
	}
	return imagePath + name
}

// blob is a picture as it is stored, under the name of its content.
type blob struct {
	Name        string
	ContentType string `db:"content_type"`
	Bytes       []byte
}

// Bounds of a picture.
const (
	MaxImageBytes  = 5 << 20
	maxImagePixels = 40_000_000
)

var imageTypes = map[string]string{"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp"}

// newBlob makes a picture of bytes: their type is what they are, not what a file name says, and what cameras and programs
// wrote beside the picture is left out. Codes: image_too_large, unsupported_image.
func newBlob(b []byte) (blob, error) {
	if len(b) > MaxImageBytes {
		return blob{}, errs.Invalidf("image_too_large", "the picture has more than %d MiB", MaxImageBytes>>20)
	}
	kind := http.DetectContentType(b)
	ending, ok := imageTypes[kind]
	if !ok {
		return blob{}, errs.Invalidf("unsupported_image", "the picture is not a PNG, JPEG, GIF or WebP")
	}
	width, height := size(b, kind)
	if width <= 0 || height <= 0 {
		return blob{}, errs.Invalidf("unsupported_image", "the picture can't be read")
	}
	if width > maxImagePixels/height {
		return blob{}, errs.Invalidf("image_too_large", "the picture has more than %d megapixels", maxImagePixels/1_000_000)
	}
	b = strip(b, kind)
	sum := sha256.Sum256(b)
	return blob{hex.EncodeToString(sum[:16]) + ending, kind, b}, nil
}

func size(b []byte, kind string) (width, height int) {
	if kind == "image/webp" {
		return webpSize(b)
	}
	c, _, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return 0, 0
	}
	return c.Width, c.Height
}

// webpSize reads the first chunk of a WebP: VP8 (lossy), VP8L (lossless) or VP8X (extended).
func webpSize(b []byte) (width, height int) {
	if len(b) < 30 {
		return 0, 0
	}
	le := binary.LittleEndian
	switch string(b[12:16]) {
	case "VP8 ":
		if b[23] != 0x9d || b[24] != 0x01 || b[25] != 0x2a {
			return 0, 0
		}
		return int(le.Uint16(b[26:]) & 0x3fff), int(le.Uint16(b[28:]) & 0x3fff)
	case "VP8L":
		if b[20] != 0x2f {
			return 0, 0
		}
		n := le.Uint32(b[21:])
		return int(n&0x3fff) + 1, int(n>>14&0x3fff) + 1
	case "VP8X":
		return int(uint32(b[24])|uint32(b[25])<<8|uint32(b[26])<<16) + 1, int(uint32(b[27])|uint32(b[28])<<8|uint32(b[29])<<16) + 1
	}
	return 0, 0
}

// strip takes out what tells of the camera, the place and the photographer. What it can't follow it leaves as it is.
func strip(b []byte, kind string) []byte {
	switch kind {
	case "image/jpeg":
		return stripJPEG(b)
	case "image/png":
		return stripPNG(b)
	case "image/webp":
		return stripWebP(b)
	}
	return b
}

// stripJPEG keeps the segments a decoder needs: of the application's own, JFIF (0), the colour profile (2) and Adobe's (14).
func stripJPEG(b []byte) []byte {
	out := append(make([]byte, 0, len(b)), b[:2]...)
	for i := 2; i+4 <= len(b) && b[i] == 0xff; {
		marker := b[i+1]
		if marker == 0xda { // the picture itself, to the end
			return append(out, b[i:]...)
		}
		next := i + 2 + int(binary.BigEndian.Uint16(b[i+2:]))
		if next > len(b) || next < i+4 {
			break
		}
		application := marker >= 0xe0 && marker <= 0xef
		if keep := marker == 0xe0 || marker == 0xe2 || marker == 0xee; marker != 0xfe && (!application || keep) {
			out = append(out, b[i:next]...)
		}
		i = next
	}
	return b
}

func stripPNG(b []byte) []byte {
	out := append(make([]byte, 0, len(b)), b[:8]...)
	for i := 8; i+12 <= len(b); {
		next := i + 12 + int(binary.BigEndian.Uint32(b[i:]))
		if next > len(b) || next < i {
			break
		}
		kind := string(b[i+4 : i+8])
		switch kind {
		case "tEXt", "zTXt", "iTXt", "eXIf", "tIME":
		default:
			out = append(out, b[i:next]...)
		}
		if kind == "IEND" {
			return out
		}
		i = next
	}
	return b
}

func stripWebP(b []byte) []byte {
	out := append(make([]byte, 0, len(b)), b[:12]...)
	i := 12
	for i+8 <= len(b) {
		length := int(binary.LittleEndian.Uint32(b[i+4:]))
		next := i + 8 + length + length&1
		if length < 0 || next > len(b) || next < i {
			return b
		}
		switch string(b[i : i+4]) {
		case "EXIF", "XMP ":
		case "VP8X":
			out = append(out, b[i:next]...)
			out[len(out)-(next-i)+8] &^= 0x08 | 0x04 // the flags that say EXIF and XMP follow
		default:
			out = append(out, b[i:next]...)
		}
		i = next
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out
}

type imageInput struct {
	Name string `path:"name" maxLength:"100"`
}

// forGood is the caching of what never changes under its name.
const forGood = "public, max-age=31536000, immutable"

func (m *Module) getImage(ctx context.Context, in *imageInput) (*web.Raw, error) {
	if n, ok := demoImage(in.Name); ok {
		return &web.Raw{ContentType: "image/svg+xml", CacheControl: forGood, ETag: `"` + in.Name + `"`, Body: drawDemo(n)}, nil
	}
	b, err := blobNamed(ctx, m.DB, in.Name)
	if pg.NoRows(err) {
		return nil, errs.NotFoundf("There is no such picture.")
	} else if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(b.Name, ".")
	return &web.Raw{ContentType: b.ContentType, CacheControl: forGood, ETag: `"` + name + `"`, Body: b.Bytes}, nil
}

func blobNamed(ctx context.Context, q pg.Queryer, name string) (b blob, err error) {
	err = q.Get(ctx, &b, `SELECT b.name, b.content_type, b.bytes FROM catalog.blobs b WHERE b.name = $1`, name)
	return b, err
}
