// Package meanwhile runs slow work of a Go program in the background. It stores each job
// on disk, runs it, and lets any program follow it. The whole server is this package;
// nothing else has to be installed.
//
//	s, err := meanwhile.Open(ctx, meanwhile.Config{Data: "./data"})
//	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail, meanwhile.Concurrency(4))
//	go s.Run(ctx)
//
//	job, err := thumbs.Submit(ctx, Picture{ID: 7})
//	thumb, err := thumbs.Wait(ctx, job.ID)
//
// When Submit returns, the job is synced to disk. A job runs again when the program
// crashes while it runs, so the work must be safe to repeat. When Run ends normally,
// running work may finish within a grace period; the rest runs after the next start.
//
// [Server.Handler] is the HTTP API of the server, for the program's own mux. Browsers and
// other programs submit, follow and cancel jobs there, as docs/jobs-api.md describes.
// Calls within the program are the methods of [Jobs], with the types of a function, and of
// [client.Client]. They use the same API without a socket. Package meanwhiletest is for tests.
//
// Several servers may run in one process, each with its own data directory.
package meanwhile
