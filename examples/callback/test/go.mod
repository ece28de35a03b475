module github.com/meanwhile-run/meanwhile/examples/callback/test

go 1.26.0

require (
	github.com/meanwhile-run/meanwhile v0.0.0
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1
)

require github.com/google/uuid v1.6.0 // indirect

replace github.com/meanwhile-run/meanwhile => ../../..
