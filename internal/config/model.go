package config

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// checkModels also reads the values of the models' variables.
func (l *loader) checkModels(models []Model) {
	var names []string
	for i := range models {
		m, key := &models[i], fmt.Sprintf("models[%d]", i)
		l.must(m.Name != "", key+".name", "a model needs a name")
		l.must(!slices.Contains(names, m.Name), key+".name", "there are two models %s", job.Quote(m.Name))
		l.checkModelURL(m.BaseURL, key+".base_url")
		l.between(m.Concurrency, 0, maxRunning, key+".concurrency")
		if m.APIKeyEnv != "" {
			m.APIKey = l.env[m.APIKeyEnv]
			l.must(m.APIKey != "", key+".api_key_env", "the variable %s is not set; it is to hold the model's API key", job.Quote(m.APIKeyEnv))
		}
		l.checkModelHeaders(m.Headers, key+".headers")
		l.expand(m, m.Headers, key+".headers")
		l.expand(m, m.Query, key+".query")
		names = append(names, m.Name)
	}
}

func (l *loader) checkModelURL(text, key string) {
	u, err := url.Parse(strings.TrimSpace(text))
	if !l.must(err == nil && u.Hostname() != "" && (u.Scheme == "http" || u.Scheme == "https"), key,
		"this must be the URL of an OpenAI-compatible server, such as http://127.0.0.1:11434/v1 or http://[::1]:8080/v1") {
		return
	}
	l.must(u.User == nil && u.Fragment == "", key, "this must be without a user and a fragment; put a key into the variable that api_key_env names")
	_, err = url.ParseQuery(u.RawQuery)
	l.must(err == nil, key, "the query of this URL cannot be read: write %%25 for %%")
	if port := u.Port(); port != "" {
		n, err := strconv.Atoi(port)
		l.must(err == nil && 1 <= n && n <= 65535, key, "the port must be 1 to 65535, not %s", port)
	}
}

var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// ownHeaders are the headers that belong to a connection.
var ownHeaders = []string{"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "accept-encoding"}

func (l *loader) checkModelHeaders(headers map[string]string, key string) {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		lower := strings.ToLower(name)
		l.must(headerName.MatchString(name), join(key, job.Quote(name)), "this is not the name of a header")
		l.must(!slices.Contains(ownHeaders, lower), join(key, name), "this header belongs to the connection and cannot be set")
		l.must(!seen[lower], join(key, name), "this header is there twice")
		seen[lower] = true
	}
}

// variable is the place of a variable's value in a text.
var variable = regexp.MustCompile(`\$\{([^}]*)\}`)

// expand replaces each ${NAME} in the values by the value of the variable, which is a secret of
// the model from then on.
func (l *loader) expand(m *Model, values map[string]string, key string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		values[name] = variable.ReplaceAllStringFunc(values[name], func(place string) string {
			of := variable.FindStringSubmatch(place)[1]
			value := l.env[of]
			if l.must(value != "", join(key, name), "the variable %s is not set", job.Quote(of)) {
				m.Secrets = append(m.Secrets, value)
			}
			return value
		})
		l.must(!strings.ContainsFunc(values[name], func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }), join(key, name),
			"this has a line break or another control character")
	}
}
