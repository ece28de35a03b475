// Package openapi describes every call of the server, as OpenAPI 3.1: at
// /openapi.json for programs, and at /docs as a page for people.
//
// The description is written by hand, in the YAML files of the folder document, one
// for each subject. base.yaml says what is true of every call; parameters, headers and
// answers that stand there under x-every-call are put into each. Tests hold the
// description to the server: internal/server its paths, openapitest every answer
// that the tests of the faces get.
package openapi
