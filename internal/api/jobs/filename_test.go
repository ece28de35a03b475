package jobs

import "testing"

func TestFileNameFollowsStandards(t *testing.T) {
	t.Parallel()
	for disposition, want := range map[string]string{
		`form-data; name="f"; filename="scan.png"`:                                "scan.png",
		`form-data; name="f"; filename=scan.png`:                                  "scan.png",
		`form-data; name="f"; filename="Überweisung 3.pdf"`:                       "Überweisung 3.pdf",
		`form-data; name="f"; filename="a \"b\".txt"`:                             `a "b".txt`,
		`form-data; name="f"; filename="a %22b%22%0D%0A.txt"`:                     "a \"b\"\r\n.txt",
		`form-data; name="f"; filename="100%.txt"`:                                "100%.txt",
		`form-data; name="f"; filename*=UTF-8''%e2%82%ac%20rates.txt`:             "€ rates.txt",
		`form-data; name="f"; filename*=utf-8'en'a%22b.txt`:                       `a"b.txt`,
		`form-data; name="f"; filename="EUR.txt"; filename*=UTF-8''%e2%82%ac.txt`: "€.txt",
		`form-data; name="f"; filename*=iso-8859-1'en'%A3%20rates.txt`:            "£ rates.txt",
		`form-data; name="f"; filename="GBP.txt"; filename*=ISO-8859-1''%A3.txt`:  "£.txt",
		`form-data; name="f"; filename="plain.txt"; filename*=koi8-r''%C1.txt`:    "plain.txt",
		`form-data; name="f"; filename="iso-8859-1''%41"`:                         "iso-8859-1''%41",
		`form-data; name="f"; filename=""`:                                        "",
		`form-data; name="f"`:                                                     "",
		`;;`:                                                                      "",
	} {
		if got := fileNameOf(disposition); got != want {
			t.Errorf("%s: %q, want %q", disposition, got, want)
		}
	}
}
