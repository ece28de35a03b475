// Package openapi describes every call of the server, as OpenAPI 3.1: at
// /openapi.json for programs, and at /docs as a page for people.
//
// The description is written by hand in the YAML files of the directory document, one file
// for each subject. base.yaml describes what all calls share: the parameters, headers and
// responses under x-every-call are added to each call. Tests compare the description with
// the server: internal/server compares the paths, and package openapitest every response in
// the tests of the APIs.
package openapi
