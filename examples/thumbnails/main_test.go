package main

import (
	"context"
	"log"
	"os"
)

func Example_run() {
	data, err := os.MkdirTemp("", "meanwhile-thumbnails-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(data)
	if err := run(context.Background(), data); err != nil {
		log.Fatal(err)
	}
	// Output:
	// succeeded: "Reading Scaling Writing "
	// /thumbs/7.webp
}
