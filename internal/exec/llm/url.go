package llm

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// endpoint returns the URL of the calls to a model. Whatever form base_url has, the path ends in
// /chat/completions once, and its query is kept; query adds to it.
func endpoint(baseURL string, query map[string]string) (*url.URL, error) {
	base, err := url.Parse(strings.TrimSpace(baseURL))
	switch {
	case err != nil, base.Scheme != "http" && base.Scheme != "https", base.Hostname() == "":
		return nil, errors.New("its base_url must be like https://api.example.com/v1 or http://[::1]:8080/v1")
	// A secret in the URL would appear in logs and messages.
	case base.User != nil || base.Fragment != "":
		return nil, errors.New("its base_url must be without a user and a fragment; a key goes into the variable that api_key_env names")
	}
	if port := base.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, errors.New("the port in its base_url must be 1 to 65535")
		}
	}
	values, err := url.ParseQuery(base.RawQuery)
	if err != nil {
		return nil, errors.New("the query of its base_url cannot be read")
	}
	for name, value := range query {
		values.Set(name, value)
	}
	at := *base
	at.RawQuery, at.ForceQuery, at.Path, at.RawPath = "", false, "/", ""
	path := strings.TrimSuffix(strings.TrimRight(base.EscapedPath(), "/"), "/chat/completions")
	full := at.JoinPath(path, "chat/completions")
	full.RawQuery = values.Encode()
	return full, nil
}

// CheckBaseURL reports why a base URL cannot be used.
func CheckBaseURL(baseURL string) error {
	_, err := endpoint(baseURL, nil)
	return err
}
