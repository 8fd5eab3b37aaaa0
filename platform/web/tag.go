package web

import (
	"strconv"
	"strings"

	"github.com/banyan-shop/banyan/platform/errs"
)

// ETag is the strong entity tag of a version: "7" with its quotes.
func ETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// IfMatch is the version a client named in If-Match. required and absent is errs.PreconditionRequired; absent and not
// required gives 0; "*" gives 0. What is no tag of ours can't match: errs.PreconditionFailed. What is no tag at all is
// errs.Malformed with code invalid_if_match.
func IfMatch(header string, required bool) (int64, error) {
	header = strings.TrimSpace(header)
	switch {
	case header == "" && required:
		return 0, errs.New(errs.PreconditionRequired, "", "Send the ETag of the version to change as If-Match.").WithField("header.If-Match", "required")
	case header == "" || header == "*":
		return 0, nil
	}
	opaque, weak := strings.CutPrefix(header, "W/")
	if len(opaque) < 2 || opaque[0] != '"' || opaque[len(opaque)-1] != '"' || strings.Contains(opaque[1:len(opaque)-1], `"`) {
		return 0, errs.New(errs.Malformed, "invalid_if_match", "If-Match is one entity tag in quotes.").WithField("header.If-Match", "wrong_format")
	}
	version, err := strconv.ParseInt(opaque[1:len(opaque)-1], 10, 64)
	if weak || err != nil || version <= 0 || ETag(version) != opaque {
		return 0, errs.New(errs.PreconditionFailed, "", "If-Match names another version.")
	}
	return version, nil
}

// matches says whether an If-None-Match header names the tag, compared weakly as RFC 9110 wants it there.
func matches(header, etag string) bool {
	if strings.TrimSpace(header) == "*" {
		return true
	}
	etag = strings.TrimPrefix(etag, "W/")
	for tag := range strings.SplitSeq(header, ",") {
		if strings.TrimPrefix(strings.TrimSpace(tag), "W/") == etag {
			return true
		}
	}
	return false
}
