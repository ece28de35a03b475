// Package meanwhile puts slow work of a Go program on disk, runs it in the
// background, and lets anyone follow it: the whole server as a package, with nothing
// else to install.
//
//	s, err := meanwhile.Open(ctx, meanwhile.Config{Data: "./data"})
//	meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.Concurrency(4))
//	go s.Run(ctx)
//
//	job, err := s.Submit(ctx, meanwhile.Submission{Queue: "thumbnails", Input: Picture{ID: 7}})
//
// A job that Submit has answered is synced to disk. It runs again when the program
// dies under it, so what it does is to be safe to repeat. A program that is told to
// stop lets its work finish for a while, and hands the rest back.
//
// [Server.Handler] is the HTTP interface of the server, for the program's own mux:
// browsers and other programs then submit, follow and cancel jobs as docs/jobs-api.md
// describes. Calls within the program take the same way, without a socket; they are
// the methods of [client.Client], so that a program which outgrows one process
// changes one line.
//
// Several servers may live in one process, each with a data directory of its own.
package meanwhile
