package jobs

import (
	"mime"
	"net/url"
	"regexp"
	"strings"
)

// fileNameOf returns the file name of a part from its Content-Disposition; "" for none.
// filename* comes before filename (RFC 6266, section 4.3), in UTF-8 or ISO-8859-1 (RFC 5987,
// section 3.2). In filename, browsers write a quote and line breaks as %22, %0D and %0A
// (HTML standard, multipart/form-data).
func fileNameOf(disposition string) string {
	if name, ok := latinFileName(disposition); ok {
		return name
	}
	_, params, err := mime.ParseMediaType(disposition)
	if err != nil {
		return ""
	}
	name := params["filename"] // of filename*, where that is in UTF-8
	if strings.Contains(strings.ToLower(disposition), "filename*") {
		return name
	}
	return browserEscapes.Replace(name)
}

var (
	browserEscapes = strings.NewReplacer("%22", `"`, "%0D", "\r", "%0A", "\n", "%0d", "\r", "%0a", "\n")
	latin          = regexp.MustCompile(`(?i);\s*filename\*\s*=\s*iso-8859-1'[^';]*'([^;\s"]+)`)
)

// latinFileName returns the name of a filename* in ISO-8859-1, which package mime does not
// decode.
func latinFileName(disposition string) (name string, ok bool) {
	if !strings.Contains(disposition, "*") {
		return "", false
	}
	m := latin.FindStringSubmatch(disposition)
	if m == nil {
		return "", false
	}
	octets, err := url.PathUnescape(m[1])
	if err != nil {
		return "", false
	}
	runes := make([]rune, len(octets))
	for i := range len(octets) {
		runes[i] = rune(octets[i])
	}
	return string(runes), true
}
