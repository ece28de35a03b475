// Package api is the floor that every HTTP face stands on: strict JSON in, problem
// details out (RFC 9457), whose request it is, and a guard that keeps web pages of
// other origins away from an open loopback server. Each face has a folder of its
// own below this one.
//
// A face writes a [Handler] that returns an error instead of answering it; [Wrap]
// turns the error into a problem and logs what is our fault. [Front] puts
// everything that all faces share before their mux.
package api
